"""One process at a time works on a run. The lock is the kernel's, so a process that dies leaves none behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from toolkit.errors import RunBusy, RunError

_TRIES = 5
_TRY_AGAIN_S = 0.02  # a reader that looks whether the lock is held has it for microseconds


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who works on a run, as the lock's file says; pid None when it says nothing (yet)."""

    pid: int | None
    host: str


@contextlib.contextmanager
def held(run: Path) -> Iterator[None]:
    """Hold the run's lock; `RunBusy` names the holder when another process has it."""
    path = run / "lock"
    with open(path, "a+", encoding="utf-8") as handle:
        if not _taken(handle):
            handle.seek(0)
            holder = handle.read().strip() or "unknown"
            raise RunBusy(
                "another process is working on this run",
                where=run,
                why=f"holder: {holder}",
                do="wait for it or end it, then try again",
            )
        handle.truncate(0)
        handle.write(f"pid {os.getpid()} on {socket.gethostname()}")
        handle.flush()
        try:
            yield
        finally:
            handle.truncate(0)


def holder(folder: Path) -> Holder | None:
    """Who holds the lock of `folder` now; None when nobody does. Raises `RunError` when that cannot be told."""
    try:
        handle = os.open(folder / "lock", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as err:
        raise RunError(f"cannot be read: {err.strerror}", where=folder / "lock") from None
    try:
        # Shared: two readers do not see each other, and `held` tries again should it meet one.
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        said = re.fullmatch(r"pid (\d{1,9}) on (\S+)", os.read(handle, 400).decode("utf-8", errors="replace").strip())
        return Holder(pid=int(said[1]), host=said[2]) if said else Holder(pid=None, host="")
    except OSError as err:
        raise RunError(f"cannot be locked: {err.strerror}", where=folder / "lock") from None
    finally:
        os.close(handle)
    return None


def _taken(handle: IO[str]) -> bool:
    for attempt in range(_TRIES):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        if attempt < _TRIES - 1:
            time.sleep(_TRY_AGAIN_S)
    return False
