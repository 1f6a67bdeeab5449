"""Records of a `.distcp` file: each is what `torch.save` writes of one tensor, a zip whose member `data/0` holds the
bytes as they are.

Decides where those bytes lie and that they are what the metadata promises, and how a record is framed when it is
written; needs no torch and touches no tensor. A record is read as a hostile file.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from toolkit.checkpoint.pickling import Call, Name, Persistent, dumps

# torch's dtype -> (bytes of an element, its class of storage)
TYPES = {
    "float64": (8, "DoubleStorage"), "float32": (4, "FloatStorage"), "float16": (2, "HalfStorage"),
    "bfloat16": (2, "BFloat16Storage"), "int64": (8, "LongStorage"), "int32": (4, "IntStorage"),
    "int16": (2, "ShortStorage"), "int8": (1, "CharStorage"), "uint8": (1, "ByteStorage"), "bool": (1, "BoolStorage"),
    "float8_e4m3fn": (1, "Float8_e4m3fnStorage"), "float8_e5m2": (1, "Float8_e5m2Storage"),
    "complex64": (8, "ComplexFloatStorage"), "complex128": (16, "ComplexDoubleStorage"),
}  # fmt: skip
_STORAGES = {storage: dtype for dtype, (_, storage) in TYPES.items()}
_DESCRIPTION_LIMIT = 1 << 16
_ALIGN = 64  # torch's own; it lets a reader map the bytes


class Unreadable(ValueError):
    """Why the bytes of a record are not the tensor that they should be."""


@dataclass(frozen=True, kw_only=True)
class Raw:
    """Where in a file the elements of a record lie, row-major and without gaps."""

    begin: int
    nbytes: int


def locate(fd: int, begin: int, nbytes: int, *, dtype: str, dims: Sequence[int]) -> Raw:
    """The bytes of the tensor in the record at `begin` of an open file.

    Raises `Unreadable` when it is no record of a dense `dtype` tensor of shape `dims`.
    """
    try:
        with zipfile.ZipFile(_Window(fd, begin, nbytes)) as archive:
            members = {name.partition("/")[2]: info for name, info in archive.NameToInfo.items()}
            if any(info.compress_type != zipfile.ZIP_STORED for info in members.values()):
                raise Unreadable("it is compressed, which torch never does")
            description, data = members["data.pkl"], members["data/0"]
            if description.file_size > _DESCRIPTION_LIMIT:
                raise Unreadable(f"its description has {description.file_size:,} bytes")
            if "byteorder" in members and archive.read(members["byteorder"])[:16] != b"little":
                raise Unreadable("its numbers are big-endian")
            tensor = _Unpickler(io.BytesIO(archive.read(description))).load()
    except KeyError as err:
        raise Unreadable(f"it has no member {err}") from None
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, RuntimeError) as err:
        raise Unreadable(f"it is no zip archive ({_brief(err)})") from None
    except Unreadable:
        raise
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, IndexError, OverflowError) as err:
        raise Unreadable(f"its description cannot be read ({_brief(err)})") from None
    if not isinstance(tensor, _Described):
        raise Unreadable("it holds something else than a tensor")
    if (tensor.dtype, tensor.dims) != (dtype, tuple(dims)):
        raise Unreadable(f"it is {tensor.dtype} {list(tensor.dims)}, not {dtype} {list(dims)}")
    item = TYPES[dtype][0]
    want = math.prod(dims) * item
    if want and tensor.stride != contiguous(dims) and not _same_order(tensor.stride, dims):
        raise Unreadable("its elements are not in the order of its axes")
    if data.file_size != tensor.numel * item or (tensor.offset * item + want) > data.file_size:
        raise Unreadable(f"it holds {data.file_size:,} bytes of {tensor.numel * item:,}")
    head = os.pread(fd, 30, begin + data.header_offset)
    if len(head) < 30 or head[:4] != b"PK\x03\x04":
        raise Unreadable("it is no zip archive (no header before its data)")
    name, extra = struct.unpack("<HH", head[26:30])
    at = data.header_offset + 30 + name + extra
    if at + data.file_size > nbytes:
        raise Unreadable("its data reach beyond its end")
    return Raw(begin=begin + at + tensor.offset * item, nbytes=want)


def contiguous(dims: Sequence[int]) -> tuple[int, ...]:
    """Strides in elements of a row-major tensor."""
    out: list[int] = []
    step = 1
    for size in reversed(dims):
        out.append(step)
        step *= size
    return tuple(reversed(out))


def _same_order(stride: tuple[int, ...], dims: Sequence[int]) -> bool:
    """An axis of one element may have any stride."""
    return len(stride) == len(dims) and all(
        size == 1 or given == plain for size, given, plain in zip(dims, stride, contiguous(dims), strict=True)
    )


def _brief(err: Exception) -> str:
    return (str(err).strip().splitlines() or [type(err).__name__])[0][:200].rstrip(". ")


class _Window(io.RawIOBase):
    """A range of an open file as a file of its own."""

    def __init__(self, fd: int, begin: int, nbytes: int) -> None:
        self._fd, self._begin, self._nbytes, self._at = fd, begin, nbytes, 0

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = max(0, (0, self._at, self._nbytes)[whence] + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._nbytes - self._at)
        data = os.pread(self._fd, left if size is None or size < 0 else min(size, left), self._begin + self._at)
        self._at += len(data)
        return data


@dataclass(frozen=True, kw_only=True)
class _Described:
    dtype: str
    numel: int
    offset: int
    dims: tuple[int, ...]
    stride: tuple[int, ...]


def _described(storage: Any, offset: Any, dims: Any, stride: Any, *_: Any) -> _Described:
    dtype, numel = storage
    numbers = [numel, offset, *dims, *stride]
    if not all(type(n) is int and n >= 0 for n in numbers):
        raise ValueError("its shape is no shape")
    return _Described(dtype=dtype, numel=numel, offset=offset, dims=tuple(dims), stride=tuple(stride))


class _Unpickler(pickle.Unpickler):
    """Of all that a pickle can name, a dense tensor takes three things; none of them is torch's own here."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _described
        if (module, name) == ("collections", "OrderedDict"):
            return lambda items=(): OrderedDict(items)
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        raise pickle.UnpicklingError(f"it names {module}.{name}, which no tensor needs")

    def persistent_load(self, pid: Any) -> Any:
        kind, dtype, key, _, numel = pid
        if kind != "storage" or dtype not in TYPES or key != "0":
            raise pickle.UnpicklingError("its storage is of no known kind")
        return dtype, numel


@dataclass(frozen=True, kw_only=True)
class Frame:
    """What stands before and after the `nbytes` of a tensor in its record. Both name the CRC-32 of the bytes, which is
    known when they have been written; the lengths do not depend on it.
    """

    nbytes: int
    description: bytes

    @property
    def head_bytes(self) -> int:
        return len(self.around(0)[0])

    @property
    def total(self) -> int:
        head, tail = self.around(0)
        return len(head) + self.nbytes + len(tail)

    def around(self, crc: int) -> tuple[bytes, bytes]:
        """(head, tail)."""
        archive = _Archive()
        archive.add("data.pkl", self.description)
        archive.add(".format_version", b"1")
        archive.add(".storage_alignment", str(_ALIGN).encode())
        archive.add("byteorder", b"little")
        archive.announce("data/0", self.nbytes, crc)
        head = bytes(archive.out)
        archive.skip(self.nbytes)
        archive.add("version", b"3\n")
        return head, bytes(archive.out[len(head) :] + archive.end())


def frame(dtype: str, dims: Sequence[int]) -> Frame:
    """The record of a `dtype` tensor of shape `dims`, as `torch.load(weights_only=True)` takes it; below 4 GiB."""
    item, storage = TYPES[dtype]
    numel = math.prod(dims)
    if numel * item >= 1 << 32:
        raise ValueError(f"{numel * item} bytes in one record")
    tensor = Call(
        what=Name(module="torch._utils", name="_rebuild_tensor_v2"),
        args=(
            Persistent(ident=("storage", Name(module="torch", name=storage), "0", "cpu", numel)),
            *(0, tuple(dims), contiguous(dims), False),
            Call(what=Name(module="collections", name="OrderedDict"), args=()),
        ),
    )
    return Frame(nbytes=numel * item, description=dumps(tensor))


def of_object(value: Any) -> bytes:
    """The record of an object without tensors, of what `pickling` writes, such as `[None]`."""
    archive = _Archive()
    archive.add("data.pkl", dumps(value))
    archive.add("byteorder", b"little")
    archive.add("version", b"3\n")
    return bytes(archive.out + archive.end())


class _Archive:
    """A zip archive of stored members below 4 GiB, in the one form that torch's reader and `zipfile` both take."""

    def __init__(self) -> None:
        self.out, self._central, self._count, self._skipped = bytearray(), bytearray(), 0, 0

    def add(self, name: str, data: bytes) -> None:
        self.announce(name, len(data), zlib.crc32(data))
        self.out += data

    def announce(self, name: str, nbytes: int, crc: int) -> None:
        """The header of a member whose bytes follow; they begin at a multiple of 64."""
        path, at = f"archive/{name}".encode(), len(self.out) + self._skipped
        pad = -(at + 30 + len(path) + 4) % _ALIGN
        extra = struct.pack("<2sH", b"FB", pad) + b"Z" * pad
        common = struct.pack("<HHHHHIII", 20, 0, 0, 0, 33, crc, nbytes, nbytes)  # 33: 1 January 1980
        self._central += b"PK\x01\x02" + struct.pack("<H", 20) + common
        self._central += struct.pack("<HHHHHII", len(path), 0, 0, 0, 0, 0, at) + path
        self.out += b"PK\x03\x04" + common + struct.pack("<HH", len(path), len(extra)) + path + extra
        self._count += 1

    def skip(self, nbytes: int) -> None:
        """The bytes of the member announced last are written by somebody else."""
        self._skipped += nbytes

    def end(self) -> bytes:
        at = len(self.out) + self._skipped
        counts = struct.pack("<HHHHIIH", 0, 0, self._count, self._count, len(self._central), at, 0)
        return bytes(self._central) + b"PK\x05\x06" + counts
