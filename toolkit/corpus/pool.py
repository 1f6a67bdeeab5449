"""Processes that work on jobs side by side, and what becomes of a job whose process dies.

Decides who gets which job and how an ending is told; leaves the work to a function. Processes end with the one that
started them, whatever ends it.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from toolkit.errors import ToolkitError

J = TypeVar("J")
R = TypeVar("R")
Say = Callable[[Any], None]  # tells the one who waits where the work is

_PR_SET_PDEATHSIG = 1
_PATIENCE_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Death:
    """How a process ended that did not finish its job: the signal (0: none), the code, what it had said last."""

    signal: int
    code: int
    said: Any

    def __str__(self) -> str:
        if not self.signal:
            return f"ended with code {self.code}"
        with contextlib.suppress(ValueError):
            return f"ended by {signal.Signals(self.signal).name}"
        return f"ended by signal {self.signal}"


class OutOfMemory(Exception):
    """A job asked for more memory than there is; `said` is what it had said last."""

    def __init__(self, job: Any, said: Any) -> None:
        self.job, self.said = job, said
        super().__init__("out of memory")


def each(
    jobs: Iterable[J],
    work: Callable[[J, Say], R],
    *,
    workers: int,
    done: Callable[[J, R], None],
    heard: Callable[[J, Any], None] = lambda job, said: None,
    died: Callable[[J, Death], J],
) -> None:
    """`work(job, say)` for every job, in the order given, in up to `workers` processes; `done` is called here.

    What a job says reaches `heard`. `died` decides what to do about a job whose process ended: it raises, or gives the
    job that is tried instead. Raises the `ToolkitError` of a job, `OutOfMemory`, or `RuntimeError` with the traceback
    of a defect; then, and when it is interrupted, all processes are ended before it returns.
    """
    waiting = list(jobs)[::-1]
    crew: dict[Connection, _Worker] = {}
    try:
        while waiting or crew:
            while waiting and len(crew) < max(1, workers):
                worker = _Worker(work)
                crew[worker.pipe] = worker
                worker.give(waiting.pop())
            for pipe in wait(list(crew)):
                worker = crew[pipe]  # type: ignore[index]
                try:
                    what, value = worker.pipe.recv()
                except (EOFError, OSError):
                    del crew[worker.pipe]
                    waiting.append(died(worker.job, worker.ending()))
                    continue
                if what == "said":
                    worker.said = value
                    heard(worker.job, value)
                elif what == "done":
                    done(worker.job, value)
                    if waiting:
                        worker.give(waiting.pop())
                    else:
                        del crew[worker.pipe]
                        worker.dismiss()
                elif what == "error":
                    raise value
                elif what == "memory":
                    raise OutOfMemory(worker.job, worker.said)
                else:
                    raise RuntimeError(value)
    finally:
        for worker in crew.values():
            worker.process.terminate()
        for worker in crew.values():
            worker.ending()


class _Worker:
    """One process, the job that it has, and what it said last."""

    def __init__(self, work: Callable[[Any, Say], Any]) -> None:
        fork = multiprocessing.get_context("fork")  # what was loaded for all is there, and needs no copy
        self.pipe, theirs = fork.Pipe()
        self.process = fork.Process(target=_serve, args=(work, theirs, self.pipe, os.getpid()))
        self.process.start()
        theirs.close()
        self.job: Any = None
        self.said: Any = None

    def give(self, job: Any) -> None:
        self.job, self.said = job, None
        with contextlib.suppress(OSError):  # it has died: its end of the pipe tells so
            self.pipe.send(job)

    def dismiss(self) -> None:
        with contextlib.suppress(OSError):
            self.pipe.send(None)
        self.ending()

    def ending(self) -> Death:
        self.process.join(_PATIENCE_S)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
        self.pipe.close()
        code = self.process.exitcode or 0
        return Death(signal=-min(code, 0), code=max(code, 0), said=self.said)


def _serve(work: Callable[[Any, Say], Any], pipe: Connection, other_end: Connection, parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the one who started this decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    other_end.close()
    while (job := pipe.recv()) is not None:
        try:
            answer = ("done", work(job, lambda said: pipe.send(("said", said))))
        except ToolkitError as err:
            answer = ("error", err)
        except MemoryError:
            answer = ("memory", None)
        except Exception:  # the traceback would be lost with the process
            answer = ("defect", traceback.format_exc())
        pipe.send(answer)
