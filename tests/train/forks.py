"""Ranks that need not import NeMo: a process that has done so once forks them, one `run_ranks` after the other.

`Forks.run_ranks` is `toolkit.cluster.ranks.run_ranks` word for word, in that process, but for `subprocess.Popen`: what
would start `python SCRIPT ...` or `python -m MODULE ...` forks and runs it there. Ten seconds of a processor are saved
for each rank. What a fresh process alone can show (signals during the imports, the interpreter's end) is left to the
tests that start the stages themselves.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any


class Forks:
    """The process that forks; it ends with this one."""

    def __init__(self, log: Path) -> None:
        self.log, self._pids = log, log.with_name("pids")
        with open(log, "ab") as handle:
            self._process = subprocess.Popen(
                [sys.executable, "-u", str(Path(__file__)), str(self._pids)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=handle,
                env={**os.environ, "OMP_NUM_THREADS": "1"},  # no pool of threads before a fork
                start_new_session=True,
            )
        self._one = threading.Lock()

    def run_ranks(self, command: Sequence[str], *, processes: int, folder: Path, threads: int | None = None) -> int:
        told = {"command": list(command), "processes": processes, "folder": str(folder), "threads": threads}
        with self._one:
            assert self._process.stdin is not None and self._process.stdout is not None
            self._process.stdin.write(json.dumps({**told, "environ": dict(os.environ)}).encode() + b"\n")
            self._process.stdin.flush()
            said = self._process.stdout.readline()
        assert said, f"the process that forks is gone: {self.log.read_text(errors='replace')[-3000:]}"
        return int(said)

    @property
    def pids(self) -> dict[int, int]:
        """Rank -> pid of what runs now, or ran last."""
        lines = self._pids.read_text().splitlines() if self._pids.is_file() else []
        return dict(tuple(map(int, line.split())) for line in lines)  # type: ignore[misc]

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.terminate()  # ranks that run are ended as run_ranks ends them
        self._process.wait(60)


class Forked:
    """A rank: as much of `subprocess.Popen` as `run_ranks` uses."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        stdin: int,
        stdout: Any,
        stderr: Any,
        env: dict[str, str],
        start_new_session: bool,
        preexec_fn: Callable[[], None],
        close: Sequence[int] = (),
    ) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.setsid()
                preexec_fn()
                null = os.open(os.devnull, os.O_RDONLY)
                for source, target in ((null, 0), (stdout.fileno(), 1), (stderr.fileno(), 2)):
                    os.dup2(source, target)
                for handle in close:
                    os.close(handle)
                code = _run(command, env)
            except BaseException:
                traceback.print_exc()
                code = 1
            os._exit(code)  # what is above this in the stack is not the rank's

    def poll(self) -> int | None:
        if self.returncode is None and (found := os.waitpid(self.pid, os.WNOHANG))[0]:
            self.returncode = os.waitstatus_to_exitcode(found[1])
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if deadline is not None and time.monotonic() >= deadline:
                raise subprocess.TimeoutExpired("rank", timeout or 0.0)
            time.sleep(0.02)
        return code


def _run(command: Sequence[str], env: dict[str, str]) -> int:
    """Be `command`: its environment, arguments, signals and end as in a process of its own; returns its exit code."""
    os.environ.clear()
    os.environ.update(env)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from lightning_utilities.core.rank_zero import rank_zero_only

    rank_zero_only.rank = int(env["RANK"])  # Lightning reads it while it is imported
    assert command[0] == sys.executable
    code: Any = 0
    try:
        if command[1] == "-m":
            sys.argv = list(command[2:])
            runpy.run_module(command[2], run_name="__main__", alter_sys=True)
        else:
            sys.argv = list(command[1:])
            runpy.run_path(command[1], run_name="__main__")
    except SystemExit as end:
        code = end.code
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        code = 1
    with contextlib.suppress(SystemExit):
        threading._shutdown()
        atexit._run_exitfuncs()
    if isinstance(code, str):
        print(code, file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return code if isinstance(code, int) else int(code is not None)


def main() -> None:
    from toolkit.cluster import ranks

    ranks._die_with_parent(os.getppid())
    replies = os.dup(1)  # not the ranks' to write to, and not the libraries'
    os.dup2(2, 1)
    from toolkit.train import seams

    seams.install_nemo()
    from toolkit.train import engine, nemo_recipe  # noqa: F401

    # A fork keeps the thread that forks and no other.
    assert threading.active_count() == 1, threading.enumerate()
    gc.collect()
    gc.freeze()
    pids = Path(sys.argv[1])

    def start(*args: Any, **kwargs: Any) -> Forked:
        made = Forked(*args, **kwargs, close=[replies])
        with open(pids, "a", encoding="ascii") as handle:
            handle.write(f"{kwargs['env']['RANK']} {made.pid}\n")
        return made

    ranks.subprocess = SimpleNamespace(  # type: ignore[assignment]
        Popen=start,
        DEVNULL=subprocess.DEVNULL,
        TimeoutExpired=subprocess.TimeoutExpired,
    )
    for line in sys.stdin:
        told = json.loads(line)
        os.environ.clear()
        os.environ.update(told["environ"])
        pids.write_text("")
        code = ranks.run_ranks(
            told["command"], processes=told["processes"], folder=Path(told["folder"]), threads=told["threads"]
        )
        os.write(replies, f"{code}\n".encode())


if __name__ == "__main__":
    main()
