"""Launching on a real Slurm: the chain is there as planned, or nothing of it is."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import made_shards
from tests.slurm.conftest import Slurm
from toolkit import chain, cli, corpus, files, launch, shards, tokenizer
from toolkit.cluster import slurm as commands
from toolkit.cluster import submission
from toolkit.cluster.sbatch import Job, jobs
from toolkit.cluster.slurm import SlurmAway
from toolkit.errors import DiskFull, RunBusy
from toolkit.plan import steps
from toolkit.recipe import compose
from toolkit.runs import Run, create
from toolkit.stages.corpus import settings_of

pytestmark = pytest.mark.slow

# A begin in the far future keeps every job in the queue: what is tested here is the chain, not what it does.
HELD = "cluster.sbatch={begin: now+1hour}"
SIX = ["corpus", "base", "shards", "import", "pretrain", "report"]


@pytest.fixture
def here(slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for runs, with Slurm's commands going to the cluster of the tests; its jobs are gone afterwards."""
    monkeypatch.setenv("SLURM_CONF", str(slurm.conf))
    monkeypatch.chdir(tmp_path)
    made_shards.make(tmp_path / "shards", 4113)
    yield tmp_path
    slurm.run("scancel", "--quiet", f"--user={os.getuid()}", check=False)
    slurm.wait(lambda: not slurm.out("squeue", "--noheader"))


def words(*more: str, held: bool = True) -> list[str]:
    return ["recipe=demo", "cluster=slurm_dev", f"stages=[{','.join(SIX)}]", *([HELD] if held else []), *more]


def queue(slurm: Slurm) -> list[str]:
    return slurm.out("squeue", "--noheader", "--format=%i").split()


def the_run(here: Path) -> Path:
    (run,) = (here / "runs").iterdir()
    return run


def rows(run: Path) -> dict[str, Any]:
    return {row["id"]: row for row in json.loads((run / "jobs.json").read_text())["stages"]}


def test_the_chain_is_there_as_planned(slurm: Slurm, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(launch.main, [*words("data.shard_parts=3"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    ids = {job["key"]: job["id"] for job in told["jobs"]}
    assert list(ids) == ["corpus", "base", "shards-parts", "shards", "import", "pretrain", "report"]
    run = the_run(here)
    assert Path(told["run"]) == run
    recorded = {name: [(j["id"], j["array"]) for j in row["jobs"]] for name, row in rows(run).items()}
    assert recorded["shards"] == [(ids["shards-parts"], 3), (ids["shards"], None)]
    assert recorded["pretrain"] == [(ids["pretrain"], None)] and list(recorded) == SIX
    after = {key: slurm.job(ids[key]).get("Dependency", "") for key in ids if key != "shards-parts"}
    assert after["corpus"] == "(null)" and after["base"].startswith(f"afterok:{ids['corpus']}(")
    assert f"afterok:{ids['shards-parts']}_*(" in after["shards"]
    assert {word.split(":")[1].split("(")[0] for word in after["pretrain"].split(",")} == {ids["shards"], ids["import"]}
    job = slurm.job(ids["pretrain"])
    assert (job["NumNodes"], job["NumTasks"], job["Requeue"]) == ("4-4", "4", "1") and job[
        "KillOInInvalidDependent"
    ] == "Yes"
    assert job["WorkDir"] == str(run) and job["StdOut"] == f"{run}/jobs/pretrain-{ids['pretrain']}.out"
    assert f"{ids['shards-parts']}_[0-2%2]" in queue(slurm)


def test_an_array_makes_the_shards_of_one_process(slurm: Slurm, here: Path) -> None:
    """Seven files of a corpus over three tasks, two at once; then the job that puts what they made together."""
    pytest.importorskip("sentencepiece")
    texts = [f"Note {n}: {' '.join(str(n * k % 97) for k in range(30))}, a dose daily." for n in range(700)]
    words = tokenizer.train(texts, here / "base", vocab_size=300).folder
    for n in range(7):
        part = here / "corpus" / ("valid" if n == 6 else "train") / f"notes-{n:05}.jsonl"
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts[n::7]))
    given = [f"inputs.corpus={here / 'corpus'}", f"model.base={words}", "model.base_vocab=300", "data.shard_parts=3"]
    launched = ["recipe=demo", "cluster=slurm_dev", "stages=[shards]", *given, "--wait"]
    assert cli.run(launch.main, launched) == 0
    run = the_run(here)
    first, whole = rows(run)["shards"]["jobs"]
    assert (first["array"], whole["array"]) == (3, None)
    left = (run / "stages" / "shards" / "parts").rglob("*")
    assert {path.name for path in left if path.is_file()} == {"log"}  # its files are the shards now
    extended = tokenizer.extend(words, here / "extended").folder
    shards.build_parts(shards.corpus(here / "corpus"), here / "expected", tokenizer=extended)
    made = run / "stages" / "shards" / "shards"
    for name in ("blend.json", *(f"{s.name}.{end}" for s in shards.corpus(here / "corpus") for end in ("bin", "idx"))):
        assert (made / name).read_bytes() == (here / "expected" / name).read_bytes(), name


def test_an_array_makes_the_corpus_of_one_process(slurm: Slurm, here: Path) -> None:
    """Nine sources with bad rows and documents that are others over again, over eight tasks; then what puts them
    together."""
    given = ["corpus=jsonl", "~corpus.sources.documents", "corpus.max_bad_fraction=0.2", "corpus.valid_fraction=0.2"]
    sources = []
    for n in range(9):
        path = here / f"notes{n}.jsonl"
        texts = [f"Note {i % (20 + n)} of {n // 2}: {i % (20 + n)} mg daily." for i in range(60)]
        lines = [json.dumps({"id": f"{n}-{i}", "text": text}) for i, text in enumerate(texts)]
        path.write_text("\n".join([*lines, *["not json"] * (n % 2)]))
        given.append(f"+corpus.sources.notes{n}={{kind: jsonl, path: {path}}}")
        sources.append(corpus.Source(kind="jsonl", paths=(str(path),), subset=f"notes{n}"))
    launched = ["recipe=demo", "cluster=slurm_dev", "stages=[corpus]", "corpus.tasks=8", *given, "--wait"]
    assert cli.run(launch.main, launched) == 0
    run = the_run(here)
    first, whole = rows(run)["corpus"]["jobs"]
    assert (first["array"], whole["array"]) == (8, None)
    stage = run / "stages" / "corpus"
    assert {path.name for path in (stage / "parts").rglob("*") if path.is_file()} == {"log"}
    recipe = compose("demo", ["stages=[corpus]", *given]).recipe
    corpus.build(sources=sources, out=here / "expected", settings=settings_of(recipe))
    expected = {path.relative_to(here / "expected"): path for path in (here / "expected").rglob("*") if path.is_file()}
    assert len(expected) > 12
    assert all((stage / "corpus" / name).read_bytes() == path.read_bytes() for name, path in expected.items())
    report = json.loads((stage / "corpus" / "report.json").read_text())
    assert report["removed"]["bad_row"] == 4 and report["removed"]["exact_duplicate"] > 100


def test_a_second_launch_refuses_while_jobs_are_there(
    slurm: Slurm, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(launch.main, words()) == 0
    run, before = the_run(here), sorted(queue(slurm), key=int)
    kept = (run / "jobs.json").read_bytes()
    capsys.readouterr()
    assert cli.run(launch.main, [f"run={run}"]) == 1
    err = capsys.readouterr().err
    assert f"jobs {', '.join(before)} of this run are still queued or running" in err and "runs cancel" in err
    assert sorted(queue(slurm), key=int) == before and (run / "jobs.json").read_bytes() == kept
    slurm.run("scancel", *before)
    slurm.wait(lambda: not queue(slurm))
    (run / "cancelled.json").write_text("{}")
    assert cli.run(launch.main, [f"run={run}"]) == 0  # which goes on
    assert not (run / "cancelled.json").exists() and len(queue(slurm)) == len(SIX)
    assert all(len(row["jobs"]) == 2 for row in rows(run).values())


def test_two_launches_of_a_run_at_once(slurm: Slurm, here: Path, repo_root: Path) -> None:
    run = made(here)
    command = [sys.executable, "-m", "toolkit.launch", f"run={run.path}"]
    environment = {**os.environ, "PYTHONPATH": str(repo_root)}
    both = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment) for _ in "ab"]
    said = [process.communicate(timeout=120)[1].decode() for process in both]
    assert sorted(process.returncode for process in both) == [0, 1], said
    assert any("working on this run" in text or "still queued or running" in text for text in said)
    assert len(queue(slurm)) == len(SIX)


def made(here: Path, *more: str) -> Run:
    composed = compose("demo", words(f"runs='{here}/runs'", *more)[1:])
    return create(composed.recipe, command=["x"], plan={})


def test_the_third_is_refused_and_the_first_two_are_cancelled(
    slurm: Slurm, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Slurm takes jobs for the partition of the small ones; the training asks for one that is not there."""
    assert cli.run(launch.main, words("cluster.partition=nowhere", "cluster.small.partition=normal")) == 1
    err = capsys.readouterr().err
    assert "Slurm refused: job 5 of 6, pretrain" in err and "invalid partition specified: nowhere" in err
    assert "the 4 jobs submitted before it" in err and "have been cancelled" in err and err.count("\n") == 1
    assert queue(slurm) == [] and list((here / "runs").iterdir()) == []  # nothing has run: nothing is kept


def test_a_refusal_on_going_on_leaves_the_run_as_it_was(slurm: Slurm, here: Path) -> None:
    run = made(here, "cluster.partition=nowhere", "cluster.small.partition=normal")
    before = (run.path / "jobs.json").read_bytes()
    with pytest.raises(commands.SlurmError, match="job 5 of 6"):
        chain.submit(run)
    assert queue(slurm) == [] and (run.path / "jobs.json").read_bytes() == before


def test_slurm_away_says_so_and_leaves_nothing(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLURM_CONF", str(here / "none.conf"))
    assert cli.run(launch.main, words()) == 1
    assert "Slurm cannot be asked. SLURM_CONF names" in capsys.readouterr().err
    assert not (here / "runs").exists()


def test_slurm_goes_away_between_two_jobs(slurm: Slurm, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The third submission finds no controller, and nor does the first attempt to cancel: a second one does."""
    run, count = made(here), [0]
    real = submission.submit

    def third(job: Any, after: Any = ()) -> str:
        count[0] += 1
        if count[0] == 3:
            raise SlurmAway("Slurm cannot be asked", where="sbatch", why="Unable to contact slurm controller")
        return real(job, after)

    tried: list[int] = []
    cancel = commands.cancel

    def late(ids: Any) -> None:
        tried.append(1)
        if len(tried) == 1:
            raise SlurmAway("Slurm cannot be asked", where="scancel", why="Unable to contact slurm controller")
        cancel(ids)

    monkeypatch.setattr(submission, "submit", third)
    monkeypatch.setattr(commands, "cancel", late)
    with pytest.raises(SlurmAway, match="job 3 of 6, shards") as caught:
        chain.submit(run)
    assert "have been cancelled" in str(caught.value) and len(tried) == 2
    slurm.wait(lambda: not queue(slurm))
    assert rows(run.path) == {}


def test_a_full_disk_halfway_takes_the_jobs_back(slurm: Slurm, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, real, left = made(here), os.fsync, [7]  # scripts and jobs.json in turn: the fourth script

    def full(handle: int) -> None:
        left[0] -= 1
        if left[0] <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    before = rows(run.path)
    with monkeypatch.context() as small:
        small.setattr(files.os, "fsync", full)
        with pytest.raises(DiskFull, match="job 4 of 6, import") as caught:
            chain.submit(run)
    assert "the 3 jobs submitted before it" in str(caught.value)
    slurm.wait(lambda: not queue(slurm))
    assert before == {} and len(rows(run.path)) == 3  # which it could not write either; Slurm says that they have ended
    assert len(chain.submit(run)) == len(SIX)


def test_what_cannot_be_cancelled_stays_known(slurm: Slurm, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made(here, "cluster.partition=nowhere", "cluster.small.partition=normal")

    def never(ids: Any) -> None:
        raise SlurmAway("Slurm cannot be asked", where="scancel", why="no answer within 45 s")

    monkeypatch.setattr(chain, "_waits", lambda: iter([0.0, None]))
    with monkeypatch.context() as without:
        without.setattr(commands, "cancel", never)
        with pytest.raises(commands.SlurmError, match="job 5 of 6") as caught:
            chain.submit(run)
    ids = [row["jobs"][0]["id"] for row in rows(run.path).values()]
    assert len(ids) == 4 and all(i in str(caught.value) for i in ids) and f"runs cancel {run.path}" in str(caught.value)
    chain.discard(run)
    assert run.path.exists()  # with jobs that may run in it
    with pytest.raises(RunBusy):
        chain.submit(run)


@pytest.mark.parametrize("number", [1, 3])
def test_ctrl_c_while_sbatch_answers(number: int, slurm: Slurm, here: Path, repo_root: Path) -> None:
    """Sent to the launcher and to sbatch alike, as a terminal does, when Slurm has the job and nobody knows its id."""
    slow = here / "bin" / "sbatch"
    slow.parent.mkdir()
    real = shutil.which("sbatch")
    slow.write_text(f'#!/bin/bash\nout=$({real} "$@") || exit $?\necho x >> {here}/count\nsleep 2\necho "$out"\n')
    slow.chmod(0o755)
    path = f"{slow.parent}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.Popen(
        [sys.executable, "-m", "toolkit.launch", *words()], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(repo_root), "PATH": path}, start_new_session=True,
    )  # fmt: skip
    count = here / "count"
    slurm.wait(lambda: count.exists() and len(count.read_text().split()) >= number)
    assert len(queue(slurm)) == number
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=90)[1].decode()
    assert process.returncode == 130, said
    assert said.splitlines() == [f"cancelled what had been submitted: {number} jobs", "interrupted"]
    assert queue(slurm) == [] and list((here / "runs").iterdir()) == []


PROBE = """
import json, os, sys
json.dump({"argv": sys.argv[1:], "cwd": os.getcwd()}, open(sys.argv[1] + "/said", "w"))
print("probe")
"""


@pytest.mark.parametrize(
    "name",
    ["a b", "it's", 'q"q', "d$HOME", "p%j%%", "ünï-文", "h#x", "`touch evil`", "$(touch evil)", "-x", "~", "*;&|"],
)
def test_a_folder_with_any_name_goes_through_unchanged(name: str, slurm: Slurm, here: Path) -> None:
    """The script as sbatch reads it, the job as bash runs it; in the place of the entry stands a probe."""
    run, probe = here / name, here / "probe.py"
    (run / "jobs").mkdir(parents=True)
    probe.write_text(PROBE)
    recipe = compose("demo", ["cluster=slurm_dev", "stages=[corpus]"]).recipe
    (job,) = jobs(recipe, steps(recipe)[0], run)
    changed = replace_entry(job, probe)
    ident = submission.submit(changed)
    slurm.wait(lambda: slurm.job(ident)["JobState"] in ("COMPLETED", "FAILED"))
    said = json.loads((run / "said").read_text())
    assert said["argv"] == [str(run), "corpus"] and said["cwd"] == str(run)
    assert (run / "jobs" / f"corpus-{ident}.out").read_text() == "probe\n"
    assert not list(here.rglob("evil"))


def replace_entry(job: Job, probe: Path) -> Job:
    return dataclasses.replace(job, command=job.command.replace("-m toolkit.job", str(probe)))


def in_job(
    slurm: Slurm, here: Path, root: Path, stage: str, *more: str, after: str = "", size: str = "--nodes=4"
) -> str:
    """A batch job that calls --in-job, as the scripts do; returns its id."""
    script = here / "script.sh"
    called = f'"{sys.executable}" -m toolkit.launch --in-job {stage} {shlex.join(more)}'
    lines = [
        "#!/bin/bash",
        f"cd {here}",
        f"export PYTHONPATH={root}",
        f"RUN=$({called}) || exit $?",
        'echo "RUN=$RUN"',
        after,
    ]
    script.write_text("\n".join(lines) + "\n")
    return slurm.submit(
        size, "--ntasks-per-node=1", "--requeue", f"--output={here}/%j.out", "--open-mode=append", script
    )


def ended(slurm: Slurm, job: str) -> str:
    slurm.wait(
        lambda: slurm.job(job)["JobState"] not in ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING"), seconds=120
    )
    return slurm.job(job)["JobState"]


GIVEN = ("recipe=demo", "cluster=slurm_dev", "inputs.shards=shards", "inputs.checkpoint=/c", "model.base=/m", HELD)


def test_a_job_begins_a_chain_and_a_requeue_does_not_begin_another(slurm: Slurm, here: Path, repo_root: Path) -> None:
    wait_once = '[ "${SLURM_RESTART_COUNT:-0}" -gt 0 ] || { touch up; sleep 60; }'
    stages = "stages=[corpus,base,shards,import,pretrain,export,report]"
    job = in_job(slurm, here, repo_root, "pretrain", *GIVEN, stages, after=wait_once)
    slurm.wait((here / "up").exists, seconds=120)
    run = the_run(here)
    assert run.name.endswith(f"-j{job}") and json.loads((run / "manifest.json").read_text())["command"]
    recorded = {name: [j["id"] for j in row["jobs"]] for name, row in rows(run).items()}
    assert list(recorded) == ["pretrain", "export-pretrain", "report"] and recorded["pretrain"] == [job]
    assert slurm.job(recorded["export-pretrain"][0])["Dependency"].startswith(f"afterok:{job}(")
    waiting, kept = sorted(set(queue(slurm)) - {job}), (run / "jobs.json").read_bytes()
    slurm.run("scontrol", "requeue", job)
    slurm.wait(lambda: (here / f"{job}.out").read_text().count("RUN=") == 2, seconds=180)
    assert (here / f"{job}.out").read_text().splitlines().count(f"RUN={run}") == 2
    assert the_run(here) == run and (run / "jobs.json").read_bytes() == kept
    assert sorted(set(queue(slurm)) - {job}) == waiting


def test_a_job_of_the_wrong_size_fails_and_says_what_to_ask_for(slurm: Slurm, here: Path, repo_root: Path) -> None:
    job = in_job(slurm, here, repo_root, "pretrain", *GIVEN, size="--nodes=2")
    assert ended(slurm, job) == "FAILED"
    said = (here / f"{job}.out").read_text()
    assert "takes 4 nodes x 1 tasks, and this job has 2 x 1 tasks" in said and "--nodes=4 --ntasks-per-node=1" in said
    assert "RUN=" not in said and not (here / "runs").exists() and queue(slurm) == []


def test_a_job_whose_followers_are_refused_fails(slurm: Slurm, here: Path, repo_root: Path) -> None:
    job = in_job(slurm, here, repo_root, "pretrain", *GIVEN, "cluster.small.partition=nowhere")
    assert ended(slurm, job) == "FAILED"
    said = (here / f"{job}.out").read_text()
    assert "Slurm refused: job 1 of" in said and "nowhere" in said and "RUN=" not in said
    assert list((here / "runs").iterdir()) == [] and queue(slurm) == []


def test_a_job_alone(slurm: Slurm, here: Path, repo_root: Path) -> None:
    job = in_job(slurm, here, repo_root, "pretrain", *GIVEN, "--only")
    assert ended(slurm, job) == "COMPLETED" and queue(slurm) == []
    assert list(rows(the_run(here))) == ["pretrain"]


def test_waiting_is_told_how_it_ended(slurm: Slurm, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A chain of one stage whose payload is a probe that ends well and makes nothing."""
    probe = here / "python"
    probe.write_text("#!/bin/sh\nexit 3\n")
    probe.chmod(0o755)
    code = cli.run(launch.main, [
        "recipe=demo", "cluster=slurm_dev", "stages=[corpus,base]", f"container.python={probe}", "--wait",
    ])  # fmt: skip
    told = capsys.readouterr()
    assert code == 1 and "stage corpus" in told.err, told.err
    assert queue(slurm) == []


def test_what_the_plan_refuses_is_not_in_the_queue_until_it_is_forced(
    slurm: Slurm, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The 70B on sixteen nodes of eight: too large a micro-batch, a budget that is too small; and then all the same."""
    made_shards.make(here / "of_70b", 32_017)
    large = ["recipe=pretrain_70b", "stages=[pretrain]", "container=none", "train.micro_batch=8", HELD]
    large += [f"inputs.shards={here / 'of_70b'}", "inputs.checkpoint=start", "cluster.max_gpu_hours=1000"]
    large += ["cluster.cpus_per_device=1", "cluster.mem_gib=null"]
    assert cli.run(launch.main, large) == 3
    assert "error: pretrain_70b: pretrain takes " in capsys.readouterr().err
    assert not queue(slurm) and not (here / "runs").exists()
    assert cli.run(launch.main, [*large, "--force", "--json"]) == 0
    out, err = capsys.readouterr()
    assert err.startswith("warning: forced: ") and "nobody can be asked here, so it goes on" in err
    assert queue(slurm) == [job["id"] for job in json.loads(out)["jobs"]]
    job = slurm.job(queue(slurm)[0])
    assert (job["NumNodes"], job["NumTasks"]) == ("16-16", "128")
    promised = json.loads((the_run(here) / "plan.json").read_text())["promise"]
    assert len(promised["refused"]) == 2 and promised["trainings"][0]["memory"]["fits"] is False
