"""A training's ranks as one step of this Slurm job: started, watched, asked to stop, ended.

Runs on the batch host. Decides how the step ended and which node to blame; what follows from it is the job's.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from toolkit.cluster import slurm
from toolkit.cluster.ranks import Pulse
from toolkit.errors import RolledBack, Stopped
from toolkit.recipe.schema import Alive

_POLL_S = 0.2
_ASK_AGAIN_S = 3.0
_STACKS_S = 3.0
_OF_THE_NOTICE = 0.8  # of the time between USR2 and the limit; the rest is for the requeue
_BLAME = re.compile(r"error: ([^\s:\[\]]+): tasks? ([\d,-]+): (.*)")
_NODE_FAILURE = re.compile(r"error: Node failure on ([\w.,\[\]-]+)")
_KILLED = re.compile(r"killed|segmentation|bus error|aborted|illegal|core dumped|terminated", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How the step ended. `state` is COMPLETED, STOPPED, ROLLED_BACK, UNFIT, CRASHED or HUNG; `code` is srun's; `blame`
    are (node, why).
    """

    state: str
    code: int
    why: str = ""
    blame: tuple[tuple[str, str], ...] = ()


class Asked:
    """What Slurm has asked of this job since it began: the time of the first notice, and by which signal."""

    def __init__(self) -> None:
        self.since: float | None = None
        self.signals: list[str] = []

    def note(self, signum: int, _: FrameType | None = None) -> None:
        self.since = self.since if self.since is not None else time.monotonic()
        name = signal.Signals(signum).name
        if name not in self.signals:
            self.signals.append(name)

    def __bool__(self) -> bool:
        return self.since is not None


@contextlib.contextmanager
def listening() -> Iterator[Asked]:
    """Take note of USR2 and SIGTERM, however often they come, instead of ending by them."""
    asked = Asked()
    before = {s: signal.signal(s, asked.note) for s in (signal.SIGUSR2, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def run_tasks(
    command: Sequence[str],
    *,
    nodes: int,
    per_node: int,
    cpus_per_task: int | None,
    folder: Path,
    alive: Alive,
    asked: Asked,
    apptainer: bool = False,
) -> Ended:
    """Run `command` in `nodes` x `per_node` tasks of this job, each with a log in `folder`, until all have ended.

    A task that dies takes the step down at once. The step is asked to stop when `asked` says so, and ended when
    `folder/heartbeat` is not touched for as long as `alive` allows.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pulse, told = Pulse(folder / "heartbeat", alive), folder / "srun.log"
    job, sent, hung = os.environ["SLURM_JOB_ID"], 0.0, ""
    with open(told, "wb") as log:
        step = subprocess.Popen(
            [*_srun(nodes, per_node, cpus_per_task), *_rank(folder, per_node, cpus_per_task, apptainer), *command],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=_environment(),
        )  # fmt: skip
    while step.poll() is None:
        time.sleep(_POLL_S)
        now = time.monotonic()
        silence = pulse.missed()
        if asked.since is not None:
            if not sent:
                say(f"{' and '.join(asked.signals)}: asking the ranks to save and stop")
            if now - sent >= _ASK_AGAIN_S:
                sent = now
                step.send_signal(signal.SIGUSR2)  # srun hands it to every task
            if now - asked.since > alive.signal_before_s * _OF_THE_NOTICE:
                hung = f"did not stop within {now - asked.since:.0f} s of {' and '.join(asked.signals)}"
        elif silence:
            hung = f"no sign of life for {silence}"
        if hung:
            say(f"{hung}; the stacks of all ranks are in their logs")
            _end(step, job)
            break
    code = step.wait()
    text = told.read_text(encoding="utf-8", errors="replace")
    sys.stderr.write(text)
    sys.stderr.flush()
    return _judge(code, hung, text)


def on_each_node(command: Sequence[str], *, nodes: int, log: Path, over: Callable[[], bool]) -> int:
    """Run `command` once on each of this job's nodes, all that they print going to `log`, until all have ended or
    `over()` says that it is enough: then it is ended. Returns srun's code; one node's failure leaves the others alone.
    """
    job = os.environ["SLURM_JOB_ID"]
    words = ["srun", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--kill-on-bad-exit=0"]
    with open(log, "wb") as told:
        step = subprocess.Popen(
            [*words, "--wait=0", "--input=none", "--mpi=none", *command],
            stdin=subprocess.DEVNULL, stdout=told, stderr=told, start_new_session=True, env=_environment(),
        )  # fmt: skip
    try:
        while step.poll() is None and not over():
            time.sleep(_POLL_S)
    finally:
        if step.poll() is None:
            _end(step, job, (("KILL", _STACKS_S),))
    return step.wait()


def _judge(code: int, hung: str, told: str) -> Ended:
    if hung:
        return Ended(state="HUNG", code=code, why=hung)
    if nodes := _NODE_FAILURE.search(told):  # srun then says 0 as its code
        failed = slurm.hostnames(nodes[1])
        why = f"node failure on {', '.join(failed)}"
        return Ended(state="CRASHED", code=code or 1, why=why, blame=tuple((node, why) for node in failed))
    if code == 0:
        return Ended(state="COMPLETED", code=0)
    first = _BLAME.search(told)
    why = f"rank {first[2]} on {first[1]}: {first[3].strip()}" if first else f"srun ended with {code}"
    if code == Stopped.exit_code:
        return Ended(state="STOPPED", code=code)
    # The ranks end one after the other, and the first end kills those that are still on their way out.
    if code == RolledBack.exit_code or f"Exited with exit code {RolledBack.exit_code}" in told:
        return Ended(state="ROLLED_BACK", code=RolledBack.exit_code, why="the loss had jumped")
    single = first is not None and first[2].isdigit() and _KILLED.search(first[3]) is not None
    return Ended(state="CRASHED", code=code, why=why, blame=((first[1], why),) if first and single else ())


def _srun(nodes: int, per_node: int, cpus: int | None) -> list[str]:
    words = ["srun", f"--nodes={nodes}", f"--ntasks={nodes * per_node}", f"--ntasks-per-node={per_node}"]
    words += [f"--cpus-per-task={cpus}"] if cpus else []  # not inherited from the job since Slurm 22.05
    return [*words, "--kill-on-bad-exit=1", "--wait=30", "--input=none", "--mpi=none"]


def _rank(folder: Path, per_node: int, threads: int | None, apptainer: bool) -> list[str]:
    master = os.environ.get("SLURMD_NODENAME") or socket.gethostname()  # the batch host is the job's first node
    words = [sys.executable, "-m", "toolkit.cluster.rank", f"--folder={folder}", f"--master={master}"]
    words += [f"--port={_port()}", f"--per-node={per_node}"]
    words += [f"--threads={threads}"] if threads else []
    return [*words, *(["--apptainer"] if apptainer else []), "--"]


def _port() -> int:
    """A free port of this host: from the job's number, so that jobs that share a host differ, and below the range that
    the kernel gives away by itself.
    """
    job, restart = int(os.environ["SLURM_JOB_ID"]), int(os.environ.get("SLURM_RESTART_COUNT") or 0)
    for attempt in range(200):
        port = 20_000 + (job * 13 + restart * 7 + attempt * 101) % 12_000
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("", port))
            return port
    raise slurm.SlurmError("no free port for the ranks' rendezvous", where=socket.gethostname())


def _environment() -> dict[str, str]:
    """As this job's, without the binding to cores that a site may have set for the batch script alone."""
    return {name: value for name, value in os.environ.items() if not name.startswith("SLURM_CPU_BIND")}


# Stacks first, also of a rank that was stopped by SIGSTOP: it meets the signal when it is let go on.
_WITH_STACKS = (("QUIT", 0.5), ("CONT", _STACKS_S), ("KILL", _STACKS_S))


def _end(step: subprocess.Popen[bytes], job: str, signals: Sequence[tuple[str, float]] = _WITH_STACKS) -> None:
    """End a step by signals to its tasks, each with the seconds that it is given."""
    for name, wait_s in signals:
        try:
            slurm.signal_step(f"{job}.{_step_id(job)}", name)
        except slurm.SlurmError as err:
            say(str(err))
        with contextlib.suppress(subprocess.TimeoutExpired):
            step.wait(wait_s)
    if step.poll() is None:
        step.kill()  # what is left of the step ends with this attempt of the job


def _step_id(job: str) -> str:
    """The number of the step that runs: this job starts one after the other."""
    for line in slurm.ask("squeue", "--noheader", "--steps", f"--jobs={job}", "--format=%i").split():
        number = line.partition(".")[2]
        if number.isdigit():
            return number
    raise slurm.SlurmError("the step is not among the running ones", where=f"job {job}")


def say(text: str) -> None:
    """A line of the job's own output."""
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}", flush=True)
