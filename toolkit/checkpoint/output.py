"""What import and export share around their tensors: where they may write, room on the disk, progress, hashes of files.

Decides when an existing folder may be replaced; leaves the contents to the callers.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from toolkit import files
from toolkit import progress as progress_bar
from toolkit.checkpoint.metadata import METADATA
from toolkit.errors import CheckpointError, DiskFull

IMPORT_RECORD, EXPORT_RECORD, RANDOM_RECORD = "import.json", "conversion.json", "random.json"
RECORDS = (IMPORT_RECORD, EXPORT_RECORD, RANDOM_RECORD)


def check_place(out: Path, *, sources: tuple[Path, ...]) -> Path:
    """The output's own path. Raises `CheckpointError` when it is something that this package has not written or holds
    a source.
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
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def check_room(out: Path, nbytes: int) -> None:
    """Raise `DiskFull` when `nbytes` do not fit beside `out`."""
    free = shutil.disk_usage(Path(out).resolve().parent).free
    if free < nbytes:
        raise DiskFull(
            f"no space: {nbytes / 2**20:,.1f} MiB are needed, {free / 2**20:,.1f} MiB are free",
            where=out,
            why="nothing was written",
            do="free space or choose another folder",
        )


@contextlib.contextmanager
def new_folder(out: Path, *, sources: tuple[Path, ...], nbytes: int) -> Iterator[Path]:
    """A part folder that becomes `out` when the block ends well; raises as `check_place` and `check_room` do."""
    target = check_place(out, sources=sources)
    check_room(out, nbytes)
    with files.atomic_folder(target) as part:
        yield part


@contextlib.contextmanager
def byte_progress(label: str, total: int, shown: bool) -> Iterator[progress_bar.Progress | None]:
    if not shown:
        yield None
        return
    with progress_bar.progress(label, total=total, unit="bytes") as bar:
        yield bar


def hashes(folder: Path, known: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, dict[str, Any]]:
    """Relative name -> bytes and SHA-256 of every file, records left out (they hold this). Those in `known` are not
    read again.
    """
    known = known or {}
    out = {}
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.name in RECORDS or (path.name.startswith(".") and path.name != METADATA):
            continue
        name = path.relative_to(folder).as_posix()
        out[name] = dict(known.get(name) or {"bytes": path.stat().st_size, "sha256": files.sha256_file(path)})
    return out


def identity(**facts: Any) -> str:
    """One word for all that an output is made from: SHA-256 of `facts` as JSON."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()
