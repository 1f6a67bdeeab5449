"""What is in a checkpoint or an HF folder, told from its headers alone.

Decides how it is shown (values, plain text); leaves whether a checkpoint is whole to `complete`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from toolkit.checkpoint import complete, distcp, hf
from toolkit.checkpoint.model import is_optimizer
from toolkit.errors import CheckpointError
from toolkit.hf_folder import CONFIG


@dataclass(frozen=True, kw_only=True)
class TensorInfo:
    """A tensor as it is stored: `nbytes` on disk (for a checkpoint with its packing), in `chunks` pieces."""

    name: str
    dtype: str
    dims: tuple[int, ...]
    nbytes: int
    chunks: int


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """`incomplete` is the reason why it cannot be used, or ''. Optimizer state is counted in bytes alone; HF models
    have none.
    """

    path: Path
    kind: Literal["checkpoint", "hf"]
    step: int | None
    incomplete: str
    tensors: tuple[TensorInfo, ...]
    parameters: int
    weight_bytes: int
    optimizer_bytes: int
    byte_objects: int


def kind_of(path: Path) -> Literal["checkpoint", "hf"]:
    """Whether a folder is an HF model or a checkpoint; `CheckpointError` when neither."""
    path = Path(path)
    if (path / CONFIG).is_file():
        return "hf"
    distcp.weights_folder(path)
    return "checkpoint"


def inspect(path: Path) -> Inspection:
    """Raises `CheckpointError` when it is neither a checkpoint nor an HF model, or its headers cannot be read."""
    path = newest(Path(path))
    if kind_of(path) == "hf":
        model = hf.check_hf(path)
        found = tuple(
            TensorInfo(name=n, dtype=t.dtype, dims=t.dims, nbytes=t.nbytes, chunks=1) for n, t in model.tensors.items()
        )
        return _inspection(path, "hf", found, incomplete="", optimizer=0, objects=0)
    metadata = distcp.Reader(path).metadata
    optimizer = sum(c.nbytes for key, entry in metadata.tensors.items() if is_optimizer(key) for c in entry.chunks)
    found = tuple(
        TensorInfo(name=key, dtype=e.dtype, dims=e.dims, nbytes=sum(c.nbytes for c in e.chunks), chunks=len(e.chunks))
        for key, e in sorted(metadata.tensors.items())
        if not is_optimizer(key)
    )
    reason = complete.incomplete_reason(path) or ""
    return _inspection(path, "checkpoint", found, incomplete=reason, optimizer=optimizer, objects=len(metadata.objects))


def _inspection(
    path: Path, kind: Any, tensors: tuple[TensorInfo, ...], *, incomplete: str, optimizer: int, objects: int
) -> Inspection:
    return Inspection(
        path=path,
        kind=kind,
        step=complete.step_of(path),
        incomplete=incomplete,
        tensors=tensors,
        parameters=sum(math.prod(t.dims) for t in tensors),
        weight_bytes=sum(t.nbytes for t in tensors),
        optimizer_bytes=optimizer,
        byte_objects=objects,
    )


def as_dict(found: Inspection) -> Mapping[str, Any]:
    return {**vars(found), "path": str(found.path), "tensors": [vars(tensor) for tensor in found.tensors]}


def as_text(found: Inspection) -> str:
    """A plain table, one tensor a line."""
    step = "" if found.step is None else f" · step {found.step}"
    size = f"{found.parameters:,} parameters · weights {found.weight_bytes / 2**20:,.1f} MiB"
    head = f"{found.path}: {found.kind}{step} · {size}"
    if found.optimizer_bytes:
        head += f" · optimizer {found.optimizer_bytes / 2**20:,.1f} MiB"
    lines = [head, f"not complete: {found.incomplete}" if found.incomplete else "complete"]
    width = max((len(tensor.name) for tensor in found.tensors), default=0)
    for tensor in found.tensors:
        lines.append(f"  {tensor.name:<{width}}  {tensor.dtype:<9} {list(tensor.dims)!s:<22} in {tensor.chunks}")
    return "\n".join(lines)


def newest(path: Path) -> Path:
    """`path`, or the newest checkpoint in it when it is a folder of checkpoints and no HF model."""
    return path if (path / CONFIG).is_file() else require_checkpoint(path)


def require_checkpoint(path: Path) -> Path:
    """`path`, or the newest checkpoint in it when it is a folder of checkpoints."""
    path = Path(path)
    try:
        distcp.weights_folder(path)
    except CheckpointError:
        if path.is_dir() and any(complete.step_of(child) is not None for child in path.iterdir() if child.is_dir()):
            return complete.latest(path)
        raise
    return path
