"""JSON lines in zstd files: written and read a line at a time, the same bytes for the same rows."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from toolkit import files
from toolkit.errors import DataError, MissingPackage

LEVEL = 3
_BLOCK = 1 << 20


class ZstdWriter:
    """`with ZstdWriter(path) as out: out.write({...})`; counts `lines`. Raises `DiskFull`."""

    def __init__(self, path: Path) -> None:
        self.path, self.lines = path, 0
        self._held, self._size = [], 0

    def __enter__(self) -> ZstdWriter:
        self._file = open(self.path, "wb")
        self._stream = _zstandard(self.path).ZstdCompressor(level=LEVEL, write_checksum=True).stream_writer(self._file)
        return self

    def write(self, row: Mapping[str, Any]) -> None:
        self.write_line(dumps(row))

    def write_line(self, line: bytes) -> None:
        """One line, with the "\\n" that ends it."""
        self.lines += 1
        self._held.append(line)
        self._size += len(line)
        if self._size >= _BLOCK:
            self._flush()

    def _flush(self) -> None:
        with files.disk_errors(self.path):
            self._stream.write(b"".join(self._held))
        self._held, self._size = [], 0

    def __exit__(self, kind: object, *rest: object) -> None:
        try:
            if kind is None:
                self._flush()
                with files.disk_errors(self.path):
                    self._stream.close()  # and the file
        finally:
            self._file.close()


def dumps(row: Mapping[str, Any]) -> bytes:
    """A row as a line of UTF-8; halves of surrogate pairs, which no UTF-8 can hold, become question marks."""
    orjson = _orjson()
    try:
        return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:
        import json

        text = json.dumps(row, ensure_ascii=False, separators=(",", ":"), default=str) + "\n"
        return text.encode("utf-8", "replace")


def loads(line: bytes) -> dict[str, Any]:
    return _orjson().loads(line)


def lines(path: Path) -> Iterator[bytes]:
    """The lines of a file that `ZstdWriter` wrote. Raises `DataError` for a damaged one."""
    zstandard = _zstandard(path)
    try:
        with open(path, "rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as stream:
            yield from io.BufferedReader(stream, _BLOCK)
    except zstandard.ZstdError as err:
        raise DataError("is damaged", where=path, why=str(err), do="run the same command again") from err


def _orjson() -> Any:
    try:
        import orjson
    except ImportError as err:
        raise MissingPackage("orjson is needed to write a corpus", do="install the extra 'data'") from err
    return orjson


def _zstandard(path: Path) -> Any:
    try:
        import zstandard
    except ImportError as err:
        raise MissingPackage("zstandard is needed for .zst", where=path, do="install the extra 'data'") from err
    return zstandard
