"""Large files written by several threads, part by part, hashed while they grow, and kept when a later one is cut off.

Decides the order of work and what a second call may keep; leaves what the bytes are to those who describe the parts.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import json
import mmap
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit import files
from toolkit.checkpoint.pieces import BLOCK, Files, write
from toolkit.errors import RunBusy
from toolkit.files import disk_errors
from toolkit.progress import Progress

UNFINISHED = ".unfinished"  # suffix of the folder in which an output grows
_JOURNAL, _LOCK = ".finished.jsonl", ".lock"
_MOST_WORKERS = 8
_LOOK_S = 0.2
_FLUSH = 64 << 20  # bytes
_WINDOW = 8 << 20  # bytes
_LIBC, _SYNC_FILE_RANGE_WRITE = ctypes.CDLL(None), 2  # sync_file_range(2)

# Writes one part: (open file, a buffer of its own, who hears of bytes written).
Write = Callable[[int, bytearray, Callable[[int], None]], None]


@dataclass(frozen=True, kw_only=True)
class Part:
    """`nbytes` bytes of a file from `begin` on."""

    begin: int
    nbytes: int
    write: Write
    ahead: Callable[[], None] = lambda: None  # called before its turn: has the system read what it will need


@dataclass(frozen=True, kw_only=True)
class NewFile:
    """A file to be written: its parts in order, without gaps."""

    name: str  # relative to the output
    nbytes: int
    parts: Callable[[], Sequence[Part]]  # asked for when its turn comes: not all of a model's are kept


def literal(begin: int, data: bytes) -> Part:
    return Part(begin=begin, nbytes=len(data), write=lambda fd, _, done: _literal(fd, data, begin, done))


def _literal(fd: int, data: bytes, begin: int, done: Callable[[int], None]) -> None:
    write(fd, data, begin)
    done(len(data))


class Growing:
    """The folder in which an output grows, beside its place. What is finished there is known by name, size and SHA-256,
    for as long as it is made from the same `identity`.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        self.folder, self._identity = folder, identity
        self.finished: dict[str, dict[str, Any]] = {}

    def begin(self) -> None:
        """Take over what an earlier call has finished: each file read again and found as it was."""
        rows = _rows(self.folder / _JOURNAL)
        known = {}
        if rows and rows[0].get("identity") == self._identity:
            known = {str(row.get("name")): row for row in rows[1:]}
        for name, row in known.items():
            file = self.folder / name
            if file.is_file() and file.stat().st_size == row.get("bytes") and files.sha256_file(file) == row["sha256"]:
                self.finished[name] = {"bytes": row["bytes"], "sha256": row["sha256"]}
        for path in sorted(self.folder.rglob("*"), reverse=True):
            if path.name == _LOCK or path.relative_to(self.folder).as_posix() in self.finished:
                continue
            if path.is_dir():
                with contextlib.suppress(OSError):  # holds something that stays
                    path.rmdir()
            else:
                path.unlink()
        rows = [{"identity": self._identity}, *({"name": n, **row} for n, row in self.finished.items())]
        files.write_text(self.folder / _JOURNAL, "".join(json.dumps(row) + "\n" for row in rows))

    def finish(self, name: str, nbytes: int, sha256: str) -> None:
        self.finished[name] = {"bytes": nbytes, "sha256": sha256}
        with disk_errors(self.folder), open(self.folder / _JOURNAL, "a", encoding="utf-8") as journal:
            journal.write(json.dumps({"name": name, "bytes": nbytes, "sha256": sha256}) + "\n")
            journal.flush()
            os.fsync(journal.fileno())


@contextlib.contextmanager
def growing(target: Path, identity: str) -> Iterator[Growing]:
    """A folder that becomes `target` when the block ends well. When it is cut off, by Ctrl-C or by force, what it has
    finished is kept for the next call of the same `identity`; an error leaves nothing. Raises `RunBusy`, `DiskFull`.
    """
    folder = target.with_name(f".{target.name}{UNFINISHED}")
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not (folder / _LOCK).exists() or not os.path.samestat(os.stat(folder / _LOCK), os.fstat(lock)):
                raise BlockingIOError  # its owner has just finished, and taken the folder along
        except OSError:
            raise RunBusy("another process is writing this output", where=target, do="wait for it to end") from None
        try:
            with disk_errors(target):
                made = Growing(folder, identity)
                made.begin()
                yield made
                (folder / _JOURNAL).unlink()
                (folder / _LOCK).unlink()
                files.replace_folder(folder, target)
        except Exception:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    finally:
        os.close(lock)


def _rows(journal: Path) -> list[dict[str, Any]]:
    """The journal's lines up to the first that is damaged."""
    found: list[dict[str, Any]] = []
    with contextlib.suppress(OSError, ValueError):
        for line in journal.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if not isinstance(row, dict):
                break
            found.append(row)
    return found


def write_files(
    new: Sequence[NewFile], into: Growing, sources: Files, *, bar: Progress | None, workers: int | None = None
) -> Mapping[str, Mapping[str, Any]]:
    """Write those of `new` that are not finished yet. Returns name -> {"bytes", "sha256"} of all of them.

    `workers` threads write and one more reads what is written, for its hash; by default as many as there are cores.
    """
    count = Counter(bar)
    count.add(sum(into.finished[each.name]["bytes"] for each in new if each.name in into.finished))
    local = threading.local()

    def one(part: Part, fd: int) -> None:
        if not hasattr(local, "buffer"):
            local.buffer = bytearray(BLOCK)
        part.write(fd, local.buffer, count.add)

    workers = workers or max(1, min(_MOST_WORKERS, len(os.sched_getaffinity(0)) - 1))
    pool = ThreadPoolExecutor(workers, thread_name_prefix="write")
    hashing: list[tuple[NewFile, _Hasher]] = []
    try:
        for each in new:
            if each.name not in into.finished:
                hashing.append((each, _file(each, into.folder / each.name, one, pool, workers, sources, count)))
            while len(hashing) > 1:  # while the next is written, the one before is read to its end
                _close(*hashing.pop(0), into, count)
        while hashing:
            _close(*hashing.pop(0), into, count)
    except BaseException:
        sources.stop.set()
        for _, hasher in hashing:
            hasher.give_up()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return {each.name: into.finished[each.name] for each in new}


def _file(
    new: NewFile,
    path: Path,
    one: Callable[[Part, int], None],
    pool: ThreadPoolExecutor,
    workers: int,
    sources: Files,
    count: Counter,
) -> _Hasher:
    """Write a file; what reads it for its hash is on its way then."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with disk_errors(path):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    hasher, waiting = _Hasher(path, fd, new.nbytes), dict[Future[None], int]()
    try:
        with disk_errors(path):
            os.ftruncate(fd, new.nbytes)
        parts = list(new.parts())
        hasher.start()
        left, undone = iter(range(len(parts))), set(range(len(parts)))
        while undone:
            while len(waiting) < 2 * workers and (n := next(left, None)) is not None:
                waiting[pool.submit(one, parts[n], fd)] = n
                parts[n].ahead()
            over, _ = wait(waiting, timeout=_LOOK_S, return_when=FIRST_COMPLETED)
            count.show(new.name)
            for future in over:
                future.result()
                undone.remove(waiting.pop(future))
            if over:
                hasher.up_to(parts[min(undone)].begin if undone else new.nbytes)
    except BaseException:
        sources.stop.set()
        wait(waiting)  # they still write to the file that is closed next
        hasher.give_up()
        raise
    return hasher


def _close(new: NewFile, hasher: _Hasher, into: Growing, count: Counter) -> None:
    while hasher.is_alive():
        hasher.join(_LOOK_S)
        count.show(new.name)
    with disk_errors(into.folder / new.name):
        into.finish(new.name, new.nbytes, hasher.hexdigest())


class Counter:
    """Bytes that threads have written, for a bar that is drawn by one."""

    def __init__(self, bar: Progress | None) -> None:
        self._bar, self._done, self._lock = bar, 0, threading.Lock()

    def add(self, nbytes: int) -> None:
        with self._lock:
            self._done += nbytes

    def show(self, note: str) -> None:
        if self._bar is not None:
            self._bar.at(self._done, note)


def _begin_flush(fd: int, begin: int, nbytes: int) -> None:
    """Have the system write these bytes to the disk meanwhile, so that little is left to wait for at the end."""
    with contextlib.suppress(AttributeError):  # Linux alone has it; elsewhere the end takes longer
        _LIBC.sync_file_range(fd, ctypes.c_int64(begin), ctypes.c_int64(nbytes), _SYNC_FILE_RANGE_WRITE)


class _Hasher(threading.Thread):
    """Reads a file as far as it is written, and puts it on the disk when it is whole."""

    def __init__(self, path: Path, fd: int, nbytes: int) -> None:
        super().__init__(name=f"hash {path.name}", daemon=True)
        self._path, self._fd, self._nbytes = path, fd, nbytes
        self._ready, self._given_up, self._more = 0, False, threading.Condition()
        self._digest, self._error = hashlib.sha256(), None
        self._started_at_all = False

    def start(self) -> None:
        self._started_at_all = True
        super().start()

    def up_to(self, ready: int) -> None:
        with self._more:
            self._ready = ready
            self._more.notify()

    def give_up(self) -> None:
        with self._more:
            self._given_up = True
            self._more.notify()
        if not self._started_at_all:
            os.close(self._fd)
            return
        with contextlib.suppress(RuntimeError):  # Ctrl-C has met its start: it ends by itself, and closes the file
            self.join()

    def hexdigest(self) -> str:
        """Once it has ended. Raises what reading or flushing the file has raised."""
        if self._error is not None:
            raise self._error
        return self._digest.hexdigest()

    def run(self) -> None:
        at, flushed = 0, 0
        try:
            while at < self._nbytes:
                with self._more:
                    while self._ready <= at and not self._given_up:
                        self._more.wait()
                    if self._given_up:
                        return
                    ready = self._ready
                while at < ready and not self._given_up:
                    begin = at - at % mmap.ALLOCATIONGRANULARITY
                    end = min(begin + _WINDOW, ready)
                    # Mapped, not read: one copy of every byte less, and the two threads share two cores.
                    with (
                        mmap.mmap(self._fd, end - begin, prot=mmap.PROT_READ, offset=begin) as window,
                        memoryview(window) as view,
                    ):
                        self._digest.update(view[at - begin :])
                    at = end
                    if at - flushed >= _FLUSH or at == self._nbytes:
                        _begin_flush(self._fd, flushed, at - flushed)
                        flushed = at
            os.fsync(self._fd)
        except (OSError, ValueError) as err:  # ValueError: the file has become shorter
            self._error = err
        finally:
            os.close(self._fd)
