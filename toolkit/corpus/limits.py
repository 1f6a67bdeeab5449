"""When a build does not begin, or ends without a corpus: too little room, too many bad rows, nothing left.

Decides those bounds and what is said; leaves the work to `builder`.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from toolkit import files
from toolkit.corpus import sift, units, zlines
from toolkit.corpus.sources import Settings, Source
from toolkit.corpus.tally import Tally
from toolkit.errors import DataError, DiskFull

# What a byte of input takes at most beside it while a corpus is built: finished units and the corpus, both packed.
_ROOM, _ROOM_PACKED = 0.7, 2.0


def room(
    own: Path,
    sources: Sequence[Source],
    listing: units.Listing,
    mine: Sequence[units.Unit],
    places: Sequence[Path],
) -> None:
    """Refuse to begin when what is still to be made will not fit."""
    left = [unit for unit in mine if not any((place / unit.key / sift.MARKER).exists() for place in places)]
    packed = listing.packed / listing.bytes if listing.bytes else 0.0
    need = sum(unit.bytes * _drawn(sources[unit.source]) for unit in left) * (
        packed * _ROOM_PACKED + (1 - packed) * _ROOM
    )
    free = shutil.disk_usage(own).free
    if need > free:
        raise DiskFull(
            f"building this corpus may take {need / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free",
            where=own,
            do="free space or choose another folder",
        )


def _drawn(source: Source) -> float:
    """The share of the source that is taken; of an exact number of documents it is not known, and mostly small."""
    share = source.options.get("fraction", 1.0)
    return 0.0 if source.options.get("documents") else float(share) if isinstance(share, int | float) else 1.0


def judge(source: Source, folders: Sequence[Path], settings: Settings) -> None:
    """Raise `DataError` for a source without rows, or with too many that cannot be read."""
    rows = bad = 0
    for folder in folders:
        tally = Tally.from_dict(files.read_json(folder / sift.TALLY))
        rows += tally.total("inn")
        bad += tally.counted("removed")["bad_row"]
    where = ", ".join(source.paths) or source.name
    if rows == 0:
        raise DataError("holds no rows", where=where, why="every line is blank")
    if bad <= settings.max_bad_fraction * rows:
        return
    first = next(row for folder in folders for row in map(zlines.loads, zlines.lines(folder / sift.SET_ASIDE)))
    raise DataError(
        f"{bad} of {rows} rows cannot be read, more than the {settings.max_bad_fraction:.1%} allowed",
        where=where,
        why=f"the first is {first['file']}{':' + str(first['line']) if first['line'] else ''}: {first['why']}",
        do="mend or remove them, or raise max_bad_fraction",
    )


def nothing_left(sources: Sequence[Source], tally: Tally) -> None:
    removed: Counter[str] = tally.counted("removed")
    raise DataError(
        "no documents are left",
        where=", ".join(path for source in sources for path in source.paths or (source.name,)),
        why=f"all {tally.total('inn')} were removed ({', '.join(f'{rule} {n}' for rule, n in removed.most_common())})",
        do="allow further licences, if your use permits it" if removed["licence"] else "",
    )
