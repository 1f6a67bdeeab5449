"""Real training on a real Slurm, through everything that ends an attempt: nothing is lost, and the curve is the one of
an uninterrupted run.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.conftest import Slurm, slurm, slurm_packages  # noqa: F401  fixtures
from tests.train.conftest import Start, Trained
from toolkit import checkpoint
from toolkit.cluster import attempts
from toolkit.runs import Run

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
STEPS, EVERY = 40, 8
TRAIN = {"steps": STEPS, "warmup_steps": 3, "save_every": EVERY, "valid_every": 20, "keep": 3}
TRAIN |= {"micro_batch": 16, "global_batch": 32}  # steps long enough to be met in the middle of one


@dataclass
class Job:
    """A training on 2 nodes of the one-machine Slurm, one rank on each; four: tests/train/test_slurm_chain.py."""

    slurm: Slurm
    path: Path
    id: str
    seen: dict[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.path / "stages" / "pretrain"

    @property
    def step(self) -> int:
        """The last step in metrics.jsonl, 0 before there is one."""
        try:
            lines = (self.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        except OSError:
            return 0
        return max((json.loads(line)["step"] for line in lines if line.endswith("}")), default=0)

    @property
    def attempts(self) -> list[attempts.Attempt]:
        return attempts.read(self.folder)

    def reaches(self, step: int, seconds: float = 240) -> None:
        self.slurm.wait(lambda: self.step >= step or self.over(), seconds)
        assert not self.over(), self.said()

    def tries(self, count: int, seconds: float = 240) -> None:
        self.slurm.wait(lambda: len(self.attempts) >= count or self.over(), seconds)
        assert len(self.attempts) >= count, self.said()

    def over(self) -> bool:
        return self.slurm.job(self.id).get("JobState") in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")

    def said(self) -> str:
        logs = [*sorted((self.path / "jobs").glob("*.out")), *sorted(self.folder.glob("*log"))]
        return "\n".join(f"{p}:\n{p.read_text(errors='replace')[-3000:]}" for p in logs)

    def ranks(self) -> dict[int, int]:
        """Rank -> pid of the payload."""
        found = {}
        for proc in Path("/proc").glob("[0-9]*"):
            try:
                words = (proc / "cmdline").read_bytes().split(b"\0")
                environ = dict(i.split(b"=", 1) for i in (proc / "environ").read_bytes().split(b"\0") if b"=" in i)
                parent = int((proc / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError):
                continue
            if b"toolkit.stages" in words and str(self.path).encode() in words and b"RANK" in environ:
                found.setdefault(int(environ[b"RANK"]), (parent, int(proc.name)))
                if found[int(environ[b"RANK"])][0] > parent:
                    found[int(environ[b"RANK"])] = (parent, int(proc.name))
        return {rank: pid for rank, (_, pid) in found.items()}


def launch(slurm: Slurm, prepared: Run, root: Path, *overrides: str) -> Job:  # noqa: F811
    words = [f"train.{key}={value}" for key, value in TRAIN.items()]
    words += ["stages=[pretrain]", f"inputs.shards={prepared.stage('shards') / 'shards'}", "cluster=slurm_dev"]
    words += ["cluster.nodes=2", "parallel.pp=1"]
    words += [f"inputs.checkpoint={prepared.stage('import') / 'checkpoint'}", f"runs={root}", *overrides]
    done = verb(slurm, "launch", "recipe=demo", *words, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    path = Path(json.loads(done.stdout)["run"])
    rows = json.loads((path / "jobs.json").read_text(encoding="utf-8"))["stages"]
    return Job(slurm=slurm, path=path, id=rows[-1]["jobs"][-1]["id"])


def verb(slurm: Slurm, name: str, *words: str) -> subprocess.CompletedProcess[str]:  # noqa: F811
    return slurm.run(
        "env", f"PYTHONPATH={ROOT}", sys.executable, "-m", f"toolkit.{name}", *words, check=False, timeout=180
    )


@pytest.fixture(scope="module")
def uninterrupted(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return start(tmp_path_factory.mktemp("uninterrupted"), tp=2, train=TRAIN)


@pytest.fixture(scope="module")
def survivor(slurm: Slurm, prepared: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Job]:  # noqa: F811
    """One training through a time limit, a preemption, a node set down, a killed rank, a hang and a save that was cut
    off; the tests below look at what it left.
    """
    job = launch(
        slurm, prepared, tmp_path_factory.mktemp("runs"),
        "cluster.alive.signal_before_s=60", "cluster.alive.hang_s=50", "cluster.alive.strikes=1",
    )  # fmt: skip
    try:
        through_everything(job)
        yield job
    finally:
        slurm.run("scancel", job.id, check=False)
        slurm.run("scontrol", "update", "nodename=ALL", "state=resume", check=False)


def through_everything(job: Job) -> None:
    seen, run, wait = job.seen, job.slurm.run, job.slurm.wait
    job.reaches(3)
    # The notice comes 60 s before the end, and up to 30 s late: the training waits for it, lest it be over before.
    run("scontrol", "update", f"jobid={job.id}", "EndTime=now+61")
    ranks = job.ranks().values()
    each(ranks, signal.SIGSTOP)
    wait(lambda: "SIGUSR2: asking the ranks" in job.said())
    each(ranks, signal.SIGCONT)
    job.tries(2)
    wait(lambda: job.slurm.job(job.id)["JobState"] == "RUNNING")
    run("scontrol", "update", f"jobid={job.id}", "TimeLimit=60")

    job.reaches(at(job) + 3)
    urgent = job.slurm.submit("-p", "urgent", "-N16", "--exclusive", "--wrap", "sleep 1")
    job.tries(3)
    assert job.slurm.job(urgent)["JobState"] == "COMPLETED"

    job.reaches(at(job) + EVERY + 2)  # past a checkpoint at an interval
    seen["down"] = job.attempts[-1].hosts[0]
    run("scontrol", "update", f"nodename={seen['down']}", "state=down", "reason=test")
    job.tries(4)

    cut_off(job)
    job.reaches(at(job) + 2)
    os.kill(job.ranks()[1], signal.SIGSTOP)
    job.tries(5)

    wait(lambda: saving(job) or job.over(), 240)  # a rank killed in the middle of a save
    seen["saving"], seen["killed"], seen["killed_at"] = saving(job), job.attempts[-1].hosts[1], time.time()
    os.kill(job.ranks()[1], signal.SIGKILL)
    job.tries(6)
    wait(job.over, 300)


def each(pids: Iterable[int], signum: int) -> None:
    for pid in pids:
        os.kill(pid, signum)


def at(job: Job) -> int:
    return job.attempts[-1].step_from or 0


def cut_off(job: Job) -> None:
    """Plant the newest checkpoint of all, whole but for one file's end, where the next attempt looks for one."""
    newest = checkpoint.latest(job.folder / "checkpoints")
    planted = newest.with_name(f"step={STEPS + 5}")
    shutil.copytree(newest, planted)
    largest = max(planted.rglob("*.distcp"), key=lambda p: p.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)
    job.seen["planted"] = planted.name


def saving(job: Job) -> str:
    """The mark of the checkpoint that this attempt is writing; '' while there is none."""
    since = job.attempts[-1].started
    marks = [p for p in job.folder.glob("checkpoints/*-unfinished") if modified(p) > since]
    return marks[0].name if marks else ""


def modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def test_it_ends_by_itself_and_the_curve_is_the_uninterrupted_one(survivor: Job, uninterrupted: Trained) -> None:
    assert survivor.slurm.job(survivor.id)["JobState"] == "COMPLETED", survivor.said()
    trained = Trained(folder=survivor.folder)
    assert trained.losses == uninterrupted.losses
    assert trained.valid_losses == uninterrupted.valid_losses
    assert [row["step"] for row in trained.rows if "loss" in row] == list(range(1, STEPS + 1)), "each once, in order"


def test_what_ended_each_attempt_is_on_record(survivor: Job) -> None:
    states = [a.state for a in survivor.attempts]
    assert states.pop(2) in ("LOST", "CRASHED")  # whether the entry, which is ended too, has the time to write it
    assert states == ["STOPPED", "STOPPED", "HUNG", "CRASHED", "COMPLETED"], survivor.said()
    assert "USR2" in survivor.attempts[0].why and "USR2" in survivor.attempts[1].why
    assert all(a.ended is not None for a in survivor.attempts)


def test_a_notice_loses_no_step_and_a_dead_node_at_most_an_interval(survivor: Job) -> None:
    for attempt in survivor.attempts[:2]:
        assert attempt.reached == attempt.step_to, "the time limit and the preemption train nothing twice"
    for before, after in zip(survivor.attempts, survivor.attempts[1:], strict=False):
        assert after.step_from == before.step_to
        assert before.reached is not None and before.step_to is not None
        assert 0 <= before.reached - before.step_to <= EVERY + 1  # a step may end while it is being killed


def test_a_dead_rank_takes_the_others_down_and_the_job_is_back_within_a_minute(survivor: Job) -> None:
    """60 s beyond Slurm's own delay, which is 6 s here (cred_expire 5)."""
    crashed, after = survivor.attempts[4], survivor.attempts[5]
    assert survivor.seen["killed"] in crashed.why and "Killed" in crashed.why
    assert after.started - survivor.seen["killed_at"] < 66


def test_blamed_nodes_are_kept_away_from(survivor: Job) -> None:
    nodes = attempts.read_nodes(survivor.folder)
    assert survivor.seen["down"] in nodes.excluded and survivor.seen["killed"] in nodes.excluded
    assert survivor.seen["killed"] in nodes.told
    assert survivor.seen["killed"] not in survivor.attempts[5].hosts
    assert all(survivor.seen["down"] not in attempt.hosts for attempt in survivor.attempts[3:])


def test_a_hang_is_found_and_leaves_the_stacks_of_every_rank(survivor: Job) -> None:
    hung, after = survivor.attempts[3], survivor.attempts[4]
    assert "no sign of life" in hung.why
    for rank in range(2):
        log = (survivor.folder / ("log" if rank == 0 else f"rank-{rank}.log")).read_text(errors="replace")
        part = log[hung.logs[log_name(rank)] : after.logs[log_name(rank)]]
        assert re.search(r"(Thread|Current thread) 0x", part), f"no stacks of rank {rank}"


def log_name(rank: int) -> str:
    return "log" if rank == 0 else f"rank-{rank}.log"


def test_a_checkpoint_that_was_cut_off_is_passed_over_and_the_log_says_so(survivor: Job) -> None:
    log = (survivor.folder / "log").read_text(errors="replace")
    assert f"passed over {survivor.seen['planted']}: its file" in log
    half = survivor.seen["saving"].removesuffix("-unfinished")
    assert half and f"passed over {half}: the marker" in log
    assert survivor.attempts[5].step_from == survivor.attempts[4].step_from, "gone on from the one before"


def test_runs_tells_it_all(survivor: Job) -> None:
    shown = verb(survivor.slurm, "runs", "show", str(survivor.path))
    assert shown.returncode == 0, shown.stderr
    assert "6 attempts" in shown.stdout and "excluded" in shown.stdout
    again = verb(survivor.slurm, "launch", f"run={survivor.path}")
    assert again.returncode == 0 and survivor.slurm.job(survivor.id)["JobState"] == "COMPLETED"
