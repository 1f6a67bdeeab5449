"""Which files of the input are read together: the units in which a corpus is built, finished and shared out.

Decides the borders and the names of units, by the files alone, never by how many work on them; leaves reading to
`sift`. A list of millions of files lies on disk, not in memory.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from toolkit import files
from toolkit.corpus import readers
from toolkit.corpus.readers import File
from toolkit.corpus.sources import Source

MIB = 1 << 20
_LEAST, _MOST = 4 * MIB, 64 * MIB
_UNITS = 64  # at least that many where the input is large enough, for processes to share out evenly
_BORDER = 8  # one of so many names may end a unit


@dataclass(frozen=True, kw_only=True)
class Unit:
    """Files of one source that follow each other. `number` counts over all units, `within` in its source, from 0.

    `key` names the unit by what it reads, not by its place, so that it is known again when others come before it.
    """

    number: int
    within: int
    source: int
    key: str
    bytes: int
    files: int
    offset: int  # of its line in the list


@dataclass(frozen=True, kw_only=True)
class Listing:
    """All units of a build in order, and the file that lists what they read."""

    path: Path
    units: tuple[Unit, ...]
    bytes: int
    packed: int  # bytes of files that grow when they are read

    def files(self, unit: Unit) -> list[File]:
        with open(self.path, "rb") as lines:
            lines.seek(unit.offset)
            return [File(Path(path), *rest) for path, *rest in json.loads(lines.readline())]


def make(sources: Sequence[Source], path: Path) -> Listing:
    """List the files of all sources at `path` and draw the borders of units.

    A unit holds files of one source up to a size, a power of two between 4 and 64 MiB that gives at least 64 units
    where the input is large enough; a larger file is a unit alone. From half that size on a unit may end after one
    name in eight, by a hash of it, so that a file that comes, goes or grows moves the borders near it and no others.
    Raises `DataError` for a source without files.
    """
    total = packed = 0
    with files.atomic_write(path.with_name(path.name + ".names"), "wb") as names:
        for source in sources:
            for root, given in enumerate(source.paths):
                for file in readers.files_of(source.kind, given):
                    total += file.size
                    packed += file.size if file.name.lower().endswith((".gz", ".tgz", ".zst", ".parquet")) else 0
                    _put(names, (str(file.path), f"{root}:{file.name}" if root else file.name, *file[2:]))
            _put(names, None)
    limit = _LEAST
    while limit < _MOST and limit * _UNITS < total:
        limit *= 2
    units: list[Unit] = []
    with open(path.with_name(path.name + ".names"), "rb") as names, files.atomic_write(path, "wb") as out:
        for number, source in enumerate(sources):
            for within, group in enumerate(_groups(_until_none(names), limit)):
                offset = out.tell()
                _put(out, [(str(file.path), *file[1:]) for file in group])
                unit = Unit(
                    number=len(units),
                    within=within,
                    source=number,
                    key=_key(source, group),
                    bytes=sum(file.size for file in group),
                    files=len(group),
                    offset=offset,
                )
                units.append(unit)
    path.with_name(path.name + ".names").unlink()
    return Listing(path=path, units=tuple(units), bytes=total, packed=packed)


def _put(out: IO[bytes], value: object) -> None:
    out.write(json.dumps(value).encode() + b"\n")


def _until_none(lines: IO[bytes]) -> Iterator[File]:
    for line in lines:
        entry = json.loads(line)
        if entry is None:
            return
        yield File(Path(entry[0]), *entry[1:])


def _groups(found: Iterable[File], limit: int) -> Iterator[list[File]]:
    group: list[File] = []
    size, empty = 0, True
    for file in found:
        empty = False
        if group and size + file.size > limit:
            yield group
            group, size = [], 0
        group.append(file)
        size += file.size
        if size >= limit or (
            2 * size >= limit and zlib.crc32(file.name.encode(errors="surrogateescape")) % _BORDER == 0
        ):
            yield group
            group, size = [], 0
    if group or empty:  # a source without files, such as the invented one, is a unit too
        yield group


def _key(source: Source, group: Sequence[File]) -> str:
    digest = hashlib.sha256(f"{source.kind}\0{source.name}".encode())
    for file in group:
        digest.update(f"\0{file.name}".encode(errors="surrogateescape"))
    return f"{source.name[:40]}-{digest.hexdigest()[:16]}"
