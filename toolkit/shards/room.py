"""Whether the disk has room for the shards that are about to be written.

Decides by the inputs' sizes first, by what the first of them became then; a disk that fills up all the same is
`format`'s to notice.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from toolkit.errors import DiskFull
from toolkit.shards.format import numpy_dtype

# The least that is to be expected, so that nobody is refused wrongly: a row of JSON with what stands beside its text
# has 6 bytes or more a token, and zstd, gzip and Parquet hold text in at least a third of its size.
_BYTES_A_TOKEN = 6
_PACKED = 3
_ENOUGH = 64 << 20  # of input, to know what the rest will take


def check(folder: Path, inputs: Sequence[Path], dtype: str) -> None:
    """Raise `DiskFull` when not even the least that the inputs make has room in `folder`."""
    _refuse_unless(folder, int(sum(map(_text, inputs)) / _BYTES_A_TOKEN * numpy_dtype(dtype).itemsize))


class Room:
    """The same, and again before each of the inputs, by what those before it became."""

    def __init__(self, folder: Path, inputs: Sequence[Path], dtype: str) -> None:
        self._folder, self._sizes = folder, [path.stat().st_size for path in inputs]
        self._read = self._made = 0
        check(folder, inputs, dtype)

    def before(self, number: int) -> None:
        if self._read >= _ENOUGH:
            _refuse_unless(self._folder, int(sum(self._sizes[number:]) * self._made / self._read))

    def after(self, number: int, made: int) -> None:
        self._read += self._sizes[number]
        self._made += made


def _text(path: Path) -> int:
    return path.stat().st_size * (1 if path.name.endswith(".jsonl") else _PACKED)


def _refuse_unless(folder: Path, needed: int) -> None:
    there = next(place for place in (folder, *folder.absolute().parents) if place.is_dir())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise DiskFull(
            f"the shards take {needed / 1e9:,.1f} GB or more, and {free / 1e9:,.1f} GB are free",
            where=folder,
            do="free space or choose another folder; a build that is run again goes on where it stopped",
        )
