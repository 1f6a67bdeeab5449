"""Daemons as processes: started with a record that names exactly them, found again by it, and ended.

Decides when a process is still the one that was started; leaves to cluster.py which ones there are and in what order.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

# The record is written by the process itself, before it becomes the daemon, so no daemon is ever without one, not even
# when slurm-dev is killed at this point. A pid alone would not do: after a crash it may be anybody's.
RECORD_AND_BECOME = (
    "read -r boot </proc/sys/kernel/random/boot_id && read -r stat </proc/$$/stat && "
    'printf "%s\\n%s\\n" "$boot" "$stat" >"$1" && shift && exec "$@"'
)
# The state is thrown away, so nobody needs long to say goodbye; orphaned steps ignore SIGTERM.
GRACE_S = 2.0


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process for certain: its pid and its start, in clock ticks since boot."""

    pid: int
    start: int

    def alive(self) -> bool:
        return _table_row(self.pid) == self


def start(command: list[str], *, record: Path, log: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Starts a daemon in the foreground of a session of its own; its output goes to `log`."""
    with log.open("ab") as output:
        return subprocess.Popen(
            ["/bin/sh", "-c", RECORD_AND_BECOME, "sh", str(record), *command], env=dict(environment), cwd=log.parent,
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip


def recorded(record: Path) -> Process | None:
    """The process that wrote this record, if it is alive."""
    try:
        boot, stat, *_ = record.read_text().splitlines()
        process = _parse(stat)[0]
    except (OSError, ValueError, IndexError):
        return None
    return process if boot == _boot() and process.alive() else None


def descendants(processes: Iterable[Process]) -> list[Process]:
    """These processes and all that came from them, as far as parents are still alive to tell."""
    children: dict[int, list[Process]] = {}
    for process, parent in _table():
        children.setdefault(parent, []).append(process)
    found, queue = {}, [process for process in processes if process.alive()]
    while queue:
        process = queue.pop()
        if process.pid not in found:
            found[process.pid] = process
            queue.extend(children.get(process.pid, ()))
    return list(found.values())


def with_environment(*wanted: str) -> list[Process]:
    """The processes whose environment holds every one of these: `NAME=` for any value, `NAME=value` for that one."""
    found = []
    for process, _ in _table():
        try:
            held = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        asked = [os.fsencode(one) for one in wanted]
        if all(any(one in (entry, entry.partition(b"=")[0] + b"=") for entry in held) for one in asked):
            found.append(process)
    return [process for process in found if process.alive()]


def end(processes: Iterable[Process], *, grace_s: float = GRACE_S) -> None:
    """SIGTERM, and SIGKILL to what is left after `grace_s`; returns when none of them is alive."""
    left = list(processes)
    for number, patience_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 10.0)):
        for process in left:
            # Looked at again right before the signal: the pid may have passed to another process meanwhile.
            if process.alive():
                try:
                    os.kill(process.pid, number)
                except (ProcessLookupError, PermissionError):
                    continue
        deadline = time.monotonic() + patience_s
        while left := [process for process in left if process.alive()]:
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _parse(stat: str) -> tuple[Process, int, str]:
    """Process, parent and state from a /proc/PID/stat line; the name in it may hold blanks and brackets."""
    pid, rest = stat.split(" (", 1)
    fields = rest.rsplit(")", 1)[1].split()
    return Process(pid=int(pid), start=int(fields[19])), int(fields[1]), fields[0]


def _table_row(pid: int) -> Process | None:
    """The living process of this pid; a zombie is dead, whenever its parent may notice."""
    try:
        process, _, state = _parse(Path(f"/proc/{pid}/stat").read_text(errors="replace"))
    except (OSError, ValueError, IndexError):
        return None
    return None if state in "ZX" else process


def _table() -> list[tuple[Process, int]]:
    rows = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                process, parent, state = _parse((folder / "stat").read_text(errors="replace"))
            except (OSError, ValueError, IndexError):
                continue
            if state not in "ZX":
                rows.append((process, parent))
    return rows
