"""What a job does when its training ends badly, on a real Slurm. The ranks are small programs here: what they are asked
and how they end is what is looked at. tests/train/test_slurm.py does it with real training.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.slurm.conftest import Slurm, slurm_dev
from toolkit import chain
from toolkit.cluster import attempts
from toolkit.recipe import compose
from toolkit.runs import Run, create

pytestmark = pytest.mark.slow

# Stands where Python would start the payload: `PROBE -m toolkit.stages RUN STAGE`. Lives until it is asked to stop.
PROBE = """#!{python}
import os, pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[3]) / "stages" / sys.argv[4]
rank, attempt = int(os.environ["RANK"]), int(os.environ.get("SLURM_RESTART_COUNT") or 0)
for name in ("SIGUSR2", "SIGTERM"):
    signal.signal(getattr(signal, name), lambda *_: os._exit(75))
print("rank", rank, "of", os.environ["WORLD_SIZE"], flush=True)
if rank == 0:
    (folder / "heartbeat").touch()
{then}
"""
WAIT = """
while True:
    time.sleep(0.1)
"""
DONE_NEXT_TIME = (
    """
if attempt:
    if rank == 0:
        (folder / "done.json").write_text("{}")
    sys.exit(0)
"""
    + WAIT
)

Start = Callable[..., tuple[Run, str]]


@pytest.fixture
def cluster(slurm_packages: None, short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slurm]:
    """One of its own: some tests stop its controller."""
    state = short_tmp / "s"
    assert slurm_dev("up", "--nodes", "3", "--state", state).returncode == 0
    monkeypatch.setenv("SLURM_CONF", str(state / "etc" / "slurm.conf"))
    yield Slurm(state=state)


@pytest.fixture
def start(cluster: Slurm, tmp_path: Path) -> Start:
    def begin(then: str, *more: str) -> tuple[Run, str]:
        probe = tmp_path / "probe"
        probe.write_text(PROBE.format(python=sys.executable, then=then))
        probe.chmod(0o755)
        words = ["cluster=slurm_dev", "cluster.nodes=2", "parallel=tp1_pp1", "stages=[pretrain,export]"]
        words += [f"inputs.{name}={tmp_path / name}" for name in ("shards", "checkpoint")]
        words += [f"runs={tmp_path / 'runs'}", f"container.python={probe}", *more]
        run = create(compose("demo", words).recipe, command=["pytest"], plan={})
        first, second = chain.submit(run)
        return run, first.id

    return begin


def state(cluster: Slurm, job: str) -> str:
    return cluster.job(job)["JobState"]


def ended(cluster: Slurm, job: str, seconds: float = 120) -> str:
    active = ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING")
    cluster.wait(lambda: state(cluster, job) not in active, seconds)
    return state(cluster, job)


def said(run: Run, job: str) -> str:
    path = run.path / "jobs" / f"pretrain-{job}.out"
    return path.read_text(errors="replace") if path.is_file() else ""


def under_way(cluster: Slurm, run: Run) -> None:
    logs = [run.stage("pretrain") / name for name in ("log", "rank-1.log")]
    cluster.wait(lambda: all(log.is_file() and "of 2" in log.read_text() for log in logs))


def test_slurm_is_away_when_a_training_is_to_be_queued_again(cluster: Slurm, start: Start) -> None:
    run, job = start(DONE_NEXT_TIME)
    under_way(cluster, run)
    entry = next(p for p in Path("/proc").glob("[0-9]*") if is_entry(p, run))
    controller = cluster.status()["pids"]["slurmctld"]
    os.kill(controller, signal.SIGSTOP)
    try:
        os.kill(int(entry.name), signal.SIGUSR2)
        cluster.wait(lambda: "asking again" in said(run, job), 120)
        assert attempts.read(run.stage("pretrain"))[0].state == "STOPPED", "recorded before anything else"
    finally:
        os.kill(controller, signal.SIGCONT)
    assert ended(cluster, job) == "COMPLETED", said(run, job)
    assert [a.state for a in attempts.read(run.stage("pretrain"))] == ["STOPPED", "COMPLETED"]


def is_entry(proc: Path, run: Run) -> bool:
    try:
        return (proc / "cmdline").read_bytes().split(b"\0")[1:4] == [b"-m", b"toolkit.job", str(run.path).encode()]
    except OSError:
        return False


def test_attempts_without_progress_are_limited(cluster: Slurm, start: Start) -> None:
    run, job = start("sys.exit(9)", "cluster.alive.idle_attempts=2")
    assert ended(cluster, job) == "FAILED", said(run, job)
    made = attempts.read(run.stage("pretrain"))
    assert [a.state for a in made] == ["CRASHED", "CRASHED"] and "code 9" in made[0].why
    told = json.loads((run.stage("pretrain") / "error.json").read_text())
    assert told["what"] == "2 attempts in a row made no progress" and "runs retry" in told["do"]
    assert "2 attempts in a row made no progress" in said(run, job)
    after = json.loads((run.path / "jobs.json").read_text())["stages"][1]["jobs"][0]["id"]
    assert ended(cluster, after) == "CANCELLED", "what waits for it must not wait for ever"


def test_a_training_that_cannot_even_begin_says_why(cluster: Slurm, start: Start, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.mkdir()
    run, job = start(WAIT, "container=apptainer", f"container.image={image}", "cluster.sbatch={begin: now+3}")
    image.rmdir()
    assert ended(cluster, job) == "FAILED"
    (only,) = attempts.read(run.stage("pretrain"))
    assert (only.state, only.why) == ("FAILED", "the image is not there")
    assert f"container.image={image}" in said(run, job) and "Traceback" not in said(run, job)


def test_what_the_user_must_mend_is_not_tried_again(cluster: Slurm, start: Start) -> None:
    error = '(folder / f"error-{rank}.json").write_text(\'{"what": "no such shards", "exit_code": 2}\'); sys.exit(2)'
    run, job = start(error)
    assert ended(cluster, job) == "FAILED"
    (only,) = attempts.read(run.stage("pretrain"))
    assert (only.state, only.why) == ("FAILED", "no such shards")
    assert cluster.job(job)["ExitCode"].startswith("2:")


def test_a_rolled_back_training_starts_again_in_the_same_allocation(cluster: Slurm, start: Start) -> None:
    """Both ranks, which agree as a training's do, say that the loss has jumped; the end of one kills the other where it
    is slower. The next ones are there without Slurm queueing anything again.
    """
    again = """
import time
marks = [folder / f"was-here-{one}" for one in (0, 1)]
first = not marks[rank].exists()
marks[rank].touch()
while not all(mark.exists() for mark in marks):
    time.sleep(0.01)
if first:
    sys.exit(76)
if rank == 0:
    (folder / "done.json").write_text("{}")
sys.exit(0)
"""
    run, job = start(again)
    assert ended(cluster, job) == "COMPLETED", said(run, job)
    made = attempts.read(run.stage("pretrain"))
    assert [(a.state, a.job_id, a.restart) for a in made] == [("ROLLED_BACK", job, 0), ("COMPLETED", job, 0)]
    assert made[0].why == "the loss had jumped" and cluster.job(job)["Restarts"] == "0"


def test_a_cancelled_training_is_not_queued_again(cluster: Slurm, start: Start) -> None:
    run, job = start(WAIT)
    under_way(cluster, run)
    done = cluster.run(sys.executable, "-m", "toolkit.runs", "cancel", str(run.path), check=False)
    assert done.returncode == 0, done.stderr
    assert ended(cluster, job) == "CANCELLED"
    (only,) = attempts.read(run.stage("pretrain"))
    assert only.state == "CANCELLED" and cluster.job(job)["Restarts"] == "0"


def test_a_second_job_for_the_same_stage_refuses(cluster: Slurm, start: Start, repo_root: Path) -> None:
    run, job = start(WAIT)
    under_way(cluster, run)
    script = f"PYTHONPATH='{repo_root}' exec '{sys.executable}' -m toolkit.job '{run.path}' pretrain"
    second = cluster.submit("--output", run.path / "jobs" / "pretrain-%j.out", "--wrap", script)
    assert ended(cluster, second) == "FAILED"
    assert "another process is working on this run" in said(run, second)
    assert state(cluster, job) == "RUNNING" and len(attempts.read(run.stage("pretrain"))) == 1


def test_a_rank_that_never_gives_a_sign_is_ended(cluster: Slurm, start: Start) -> None:
    silent = "(folder / 'heartbeat').unlink(missing_ok=True)\n" + DONE_NEXT_TIME
    run, job = start(silent.replace("WAIT", ""), "cluster.alive.start_s=3", "cluster.alive.hang_s=600")
    assert ended(cluster, job) == "COMPLETED", said(run, job)
    assert [a.state for a in attempts.read(run.stage("pretrain"))] == ["HUNG", "COMPLETED"]


def test_a_training_that_does_not_stop_is_ended_in_time(cluster: Slurm, start: Start) -> None:
    deaf = "for name in ('SIGUSR2', 'SIGTERM'):\n    signal.signal(getattr(signal, name), signal.SIG_IGN)\n"
    run, job = start(deaf + DONE_NEXT_TIME, "cluster.alive.signal_before_s=5")
    under_way(cluster, run)
    cluster.run("scancel", "--batch", "--signal=USR2", job)
    assert ended(cluster, job) == "COMPLETED", said(run, job)
    first, second = attempts.read(run.stage("pretrain"))
    assert (first.state, second.state) == ("HUNG", "COMPLETED") and "did not stop within" in first.why
