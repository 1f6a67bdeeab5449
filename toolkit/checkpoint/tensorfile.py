"""The safetensors format: header and byte ranges, without building a tensor unless one is asked for.

Decides whether a file is whole (every byte of it is accounted for by the header); leaves to `hf` which tensors belong
in it. Format: 8 bytes little-endian header length, a JSON object, then the bytes of the tensors, one after the other.
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

if TYPE_CHECKING:
    from torch import Tensor

# safetensors' names -> (torch's names, bytes per element)
DTYPES = {"F64": ("float64", 8), "F32": ("float32", 4), "F16": ("float16", 2), "BF16": ("bfloat16", 2)}
_CODES = {name: (code, size) for code, (name, size) in DTYPES.items()}
_OTHER_SIZES = {
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U64": 8,
    "U32": 4,
    "U16": 2,
    "U8": 1,
    "BOOL": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
}
_HEADER_LIMIT = 100_000_000  # bytes; the limit of the reference implementation


@dataclass(frozen=True, kw_only=True)
class Stored:
    """One tensor in a file: `begin` is absolute, `nbytes` its length. `dtype` is torch's name for the four float
    types that models are made of, else the format's own."""

    file: Path
    name: str
    dtype: str
    dims: tuple[int, ...]
    begin: int
    nbytes: int


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
    return _CODES[dtype][1]


def is_float(dtype: str) -> bool:
    """Whether it is one of the four types that can be converted."""
    return dtype in _CODES


def read_header(file: Path) -> dict[str, Stored]:
    """Every tensor of a safetensors file. Raises `CheckpointError` when the file is truncated, too long or lies about
    itself.
    """
    file = Path(file)

    def bad(why: str) -> CheckpointError:
        return CheckpointError(
            "not a whole safetensors file", where=file, why=why, do="copy or download the file again"
        )

    try:
        size = file.stat().st_size
        with open(file, "rb") as handle:
            start = handle.read(8)
            if len(start) < 8:
                raise bad(f"it has {size} bytes")
            (length,) = struct.unpack("<Q", start)
            if length > min(_HEADER_LIMIT, size - 8):
                raise bad(f"its header claims {length} bytes, and the file has {size}")
            raw = handle.read(length)
    except OSError as err:
        raise CheckpointError("cannot be read", where=file, why=err.strerror or str(err)) from err
    try:
        header = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as err:
        raise bad(f"its header is not JSON ({err})") from err
    if not isinstance(header, dict):
        raise bad("its header is not a JSON object")
    header.pop("__metadata__", None)
    base = 8 + length
    tensors = [_entry(file, name, value, base, bad) for name, value in header.items()]
    at = base
    for tensor in sorted(tensors, key=lambda t: (t.begin, t.nbytes)):
        if tensor.begin != at:
            raise bad(f"the bytes of '{tensor.name}' begin at {tensor.begin}, those before it end at {at}")
        at += tensor.nbytes
    if at != size:
        raise bad(f"its tensors end at byte {at}, and the file has {size}")
    return {tensor.name: tensor for tensor in tensors}


def _entry(file: Path, name: str, value: Any, base: int, bad: Any) -> Stored:
    try:
        code, dims, (begin, end) = value["dtype"], value["shape"], value["data_offsets"]
    except (TypeError, KeyError, ValueError) as err:
        raise bad(f"the header's entry for '{name}' is malformed") from err
    if not isinstance(dims, list) or not all(type(n) is int and n >= 0 for n in [*dims, begin, end]):
        raise bad(f"the header's entry for '{name}' is malformed")
    if code not in DTYPES and code not in _OTHER_SIZES:
        raise bad(f"'{name}' has the unknown type {code!r}")
    dtype, item = DTYPES.get(code) or (code, _OTHER_SIZES[code])
    if end - begin != math.prod(dims) * item:
        raise bad(f"'{name}' is {code} {dims} and has {end - begin} bytes")
    return Stored(file=file, name=name, dtype=dtype, dims=tuple(dims), begin=base + begin, nbytes=end - begin)


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
                "dtype": _CODES[spec.dtype][0],
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
