"""`python -m toolkit.runs` over a real Slurm: seen, followed over a requeue, cancelled, and told without it.

The jobs are small scripts, submitted and recorded here as a launch does it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.runs.test_overview import finish
from tests.slurm.conftest import Slurm, slurm_dev
from tests.stages.conftest import arguments, make, notes
from toolkit import cli, files
from toolkit.runs import Run
from toolkit.runs.__main__ import main

__all__ = ["arguments", "make", "notes"]
pytestmark = pytest.mark.slow
Make = Callable[..., Run]
STAGES = ["corpus", "shards", "pretrain"]


class Chain:
    """A run whose stages are jobs of a real Slurm, each after the one before."""

    def __init__(self, slurm: Slurm, run: Run) -> None:
        self.slurm, self.run, self.jobs = slurm, run, {}
        (run.path / "jobs").mkdir()

    def submit(self, *options: str, **bodies: str) -> None:
        """One job for each stage, and jobs.json as whoever submits writes it. `{stage}` in a body is its folder."""
        before = ""
        rows: dict[str, Any] = {r["id"]: r for r in json.loads((self.run.path / "jobs.json").read_text())["stages"]}
        for stage, body in bodies.items():
            folder = self.run.stage(stage)
            folder.mkdir(parents=True, exist_ok=True)
            script = folder / "job.sh"
            script.write_text(f"#!/bin/bash\n{body.format(stage=folder)}\n")
            after = [f"--dependency=afterok:{before}", "--kill-on-invalid-dep=yes"] if before else []
            output = self.run.path / "jobs" / f"{stage}-%j.out"
            words = ["--requeue", "--open-mode=append", f"--output={output}", *after, *options, script]
            before = self.jobs[stage] = self.slurm.submit(*words)
            row = rows.setdefault(stage, {"id": stage, "stage": stage, "attempts": [], "jobs": []})
            row["jobs"].append({"id": before, "part_of": None, "array": None, "submitted": time.time()})
        files.write_json(self.run.path / "jobs.json", {"stages": list(rows.values())})

    def attempt(self, stage: str, *states: str, **more: Any) -> None:
        rows = [
            {"job_id": self.jobs[stage], "restart": n, "state": state, "started": time.time(), "ended": None, "why": "",
             "hosts": ["node01"], "logs": {}, "step_from": None, "step_to": None, **more}
            for n, state in enumerate(states)
        ]  # fmt: skip
        files.write_json(self.run.stage(stage) / "attempts.json", {"attempts": rows})

    def state(self, stage: str) -> str:
        return self.slurm.job(self.jobs[stage])["JobState"]

    def wait(self, stage: str, state: str) -> None:
        self.slurm.wait(lambda: self.state(stage) == state)


@pytest.fixture
def chain(slurm: Slurm, make: Make, monkeypatch: pytest.MonkeyPatch) -> Iterator[Chain]:
    monkeypatch.setenv("SLURM_CONF", str(slurm.conf))
    made = Chain(slurm, make(STAGES, "inputs.checkpoint=y"))
    yield made
    if made.jobs and slurm.status()["status"] == "up":
        slurm.run("scancel", *made.jobs.values(), check=False)


def runs(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = cli.run(main, list(words))
    told = capsys.readouterr()
    return code, told.out, told.err


def shown(capsys: pytest.CaptureFixture[str], run: Run) -> dict[str, Any]:
    code, out, err = runs(capsys, "show", str(run.path), "--json")
    assert code == 0, err
    return dict(json.loads(out))


def test_a_chain_is_seen_and_cancelled_as_a_whole(chain: Chain, capsys: pytest.CaptureFixture[str]) -> None:
    run = chain.run
    chain.submit("--time=60", corpus="sleep 600", shards="true", pretrain="true")
    chain.wait("corpus", "RUNNING")
    chain.attempt("corpus", "RUNNING")
    told = shown(capsys, run)
    assert (told["state"], told["stage"], told["note"]) == ("running", "corpus", "")
    assert [(s["state"], s["reason"]) for s in told["stages"]] == [
        ("running", ""), ("queued", "Dependency"), ("queued", "Dependency"),
    ]  # fmt: skip
    assert 3000 < told["limit_s"] <= 3600 and told["stages"][0]["jobs"][0]["nodes"].startswith("node")
    _, page, _ = runs(capsys, "show", str(run.path))
    assert f"corpus    {chain.jobs['corpus']}" in page and "PENDING Dependency" in page and "being worked on" in page
    _, table, _ = runs(capsys, "list", "--root", str(run.path.parent))
    assert "running  corpus" in table

    code, out, err = runs(capsys, "cancel", str(run.path), "--json")
    assert code == 0, err
    assert {j["id"]: (j["stage"], j["before"]) for j in json.loads(out)["jobs"]} == {
        chain.jobs["corpus"]: ("corpus", "RUNNING"),
        **{chain.jobs[stage]: (stage, "PENDING") for stage in ("shards", "pretrain")},
    }
    assert {chain.state(stage) for stage in STAGES} <= {"CANCELLED", "COMPLETING"}
    note = json.loads((run.path / "cancelled.json").read_text())
    assert note["by"] and 0 <= time.time() - note["at"] < 600
    assert shown(capsys, run)["state"] == "cancelled"
    code, _, err = runs(capsys, "cancel", str(run.path))
    assert code == 1 and "nothing works on this run" in err


def test_the_note_is_there_before_a_job_is_asked_to_stop(chain: Chain, capsys: pytest.CaptureFixture[str]) -> None:
    run = chain.run
    body = f"trap 'ls {run.path} >{{stage}}/seen; exit 1' TERM; touch {{stage}}/ready; sleep 600 & wait"
    chain.submit(corpus=body)
    chain.slurm.wait(lambda: (run.stage("corpus") / "ready").exists())
    assert runs(capsys, "cancel", str(run.path))[0] == 0
    chain.slurm.wait(lambda: (run.stage("corpus") / "seen").exists())
    assert "cancelled.json" in (run.stage("corpus") / "seen").read_text()


def test_a_job_that_does_not_end_is_said(chain: Chain, capsys: pytest.CaptureFixture[str]) -> None:
    chain.submit(corpus="trap '' TERM; touch {stage}/ready; sleep 600 & wait; wait; sleep 60")
    chain.slurm.wait(lambda: (chain.run.stage("corpus") / "ready").exists())
    code, out, err = runs(capsys, "cancel", str(chain.run.path), "--grace", "0")
    assert (code, err) == (0, "") and "COMPLETING still, which Slurm brings to its end" in out
    chain.slurm.wait(lambda: chain.state("corpus") == "CANCELLED")


def test_following_goes_on_over_a_requeue(chain: Chain, repo_root: Path) -> None:
    """The first attempt is put back into the queue, the second ends the stage; a third line would be after its end."""
    run = chain.run
    again = 'if [ "$SLURM_RESTART_COUNT" ]; then echo "second attempt" >>{stage}/log; else'
    first = "echo first attempt >>{stage}/log; sleep 600; fi; until [ -e {stage}/go ]; do sleep 0.1; done"
    chain.submit("--hold", pretrain=f"{again} {first}")
    chain.slurm.wait(lambda: chain.slurm.job(chain.jobs["pretrain"]).get("Reason") == "JobHeldUser")
    command = [sys.executable, "-m", "toolkit.runs", "logs", str(run.path), "-f"]
    environment = {**os.environ, "PYTHONPATH": str(repo_root)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as follower:
        stop = threading.Timer(300, follower.kill)
        stop.start()
        try:
            assert follower.stdout is not None and follower.stderr is not None
            assert "stage pretrain is queued (JobHeldUser)" in follower.stderr.readline()
            chain.slurm.out("scontrol", "release", chain.jobs["pretrain"])
            chain.wait("pretrain", "RUNNING")
            chain.attempt("pretrain", "RUNNING")
            assert follower.stdout.readline() == "first attempt\n"
            chain.slurm.out("scontrol", "requeue", chain.jobs["pretrain"])
            chain.attempt("pretrain", "STOPPED")
            # It starts again by itself; hastened with StartTime=now it may be refused: "Job credential revoked".
            assert follower.stdout.readline() == "second attempt\n"
            assert follower.poll() is None
            finish(run, "pretrain")
            (run.stage("pretrain") / "go").touch()
            out, err = follower.communicate(timeout=60)
        finally:
            stop.cancel()
            follower.kill()
    assert (follower.returncode, out, err) == (0, "", "")


def test_following_ends_when_the_jobs_are_gone(chain: Chain, capsys: pytest.CaptureFixture[str]) -> None:
    chain.submit(corpus="echo so far >{stage}/log; echo the job said")
    chain.wait("corpus", "COMPLETED")
    assert runs(capsys, "logs", str(chain.run.path), "-f") == (0, "so far\n", "")
    code, out, _ = runs(capsys, "logs", str(chain.run.path), "--job", "-f")
    assert (code, out) == (0, "the job said\n")
    told = shown(capsys, chain.run)
    assert told["state"] == "failed" and "COMPLETED without what the stage should leave" in told["why"]


def test_a_requeued_a_failed_and_a_never_started_stage(chain: Chain, capsys: pytest.CaptureFixture[str]) -> None:
    run = chain.run
    chain.submit(corpus="sleep 600", shards="true")
    chain.wait("corpus", "RUNNING")
    chain.attempt("corpus", "STOPPED", why="SIGUSR2")
    chain.slurm.out("scontrol", "requeue", chain.jobs["corpus"])
    chain.slurm.wait(lambda: chain.slurm.job(chain.jobs["corpus"]).get("Reason") == "BeginTime")
    told = shown(capsys, run)
    assert (told["state"], told["stage"], told["why"]) == ("queued", "corpus", "BeginTime")
    assert told["stages"][0]["jobs"][0]["restarts"] == 1
    _, page, _ = runs(capsys, "show", str(run.path))
    assert "1 restart" in page and "(1 stopped in time)" in page and "its jobs are queued" in page
    (run.stage("corpus") / "job.sh").write_text("#!/bin/bash\nexit 3\n")
    chain.slurm.out("scancel", *chain.jobs.values())
    chain.submit(corpus="exit 3", shards="true")
    chain.wait("corpus", "FAILED")
    told = shown(capsys, run)
    assert (told["state"], told["stage"]) == ("failed", "corpus") and "ended as FAILED" in told["why"]
    chain.wait("shards", "CANCELLED")
    told = shown(capsys, run)
    assert [s["state"] for s in told["stages"]] == ["failed", "waiting", "waiting"]


def test_an_array_is_one_job_with_many_tasks(chain: Chain, capsys: pytest.CaptureFixture[str]) -> None:
    run, slurm = chain.run, chain.slurm
    folder = run.stage("corpus")
    folder.mkdir(parents=True)
    (folder / "job.sh").write_text(
        f"#!/bin/bash\nmkdir -p {folder}/parts/$SLURM_ARRAY_TASK_ID\necho part $SLURM_ARRAY_TASK_ID\n"
        f"echo log of $SLURM_ARRAY_TASK_ID >{folder}/parts/$SLURM_ARRAY_TASK_ID/log\n"
        '[ "$SLURM_ARRAY_TASK_ID" = 0 ] || sleep 600\n'
    )
    output = f"--output={run.path}/jobs/corpus-%A_%a.out"
    array = slurm.submit("--array=0-3%2", "--requeue", output, folder / "job.sh")
    last = slurm.submit(f"--dependency=afterok:{array}", "--output=/dev/null", "--wrap", "true")
    chain.jobs.update(array=array, last=last)
    jobs = [{"id": i, "part_of": None, "array": n, "submitted": time.time()} for i, n in ((array, 4), (last, None))]
    files.write_json(
        run.path / "jobs.json", {"stages": [{"id": "corpus", "stage": "corpus", "attempts": [], "jobs": jobs}]}
    )
    running = ("squeue", "--noheader", "--states=running", f"--jobs={array}", "--format=%K")
    slurm.wait(lambda: sorted(slurm.out(*running).split()) == ["1", "2"])
    slurm.wait(lambda: (folder / "parts/1/log").exists() and (folder / "parts/2/log").exists())
    told = shown(capsys, run)
    assert (told["state"], told["stage"], told["unit"], told["of"]) == ("running", "corpus", "parts", 4)
    assert told["stages"][0]["jobs"][0]["tasks"] == {"COMPLETED": 1, "RUNNING": 2, "PENDING": 1}
    assert runs(capsys, "logs", str(run.path), "corpus", "--part", "2")[1] == "log of 2\n"
    assert runs(capsys, "logs", str(run.path), "corpus", "--part", "1", "--job")[1] == "part 1\n"
    assert runs(capsys, "logs", str(run.path), "corpus", "--part", "0", "-f") == (0, "log of 0\n", "")
    code, out, _ = runs(capsys, "cancel", str(run.path), "--json")
    assert code == 0 and {j["id"] for j in json.loads(out)["jobs"]} == {array, last}


def test_slurm_has_forgotten_the_job(chain: Chain, capsys: pytest.CaptureFixture[str]) -> None:
    """A cluster that was set up anew knows no job of the one before."""
    chain.submit(corpus="true")
    chain.wait("corpus", "COMPLETED")
    forgotten = chain.jobs["corpus"]
    record = json.loads((chain.run.path / "jobs.json").read_text())
    record["stages"][0]["jobs"][0]["id"] = "999999"
    files.write_json(chain.run.path / "jobs.json", record)
    chain.jobs["corpus"] = "999999"
    for state, said in (("RUNNING", "lost"), ("STOPPED", "interrupted"), ("FAILED", "failed"), ("LOST", "lost")):
        chain.attempt("corpus", state)
        told = shown(capsys, chain.run)
        assert (told["state"], told["note"]) == (said, "")
    chain.jobs["corpus"] = forgotten
    code, _, err = runs(capsys, "cancel", str(chain.run.path))
    assert code == 1 and "nothing works on this run" in err
    assert not (chain.run.path / "cancelled.json").exists()


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_slurm_is_away(
    slurm_packages: None, short_tmp: Path, make: Make, how: str, repo_root: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """A controller that hangs, and one that is dead: files tell, nothing is changed, and nothing is lost."""
    state = short_tmp / "s"
    assert slurm_dev("up", "--nodes", "1", "--state", state).returncode == 0
    cluster = Slurm(state=state)
    monkeypatch.setenv("SLURM_CONF", str(cluster.conf))
    chain = Chain(cluster, make(STAGES, "inputs.checkpoint=y"))
    chain.submit(corpus="echo going on >{stage}/log; until [ -e {stage}/go ]; do sleep 0.1; done", shards="true")
    chain.wait("corpus", "RUNNING")
    chain.attempt("corpus", "RUNNING")
    controller = cluster.status()["pids"]["slurmctld"]
    os.kill(controller, signal.SIGSTOP if how == "stopped" else signal.SIGKILL)

    told = shown(capsys, chain.run)
    assert (told["state"], told["stage"]) == ("running", "corpus") and told["alive_s"] is not None
    assert "Slurm cannot be asked" in told["note"] and "from the files alone" in told["note"]
    code, out, _ = runs(capsys, "list", "--root", str(chain.run.path.parent))
    assert code == 0 and out.count("Slurm cannot be asked") == 1
    if how == "killed":
        return
    command = [sys.executable, "-m", "toolkit.runs", "logs", str(chain.run.path), "-f"]
    environment = {**os.environ, "PYTHONPATH": str(repo_root)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as follower:
        stop = threading.Timer(300, follower.kill)
        stop.start()
        try:
            assert follower.stderr is not None and "following on" in follower.stderr.readline()
            finish(chain.run, "corpus")
            out, err = follower.communicate(timeout=60)
        finally:
            stop.cancel()
            follower.kill()
    assert (follower.returncode, out, err) == (0, "going on\n", "")
    before = sorted(p.name for p in chain.run.path.iterdir() if p.name != "lock")
    (chain.run.stage("corpus") / "done.json").unlink()
    code, out, _ = runs(capsys, "cancel", str(chain.run.path), "--json")
    assert code == 1 and json.loads(out)["error"] == "SlurmAway"
    assert sorted(p.name for p in chain.run.path.iterdir() if p.name != "lock") == before
    os.kill(controller, signal.SIGCONT)
    cluster.wait(lambda: cluster.run("squeue", check=False).returncode == 0)
    assert shown(capsys, chain.run)["state"] == "running"


def test_slurm_goes_away_between_question_and_order(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """scancel is refused: the note is taken back, an older one is put back."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "scancel").write_text("#!/bin/sh\necho 'scancel: error: Unable to contact slurm controller' >&2\nexit 1\n")
    (tools / "scancel").chmod(0o755)
    chain.submit(corpus="sleep 600")
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    for earlier in (None, '{"by": "me", "at": 1}'):
        if earlier:
            (chain.run.path / "cancelled.json").write_text(earlier)
        code, out, _ = runs(capsys, "cancel", str(chain.run.path), "--json")
        assert code == 1 and json.loads(out)["error"] == "SlurmAway"
        note = chain.run.path / "cancelled.json"
        assert (note.read_text() if note.exists() else None) == earlier
    assert chain.state("corpus") in ("PENDING", "RUNNING")
    chain.wait("corpus", "RUNNING")
    (tools / "scancel").write_text("#!/bin/sh\nexit 0\n")  # taken, and without effect
    code, out, _ = runs(capsys, "cancel", str(chain.run.path), "--json", "--grace", "0.2")
    told = json.loads(out)
    assert (code, told["error"]) == (1, "RunBusy") and f"job {chain.jobs['corpus']} of stage corpus is RUNNING" in told[
        "why"
    ]
    assert json.loads((chain.run.path / "cancelled.json").read_text())["at"] > 1
    (tools / "scancel").unlink()
    assert runs(capsys, "cancel", str(chain.run.path))[0] == 0
