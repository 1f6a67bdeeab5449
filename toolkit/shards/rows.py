"""The rows of JSONL (plain, gzip, zstd) and Parquet files, as bytes with their numbers, however large file or row.

Decides what a row is and when a file is damaged; leaves the meaning of a row to `encode`.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit.errors import DataError, MissingPackage
from toolkit.shards import parquet

SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", parquet.SUFFIX)
MAX_ROW_BYTES = 64 << 20
"""Longer lines are set aside: no document is so large, but a file without newlines, or a compression bomb, is."""

_BOM = b"\xef\xbb\xbf"
_READ = 1 << 18
_BLOCK = 1 << 20


def check_inputs(inputs: Sequence[Path]) -> None:
    """Raise `DataError` for an input that cannot be read, by its name and place, before any work is done."""
    if not inputs:
        raise DataError("no input given", do=f"give one or more {', '.join(SUFFIXES)} files")
    for path in inputs:
        if path.is_dir():
            raise DataError("is a folder", where=path, do=f"give its {', '.join(SUFFIXES)} files")
        if not path.is_file():
            raise DataError("no such file", where=path)
        if not path.name.endswith(SUFFIXES):
            raise DataError(
                "not a JSONL or Parquet file by its name", where=path, do=f"expected one of {', '.join(SUFFIXES)}"
            )


@dataclass(frozen=True, kw_only=True)
class Block:
    """Whole lines of a file: the number of the first (from 1, blank ones count), the lines, and the bytes read for it.

    A line over `MAX_ROW_BYTES` is a block of its own without data.
    """

    first: int
    data: bytes | None
    read: int


def blocks(path: Path, text_field: str = "text") -> Iterator[Block]:
    """The lines of a file in order, about a MiB at a time; at least one line in each block.

    Of a Parquet file each row is a line with its `text_field` alone. Raises `DataError` for a file that is damaged or
    truncated.
    """
    if path.name.endswith(parquet.SUFFIX):
        yield from _parquet_blocks(path, text_field)
        return
    try:
        with open(path, "rb") as raw:
            yield from _line_blocks(raw, _decompressed(path, raw))
    except PermissionError as err:
        raise DataError("may not be read", where=path, do="check its permissions") from err
    except (EOFError, zlib.error, gzip.BadGzipFile) as err:
        raise DataError(
            "the compressed file is damaged or truncated", where=path, why=str(err), do="get or make it again"
        ) from err


def _line_blocks(raw: io.BufferedReader, stream: io.BufferedReader) -> Iterator[Block]:
    number, told, kept, held, over = 1, 0, [], 0, False  # over: within a line that is too long
    begin = True
    while piece := stream.read(_BLOCK):
        if begin:
            piece, begin = piece.removeprefix(_BOM), False
        if over:
            end = piece.find(b"\n") + 1
            if not end:
                continue
            piece, over = piece[end:], False
            yield Block(first=number, data=None, read=raw.tell() - told)
            told, number = raw.tell(), number + 1
        cut = piece.rfind(b"\n") + 1
        if not cut:
            kept.append(piece)
            held += len(piece)
            if held > MAX_ROW_BYTES:
                kept, held, over = [], 0, True
            continue
        data = b"".join((*kept, piece[:cut]))
        kept, held = [piece[cut:]], len(piece) - cut
        yield Block(first=number, data=data, read=raw.tell() - told)
        told, number = raw.tell(), number + data.count(b"\n")
    if held or over:
        yield Block(first=number, data=None if over else b"".join(kept), read=raw.tell() - told)


def _parquet_blocks(path: Path, text_field: str) -> Iterator[Block]:
    size, told, first, taken, held = path.stat().st_size, 0, 1, [], 0
    for number, row, share in parquet.lines(path, text_field):
        whole = len(row) <= MAX_ROW_BYTES
        if taken and (not whole or held + len(row) > _BLOCK):
            yield Block(first=first, data=b"\n".join(taken), read=int(size * share) - told)
            told, taken, held = int(size * share), [], 0
        if not taken:
            first = number
        if whole:
            taken.append(row)
            held += len(row)
        else:
            yield Block(first=number, data=None, read=int(size * share) - told)
            told = int(size * share)
    if taken:
        yield Block(first=first, data=b"\n".join(taken), read=size - told)


def _decompressed(path: Path, raw: io.BufferedReader) -> io.BufferedReader:
    if path.suffix == ".gz":
        return io.BufferedReader(gzip.GzipFile(fileobj=raw), _READ)
    if path.suffix == ".zst":
        return io.BufferedReader(_Zstd(raw), _READ)
    return raw


class _Zstd(io.RawIOBase):
    """A zstd file as a stream; zstandard's own reader takes a truncated frame for the end of the file."""

    def __init__(self, raw: io.BufferedReader) -> None:
        try:
            import zstandard
        except ImportError as err:
            raise MissingPackage("zstandard is not installed", do="install the toolkit's 'data' extra") from err
        self._raw, self._error = raw, zstandard.ZstdError
        self._new = lambda: zstandard.ZstdDecompressor().decompressobj()
        self._frame, self._pending, self._out = None, b"", b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        while not self._out:
            # Small bites: a few bytes of zstd can stand for megabytes, which all arrive at once.
            bite = self._pending or self._raw.read(1 << 14)
            self._pending = b""
            if not bite:
                if self._frame is not None:
                    raise EOFError("the file ends within a frame")
                return 0
            self._frame = self._frame or self._new()
            try:
                self._out = self._frame.decompress(bite)
            except self._error as err:
                raise EOFError(str(err)) from err
            if self._frame.eof:
                self._pending, self._frame = self._frame.unused_data, None
        size = min(len(buffer), len(self._out))
        buffer[:size], self._out = self._out[:size], self._out[size:]
        return size
