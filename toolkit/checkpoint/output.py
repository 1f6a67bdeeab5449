"""What import and export share around their tensors: a safe output folder, room on the disk, progress, hashes of files.

Decides when an existing folder may be replaced; leaves the contents to the callers.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from toolkit import files
from toolkit import progress as progress_bar
from toolkit.errors import CheckpointError, DiskFull

IMPORT_RECORD, EXPORT_RECORD, RANDOM_RECORD = "import.json", "conversion.json", "random.json"
RECORDS = (IMPORT_RECORD, EXPORT_RECORD, RANDOM_RECORD)


@contextlib.contextmanager
def new_folder(out: Path, *, sources: tuple[Path, ...], nbytes: int) -> Iterator[Path]:
    """A part folder that becomes `out` when the block ends well. `nbytes` is what will be written, about.

    Raises `CheckpointError` when `out` is something that this package has not written or holds a source,
    and `DiskFull` before anything is written when there is no room.
    """
    out = Path(out)
    target = out.resolve()
    for source in sources:
        if target == source.resolve() or target in source.resolve().parents:
            raise CheckpointError(
                f"the output would replace its source {source}", where=out, do="choose another folder"
            )
    if target.exists() and not target.is_dir():
        raise CheckpointError("the output is a file", where=out, do="choose another folder")
    if target.is_dir() and any(target.iterdir()) and not any((target / name).is_file() for name in RECORDS):
        raise CheckpointError(
            "the output folder is not empty",
            where=out,
            why="it was not written by a conversion",
            do="choose another folder, or remove it",
        )
    parent = target.parent
    parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(parent).free
    if free < nbytes:
        raise DiskFull(
            f"no space: {nbytes / 2**20:,.1f} MiB are needed, {free / 2**20:,.1f} MiB are free",
            where=out,
            why="nothing was written",
            do="free space or choose another folder",
        )
    with files.atomic_folder(target) as part:
        yield part


@contextlib.contextmanager
def byte_progress(label: str, total: int, shown: bool) -> Iterator[progress_bar.Progress | None]:
    if not shown:
        yield None
        return
    with progress_bar.progress(label, total=total, unit="bytes") as bar:
        yield bar


def hashes(folder: Path) -> dict[str, dict[str, object]]:
    """Relative name -> bytes and SHA-256 of every file, records left out (they hold this)."""
    found = sorted(p for p in folder.rglob("*") if p.is_file() and p.name not in RECORDS)
    return {
        p.relative_to(folder).as_posix(): {"bytes": p.stat().st_size, "sha256": files.sha256_file(p)} for p in found
    }
