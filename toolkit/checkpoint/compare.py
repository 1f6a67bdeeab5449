"""Two models, tensor by tensor, bit for bit: two HF folders, two checkpoints, or one of each.

Decides what counts as equal (type, shape and every bit, and what a config adds to them); leaves reading to `hf` and
`model`.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from toolkit.checkpoint import distcp, hf, mapping, nemo_context, numbers
from toolkit.checkpoint.look import kind_of, newest
from toolkit.checkpoint.model import MegatronModel, is_optimizer
from toolkit.checkpoint.output import byte_progress
from toolkit.checkpoint.pieces import BLOCK, Files, Matrix, blocks
from toolkit.checkpoint.record import TYPES
from toolkit.checkpoint.shape import LlamaShape, read_shape, shape_of
from toolkit.errors import CheckpointError
from toolkit.hf_folder import read_json_object
from toolkit.progress import Progress

# What a config says and no tensor's shape shows: two models with the same weights differ by these.
_BESIDE = {
    "num_attention_heads": "heads",
    "num_key_value_heads": "kv_heads",
    "head_dim": "head_dim",
    "rope_theta": "rope_theta",
    "rms_norm_eps": "rms_norm_eps",
}


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A tensor that is not the same. `max_abs` is the largest |a - b|, NaN where exactly one is NaN, None when shapes
    differ.
    """

    name: str
    a: str
    b: str
    max_abs: float | None


@dataclass(frozen=True, kw_only=True)
class Diff:
    """`compared` counts tensors with one name in both; optimizer state is not compared. `config` are the words of a
    config that differ and make another model of the same weights, where both sides say.
    """

    compared: int
    config: tuple[str, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    differing: tuple[Difference, ...]

    @property
    def equal(self) -> bool:
        return not (self.config or self.only_a or self.only_b or self.differing)


@dataclass(frozen=True, kw_only=True)
class _Tensor:
    """`parts` are its bytes: one matrix, or one for each layer of a stacked tensor."""

    dtype: str
    dims: tuple[int, ...]
    parts: tuple[Callable[[], Matrix], ...]


def diff(a: Path, b: Path, *, rounded: bool = False, progress: bool = False) -> Diff:
    """Compare two models. A checkpoint against an HF folder is read under the folder's config and names.

    rounded: where types differ, the second's numbers are rounded to the first's type before they are compared.

    Memory: two blocks. Raises `CheckpointError` when either cannot be read.
    """
    a, b = (newest(Path(path)) for path in (a, b))
    kinds = (kind_of(a), kind_of(b))
    with Files() as opened:
        if kinds == ("checkpoint", "hf"):
            tensors_a, tensors_b = _as_hf(a, b, opened), _of_hf(b)
        elif kinds == ("hf", "checkpoint"):
            tensors_a, tensors_b = _of_hf(a), _as_hf(b, a, opened)
        else:
            tensors_a, tensors_b = (
                _of_hf(p) if kind == "hf" else _of_checkpoint(p, opened) for p, kind in zip((a, b), kinds, strict=True)
            )
        common = [name for name in tensors_a if name in tensors_b]
        total = sum(math.prod(tensors_a[name].dims) * TYPES[tensors_a[name].dtype][0] for name in common)
        with byte_progress("compare", total, progress) as bar:
            found = [_compare(name, tensors_a[name], tensors_b[name], opened, bar, rounded) for name in common]
    return Diff(
        compared=len(common),
        config=_config_gaps(_stated(a, kinds[0]), _stated(b, kinds[1])),
        only_a=tuple(n for n in tensors_a if n not in tensors_b),
        only_b=tuple(n for n in tensors_b if n not in tensors_a),
        differing=tuple(each for each in found if each is not None),
    )


def _stated(path: Path, kind: str) -> LlamaShape | None:
    """What is said beside the weights; None where nothing is, or nothing that is a Llama's."""
    if kind == "hf":
        return read_shape(path)
    path = nemo_context.owner(path)
    own = path / nemo_context.HF_CONFIG
    with contextlib.suppress(CheckpointError):
        told = read_json_object(own) if own.is_file() else nemo_context.config(path)
        return shape_of({"vocab_size": 1, **told}) if told else None
    return None


def _config_gaps(a: LlamaShape | None, b: LlamaShape | None) -> tuple[str, ...]:
    if a is None or b is None:
        return ()
    pairs = ((name, getattr(a, attribute), getattr(b, attribute)) for name, attribute in _BESIDE.items())
    gaps = [f"{name}: {x!r} | {y!r}" for name, x, y in pairs if x != y]
    if (x := a.scaling) != (y := b.scaling):
        gaps.append(f"rope_scaling: {json.dumps(x)} | {json.dumps(y)}")
    return tuple(gaps)


def _compare(
    name: str, a: _Tensor, b: _Tensor, opened: Files, bar: Progress | None, rounded: bool
) -> Difference | None:
    words = (f"{a.dtype} {list(a.dims)}", f"{b.dtype} {list(b.dims)}")
    if a.dims != b.dims or len(a.parts) != len(b.parts):
        return Difference(name=name, a=words[0], b=words[1], max_abs=None)
    equal, gaps = rounded or a.dtype == b.dtype, list[float]()
    for part_a, part_b in zip(a.parts, b.parts, strict=True):
        for block_a, block_b in _side_by_side(part_a(), part_b(), opened):
            alike = numbers.convert(block_b, b.dtype, a.dtype) if rounded else block_b
            if not ((rounded or a.dtype == b.dtype) and numbers.same(block_a, alike)):
                equal = False
                gaps.append(numbers.farthest(block_a, block_b, a.dtype, b.dtype))
            if bar is not None:
                bar.advance(len(block_a), note=name)
    return None if equal else Difference(name=name, a=words[0], b=words[1], max_abs=numbers.worst(gaps))


def _side_by_side(a: Matrix, b: Matrix, opened: Files) -> Iterator[tuple[memoryview, memoryview]]:
    """The same rows of both, a block at a time."""
    rows = max(1, BLOCK // max(1, a.row_bytes, b.row_bytes))
    both = (blocks(m, opened, bytearray(max(1, rows * m.row_bytes))) for m in (a, b))
    for (_, block_a), (_, block_b) in zip(*both, strict=True):
        yield block_a, block_b


def _of_hf(folder: Path) -> dict[str, _Tensor]:
    model = hf.check_hf(folder)
    return {
        name: _Tensor(dtype=t.dtype, dims=t.dims, parts=(partial(model.matrix, name),))
        for name, t in model.tensors.items()
    }


def _of_checkpoint(path: Path, opened: Files) -> dict[str, _Tensor]:
    reader = distcp.Reader(path)
    out = {}
    for key, entry in sorted(reader.metadata.tensors.items()):
        if is_optimizer(key):
            continue
        stacked = any(row.per_layer and key.endswith(row.megatron) for row in mapping.TABLE)
        layers = range(entry.dims[0]) if stacked else [None]
        parts = tuple(partial(reader.matrix, key, opened, layer=layer) for layer in layers)
        out[key] = _Tensor(dtype=entry.dtype, dims=entry.dims, parts=parts)
    return out


def _as_hf(path: Path, folder: Path, opened: Files) -> dict[str, _Tensor]:
    model = MegatronModel(path, hf.check_hf(folder).shape)
    found = {}
    for row, layer in mapping.walk(model.shape):
        for n, (name, dims) in enumerate(zip(row.names(layer), row.dims(model.shape), strict=True)):
            part = partial(_nth, model, row, layer, opened, n)
            found[name] = _Tensor(dtype=model.dtype(row, layer), dims=dims, parts=(part,))
    return found


def _nth(model: MegatronModel, row: mapping.Row, layer: int | None, opened: Files, n: int) -> Matrix:
    return model.matrices(row, layer, opened)[n]


def as_dict(found: Diff) -> dict[str, Any]:
    return {"equal": found.equal, **vars(found), "differing": [vars(each) for each in found.differing]}


def as_text(found: Diff) -> str:
    lines = [f"config differs: {each}" for each in found.config]
    lines += [f"only in the first: {name}" for name in found.only_a]
    lines += [f"only in the second: {name}" for name in found.only_b]
    for each in found.differing:
        gap = "other shape" if each.max_abs is None else f"max |a-b| {each.max_abs:.6g}"
        lines.append(f"differs: {each.name}: {each.a} | {each.b}: {gap}")
    same = not (found.only_a or found.only_b or found.differing)
    verdict = "equal, bit for bit" if same else "not equal"
    verdict += ", and yet another model, by its config" if same and found.config else ""
    return "\n".join([*lines, f"{found.compared} tensors compared: {verdict}"])
