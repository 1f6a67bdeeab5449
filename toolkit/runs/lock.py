"""One process at a time works on a run. The lock is the kernel's, so a process that dies leaves none behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from toolkit.errors import RunBusy


@contextlib.contextmanager
def held(run: Path) -> Iterator[None]:
    """Hold the run's lock; `RunBusy` names the holder when another process has it."""
    path = run / "lock"
    with open(path, "a+", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            holder = handle.read().strip() or "unknown"
            raise RunBusy(
                "another process is working on this run",
                where=run,
                why=f"holder: {holder}",
                do="wait for it or end it, then try again",
            ) from None
        handle.truncate(0)
        handle.write(f"pid {os.getpid()} on {socket.gethostname()}")
        handle.flush()
        try:
            yield
        finally:
            handle.truncate(0)
