"""The rows of JSONL files (plain, gzip, zstd), as bytes with their line numbers, however large the file or the row.

Decides what a line is and when a file is damaged; leaves the meaning of a line to `build`.
"""

from __future__ import annotations

import gzip
import io
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit.errors import DataError, MissingPackage

SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst")
MAX_ROW_BYTES = 256 << 20
"""Longer lines are set aside: no document is so large, but a file without newlines, or a compression bomb, is."""

_BOM = b"\xef\xbb\xbf"
_READ = 1 << 18


def check_inputs(inputs: Sequence[Path]) -> None:
    """Raise `DataError` for an input that cannot be read as JSONL, before any work is done."""
    if not inputs:
        raise DataError("no input given", do=f"give one or more {', '.join(SUFFIXES)} files")
    for path in inputs:
        if path.is_dir():
            raise DataError("is a folder", where=path, do=f"give its {', '.join(SUFFIXES)} files")
        if not path.is_file():
            raise DataError("no such file", where=path)
        if not path.name.endswith(SUFFIXES):
            raise DataError("not a JSONL file by its name", where=path, do=f"expected one of {', '.join(SUFFIXES)}")


@dataclass(frozen=True, kw_only=True)
class Span:
    """The bytes of a file from `start`, where a line begins, up to `end`, where one ends (None: that of the file)."""

    path: Path
    start: int = 0
    end: int | None = None


def cut(path: Path, parts: int) -> list[Span]:
    """`path` in so many spans of nearly equal size, cut at line ends; a compressed file is all in the first."""
    size = path.stat().st_size
    plain = not path.name.endswith(SUFFIXES[1:])
    with open(path, "rb") as raw:
        inner = [_next_line(raw, size * n // parts, size) if plain else size for n in range(1, parts)]
    borders = [0, *inner, size]
    return [Span(path=path, start=borders[n], end=borders[n + 1]) for n in range(parts)]


def _next_line(raw: io.BufferedReader, at: int, size: int) -> int:
    """Where the first line begins at `at` or after it."""
    if at == 0:
        return 0
    raw.seek(at - 1)
    while piece := raw.readline(_READ):
        if piece.endswith(b"\n"):
            return raw.tell()
    return size


def count_lines(span: Span) -> int:
    """Line ends in the span of a plain file."""
    found, left = 0, (os.path.getsize(span.path) if span.end is None else span.end) - span.start
    with open(span.path, "rb") as raw:
        raw.seek(span.start)
        while left > 0 and (block := raw.read(min(left, _READ))):
            found += block.count(b"\n")
            left -= len(block)
    return found


def rows(span: Span) -> Iterator[tuple[int, bytes | None, int]]:
    """(line number from 1, line without its end, bytes read of the span so far) of each line that is not blank.

    Lines are counted from the span's start. The line is None if it is longer than `MAX_ROW_BYTES`. Raises `DataError`
    for a damaged or truncated file.
    """
    path = span.path
    with open(path, "rb") as raw:
        try:
            raw.seek(span.start)
            stream = _decompressed(path, raw)
            end = span.end if stream is raw else None  # compressed bytes say nothing of where a line ends
            number = 0
            while (end is None or raw.tell() < end) and (line := stream.readline(MAX_ROW_BYTES + 1)):
                number += 1
                whole = len(line) <= MAX_ROW_BYTES or line.endswith(b"\n")
                if not whole:
                    while (rest := stream.readline(_READ)) and not rest.endswith(b"\n"):
                        pass
                if number == 1 and span.start == 0:
                    line = line.removeprefix(_BOM)
                if line.strip():
                    yield number, line.rstrip(b"\r\n") if whole else None, raw.tell() - span.start
        except PermissionError as err:
            raise DataError("may not be read", where=path, do="check its permissions") from err
        except (EOFError, zlib.error, gzip.BadGzipFile) as err:
            raise DataError(
                "the compressed file is damaged or truncated", where=path, why=str(err), do="get or make it again"
            ) from err


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
