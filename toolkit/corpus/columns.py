"""Columns of numbers on disk that grow by pieces: plain `.npy` files, one a column, never pickled.

Decides how they are written in bounded memory and read, whole or from a row of parts; knows nothing of what they hold.
"""

from __future__ import annotations

import functools
import io
import math
import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from toolkit import files
from toolkit.errors import DataError

_OPEN = 128  # files mapped at the same time, at most


class Column:
    """An `.npy` file of shape (rows,) or (rows, width) that is written row by row; `close` makes it readable."""

    def __init__(self, path: Path, dtype: Any, width: int = 0) -> None:
        self.path, self.dtype, self.width, self.rows = path, np.dtype(dtype), width, 0
        with files.disk_errors(path):
            self._file = path.open("wb")
            self._file.write(self._header())

    def append(self, values: np.ndarray) -> None:
        self.write(np.ascontiguousarray(values, self.dtype).tobytes())

    def write(self, raw: bytes | bytearray) -> None:
        """Rows as their bytes."""
        with files.disk_errors(self.path):
            self._file.write(raw)
        self.rows += len(raw) // (self.dtype.itemsize * (self.width or 1))

    def close(self) -> None:
        with files.disk_errors(self.path):
            self._file.seek(0)
            self._file.write(self._header())
            self._file.close()

    def _header(self) -> bytes:
        out = io.BytesIO()
        shape = (self.rows, self.width) if self.width else (self.rows,)
        form = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(out, form)  # leaves room for the number of rows to grow
        return out.getvalue()


def open_column(path: Path) -> np.ndarray:
    """The column as it lies on disk, mapped, read-only. Raises `DataError` when it is missing or damaged."""
    # np.load takes several times as long, and a large corpus has thousands of columns, opened again and again.
    try:
        with open(path, "rb") as file:
            stat = os.fstat(file.fileno())
            dtype, shape, begin = _header(str(path), stat.st_size, stat.st_mtime_ns)
            if not math.prod(shape):
                return np.zeros(shape, dtype)
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return np.ndarray(shape, dtype, mapped, begin)
    except (OSError, ValueError, EOFError) as err:
        raise DataError(
            "cannot be read", where=path, why=str(err), do="remove its folder, and it is made anew"
        ) from err


@functools.lru_cache(maxsize=1 << 14)
def _header(path: str, size: int, changed: int) -> tuple[np.dtype, tuple[int, ...], int]:
    """Type, shape and where the numbers begin of a file of that size and time."""
    with open(path, "rb") as file:
        np.lib.format.read_magic(file)
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        begin = file.tell()
    if dtype.hasobject or fortran:
        raise ValueError("holds other things than rows of numbers")
    if size != begin + math.prod(shape) * dtype.itemsize:
        raise ValueError(f"is cut off or has grown: {size} bytes, for the shape {shape}")
    return dtype, shape, begin


def drop(array: np.ndarray) -> None:
    """Let go of the pages of a mapped column that have been read; they are read again when they are asked for."""
    if isinstance(array.base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        array.base.madvise(mmap.MADV_DONTNEED)


class Joined:
    """Columns of many folders, seen as one behind the other: a row is named by its number over all of them."""

    def __init__(self, folders: Sequence[Path], rows: Sequence[int]) -> None:
        self.folders = list(folders)
        self.begins = np.concatenate([[0], np.cumsum(np.asarray(rows, np.int64))]).astype(np.int64)
        self.total = int(self.begins[-1])
        self.open = functools.lru_cache(maxsize=_OPEN)(lambda name, part: open_column(self.folders[part] / name))

    def pick(self, name: str, part: int, index: Any = slice(None)) -> np.ndarray:
        """These rows of a part, copied: what was read of the file does not stay in this process's memory."""
        array = self.open(name, part)
        found = np.array(array[index])
        drop(array)
        return found

    def parts(self) -> range:
        return range(len(self.folders))

    def rows_of(self, part: int) -> slice:
        return slice(int(self.begins[part]), int(self.begins[part + 1]))

    def take(self, name: str, rows: np.ndarray) -> np.ndarray:
        """The values of these rows, in the order asked."""
        order = np.argsort(rows, kind="stable")
        wanted = rows[order]
        pieces = []
        for part, begin, end in self.by_part(wanted):
            pieces.append(self.pick(name, part, wanted[begin:end] - self.begins[part]))
        if not pieces:
            return np.zeros(0, np.uint64)
        found = np.concatenate(pieces)
        out = np.empty_like(found)
        out[order] = found
        return out

    def by_part(self, ascending: np.ndarray) -> list[tuple[int, int, int]]:
        """(part, begin, end): which stretch of the ascending row numbers lies in which part."""
        edges = np.searchsorted(ascending, self.begins)
        return [(i, int(edges[i]), int(edges[i + 1])) for i in self.parts() if edges[i] < edges[i + 1]]
