"""A copy of an image on the node's own disk, made once per node and shared by whatever runs there.

Decides the copy's name, that it is whole and the right one, and which older ones go; leaves which folder and when to
the site's profile.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import stat as modes
from collections.abc import Iterator
from pathlib import Path

from toolkit import files
from toolkit.errors import ImageError
from toolkit.images.sidecar import identity
from toolkit.progress import progress

_CHUNK = 8 << 20
_SPARE = 1.02  # of the image's size: what a file system needs besides the data
_OLDER_KEPT = 1  # a job that began with the image before this one may still be starting processes from it


def stage(path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> Path:
    """Copy the SIF `path` to `folder` as `NAME-<first 16 digits of its SHA-256>.sif`, unless it is there.

    Safe for any number of processes at once: one copies, the others wait for it. The copy keeps the image's time, so
    `check` passes it by looking. Of older images of the name the newest stays. Raises `ImageError` for what is no whole
    SIF, a folder that is not usable, too little room there, or an image that changes meanwhile; `DiskFull` when the
    room goes while copying; nothing half copied stays.
    """
    source, folder = Path(path).expanduser().absolute(), Path(folder).expanduser().absolute()
    known = identity(source)
    if known["kind"] != "sif":
        raise ImageError("a sandbox is not copied to nodes", where=source, do="build a SIF, or leave the copy out")
    target = folder / f"{source.stem}-{known['sha256'][:16]}.sif"
    if target == source:
        return source
    with _folder_errors(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(folder / f".{source.stem}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # let go by the kernel when this process ends, however it ends
        if not _is_copy(target, known["bytes"], known["mtime_ns"]):
            _leftovers(folder, source.stem)
            _room(folder, source.stem, known["bytes"], keep=target)
            with _folder_errors(folder):
                _copy(source, target, known)
        with contextlib.suppress(OSError):
            _prune(folder, source.stem, keep=target, older=_OLDER_KEPT)
    finally:
        os.close(lock)
    return target


def _is_copy(target: Path, size: int, mtime_ns: int) -> bool:
    """A whole copy that this user has made: the folder may be one that others can write to."""
    with contextlib.suppress(OSError):
        found = target.lstat()
        mine = modes.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()
        return mine and (found.st_size, found.st_mtime_ns) == (size, mtime_ns)
    return False


def _copy(source: Path, target: Path, known: dict[str, object]) -> None:
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    digest, size = hashlib.sha256(), int(str(known["bytes"]))
    try:
        with files.disk_errors(target):
            opened = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(source, "rb") as reader, open(opened, "wb") as writer:
                with progress(f"staging {source.name}", total=size >> 20, unit="MiB") as bar:
                    while chunk := reader.read(_CHUNK):
                        digest.update(chunk)
                        writer.write(chunk)
                        bar.advance(len(chunk) >> 20)
                writer.flush()
                os.fsync(writer.fileno())
            if digest.hexdigest() != known["sha256"]:
                raise ImageError(
                    "the image is not the one that its digest says", where=source,
                    why=f"SHA-256 {digest.hexdigest()[:16]}… instead of {str(known['sha256'])[:16]}…",
                    do="it was swapped or is being written: verify it (python -m toolkit.images verify), then again",
                )  # fmt: skip
            mtime_ns = int(str(known["mtime_ns"]))
            os.utime(part, ns=(mtime_ns, mtime_ns))
            os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def _room(folder: Path, stem: str, size: int, keep: Path) -> None:
    """Older images go before a new one is refused; a process that has one open keeps it."""
    for _ in range(2):
        free = shutil.disk_usage(folder).free
        if free >= size * _SPARE:
            return
        _prune(folder, stem, keep=keep, older=0)
    raise ImageError(
        f"no room for the image: {size / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free",
        where=folder,
        do="free space there, name another folder, or use the image where it lies",
    )


def _prune(folder: Path, stem: str, keep: Path, older: int) -> None:
    found = [path for path in folder.glob("*.sif") if _of(path, stem) and path != keep]
    for path in sorted(found, key=lambda path: path.lstat().st_ctime_ns, reverse=True)[older:]:
        with contextlib.suppress(OSError):
            path.unlink()


def _of(path: Path, stem: str) -> bool:
    """Whether it is a staged image of this name, and not something else that lies there."""
    digits = path.stem[len(stem) + 1 :]
    return path.stem.startswith(f"{stem}-") and len(digits) == 16 and not digits.strip("0123456789abcdef")


def _leftovers(folder: Path, stem: str) -> None:
    """Parts of copies that were killed; the lock is ours, so nobody writes them."""
    for path in folder.glob(".*.part"):
        if path.name.startswith(f".{stem}-"):
            with contextlib.suppress(OSError):
                path.unlink()


@contextlib.contextmanager
def _folder_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as err:
        raise ImageError(
            "the folder for images is not usable", where=folder, why=os.strerror(err.errno or 0),
            do="name another one",
        ) from err  # fmt: skip
