"""Megatron's indexed dataset format: the layout of `.idx`, and a writer whose bytes equal those of Megatron's own.

Decides nothing but the bytes; leaves documents to `build` and trust to `check`.
"""

from __future__ import annotations

import hashlib
import os
import struct
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from toolkit import files
from toolkit.errors import ShardError

# The layout, little-endian (megatron/core/datasets/indexed_dataset.py, _IndexWriter): magic, version, dtype code, count
# of sequences, number of document bounds; then per sequence its tokens (int32), per sequence its byte offset (int64),
# and the document bounds (int64), of which the first is 0 and the last the number of sequences.
MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1
HEADER = struct.Struct("<9sQBQQ")
CODES = {1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 8: "uint16"}
"""The integer dtypes of Megatron's `DType`; its two floating-point ones hold no token ids."""

_BLOCK = 1 << 20
_FEW = 64  # documents in memory at once: one may have megabytes


def pair(prefix: str | Path) -> tuple[Path, Path]:
    """The paths of `.bin` and `.idx`."""
    return Path(f"{prefix}.bin"), Path(f"{prefix}.idx")


def dtype_for(vocab_size: int) -> str:
    """As Megatron decides (`DType.optimal_dtype`)."""
    return "uint16" if vocab_size < 65500 else "int32"


def numpy_dtype(name: str):
    """The little-endian numpy dtype of a name in `CODES`."""
    import numpy as np

    return np.dtype(name).newbyteorder("<")


class Writer:
    """Takes documents as bytes of ids, in order; one sequence per document. Make one with `writer`."""

    def __init__(self, data: IO[bytes], dtype: str) -> None:
        self.dtype, self.itemsize = dtype, numpy_dtype(dtype).itemsize
        self.lengths = array("i")  # 4 bytes a document, so that tens of millions fit
        self.tokens = 0
        self._data, self._hash = data, hashlib.sha256()

    def add(self, lengths: Iterable[int], ids: bytes) -> None:
        """Add documents: their lengths in tokens, and their ids one after the other."""
        own = array("i", lengths)
        tokens = sum(own)
        assert tokens * self.itemsize == len(ids)
        self._data.write(ids)
        self._hash.update(ids)
        self.lengths.extend(own)
        self.tokens += tokens

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()


@contextmanager
def writer(prefix: str | Path, dtype: str) -> Iterator[Writer]:
    """A `Writer` whose pair appears when the block ends well, `.idx` last; else what was there before is still there.

    Raises `DiskFull`. Killed at any moment, there is the old pair, the new pair, or a `.bin` without `.idx`.
    """
    data_path, index_path = pair(prefix)
    with files.atomic_write(index_path, "wb") as index, files.atomic_write(data_path, "wb") as data:
        out = Writer(data, dtype)
        yield out
        for block in _index(out.lengths, dtype):
            index.write(block)
        for handle in (data, index):
            handle.flush()
            os.fsync(handle.fileno())
        # All is on disk. An older index must not be found beside the new data, not even for a moment.
        index_path.unlink(missing_ok=True)


def documents(prefix: str | Path, dtype: str, count: int) -> Iterator[tuple[list[int], bytes]]:
    """The documents of a pair that `writer` made, a few at a time, as `Writer.add` takes them; there may be none.

    Raises `ShardError` if the pair does not hold `count` documents in `dtype`, and no byte more.
    """
    import numpy as np

    data_path, index_path = pair(prefix)
    expected = HEADER.pack(MAGIC, VERSION, _code(dtype), count, count + 1)
    try:
        with open(data_path, "rb") as data, open(index_path, "rb") as index:
            whole = index.read(HEADER.size) == expected
            whole = whole and os.fstat(index.fileno()).st_size == HEADER.size + 12 * count + 8 * (count + 1)
            for at in range(0, count if whole else 0, _FEW):
                lengths = np.frombuffer(index.read(4 * min(_FEW, count - at)), dtype="<i4").tolist()
                size = sum(lengths) * numpy_dtype(dtype).itemsize
                ids = data.read(max(0, size))
                whole = len(lengths) == min(_FEW, count - at) and min(lengths) >= 0 and len(ids) == size
                if not whole:
                    break
                yield lengths, ids
            whole = whole and not data.read(1)
    except (OSError, ValueError) as err:
        raise ShardError("cannot be read", where=prefix, why=str(err), do="build it again") from err
    if not whole:
        raise ShardError(f"does not hold {count} whole documents of {dtype}", where=prefix, do="build it again")


def _code(dtype: str) -> int:
    return next(code for code, name in CODES.items() if name == dtype)


def _index(lengths: array, dtype: str) -> Iterator[bytes]:
    import numpy as np

    count = len(lengths)
    yield HEADER.pack(MAGIC, VERSION, _code(dtype), count, count + 1)
    blocks = (
        [np.frombuffer(lengths, dtype=np.int32)[at : at + _BLOCK] for at in range(0, count, _BLOCK)] if count else []
    )
    for block in blocks:
        yield block.astype("<i4").tobytes()
    offset, itemsize = 0, numpy_dtype(dtype).itemsize
    for block in blocks:
        ends = offset + np.cumsum(block, dtype=np.int64) * itemsize
        yield (ends - block.astype(np.int64) * itemsize).astype("<i8").tobytes()
        offset = int(ends[-1])
    for at in range(0, count + 1, _BLOCK):
        yield np.arange(at, min(at + _BLOCK, count + 1), dtype="<i8").tobytes()
