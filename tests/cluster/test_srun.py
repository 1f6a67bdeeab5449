"""How the end of a step is read, and what a rank is told. The steps themselves run in tests/slurm."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from toolkit.cluster import rank, slurm, srun
from toolkit.errors import UsageError

SLURM = {"SLURM_PROCID": "17", "SLURM_STEP_NUM_TASKS": "128", "SLURM_LOCALID": "1", "SLURM_NODEID": "2"}


def test_a_rank_is_told_what_torch_distributed_reads(tmp_path: Path) -> None:
    told = rank.environment(SLURM, master="node01", port=20007, per_node=8, folder=tmp_path, threads=3)
    assert {k: told[k] for k in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "NODE_RANK")} == {
        "RANK": "17", "LOCAL_RANK": "1", "WORLD_SIZE": "128", "LOCAL_WORLD_SIZE": "8", "NODE_RANK": "2",
    }  # fmt: skip
    assert (told["MASTER_ADDR"], told["MASTER_PORT"], told["OMP_NUM_THREADS"]) == ("node01", "20007", "3")
    assert "TOOLKIT_PROGRESS" not in told, "one rank alone writes progress"
    first = {**SLURM, "SLURM_PROCID": "0"}
    told = rank.environment(first, master="node01", port=20007, per_node=8, folder=tmp_path, threads=None)
    assert told["TOOLKIT_PROGRESS"] == str(tmp_path / "progress.json") and "OMP_NUM_THREADS" not in told


@pytest.mark.parametrize("missing", sorted(SLURM))
def test_a_rank_outside_a_step_says_so(tmp_path: Path, missing: str) -> None:
    left = {k: v for k, v in SLURM.items() if k != missing}
    with pytest.raises(UsageError, match="not started by srun"):
        rank.environment(left, master="n", port=1, per_node=8, folder=tmp_path, threads=None)


def test_the_rank_becomes_the_payload_with_its_words_unchanged(tmp_path: Path) -> None:
    words = ["two words", "$(touch X)", "a\nb", "ü", "--json", "'\""]
    code = (
        "import json, os, signal, sys; "
        "print(json.dumps([sys.argv[1:], os.environ['APPTAINERENV_RANK'], signal.getsignal(signal.SIGUSR2).name]))"
    )
    done = subprocess.run(
        [sys.executable, "-m", "toolkit.cluster.rank", f"--folder={tmp_path}", "--master=h", "--port=1", "--per-node=8",
         "--apptainer", "--", sys.executable, "-c", code, *words],
        env={**os.environ, **SLURM}, cwd=Path(__file__).resolve().parents[2],
    )  # fmt: skip
    assert done.returncode == 0
    import json

    got, inside, ignored = json.loads((tmp_path / "rank-17.log").read_text())
    assert (got, inside, ignored) == (words, "17", "SIG_IGN")


@pytest.mark.parametrize(
    ("code", "hung", "told", "state", "blamed"),
    [
        (0, "", "", "COMPLETED", ()),
        (75, "", "srun: error: node02: task 1: Exited with exit code 75\n", "STOPPED", ()),
        (76, "", "srun: error: node02: tasks 0-3: Exited with exit code 76\n", "ROLLED_BACK", ()),
        (
            143,
            "",
            "srun: error: node01: task 0: Exited with exit code 76\nsrun: error: node02: task 1: Terminated\n",
            "ROLLED_BACK",
            (),
        ),
        (
            137,
            "",
            "srun: error: node03: task 17: Killed\nsrun: error: node04: tasks 18-19: Killed\n",
            "CRASHED",
            ("node03",),
        ),
        (139, "", "srun: error: node09: task 3: Segmentation fault (core dumped)\n", "CRASHED", ("node09",)),
        (1, "", "srun: error: node03: task 2: Exited with exit code 1\n", "CRASHED", ()),
        (137, "", "srun: error: node[03-04]: tasks 16-31: Killed\n", "CRASHED", ()),
        (1, "", "srun: error: Unable to create step for job 7: Invalid\n", "CRASHED", ()),
        (0, "", "srun: error: Node failure on node05\nsrun: got SIGCONT\n", "CRASHED", ("node05",)),
        (0, "no sign of life for 9 s", "", "HUNG", ()),
    ],
)
def test_how_a_step_ended(code: int, hung: str, told: str, state: str, blamed: tuple[str, ...]) -> None:
    ended = srun._judge(code, hung, told)
    assert (ended.state, tuple(node for node, _ in ended.blame)) == (state, blamed)
    assert ended.why or state in ("COMPLETED", "STOPPED")


def test_signals_are_noted_once_each_and_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGUSR2), signal.getsignal(signal.SIGTERM)
    with srun.listening() as asked:
        assert not asked
        for signum in (signal.SIGTERM, signal.SIGUSR2, signal.SIGUSR2, signal.SIGTERM):
            os.kill(os.getpid(), signum)
        assert asked and asked.signals == ["SIGTERM", "SIGUSR2"]
        first = asked.since
        os.kill(os.getpid(), signal.SIGUSR2)
        assert asked.since == first
    assert before == (signal.getsignal(signal.SIGUSR2), signal.getsignal(signal.SIGTERM))


def test_what_slurm_says_of_this_job_is_kept_from_commands_about_others(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SLURM_JOB_ID": "7", "SBATCH_PARTITION": "x", "SLURM_CONF": "/c", "HOME_OF": "y"}.items():
        monkeypatch.setenv(name, value)
    kept = slurm.environment()
    assert (kept["SLURM_CONF"], kept["SBATCH_PARTITION"], kept["HOME_OF"]) == ("/c", "x", "y")
    assert "SLURM_JOB_ID" not in kept


@pytest.mark.parametrize(
    ("text", "value"),
    [("59:57", 3597), ("1:00:00", 3600), ("6-00:00:01", 518401), ("UNLIMITED", None), ("INVALID", None)],
)
def test_times_as_slurm_writes_them(text: str, value: int | None) -> None:
    assert slurm.seconds(text) == value


def test_slurm_away_and_slurm_refusing_are_told_apart() -> None:
    away = slurm.refusal("squeue", "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n")
    assert isinstance(away, slurm.SlurmAway) and "try again" in str(away).lower()
    no = slurm.refusal(
        "sbatch", "sbatch: error: invalid partition specified: x\nsbatch: error: Batch job submission failed\n"
    )
    assert not isinstance(no, slurm.SlurmAway) and "invalid partition specified: x" in str(no)


def test_no_slurm_here_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(slurm.SlurmAway, match="no such command here"):
        slurm.jobs(["1"])
    monkeypatch.undo()
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "gone"))
    for word in ("squeue", "sbatch"):
        (tmp_path / word).write_text("#!/bin/sh\nexit 0\n")
        (tmp_path / word).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(slurm.SlurmAway, match="there is no such file"):
        slurm.ask("squeue")
