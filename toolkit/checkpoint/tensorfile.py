"""The bytes of safetensors files: one tensor read when it is asked for, a file written tensor by tensor.

Decides which types can be converted; leaves headers and whole files to `toolkit.hf_folder`, and to `hf` which tensors
belong in a file.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from toolkit.errors import CheckpointError
from toolkit.files import disk_errors
from toolkit.hf_folder import FLOATS, Stored

if TYPE_CHECKING:
    from torch import Tensor

_CODES = {name: code for code, name in FLOATS.items()}
_BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True, kw_only=True)
class Spec:
    """A tensor to be written. `dtype` is torch's name."""

    name: str
    dtype: str
    dims: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.dims) * item_bytes(self.dtype)


def item_bytes(dtype: str) -> int:
    return _BYTES[dtype]


def is_float(dtype: str) -> bool:
    """Whether it is one of the four types that can be converted."""
    return dtype in _CODES


def read_tensor(stored: Stored) -> Tensor:
    """The tensor itself, in memory of its own. Raises `CheckpointError` when it is no float tensor or its file has
    shrunk.
    """
    import torch

    if not is_float(stored.dtype):
        raise CheckpointError(
            f"tensor '{stored.name}' has type {stored.dtype}",
            where=stored.file,
            why="only float64, float32, float16 and bfloat16 weights are converted",
        )
    data = bytearray(stored.nbytes)
    with open(stored.file, "rb") as handle:
        handle.seek(stored.begin)
        if handle.readinto(data) != stored.nbytes:
            raise CheckpointError(f"ends in the middle of tensor '{stored.name}'", where=stored.file)
    dtype = getattr(torch, stored.dtype)
    return torch.frombuffer(data, dtype=dtype).reshape(stored.dims) if data else torch.empty(stored.dims, dtype=dtype)


class Writer:
    """Writes one file: the header at once (all sizes are known), then the tensors in the announced order, none kept."""

    def __init__(self, file: Path, specs: Iterable[Spec]) -> None:
        self._file, self._todo = file, list(specs)
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        at = 0
        for spec in self._todo:
            header[spec.name] = {
                "dtype": _CODES[spec.dtype],
                "shape": list(spec.dims),
                "data_offsets": [at, at + spec.nbytes],
            }
            at += spec.nbytes
        self._todo.reverse()
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)  # readers map the file: tensors begin at a multiple of 8
        self._handle: IO[bytes] = open(file, "wb")  # noqa: SIM115 - open across calls
        with disk_errors(file):
            self._handle.write(struct.pack("<Q", len(text)) + text)

    def write(self, name: str, tensor: Tensor) -> None:
        """The next tensor; name, dtype and shape must be those announced."""
        import torch

        spec = self._todo.pop()
        found = (name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
        if found != (spec.name, spec.dtype, spec.dims):
            raise ValueError(f"{self._file}: announced {spec}, got {found}")
        with disk_errors(self._file):
            self._handle.write(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy())

    def close(self, *, whole: bool) -> None:
        """Close the file; with `whole`, everything announced must have been written, and is on disk afterwards."""
        with self._handle:
            if whole:
                if self._todo:
                    raise ValueError(f"{self._file}: {len(self._todo)} tensors were announced and not written")
                with disk_errors(self._file):
                    self._handle.flush()
                    os.fsync(self._handle.fileno())
