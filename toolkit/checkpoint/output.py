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
from toolkit.hf_folder import read_json_object

IMPORT_RECORD, EXPORT_RECORD, RANDOM_RECORD = "import.json", "conversion.json", "random.json"
RECORDS = (IMPORT_RECORD, EXPORT_RECORD, RANDOM_RECORD)


def check_place(out: Path, *, sources: tuple[Path, ...], record: str) -> Path:
    """The output's own path. An earlier output of the same kind, whose `record` knows every file there, may be
    replaced. Raises `CheckpointError` for anything else that is in its place, and when it holds a source.
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
    if target.is_dir() and any(target.iterdir()):
        why = "it was not written by this conversion"
        if (target / record).is_file():
            known = read_json_object(target / record).get("files")
            foreign = sorted(set(_names(target)) - set(known if isinstance(known, dict) else ()))
            why = f"no conversion has written {foreign[0]}" if foreign else ""
        if why:
            raise CheckpointError(
                "the output folder is not empty", where=out, why=why, do="choose another folder, or remove it"
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
    target = check_place(out, sources=sources, record=RANDOM_RECORD)
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
    known, out = known or {}, {}
    for name in _names(folder):
        path = folder / name
        out[name] = dict(known.get(name) or {"bytes": path.stat().st_size, "sha256": files.sha256_file(path)})
    return out


def _names(folder: Path) -> Iterator[str]:
    """Every file in a folder, relative to it, but for records and what the system or a writer hides there."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in RECORDS and (not path.name.startswith(".") or path.name == METADATA):
            yield path.relative_to(folder).as_posix()


def identity(**facts: Any) -> str:
    """One word for all that an output is made from: SHA-256 of `facts` as JSON."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()
