"""Whether a checkpoint that was just written is whole, and what is to be said when it could not be written.

Looks at names and sizes, as its own metadata states them; reads no tensor. For checkpoints of this training alone: the
metadata is a pickle, which nobody else's should be read as.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from toolkit.errors import CheckpointError, DiskFull, ToolkitError

WEIGHTS = "weights"
UNFINISHED = "-unfinished"  # NeMo's marker beside a checkpoint that is being written, or removed
_NEEDED = ("metadata.json", "common.pt", ".metadata")
_WRITER = "inline_container"  # torch's, in C++
_ALMOST_NONE = 64 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_WORDS = tuple(os.strerror(code) for code in _FULL)


def steps_in(path: Path) -> int:
    """Steps trained in a checkpoint by its name, `step=9` or `step=9.ckpt`, which NeMo numbers from 0; 0 for another
    name.
    """
    number = Path(path).name.removeprefix("step=").partition("-")[0].partition(".")[0]
    return int(number) + 1 if number.isdigit() and Path(path).name.startswith("step=") else 0


def problem(path: Path) -> ToolkitError | None:
    """Why the checkpoint in folder `path` cannot be gone on from, None when it can: all its files are there, and as
    long as its tensors need.
    """
    reason = _reason(path / WEIGHTS)
    if reason is None:
        return None
    return CheckpointError(
        "the checkpoint that was just written is not whole",
        where=path,
        why=reason,
        do="it is not counted; look at the file system, then go on from the one before",
    )


def _reason(folder: Path) -> str | None:
    from torch.distributed.checkpoint import FileSystemReader

    for name in _NEEDED:
        if not (folder / name).is_file() or not (folder / name).stat().st_size:
            return f"{name} is missing or empty"
    try:
        stored = FileSystemReader(folder).read_metadata().storage_data
    except Exception as err:  # a damaged pickle raises anything
        return f".metadata cannot be read ({type(err).__name__}: {err})"
    if not stored:
        return ".metadata names no tensor"
    needed: dict[str, int] = {}
    for place in stored.values():
        needed[place.relative_path] = max(needed.get(place.relative_path, 0), place.offset + place.length)
    for name, size in sorted(needed.items()):
        try:
            found = (folder / name).stat().st_size
        except OSError as err:
            return f"{name}: {err.strerror}"
        if found < size:
            return f"{name} has {found:,} bytes of at least {size:,}"
    return None


def could_not_save(err: BaseException, folder: Path, *, clean: bool) -> ToolkitError | None:
    """What to tell the user when saving below `folder` ended with `err`; None when it is no fault of the disk's.

    Megatron's writers are processes of their own: of what befell them rank 0 has a list, the others only hear that. And
    where Python would say that the disk is full, torch's own writer says that it stands elsewhere than it thought.
    `clean` removes the half of a checkpoint, which takes the room that is wanting.
    """
    told = [err, *_causes(err)]
    failed_write = _is_save(err) or any(_WRITER in str(one) for one in told)
    free = shutil.disk_usage(folder).free
    if any(_is_full(one) for one in told) or (failed_write and free < _ALMOST_NONE):
        if clean:
            remove_unfinished(folder)
        return DiskFull(
            "no room for a checkpoint",
            where=folder,
            why=f"{free / 2**20:,.0f} MiB were left; what was written of it is removed, and those before are whole",
            do="make room, or give a smaller train.keep, then run the same command again: it goes on from the newest",
        )
    if not failed_write:
        return None
    reason = next((str(one) for one in told if not _is_save(one)), "another rank says why")
    do = "look at the file system and its quotas, then run the same command again: it goes on from the newest"
    return CheckpointError("a checkpoint could not be written", where=folder, why=reason[-500:], do=do)


def knows_why(err: BaseException) -> bool:
    """Whether this rank has the reason for `err`: for a failed save rank 0 alone has it."""
    return not _is_save(err) or bool(getattr(err, "failures", None))


def remove_unfinished(checkpoints: Path) -> None:
    """The halves of checkpoints that could not be written: they take the room that is wanting."""
    for marker in checkpoints.glob(f"*{UNFINISHED}"):
        half = marker.with_name(marker.name.removesuffix(UNFINISHED))
        shutil.rmtree(half, ignore_errors=True)
        if not half.exists():
            marker.unlink(missing_ok=True)
    for folder in checkpoints.glob("step=*"):  # given up before it could be marked
        if folder.is_dir() and not (folder / WEIGHTS / ".metadata").is_file():
            shutil.rmtree(folder, ignore_errors=True)


def _is_save(err: BaseException) -> bool:
    """Torch's CheckpointException, which is no Exception; its first argument says in which part of the work it was."""
    return type(err).__name__ == "CheckpointException" and err.args[:1] == ("write",)


def _causes(err: BaseException) -> Iterator[BaseException]:
    for one, _ in getattr(err, "failures", {}).values():
        yield one
        yield from _causes(one)
    for one in (err.__cause__, err.__context__):
        if one is not None:
            yield one
            yield from _causes(one)


def _is_full(err: BaseException) -> bool:
    if isinstance(err, DiskFull) or (isinstance(err, OSError) and err.errno in _FULL):
        return True
    return any(word in str(err) for word in _FULL_WORDS)
