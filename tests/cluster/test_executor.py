"""submitit's local executor: an answer comes back, a dead job is told of, Ctrl-C ends a job at any moment."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from toolkit import files
from toolkit.cluster.executor import LocalExecutor, check, end, wait
from toolkit.cluster.slurm import SlurmAway
from toolkit.errors import StageFailed
from toolkit.recipe import compose


def answers(word: str) -> dict[str, str]:
    return {"word": word}


def dies(_: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def stays(path: str) -> None:
    """Notes that it runs, and leaves only when told: as the in-job entry does."""
    told: list[int] = []
    signal.signal(signal.SIGTERM, lambda signum, _: told.append(signum))
    files.write_text(path, str(os.getpid()))
    while not told:
        time.sleep(0.05)


def stays_deaf_at_first(path: str) -> None:
    """As an entry that still reads its run: until it handles SIGTERM itself, submitit's handler passes over it."""
    files.write_text(path, str(os.getpid()))
    time.sleep(1.2)
    stays(path)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.fixture
def local(tmp_path: Path, repo_root: Path, monkeypatch: pytest.MonkeyPatch) -> LocalExecutor:
    monkeypatch.setenv("PYTHONPATH", str(repo_root))  # the job imports the functions above by name
    return LocalExecutor(tmp_path / "jobs")


def test_an_answer_comes_back(local: LocalExecutor) -> None:
    ticks: list[int] = []
    assert wait(local.submit(answers, "x"), lambda: ticks.append(1)) == {"word": "x"}
    assert ticks


@pytest.mark.slow  # submitit waits for an answer that might be late
def test_a_job_that_was_killed(local: LocalExecutor) -> None:
    with pytest.raises(StageFailed, match="the job ended without an answer") as caught:
        wait(local.submit(dies, "x"), lambda: None)
    assert caught.value.where.endswith("_log.err")


@pytest.mark.parametrize(("entry", "late"), [(stays, True), (stays, False), (stays_deaf_at_first, True)])
def test_an_interrupt_ends_the_job(
    local: LocalExecutor, tmp_path: Path, entry: Callable[[str], None], late: bool
) -> None:
    """At once as well, while submitit is still starting the job."""
    path = tmp_path / "pid"

    def interrupt() -> None:
        if path.exists() or not late:
            raise KeyboardInterrupt

    job = local.submit(entry, str(path))
    with pytest.raises(KeyboardInterrupt):
        wait(job, interrupt)
    assert job._process.poll() is not None
    if path.exists():
        pid = int(path.read_text())
        deadline = time.monotonic() + 10
        while not gone(pid):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    end(job)  # a second time does nothing


def test_the_jobs_process_does_not_hear_the_terminals_ctrl_c(local: LocalExecutor, tmp_path: Path) -> None:
    """It hears of it from the launcher, after which it ends its ranks in peace."""
    before = signal.getsignal(signal.SIGINT)
    job = local.submit(stays, str(tmp_path / "pid"))
    assert signal.getsignal(signal.SIGINT) is before
    while not (tmp_path / "pid").exists():
        time.sleep(0.05)
    for pid in (job._process.pid, int((tmp_path / "pid").read_text())):
        os.kill(pid, signal.SIGINT)
    time.sleep(2.0)  # submitit's controller gives a job one second after an interrupt
    assert job._process.poll() is None
    end(job)


def test_a_cluster_is_checked_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(compose("demo").recipe)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SlurmAway, match="Slurm cannot be asked"):
        check(compose("demo", ["cluster=slurm_dev"]).recipe)
