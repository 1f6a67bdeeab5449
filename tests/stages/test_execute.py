"""Runs from end to end through submitit's local executor: what is done is skipped, what fails says why, and nothing
is left running."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from toolkit import files
from toolkit.errors import DataError, RunBusy, RunError, StageFailed
from toolkit.plan import steps
from toolkit.runs import Run, done, held
from toolkit.submit import execute, failure, outlook

Make = Callable[..., Run]


def attempts(run: Run) -> dict[str, list[str]]:
    rows = json.loads((run.path / "jobs.json").read_text())["stages"]
    return {row["id"]: [attempt["state"] for attempt in row["attempts"]] for row in rows}


def states(run: Run) -> dict[str, str]:
    return {row["id"]: row["state"] for row in outlook(run)}


def processes(run: Run) -> list[int]:
    """Everything alive that names the run on its command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except OSError:
            continue
        if str(run.path).encode() in words and int(path.parent.name) != os.getpid():
            found.append(int(path.parent.name))
    return found


def payload(run: Run, stage: str) -> int:
    """The process that does the stage's work, once it is there."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for pid in processes(run):
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"toolkit.stages" in words and stage.encode() in words:
                return pid
        time.sleep(0.02)
    raise AssertionError(f"stage {stage} did not start")


def launch(repo_root: Path, *words: str) -> subprocess.Popen[str]:
    """The command line in a process group of its own, as a shell starts it."""
    return subprocess.Popen(
        [sys.executable, "-m", "toolkit.launch", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(repo_root), "SECRET_TOKEN": "xyz-of-the-environment"},
    )  # fmt: skip


@pytest.mark.slow
def test_from_the_command_line_to_the_shards_and_again(
    arguments: list[str], notes: Path, runs_root: Path, repo_root: Path
) -> None:
    first = launch(repo_root, "recipe=demo", "stages=[corpus,base,shards]", *arguments, "--json")
    out, err = first.communicate(timeout=120)
    assert first.returncode == 0, err
    told = json.loads(out)
    assert [row["id"] for row in told["stages"]] == ["corpus", "base", "shards"]
    root = Path(told["run"])
    made = json.loads((root / "stages" / "shards" / "shards" / "blend.json").read_text())
    assert made["train"] and all(shard["tokens"] > 0 for shard in made["train"] + made["valid"])
    manifest = json.loads((root / "manifest.json").read_text())
    assert "recipe=demo" in manifest["command"] and manifest["run"] == root.name
    jobs = json.loads((root / "jobs.json").read_text())["stages"]
    for row in jobs:
        (attempt,) = row["attempts"]
        assert attempt["state"] == "COMPLETED" and attempt["job_id"].isdigit()
        assert attempt["started"] <= attempt["ended"]
    kept = [path for path in root.rglob("*") if path.is_file()]
    assert len(kept) > 15
    assert [path for path in kept if b"xyz-of-the-environment" in path.read_bytes()] == []

    before = {path: path.stat().st_mtime_ns for path in root.glob("stages/*/done.json")}
    second = launch(repo_root, f"run={root}")
    out, err = second.communicate(timeout=60)
    assert second.returncode == 0, err
    assert [line.split()[1:3] for line in out.splitlines()[:3]] == [
        ["skipped", "corpus"], ["skipped", "base"], ["skipped", "shards"],
    ]  # fmt: skip
    assert {path: path.stat().st_mtime_ns for path in root.glob("stages/*/done.json")} == before
    assert json.loads((root / "jobs.json").read_text())["stages"] == jobs


@pytest.mark.slow
def test_what_changed_runs_again_and_what_follows_from_it(make: Make, notes: Path) -> None:
    run = make(["corpus", "base", "shards"])
    assert states(run) == {
        "corpus": "to run: not finished", **dict.fromkeys(["base", "shards"], "to run: waits for earlier stages"),
    }  # fmt: skip
    execute(run, quiet=True)
    once = {name: ["COMPLETED"] for name in ("corpus", "base", "shards")}
    assert attempts(run) == once and set(states(run).values()) == {"done"}

    (run.stage("shards") / "shards" / "train" / "notes-00000.idx").unlink()  # the last stage's output: it alone
    assert states(run) == {"corpus": "done", "base": "done", "shards": "to run: shards has changed"}
    execute(run, quiet=True)
    assert attempts(run) == {**once, "shards": ["COMPLETED"] * 2} and set(states(run).values()) == {"done"}

    # the same corpus again, byte for byte: nothing that follows has to run
    (run.stage("corpus") / "corpus" / "train" / "notes-00000.jsonl.zst").unlink()
    assert states(run)["corpus"] == "to run: corpus has changed"
    execute(run, quiet=True)
    assert attempts(run) == {"corpus": ["COMPLETED"] * 2, "base": ["COMPLETED"], "shards": ["COMPLETED"] * 2}

    with open(notes, "a", encoding="utf-8") as lines:  # other text: everything has to
        lines.write(json.dumps({"text": "A new note on fever and cough, written later than all the others."}) + "\n")
    assert states(run)["corpus"] == "to run: its inputs have changed"
    execute(run, quiet=True)
    counts = {name: len(states) for name, states in attempts(run).items()}
    assert counts == {"corpus": 3, "base": 2, "shards": 3}


@pytest.mark.slow
def test_what_was_made_from_other_inputs_is_set_aside(make: Make, notes: Path) -> None:
    """A checkpoint that an earlier attempt left is gone on from only while the inputs are the same."""
    run = make(["corpus", "base", "shards"])
    execute(run, quiet=True)
    left = run.stage("shards") / "checkpoints" / "step=9" / "weights"
    left.mkdir(parents=True)

    (run.stage("shards") / "done.json").unlink()  # interrupted: the same inputs
    execute(run, quiet=True)
    assert left.is_dir() and not list(run.stage("shards").glob("stale-*"))

    with open(notes, "a", encoding="utf-8") as lines:
        lines.write(json.dumps({"text": "A new note on fever and cough, written later than all the others."}) + "\n")
    execute(run, quiet=True)
    (aside,) = run.stage("shards").glob("stale-*")
    assert not left.exists() and (aside / "checkpoints" / "step=9" / "weights").is_dir()
    assert (run.stage("shards") / "shards" / "train" / "notes-00000.idx").is_file(), "the new shards are in their place"
    assert aside.name in (run.stage("shards") / "log").read_text()

    (run.stage("shards") / "inputs.json").write_text("{", encoding="utf-8")  # nobody knows what the rest was made from
    (run.stage("shards") / "done.json").unlink()
    execute(run, quiet=True)
    assert json.loads((run.stage("shards") / "inputs.json").read_text())


def test_a_stages_own_error_comes_back_whole(make: Make, notes: Path) -> None:
    notes.write_text("no json\n" * 50)
    run = make(["corpus"])
    with pytest.raises(DataError) as caught:
        execute(run, quiet=True)
    assert str(notes) in str(caught.value) and caught.value.exit_code == 1
    assert attempts(run) == {"corpus": ["FAILED"]} and done(run, "corpus") is None
    notes.write_text("".join(json.dumps({"text": f"A note on fever, number {n} of many."}) + "\n" for n in range(50)))
    result = execute(run, quiet=True)  # mended: the same run ends
    assert result["stages"][0]["id"] == "corpus" and attempts(run) == {"corpus": ["FAILED", "COMPLETED"]}
    assert not list(run.stage("corpus").glob("error*.json"))


def test_a_stages_error_has_its_classs_exit_code(make: Make, repo_root: Path) -> None:
    run = make(["corpus"], "+corpus.sources.world={kind: world, options: {entities: 1}}")
    process = launch(repo_root, f"run={run.path}", "--json")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2 and json.loads(out)["error"] == "RecipeError"
    assert "world option entities" in err and "Traceback" not in err


def test_a_run_in_use_is_refused(make: Make) -> None:
    run = make(["corpus"])
    with held(run.path), pytest.raises(RunBusy, match="another process is working on this run"):
        execute(run, quiet=True)
    assert attempts(run) == {}


def test_a_job_that_a_killed_launcher_left_is_not_joined(make: Make) -> None:
    run = make(["corpus"])
    run.stage("corpus").mkdir(parents=True)
    with held(run.stage("corpus")), pytest.raises(RunBusy, match="another process"):
        execute(run, quiet=True)
    assert attempts(run) == {"corpus": ["FAILED"]}


@pytest.mark.slow
def test_a_crashed_stage_is_told_with_its_log_and_a_second_launch_is_refused(make: Make, repo_root: Path) -> None:
    run = make(["corpus", "base"])
    first = launch(repo_root, f"run={run.path}")
    work = payload(run, "base")
    second = launch(repo_root, f"run={run.path}", "--json")
    out, _ = second.communicate(timeout=60)
    told = json.loads(out)
    assert second.returncode == 1 and told["error"] == "RunBusy" and f"pid {first.pid} on " in told["why"]
    os.kill(work, signal.SIGKILL)
    _, err = first.communicate(timeout=60)
    assert first.returncode == 1
    assert f"{run.stage('base')}/log: stage base failed (killed by signal 9)" in err
    assert f"run={run.path}" in err and "Traceback" not in err
    assert attempts(run) == {"corpus": ["COMPLETED"], "base": ["FAILED"]} and done(run, "base") is None
    assert processes(run) == []


@pytest.mark.slow
@pytest.mark.parametrize("group", [False, True], ids=["process", "terminal"])
def test_ctrl_c_leaves_nothing_running_and_the_run_can_go_on(make: Make, repo_root: Path, group: bool) -> None:
    """A terminal sends SIGINT to the launcher and everything that it started in its group."""
    run = make(["corpus", "base"])
    first = launch(repo_root, f"run={run.path}")
    payload(run, "base")
    if group:
        os.killpg(first.pid, signal.SIGINT)
    else:
        first.send_signal(signal.SIGINT)
    _, err = first.communicate(timeout=60)
    assert first.returncode == 130 and err.splitlines()[-1] == "interrupted" and "Traceback" not in err
    assert processes(run) == []
    assert attempts(run) == {"corpus": ["COMPLETED"], "base": ["CANCELLED"]} and done(run, "base") is None
    assert not list(run.path.rglob("*.part"))
    execute(run, quiet=True)
    assert attempts(run) == {"corpus": ["COMPLETED"], "base": ["CANCELLED", "COMPLETED"]}


def test_ctrl_c_right_at_the_start(make: Make, repo_root: Path) -> None:
    run = make(["corpus"])
    first = launch(repo_root, f"run={run.path}")
    assert first.stdout is not None
    assert "runs" in first.stdout.readline()  # printed before the job is submitted
    os.killpg(first.pid, signal.SIGINT)
    first.communicate(timeout=60)
    assert first.returncode == 130
    assert processes(run) == [] and done(run, "corpus") is None


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("jobs.json", b"{"),
        ("jobs.json", b"[]"),
        ("jobs.json", b"{}"),
        ("jobs.json", b'{"stages": [{"id": "corpus"}]}'),
        ("jobs.json", b'{"stages": [{"id": "other", "attempts": []}]}'),
        ("recipe.yaml", b"name: [\n"),
        ("stages/corpus/done.json", b"{}"),
        ("stages/corpus/done.json", b'{"inputs": '),
    ],
)
def test_a_damaged_file_of_the_run_is_one_clear_error(
    make: Make, name: str, content: bytes, repo_root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from toolkit import cli, launch

    run = make(["corpus"])
    path = run.path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    assert cli.run(launch.main, [f"run={run.path}"]) == 1
    err = capfd.readouterr().err
    assert err.startswith(f"error: {path}: damaged") and err.count("\n") == 1
    assert processes(run) == []


def test_a_missing_file_of_the_run(make: Make) -> None:
    run = make(["corpus"])
    (run.path / "jobs.json").unlink()
    with pytest.raises(RunError, match="cannot be read"):
        execute(run, quiet=True)


def test_an_old_record_is_gone_before_the_stage_runs_again(make: Make, notes: Path) -> None:
    """Else a failed second attempt would leave the first one's record standing."""
    run = make(["corpus"])
    execute(run, quiet=True)
    assert done(run, "corpus") is not None
    notes.write_text("damaged\n" * 9)
    with pytest.raises(DataError):
        execute(run, quiet=True)
    assert done(run, "corpus") is None


@pytest.mark.slow
def test_a_stage_without_room_is_told_as_one(make: Make, repo_root: Path) -> None:
    """A limit on the size of files stands for a disk that fills up inside the job."""
    run = make(["corpus", "base"])
    limited = ["bash", "-c", 'ulimit -f 24; exec "$@"', "_", sys.executable, "-m", "toolkit.launch", f"run={run.path}"]
    ended = subprocess.run(limited, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(repo_root)})
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    assert "the file is larger than a limit allows" in ended.stderr
    model = run.stage("base") / "hf"
    assert not model.exists() and done(run, "base") is None
    execute(run, quiet=True)
    record = done(run, "base")
    assert record is not None and files.fingerprint(model) == record["outputs"]["hf"]


def test_a_stage_that_fails_after_its_record_is_not_done(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank 0 may record the stage before another rank fails."""
    from toolkit.stages import entry

    run = make(["corpus"])
    real = entry.run_ranks

    def with_one_that_fails_late(command: list[str], *, processes: int, folder: Path, **how: Any) -> int:
        late = f'if [ $RANK = 1 ]; then until [ -e {folder}/done.json ]; do sleep 0.1; done; exit 9; fi; "$@"'
        return real(["bash", "-c", late, "_", *command], processes=2, folder=folder, **how)

    monkeypatch.setattr(entry, "run_ranks", with_one_that_fails_late)
    assert entry.run_stage(str(run.path), "corpus") == {"code": 9, "error": None}
    assert done(run, "corpus") is None


def test_an_unknown_stage_on_the_inner_command_line(make: Make, repo_root: Path) -> None:
    run = make(["corpus"])
    for words, told in (([], "give a run folder and a stage"), ([str(run.path), "corpsu"], "no stage 'corpsu'")):
        inner = subprocess.run(
            [sys.executable, "-m", "toolkit.stages", *words],
            capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(repo_root)},
        )  # fmt: skip
        assert inner.returncode == 2 and told in inner.stderr and "Traceback" not in inner.stderr


def test_a_job_that_cannot_even_begin_names_its_log(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make(["corpus"])
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "yaml.py").write_text("raise ImportError('yaml is broken here')\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'broken'}{os.pathsep}{os.environ['PYTHONPATH']}")
    with pytest.raises(StageFailed, match="the job ended without an answer") as caught:
        execute(run, quiet=True)
    assert "yaml is broken here" in caught.value.why
    assert "yaml is broken here" in Path(caught.value.where).read_text()
    assert attempts(run) == {"corpus": ["FAILED"]}


@pytest.mark.parametrize("log", ["log", "rank-3.log"])
def test_a_stage_that_failed_without_an_error_of_its_own_is_told_by_its_log(make: Make, log: str) -> None:
    run = make(["corpus"])
    (step,) = steps(run.recipe)
    folder = run.stage("corpus")
    folder.mkdir(parents=True)
    (folder / log).write_bytes(b"caf\xe9\nTraceback (most recent call last):\n  File x\nValueError: it broke\nbye\n")
    told = failure(run, step, folder, {"code": 1, "error": None})
    assert isinstance(told, StageFailed)
    assert told.what == "stage corpus failed (exit code 1)" and told.why == "its log says: ValueError: it broke"


def test_the_first_error_that_a_rank_left_is_the_stages(make: Make) -> None:
    run = make(["corpus"])
    (step,) = steps(run.recipe)
    folder = run.stage("corpus")
    files.write_json(folder / "error-2.json", DataError("of rank 2", where="x").as_dict())
    told = failure(run, step, folder, {"code": 1, "error": None})
    assert isinstance(told, DataError) and told.what == "of rank 2"
    (folder / "error-2.json").write_bytes(b"{")
    with pytest.raises(RunError, match="damaged"):
        failure(run, step, folder, {"code": 1, "error": None})
