"""Where a build works: one at a time for each image, with room for it, and rid of what killed ones have left.

Decides when a build may begin and what of an earlier one goes; leaves the build itself to `build`.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from toolkit.errors import DiskFull, ImageError
from toolkit.images.definition import Definition


@contextlib.contextmanager
def alone(target: Path) -> Iterator[int]:
    """Hold the lock of a target; Apptainer is given it too, so that it is held as long as anything builds there."""
    path = target.with_name(f".{target.name}.lock")
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as err:
        raise ImageError(
            "the folder for images is not usable", where=target.parent, why=os.strerror(err.errno or 0)
        ) from err
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ImageError(
                f"another build of {target.name} is at work", where=target.parent, do="wait for it, or end it first"
            ) from None
        yield lock
    finally:
        os.close(lock)


def room(definition: Definition, tmp: Path, target: Path) -> None:
    """Refuse before an hour's work what cannot end well."""
    wanted: dict[int, tuple[Path, float]] = {}
    for path, gib in ((tmp, definition.room[0]), (target.parent, definition.room[1])):
        try:
            disk = path.stat().st_dev
        except OSError as err:
            raise ImageError("the temporary folder is not usable", where=path, why=os.strerror(err.errno or 0),
                             do="name another with --tmp or APPTAINER_TMPDIR") from err  # fmt: skip
        wanted[disk] = (path, wanted.get(disk, (path, 0.0))[1] + gib)
    for path, gib in wanted.values():
        free = shutil.disk_usage(path).free / 2**30
        if free < gib:
            raise DiskFull(
                f"building {definition.name} takes {gib:.1f} GiB, {free:.1f} GiB are free", where=path,
                do="free space there, or name another folder: --tmp for what is unpacked, -o for the image",
            )  # fmt: skip


def leftovers(target: Path) -> None:
    """Remove what builds that were killed left; the lock is ours, so nobody works on it."""
    for path in target.parent.glob(f".{target.name}.*"):
        if path.name.endswith((".part", ".old")):
            remove(path)


def prefix(definition: Definition) -> str:
    return f"meditron-image-{os.uname().nodename}-{definition.name}-"


def abandoned(place: Path, prefix: str) -> None:
    """Remove what builds on this machine that were killed left in the temporary folder."""
    for path in place.glob(f"{glob.escape(prefix)}*"):
        pid = path.name[len(prefix) :].partition("-")[0]
        if pid.isdigit() and not Path("/proc", pid).exists() and path.lstat().st_uid == os.geteuid():
            remove(path)


def remove(path: Path) -> None:
    """A file or a tree; files that --fakeroot gave to other ids are removed as their owner's root."""
    with contextlib.suppress(FileNotFoundError):
        if not path.is_dir() or path.is_symlink():
            path.unlink()
            return
    shutil.rmtree(path, ignore_errors=True)
    if path.is_dir() and shutil.which("unshare"):
        with contextlib.suppress(OSError):
            subprocess.run(
                ["unshare", "--map-root-user", "--map-auto", "rm", "-rf", "--", str(path)],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
