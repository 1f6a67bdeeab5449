"""Tensors as pieces of files: which bytes of which file make up which rows and columns of a matrix.

Decides how such pieces are cut, brought into memory block by block, and moved from file to file without passing through
this process where they lie as they shall; leaves what they mean to `mapping` and where they lie to `distcp` and `hf`.
A vector is a matrix of one column.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from toolkit.errors import CheckpointError
from toolkit.files import disk_errors

BLOCK = 1 << 20  # bytes of a buffer; writes of more cost Linux four times as much, in huge pages for its cache
_RANGE = 32 << 20  # bytes that one call of copy_file_range is asked to move; a stop is heard between two
_VECTORS = 1000  # below Linux' limit of 1024 for one call
_NO_RANGES = (errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EBADF, errno.EPERM)


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """`rows` x `width` bytes of a matrix, at its row `row` and its byte column `column`. In `file` its first row is at
    `begin`, and each next one `stride` bytes further.
    """

    file: Path
    begin: int
    stride: int
    row: int
    rows: int
    column: int
    width: int


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """`rows` x `row_bytes` bytes that `pieces` cover, each once."""

    rows: int
    row_bytes: int
    pieces: tuple[Piece, ...]

    @property
    def nbytes(self) -> int:
        return self.rows * self.row_bytes


def cut(pieces: Iterable[Piece], first: int, count: int, to: int) -> list[Piece]:
    """What of `pieces` lies in rows `first` to `first + count`, as rows from `to` on."""
    out = []
    for piece in pieces:
        low, high = max(piece.row, first), min(piece.row + piece.rows, first + count)
        if low < high:
            begin = piece.begin + (low - piece.row) * piece.stride
            out.append(replace(piece, begin=begin, row=low - first + to, rows=high - low))
    return out


class Stopped(Exception):
    """Somebody asked for the work to end."""


def _memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


class Files:
    """Files that are open for reading, each once, for all threads. `stop` ends every move that is under way.

    `nbytes`: how much is read of them in all. What memory cannot hold together with its copy only passes through.
    """

    def __init__(self, nbytes: int = 0) -> None:
        self.stop = threading.Event()
        self._passing = 2 * nbytes > _memory_bytes()
        self._open: dict[Path, int] = {}
        self._lock = threading.Lock()

    def fd(self, path: Path) -> int:
        """Raises `CheckpointError` for a file that is gone or may not be read."""
        with self._lock:
            if path not in self._open:
                try:
                    self._open[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                except FileNotFoundError as err:
                    raise CheckpointError("the file is missing", where=path, do="use a complete folder") from err
                except OSError as err:
                    raise CheckpointError("the file cannot be read", where=path, why=err.strerror or "") from err
            return self._open[path]

    def ahead(self, matrix: Matrix) -> None:
        """Have the system read all of it into its cache meanwhile, from however many places: nothing is waited for."""
        self._advise(matrix, "POSIX_FADV_WILLNEED")

    def behind(self, matrix: Matrix) -> None:
        """It is not read again. Of files that pass through memory only once, its place in the cache becomes free: pages
        that were just in use are filled again at half the cost of others, and nothing else is pushed out.
        """
        if self._passing:
            self._advise(matrix, "POSIX_FADV_DONTNEED")

    def _advise(self, matrix: Matrix, advice: str) -> None:
        with contextlib.suppress(AttributeError, OSError):  # not on every system; all works without
            for piece in matrix.pieces:
                nbytes = (piece.rows - 1) * piece.stride + piece.width
                os.posix_fadvise(self.fd(piece.file), piece.begin, nbytes, getattr(os, advice))

    def going_on(self) -> None:
        if self.stop.is_set():
            raise Stopped

    def close(self) -> None:
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()

    def __enter__(self) -> Files:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def blocks(matrix: Matrix, files: Files, buffer: bytearray) -> Iterator[tuple[int, memoryview]]:
    """(first row, bytes) of the matrix from top to bottom, as many rows at a time as `buffer` takes, at least one; the
    bytes hold until the next is asked for. Raises `CheckpointError` when a file ends too early.
    """
    if not matrix.nbytes:
        return
    step = max(1, len(buffer) // matrix.row_bytes)
    whole = memoryview(buffer if len(buffer) >= matrix.row_bytes else bytearray(matrix.row_bytes))
    for first in range(0, matrix.rows, step):
        files.going_on()
        count = min(step, matrix.rows - first)
        block = whole[: count * matrix.row_bytes]
        for piece in cut(matrix.pieces, first, count, 0):
            _fill(block, piece, matrix.row_bytes, files)
        yield first, block


def _fill(block: memoryview, piece: Piece, row_bytes: int, files: Files) -> None:
    fd = files.fd(piece.file)
    at = piece.row * row_bytes + piece.column
    if piece.width == row_bytes == piece.stride or piece.rows == 1:
        _read(fd, [block[at : at + piece.rows * piece.width]], piece.begin, piece)
        return
    targets = [block[at + n * row_bytes : at + n * row_bytes + piece.width] for n in range(piece.rows)]
    if piece.stride == piece.width:  # one after the other in the file: many rows in one call
        for n in range(0, piece.rows, _VECTORS):
            _read(fd, targets[n : n + _VECTORS], piece.begin + n * piece.stride, piece)
        return
    for n, target in enumerate(targets):
        _read(fd, [target], piece.begin + n * piece.stride, piece)


def _read(fd: int, targets: Sequence[memoryview], begin: int, piece: Piece) -> None:
    want = sum(len(target) for target in targets)
    got = os.preadv(fd, targets, begin)
    if got == want:
        return
    for target in targets:  # rare: a signal, the end of the file, or more than Linux gives at once
        while len(target):
            n = os.preadv(fd, [target], begin)
            if n == 0:
                size = os.fstat(fd).st_size
                raise CheckpointError(
                    "the file ends too early",
                    where=piece.file,
                    why=f"it has {size} bytes, and a tensor reaches to {begin + len(target)}",
                    do="copy it again, or use another step",
                )
            target, begin = target[n:], begin + n


def move(
    matrix: Matrix, files: Files, out: int, at: int, *, path: Path, buffer: bytearray, done: Callable[[int], None]
) -> None:
    """The matrix into the open file `out` at byte `at`; `done` hears of every so many bytes, in any order of pieces.

    Raises `CheckpointError`, `DiskFull` (which names `path`).
    """
    with disk_errors(path):
        if all(piece.width == matrix.row_bytes == piece.stride for piece in matrix.pieces):
            for piece in matrix.pieces:
                target = at + piece.row * matrix.row_bytes
                _range(piece, piece.rows * piece.width, files, out, target, buffer, done)
            return
        for first, block in blocks(matrix, files, buffer):
            write(out, block, at + first * matrix.row_bytes)
            done(len(block))


def write(fd: int, data: bytes | memoryview, at: int) -> None:
    """All of `data`."""
    view = memoryview(data)
    while len(view):
        n = os.pwrite(fd, view, at)
        view, at = view[n:], at + n


def _range(
    piece: Piece, left: int, files: Files, out: int, at: int, buffer: bytearray, done: Callable[[int], None]
) -> None:
    source, begin = files.fd(piece.file), piece.begin
    while left:
        files.going_on()
        n = _copied(source, out, min(left, _RANGE), begin, at)
        if n == 0:  # these two file systems cannot, or the file has ended: reading tells
            view = memoryview(buffer)[: min(left, len(buffer))]
            _read(source, [view], begin, piece)
            write(out, view, at)
            n = len(view)
        begin, at, left = begin + n, at + n, left - n
        done(n)


def _copied(source: int, out: int, nbytes: int, begin: int, at: int) -> int:
    with contextlib.suppress(AttributeError):  # not on every system
        try:
            return os.copy_file_range(source, out, nbytes, begin, at)
        except OSError as err:
            if err.errno not in _NO_RANGES:
                raise
    return 0
