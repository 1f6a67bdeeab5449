"""The bytes of safetensors files: where a tensor's lie, what stands before them, a small file written tensor by tensor.

Decides which types can be converted; leaves headers and whole files to `toolkit.hf_folder`, and to `hf` which tensors
belong in a file.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from toolkit.checkpoint.numbers import ITEM
from toolkit.checkpoint.pieces import Matrix, Piece
from toolkit.errors import CheckpointError
from toolkit.files import disk_errors
from toolkit.hf_folder import FLOATS, Stored

if TYPE_CHECKING:
    from torch import Tensor

_CODES = {name: code for code, name in FLOATS.items()}


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
    return ITEM[dtype]


def is_float(dtype: str) -> bool:
    """Whether it is one of the four types that can be converted."""
    return dtype in _CODES


def matrix_of(stored: Stored) -> Matrix:
    """Where the bytes of a tensor in a safetensors file are. Raises `CheckpointError` when it is no float tensor."""
    if not is_float(stored.dtype):
        raise CheckpointError(
            f"tensor '{stored.name}' has type {stored.dtype}",
            where=stored.file,
            why="only float64, float32, float16 and bfloat16 weights are converted",
        )
    rows = stored.dims[0] if stored.dims else 1
    width = math.prod(stored.dims[1:]) * item_bytes(stored.dtype)
    piece = Piece(file=stored.file, begin=stored.begin, stride=width, row=0, rows=rows, column=0, width=width)
    return Matrix(rows=rows, row_bytes=width, pieces=(piece,) if rows and width else ())


def header(specs: Sequence[Spec]) -> tuple[bytes, list[int]]:
    """The bytes of a file before its tensors, which follow one after the other, and where each of them begins."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at, begins = 0, []
    for spec in specs:
        begins.append(at)
        offsets = [at, at + spec.nbytes]
        entries[spec.name] = {"dtype": _CODES[spec.dtype], "shape": list(spec.dims), "data_offsets": offsets}
        at += spec.nbytes
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # readers map the file: tensors begin at a multiple of 8
    head = struct.pack("<Q", len(text)) + text
    return head, [len(head) + begin for begin in begins]


class Writer:
    """Writes one file: the header at once (all sizes are known), then the tensors in the announced order, none kept."""

    def __init__(self, file: Path, specs: Iterable[Spec]) -> None:
        self._file, self._todo = file, list(specs)
        head, _ = header(self._todo)
        self._todo.reverse()
        self._handle: IO[bytes] = open(file, "wb")  # noqa: SIM115 - open across calls
        with disk_errors(file):
            self._handle.write(head)

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
