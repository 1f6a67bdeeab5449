"""Files that appear whole or not at all, and their hashes. Knows nothing of what is in them."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from toolkit.errors import DiskFull

_CHUNK = 1 << 20


def _part_name(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.part")


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full disk, quota or file-size limit into `DiskFull`; every other error passes."""
    try:
        yield
    except OSError as err:
        if err.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DiskFull(
                "the file is larger than a limit allows" if err.errno == errno.EFBIG else "no space left while writing",
                where=path,
                why="what was written so far has been removed",
                do="free space or choose another folder, then run the same command again",
            ) from err
        raise


@contextlib.contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a part file beside `path`; it takes the name only when the block ends well (and is on disk).

    Raises `DiskFull`; on any error, Ctrl-C included, what was at `path` before is still there.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _part_name(path)
    try:
        with disk_errors(path):
            with open(part, mode, encoding=None if "b" in mode else "utf-8") as handle:
                yield handle
                handle.flush()
                os.fsync(handle.fileno())
            os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Fill a part folder beside `path`; it replaces `path` only when the block ends well. Raises `DiskFull`; on any
    error, Ctrl-C included, what was at `path` before is still there.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _part_name(path)
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        with disk_errors(path):
            yield part
            replace_folder(part, path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def replace_folder(part: Path, path: Path) -> None:
    """`part`, beside `path`, takes its name; what was there before is still there when it could not, even by Ctrl-C."""
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    try:
        if path.exists():
            os.replace(path, old)
        os.replace(part, path)
    except BaseException:
        if old.exists() and not path.exists():  # stopped between the two
            os.replace(old, path)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def remove_parts(folder: str | Path) -> None:
    """Remove what writers that were killed left in `folder`. Only for one that no other process writes to."""
    for path in Path(folder).glob(".*.*"):
        if path.suffix not in (".part", ".old"):
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def write_text(path: str | Path, text: str) -> None:
    with atomic_write(path) as handle:
        handle.write(text)


def write_json(path: str | Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, sort_keys=False, ensure_ascii=False, default=str) + "\n")


def read_json(path: str | Path) -> Any:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def sha256_file(path: str | Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while chunk := handle.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def fingerprint(path: str | Path) -> str:
    """SHA-256 of a file, or of the sorted (relative name, SHA-256) list of a folder's files."""
    path = Path(path)
    if path.is_file():
        return sha256_file(path)
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()}\0{sha256_file(file)}\n".encode())
    return digest.hexdigest()


def stat_fingerprint(path: str | Path) -> str:
    """SHA-256 of names, sizes and times of a file or folder: cheap, for inputs too large to read twice; `absent` if
    missing.
    """
    path = Path(path)
    if not path.exists():
        return "absent"
    digest = hashlib.sha256()
    if not path.is_dir():
        stat = path.stat()
        digest.update(f".\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
        return digest.hexdigest()
    for entry in walk(path):
        stat, name = entry.stat(), entry.path[len(str(path)) :].lstrip("/")
        digest.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def walk(folder: str | Path, *, hidden: bool = True) -> Iterator[os.DirEntry[str]]:
    """The files below a folder, sorted by their names part by part; links are followed, unless they lead back.

    What is held is one folder's names at a time: a corpus has millions of files. Raises `OSError`.
    """
    yield from _walk(str(folder), hidden, ())


def _walk(folder: str, hidden: bool, above: tuple[tuple[int, int], ...]) -> Iterator[os.DirEntry[str]]:
    stat = os.stat(folder)
    here = (stat.st_dev, stat.st_ino)
    if here in above:
        return
    with os.scandir(folder) as entries:
        ordered = sorted((e for e in entries if hidden or not e.name.startswith(".")), key=lambda entry: entry.name)
    for entry in ordered:
        if entry.is_dir():
            yield from _walk(entry.path, hidden, (*above, here))
        elif entry.is_file():
            yield entry
