"""The rows of JSONL files (plain, gzip, zstd), as bytes with their line numbers, however large the file or the row.

Decides what a line is and when a file is damaged; leaves the meaning of a line to `build`.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
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


def rows(path: Path) -> Iterator[tuple[int, bytes | None, int]]:
    """(line number from 1, line without its end, bytes read of the file so far) of each line that is not blank.

    The line is None if it is longer than `MAX_ROW_BYTES`. Raises `DataError` for a damaged or truncated file.
    """
    with open(path, "rb") as raw:
        try:
            stream = _decompressed(path, raw)
            number = 0
            while line := stream.readline(MAX_ROW_BYTES + 1):
                number += 1
                whole = len(line) <= MAX_ROW_BYTES or line.endswith(b"\n")
                if not whole:
                    while (rest := stream.readline(_READ)) and not rest.endswith(b"\n"):
                        pass
                if number == 1:
                    line = line.removeprefix(_BOM)
                if line.strip():
                    yield number, line.rstrip(b"\r\n") if whole else None, raw.tell()
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
