"""A stage's log: where an attempt's part of it begins and ends, and its lines as they come. Decides which bytes are
read; when a stage is over is the caller's to say.

Every rank appends to one file over all attempts; jobs.json keeps the files' sizes at the start of each attempt.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.errors import RunError, UsageError
from toolkit.runs.text import harmless_lines

_CHUNK = 1 << 16
_POLL_S = 0.25


@dataclass(frozen=True, kw_only=True)
class Part:
    """Bytes `start` to `end` (None: to the end, wherever it is) of the log at `path`."""

    path: Path
    start: int
    end: int | None
    attempt: int | None


def log_name(rank: int) -> str:
    return "log" if rank == 0 else f"rank-{rank}.log"


def log_sizes(folder: Path) -> dict[str, int]:
    """Bytes in each rank's log now: where the next attempt's part begins."""
    return {path.name: path.stat().st_size for path in [*folder.glob("log"), *folder.glob("rank-*.log")]}


def part(folder: Path, logs: Sequence[Mapping[str, Any] | None], *, rank: int = 0, attempt: int | None = None) -> Part:
    """The part of attempt number `attempt` (from 1; default: the newest) in the log of `rank`.

    `logs` has one mapping of sizes (or None, when it was not recorded) for each attempt. Raises `UsageError` for an
    attempt or rank that there is not, `RunError` when the record does not say where the attempt begins.
    """
    path = folder / log_name(rank)
    if rank and not path.exists():
        known = sorted(int(name) for p in folder.glob("rank-*.log") if (name := p.stem[5:]).isdigit())
        ranks = f"ranks with a log: 0{''.join(f', {n}' for n in known[:20])}{', ...' if len(known) > 20 else ''}"
        raise UsageError(f"no log of rank {rank}", where=folder, do=ranks)
    if attempt is not None and not 1 <= attempt <= len(logs):
        have = f"its attempts: 1 to {len(logs)}" if logs else "it has none yet"
        raise UsageError(f"no attempt {attempt} of this stage", where=folder, do=have)
    starts = [0 if i == 0 and sizes is None else _start(sizes, path.name) for i, sizes in enumerate(logs)]
    number = attempt or len(logs)
    if not starts:
        return Part(path=path, start=0, end=None, attempt=None)
    start, end = starts[number - 1], starts[number] if number < len(starts) else None
    if start is None or (number < len(starts) and end is None):
        if attempt is None:
            return Part(path=path, start=0, end=None, attempt=None)
        raise RunError(
            f"where attempt {number} begins in the log was not recorded",
            where=path,
            do="leave --attempt out to read all attempts",
        )
    return Part(path=path, start=start, end=end, attempt=number)


def read(wanted: Part, *, last: int | None = None) -> Iterator[str]:
    """The part's lines, without their ends; only the `last` ones if given. Raises `RunError`."""
    try:
        with open(_open(wanted.path), "rb") as handle:
            size = os.fstat(handle.fileno()).st_size
            end = size if wanted.end is None else min(wanted.end, size)
            start = wanted.start if last is None else _start_of_last(handle, wanted.start, end, last)
            handle.seek(start)
            rest, left = b"", max(0, end - start)
            while left and (data := handle.read(min(_CHUNK, left))):
                left -= len(data)
                whole, rest = _cut(rest + data)
                yield from _lines(whole)
            yield from _lines(rest)
    except OSError as err:
        raise RunError(f"cannot be read: {err.strerror}", where=wanted.path) from None


def follow(path: Path, start: int, over: Callable[[], bool], *, poll_s: float = _POLL_S) -> Iterator[str]:
    """Lines from byte `start` on, as they are written, until `over()` and everything before it has been read.

    The file need not be there yet; one that was cut or replaced is read from its beginning. Raises `RunError`.
    """
    at, rest, seen = start, b"", None
    while True:
        ended = over()  # asked first, so that what was written before it became true is read below
        try:
            with open(_open(path), "rb") as handle:
                state = os.fstat(handle.fileno())
                if (seen is not None and seen != state.st_ino) or state.st_size < at:
                    yield from _lines(rest)
                    at, rest = 0, b""
                seen = state.st_ino
                handle.seek(at)
                while data := handle.read(_CHUNK):
                    at += len(data)
                    whole, rest = _cut(rest + data)
                    yield from _lines(whole)
        except FileNotFoundError:
            pass
        except OSError as err:
            raise RunError(f"cannot be read: {err.strerror}", where=path) from None
        if ended:
            yield from _lines(rest)
            return
        time.sleep(poll_s)


def start_of_last(path: Path, start: int, lines: int | None) -> int:
    """Where the last `lines` lines of the file as it is now begin, not before `start`. Raises `RunError`."""
    if lines is None:
        return start
    try:
        with open(_open(path), "rb") as handle:
            return _start_of_last(handle, start, os.fstat(handle.fileno()).st_size, lines)
    except FileNotFoundError:
        return start
    except OSError as err:
        raise RunError(f"cannot be read: {err.strerror}", where=path) from None


def _start(sizes: Mapping[str, Any] | None, name: str) -> int | None:
    value = 0 if sizes is None else sizes.get(name, 0)
    known = sizes is not None and isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return value if known else None


def _open(path: Path) -> int:
    """A regular file, opened; a pipe or device under its name would block or never end."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(0, "not a file")
    return handle


def _start_of_last(handle: Any, start: int, end: int, lines: int) -> int:
    """Where the last `lines` lines between `start` and `end` begin, read backwards."""
    at, wanted = end, lines + 1
    while at > start:
        size = min(_CHUNK, at - start)
        at -= size
        handle.seek(at)
        data = handle.read(size)
        if at + size == end and not data.endswith(b"\n"):
            wanted -= 1
        found = data.count(b"\n")
        if found < wanted:
            wanted -= found
            continue
        place = len(data)
        for _ in range(wanted):
            place = data.rfind(b"\n", 0, place)
        return at + place + 1
    return start


def _cut(data: bytes) -> tuple[bytes, bytes]:
    """Whole lines, and the begun one after them. A bar that only ever goes back to its line's start counts as lines; a
    line longer than a chunk is passed on in pieces.
    """
    place = max(data.rfind(b"\n"), data.rfind(b"\r", 0, max(0, len(data) - 1))) + 1
    if place == 0 and len(data) > _CHUNK:
        place = len(data)
    return data[:place], data[place:]


def _lines(data: bytes) -> list[str]:
    if not data:
        return []
    lines = harmless_lines(data.decode("utf-8", errors="replace"))
    return lines[:-1] if lines[-1] == "" else lines
