"""Reads the bytes of input files, packed or not, a piece at a time.

Decides when a stream counts as damaged; leaves meaning to the readers.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

from toolkit.errors import DataError, MissingPackage

CHUNK = 1 << 20


class DamagedStream(Exception):
    """A packed file that ends early or is no such file; readers turn it into a bad row."""


def chunks(path: Path) -> Iterator[bytes]:
    """The bytes of a plain, `.gz`, `.tgz` or `.zst` file in pieces of bounded size.

    Raises `DamagedStream` for a packed file that is cut off or broken, `DataError` for one that cannot be opened,
    `MissingPackage` when `.zst` cannot be unpacked here.
    """
    try:
        handle = path.open("rb", buffering=0)  # a pipe's content is taken as it comes
    except OSError as err:
        raise DataError("cannot be read", where=path, why=str(err.strerror)) from err
    with handle:
        raw = iter(lambda: handle.read(CHUNK // 8), b"")
        if path.suffix in (".gz", ".tgz"):
            yield from _gunzip(raw)
        elif path.suffix == ".zst":
            yield from _unzstd(raw, path)
        else:
            yield from raw


def _gunzip(raw: Iterator[bytes]) -> Iterator[bytes]:
    unpack, begun = zlib.decompressobj(31), False
    try:
        for piece in raw:
            while piece:
                if unpack.eof:  # another member follows, or padding with zeros
                    piece = piece.lstrip(b"\0")
                    if not piece:
                        break
                    unpack = zlib.decompressobj(31)
                begun = True
                out = unpack.decompress(piece, CHUNK)
                if out:
                    yield out
                piece = unpack.unconsumed_tail or unpack.unused_data
    except zlib.error as err:
        raise DamagedStream(f"is not gzip or is damaged ({err})") from err
    if begun and not unpack.eof:
        raise DamagedStream("the gzip stream ends early (a truncated file)")


def _unzstd(raw: Iterator[bytes], path: Path) -> Iterator[bytes]:
    try:
        import zstandard
    except ImportError as err:
        raise MissingPackage(
            "zstandard is needed to read .zst", where=path, do="install the extra 'data', or unpack the file"
        ) from err
    unpack, begun = zstandard.ZstdDecompressor().decompressobj(), False
    # Small pieces: one call unpacks all it is given, and a hostile KiB can hold tens of MiB.
    small = (piece[i : i + 1024] for piece in raw for i in range(0, len(piece), 1024))
    try:
        for piece in small:
            while piece:
                if unpack.eof:
                    unpack = zstandard.ZstdDecompressor().decompressobj()
                begun = True
                if out := unpack.decompress(piece):
                    yield out
                piece = unpack.unused_data if unpack.eof else b""
    except zstandard.ZstdError as err:
        raise DamagedStream(f"is not zstd or is damaged ({err})") from err
    if begun and not unpack.eof:
        raise DamagedStream("the zstd stream ends early (a truncated file)")
