"""A stage's processes on one node, as torch.distributed expects them: started together, ended together.

Decides environment, logs and signals of the ranks; what they compute is the payload's. A rank that dies takes the
others down at once.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from toolkit.errors import StageFailed
from toolkit.progress import ENV as PROGRESS
from toolkit.recipe.schema import Alive

_POLL_S = 0.1
_STACKS_S = 3.0
_GRACE_S = 20.0  # a training saves the step that it has done
_PR_SET_PDEATHSIG = 1
_PORTS, _TRIES = (20_000, 32_000), 200


def run_ranks(
    command: Sequence[str], *, processes: int, folder: Path, threads: int | None = None, alive: Alive | None = None
) -> int:
    """Run `command` in `processes` ranks; returns 0, or the first failing rank's exit code (128 + signal when killed).

    Rank 0 writes `folder/log` and `folder/progress.json`, rank N `folder/rank-N.log`. SIGTERM and SIGINT end all ranks.
    With `alive` they are also ended when `folder/heartbeat` is not touched for as long as it allows, each after writing
    its stacks to its log; then `StageFailed` is raised.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ranks: list[subprocess.Popen[bytes]] = []
    caught: list[int] = []

    def stop(signum: int, _: FrameType | None) -> None:
        caught.append(signum)

    pulse = Pulse(folder / "heartbeat", alive) if alive is not None else None
    before = {s: signal.signal(s, stop) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        port = _free_port()
        for rank in range(processes):
            ranks.append(_start(command, rank, processes, port, folder, threads))
        while not caught:
            codes = [_poll(p) for p in ranks]
            failed = [c for c in codes if c not in (None, 0)]
            if failed:
                return failed[0] if failed[0] > 0 else 128 - failed[0]
            if all(c == 0 for c in codes):
                return 0
            if pulse is not None and (silence := pulse.missed()):
                _show_stacks(ranks)
                raise StageFailed(
                    f"no sign of life for {silence}",
                    where=folder / "log",
                    why="a rank hangs, and the others wait for it; the stacks of all are in their logs",
                    do="mend the cause and run the same command again; cluster.alive says how long is too long",
                )
            time.sleep(_POLL_S)
        return 128 + caught[0]
    finally:
        _end(ranks)
        for signum, handler in before.items():
            signal.signal(signum, handler)


class Pulse:
    """A file that is touched whenever the work got on, and how long it may go untouched."""

    def __init__(self, path: Path, alive: Alive) -> None:
        self._path, self._alive = path, alive
        self._beat, self._since, self._begun = _mtime(path), time.monotonic(), False

    def missed(self) -> str:
        """For how long there has been no sign of life, in words; '' while that is not too long."""
        now = time.monotonic()
        if (seen := _mtime(self._path)) != self._beat:
            self._beat, self._since, self._begun = seen, now, True
        silent = now - self._since
        if silent <= (self._alive.hang_s if self._begun else self._alive.start_s):
            return ""
        return f"{silent:.0f} s" + ("" if self._begun else " since it was started")


def _show_stacks(ranks: Sequence[subprocess.Popen[bytes]]) -> None:
    """Also of a rank that was stopped by SIGSTOP: it meets the signal when it is let go on. Then end them all."""
    for signum, wait_s in ((signal.SIGQUIT, 0.5), (signal.SIGCONT, _STACKS_S), (signal.SIGKILL, 0.0)):
        for rank in ranks:
            if rank.poll() is None:
                if signum == signal.SIGQUIT:
                    rank.send_signal(signum)  # what it has forked does not know that signal's meaning
                else:
                    _signal_group(rank, signum)
        time.sleep(wait_s)


def _start(
    command: Sequence[str], rank: int, world: int, port: int, folder: Path, threads: int | None
) -> subprocess.Popen[bytes]:
    env = dict(os.environ)
    env.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), LOCAL_WORLD_SIZE=str(world), NODE_RANK="0")
    env.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), PYTHONUNBUFFERED="1")
    if threads is not None:
        env["OMP_NUM_THREADS"] = str(threads)
    env.pop(PROGRESS, None)
    if rank == 0:
        env[PROGRESS] = str(folder / "progress.json")
    with open(folder / ("log" if rank == 0 else f"rank-{rank}.log"), "ab") as log:
        return subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=env,
            start_new_session=True,
            preexec_fn=functools.partial(_die_with_parent, os.getpid()),
        )


def _die_with_parent(parent: int) -> None:
    """Ask Linux to kill this process when its parent dies, so that no rank outlives a killed launcher."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before we could ask
            os._exit(1)


def _poll(process: subprocess.Popen[bytes]) -> int | None:
    """Its exit code, or None; what a rank that ended has left behind is ended with it."""
    if process.returncode is None and process.poll() is not None:
        _signal_group(process, signal.SIGKILL)
    return process.returncode


def _end(ranks: Sequence[subprocess.Popen[bytes]]) -> None:
    alive = [p for p in ranks if _poll(p) is None]
    for p in alive:
        _signal_group(p, signal.SIGTERM)
    deadline = time.monotonic() + _GRACE_S
    for p in alive:
        with contextlib.suppress(subprocess.TimeoutExpired):
            p.wait(max(0.0, deadline - time.monotonic()))
        _signal_group(p, signal.SIGKILL)  # also what the rank itself started, such as checkpoint writers
        p.wait()


def _signal_group(process: subprocess.Popen[bytes], signum: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signum)


def _mtime(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


def _free_port() -> int:
    """Below the range that the kernel gives away by itself: there another process may take it before rank 0 listens."""
    for _ in range(_TRIES):
        port = random.SystemRandom().randrange(*_PORTS)  # two of a seed would meet
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("", port))
            return port
    raise StageFailed(
        "no free port for the ranks' rendezvous",
        where=socket.gethostname(),
        why=f"{_TRIES} ports between {_PORTS[0]} and {_PORTS[1]} are all in use",
        do="end what listens on them",
    )
