"""Ending what works on a run: the process that holds its lock, and a job that outlived its launcher. Decides whom to
signal and how hard; what was being done is recorded by those who end.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit.errors import RunBusy, RunError
from toolkit.runs.lock import Holder, holder

GRACE_S = 30.0  # ranks alone are given 20 s to end
_POLL_S = 0.1
_NAMELESS_S = 2.0  # between taking the lock and writing who took it


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A process that worked on the run, and the signal after which it had gone. `stage` is '' for the launcher."""

    pid: int
    host: str
    stage: str
    signal: str


def cancel(run: Path, stages: Sequence[str], *, grace_s: float = GRACE_S) -> list[Ended]:
    """End what holds the lock of `run`, then what still holds that of one of its `stages`, and wait until it is gone.

    SIGINT first, SIGTERM after `grace_s` seconds without success. Returns nothing when nobody works on the run. Raises
    `RunBusy` when the holder is on another host, is not to be found, or does not end.
    """
    ended: list[Ended] = []
    for stage in ("", *stages):
        folder = run / "stages" / stage if stage else run
        if stage and ended and holder(run) is not None:
            break  # somebody has gone on with the run already; what runs now is theirs
        if (who := _named(folder)) is not None:
            ended.append(_end(folder, who, stage, grace_s))
    return ended


def _end(folder: Path, who: Holder, stage: str, grace_s: float) -> Ended:
    if who.host != socket.gethostname():
        raise RunBusy(
            f"process {who.pid} on {who.host} works on this run, and this is {socket.gethostname()}",
            where=folder,
            do=f"give the same command on {who.host}",
        )
    pid = who.pid or 0
    for signum in _signals(pid):
        if not _holds(pid, folder / "lock"):
            if _wait(folder, pid, _NAMELESS_S):
                return Ended(pid=pid, host=who.host, stage=stage, signal="none")
            raise RunBusy(
                f"the lock names process {pid}, which does not hold it",
                where=folder / "lock",
                why="it may run in another container, or as another user",
                do="end the process that works on this run where it was started",
            )
        try:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signum)
        except PermissionError:
            raise _foreign(pid, folder) from None
        if _wait(folder, pid, grace_s):
            return Ended(pid=pid, host=who.host, stage=stage, signal=signum.name)
    raise RunBusy(
        f"process {pid} does not end", where=folder, why=f"SIGINT and SIGTERM, {grace_s:g} s each, did not move it",
        do=f"end it by force: kill -9 {pid}",
    )  # fmt: skip


def _named(folder: Path) -> Holder | None:
    """Who holds the lock, given the moment that it takes to write a name. Raises `RunBusy` when none appears."""
    deadline = time.monotonic() + _NAMELESS_S
    while (who := holder(folder)) is not None and who.pid is None:
        if time.monotonic() > deadline:
            raise RunBusy(
                "another process works on this run and has not said which",
                where=folder / "lock",
                do="look for it on the machines that see this folder",
            )
        time.sleep(_POLL_S)
    return who


def _wait(folder: Path, pid: int, most_s: float) -> bool:
    """Whether `pid` no longer holds the lock of `folder`, within `most_s` seconds."""
    deadline = time.monotonic() + most_s
    while (who := holder(folder)) is not None and who.pid in (pid, None):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def _foreign(pid: int, where: Path) -> RunBusy:
    return RunBusy(f"process {pid} belongs to another user", where=where, do="ask its owner to end it")


def _signals(pid: int) -> Iterator[signal.Signals]:
    """SIGINT unless the process ignores it (a shell script's background jobs do), then SIGTERM."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
        if int(status.split("SigIgn:")[1].split()[0], 16) >> (signal.SIGINT - 1) & 1:
            yield signal.SIGTERM
            return
    yield signal.SIGINT
    yield signal.SIGTERM


def _holds(pid: int, lock: Path) -> bool:
    """Whether one of the process's open files is this one, and the kernel counts a lock on it. A pid alone proves
    nothing: it may have been given to another process since.
    """
    try:
        wanted = lock.stat()
        names = os.listdir(f"/proc/{pid}/fd")
    except PermissionError:
        raise _foreign(pid, lock) from None
    except OSError as err:
        if not Path("/proc/self/fd").is_dir():
            raise RunError("who holds the lock cannot be told here", where=lock, why="there is no /proc") from err
        return False
    for name in names:
        with contextlib.suppress(OSError):
            found = os.stat(f"/proc/{pid}/fd/{name}")
            if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
                info = Path(f"/proc/{pid}/fdinfo/{name}").read_text(encoding="utf-8", errors="replace")
                if any(line.startswith("lock:") and " WRITE " in line for line in info.splitlines()):
                    return True
    return False
