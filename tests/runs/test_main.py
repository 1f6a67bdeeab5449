"""`python -m toolkit.runs` on real runs: some that stand still, and one that a launch in the background works on."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.stages.test_execute import attempts, launch, payload, processes
from toolkit import cli
from toolkit.errors import RunBusy
from toolkit.runs import Run, held
from toolkit.runs.__main__ import main
from toolkit.runs.cancel import cancel
from toolkit.runs.lock import holder
from toolkit.submit import execute

Make = Callable[..., Run]
VERBS = ("list", "show", "logs", "cancel", "retry")


def runs(*words: str) -> int:
    try:
        return cli.run(main, list(words))
    except SystemExit as err:  # argparse
        return int(err.code or 0)


def verb(repo_root: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "toolkit.runs", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(repo_root)},
    )  # fmt: skip


@contextlib.contextmanager
def working(run: Run, repo_root: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A launch that has come to the stage base, which is kept from going on; all of it is gone afterwards."""
    process = launch(repo_root, f"run={run.path}")
    try:
        work = payload(run, "base")
        os.kill(work, signal.SIGSTOP)
        yield process, work
    finally:
        for pid in processes(run):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.communicate(timeout=30)


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], *([name] for name in VERBS)):
        assert runs(*words, "--help") == 0
        assert "python -m toolkit.runs logs last -f" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [[], ["nope"], ["show"], ["list", "--nope"], ["logs", "x", "-n", "-1"], ["logs", "x", "-n", "\u00b2"],
     ["logs", "x", "--rank", "one"], ["cancel", "x", "--grace", "nan"], ["cancel", "x", "--grace", "soon"]],
)  # fmt: skip
def test_words_that_make_no_sense(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert runs(*words) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_no_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert runs("list") == 0
    assert "no runs in runs; start one" in capsys.readouterr().out
    assert runs("list", "--json") == 0 and json.loads(capsys.readouterr().out) == {"runs": []}
    assert runs("list", "--root", "nowhere") == 1
    assert capsys.readouterr().err.startswith("error: nowhere: cannot be read: No such file")
    assert runs("show", "last") == 1 and "no run 'last'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["demo-x", "../..", "x" * 5000, "a\nb", "\x1b[2J", "", "$(id)", "-"])
@pytest.mark.parametrize("word", VERBS[1:])
def test_names_of_no_run(runs_root: Path, capsys: pytest.CaptureFixture[str], word: str, name: str) -> None:
    assert runs(word, "--root", str(runs_root), name) == 1
    err = capsys.readouterr().err
    assert "Traceback" not in err and "no run" in err


def test_a_list_of_many_states(make: Make, runs_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fresh, damaged, odd = make(["corpus"]), make(["corpus"]), make(["corpus"])
    (damaged.path / "jobs.json").write_text("{")
    odd.path.rename(runs_root / "a\x1b[31m\nb")
    assert runs("list", "--root", str(runs_root)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and lines[0].split()[:4] == ["run", "recipe", "state", "stage"]
    cells = {line.split()[0]: line for line in lines[1:]}
    assert "not started  corpus" in cells[fresh.id] and "jobs.json: damaged" in cells[damaged.id]
    assert any(line.startswith("a\\x1b[31m\\x0ab ") for line in lines)
    assert runs("--json", "--root", str(runs_root), "list") == 0  # before the verb as after it
    told = {row["run"]: row for row in json.loads(capsys.readouterr().out)["runs"]}
    assert told[fresh.id]["state"] == "not started" and told[damaged.id]["why"] and "stages" not in told[fresh.id]


def test_hundreds_of_runs_parse_no_recipe_twice(
    make: Make, runs_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from toolkit.recipe import load
    from toolkit.runs import overview

    run = make(["corpus"])
    (run.path / "plan.json").write_text('{"recipe": "demo", "stages": [{"id": "corpus", "stage": "corpus"}]}')
    for number in range(300):
        shutil.copytree(run.path, runs_root / f"demo-{number}")
    parsed = []
    monkeypatch.setattr(overview, "load", lambda path: parsed.append(path) or load(path))
    assert runs("list", "--root", str(runs_root), "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["runs"]) == 301 and len(parsed) == 1


def test_a_nan_is_no_fault_of_the_json(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    run = make(["pretrain"], "inputs.shards=x", "inputs.checkpoint=y")
    run.stage("pretrain").mkdir(parents=True)
    (run.stage("pretrain") / "metrics.jsonl").write_text('{"step": 2, "loss": NaN}\n')

    def refuse(text: str) -> Any:
        raise AssertionError(f"{text} is no JSON")

    assert runs("show", str(run.path), "--json") == 0
    assert json.loads(capsys.readouterr().out, parse_constant=refuse)["loss"] == "nan"
    assert runs("show", str(run.path)) == 0 and "loss nan" in capsys.readouterr().out


def test_a_run_from_failure_to_its_end(make: Make, notes: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole = notes.read_bytes()
    notes.write_text("no json\n" * 50)
    run = make(["corpus"])
    name, root = run.id, ["--root", str(run.path.parent)]
    assert runs("logs", name, *root) == 1 and "no stage of this run has begun" in capfd.readouterr().err
    assert runs("retry", name, *root) == 1  # a real first attempt, which fails
    capfd.readouterr()
    assert runs("list", *root) == 0
    assert "failed" in (line := capfd.readouterr().out.splitlines()[1]) and str(notes) in line
    assert runs("logs", name, *root) == 0
    first = capfd.readouterr().out
    assert str(notes) in first
    assert runs("show", name, *root) == 0
    page = capfd.readouterr().out
    assert "failed at corpus" in page and "corpus             to run: not finished" in page and "tp 2 pp 2" not in page

    notes.write_bytes(whole)
    assert runs("retry", name, *root, "--json") == 0
    assert json.loads(capfd.readouterr().out)["run"] == str(run.path)
    assert attempts(run) == {"corpus": ["FAILED", "COMPLETED"]}
    assert runs("show", name, *root, "--json") == 0
    shown = json.loads(capfd.readouterr().out)
    assert shown["state"] == "done" and shown["stages"][0]["figures"]["documents"] == 90
    assert shown["going_on"] == {"stages": [{"id": "corpus", "state": "done"}]} and shown["layout"]["tp"] == 2
    assert [a["state"] for a in shown["stages"][0]["attempts"]] == ["FAILED", "COMPLETED"]
    assert runs("show", name, *root) == 0
    page = capfd.readouterr().out
    assert "2 attempts (1 failed)" in page and "documents 90" in page and "nothing to do" in page

    assert runs("logs", name, *root, "--attempt", "1") == 0 and capfd.readouterr().out == first
    assert runs("logs", name, "corpus", *root, "--json") == 0  # the newest attempt alone
    told = json.loads(capfd.readouterr().out)
    assert told["attempt"] == 2 and not any(str(notes) in line and "error" in line for line in told["lines"])
    assert runs("logs", name, "corpsu", *root) == 2 and "Did you mean 'corpus'?" in capfd.readouterr().err
    assert runs("logs", name, "--attempt", "3", *root) == 2 and "1 to 2" in capfd.readouterr().err
    assert runs("logs", name, "-f", "--json", *root) == 2 and runs("logs", name, "-f", "--attempt", "1", *root) == 2
    capfd.readouterr()
    (run.stage("corpus") / "log").write_bytes(b"\x00\xff\x1b[2Jbell\x07\nlast")
    assert runs("logs", name, "-f", "-n", "2", *root) == 0  # nobody works on it, so the end is here
    assert capfd.readouterr().out == "\\x00\ufffdbell\\x07\nlast\n"


def test_a_stage_that_could_not_begin_shows_its_jobs_log(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make(["corpus"])
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "yaml.py").write_text("raise ImportError('yaml is broken here')\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'broken'}{os.pathsep}{os.environ['PYTHONPATH']}")
    assert runs("retry", str(run.path)) == 1
    assert runs("logs", str(run.path)) == 0
    told = capsys.readouterr()
    assert "yaml is broken here" in told.out and "has no log; this is its job's" in told.err


def test_show_of_a_damaged_run(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    run = make(["corpus"])
    (run.path / "jobs.json").write_text("{")
    assert runs("show", str(run.path)) == 0
    out = capsys.readouterr().out
    assert "damaged" in out.splitlines()[0] and f"{run.path / 'jobs.json'}: damaged" in out
    assert runs("logs", str(run.path)) == 1 and "Traceback" not in capsys.readouterr().err
    (run.path / "recipe.yaml").write_text("name: [")
    for word in VERBS[1:]:
        assert runs(word, str(run.path)) == 1
        assert "recipe.yaml: damaged recipe" in capsys.readouterr().err


def test_nothing_to_cancel(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    run = make(["corpus"])
    assert runs("cancel", str(run.path)) == 1
    assert "nothing works on this run" in capsys.readouterr().err
    with held(run.path):
        pass
    (run.path / "lock").write_text(f"pid {os.getpid()} on {socket.gethostname()}")  # left by one that was killed
    assert runs("cancel", str(run.path), "--json") == 1


@pytest.mark.parametrize(
    ("said", "told"),
    [("pid 1 on elsewhere", "on elsewhere works on this run"), ("pid 1 on {here}", "process 1"), ("", "has not said"),
     ("pid x on y; rm -rf /", "has not said"), ("pid {parent} on {here}", "does not hold it")],
)  # fmt: skip
def test_a_holder_that_cannot_be_verified_is_not_signalled(
    make: Make, said: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make(["corpus"])
    text = said.format(here=socket.gethostname(), parent=os.getppid())
    with held(run.path):
        (run.path / "lock").write_text(text)
        assert runs("cancel", str(run.path), "--json") == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["error"] == "RunBusy" and told in answer["what"]


STUBBORN = """
import signal, sys, time
from pathlib import Path
from toolkit.runs import held
for name in sys.argv[2:]:
    signal.signal(getattr(signal, name), signal.SIG_IGN)
with held(Path(sys.argv[1])):
    print("held", flush=True)
    while True:
        time.sleep(60)
"""


@pytest.mark.parametrize(("ignored", "by"), [([], "SIGINT"), (["SIGINT"], "SIGTERM"), (["SIGINT", "SIGTERM"], "")])
def test_as_hard_as_it_takes(make: Make, repo_root: Path, ignored: list[str], by: str) -> None:
    run = make(["corpus"])
    environment = {**os.environ, "PYTHONPATH": str(repo_root)}
    command = [sys.executable, "-c", STUBBORN, str(run.path), *ignored]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        if by:
            (ended,) = cancel(run.path, ["corpus"], grace_s=20)
            assert (ended.pid, ended.signal, ended.stage) == (process.pid, by, "")
        else:
            with pytest.raises(RunBusy, match="does not end") as caught:
                cancel(run.path, ["corpus"], grace_s=0.2)
            assert f"kill -9 {process.pid}" in caught.value.do
            process.kill()
    assert holder(run.path) is None


@pytest.mark.slow
def test_a_running_run_is_seen_followed_and_cancelled(make: Make, repo_root: Path, tmp_path: Path) -> None:
    run = make(["corpus", "base"])
    with working(run, repo_root) as (process, work):
        listed = json.loads(verb(repo_root, "list", "--root", str(run.path.parent), "--json").communicate()[0])["runs"]
        assert [(row["state"], row["stage"], row["holder"]["pid"]) for row in listed] == [
            ("running", "base", process.pid)
        ]
        shown = verb(repo_root, "show", str(run.path)).communicate()[0]
        assert "running at base" in shown and "being worked on" in shown and f"process {process.pid} on" in shown
        follower = verb(repo_root, "logs", str(run.path), "-f")
        with open(run.stage("base") / "log", "a") as log:
            log.write("a line for the follower\n")
        assert follower.stdout is not None
        assert any("a line for the follower" in line for line in follower.stdout)
        os.kill(work, signal.SIGCONT)
        out, err = verb(repo_root, "cancel", str(run.path), "--json").communicate(timeout=60)
        ended = json.loads(out)["ended"]
        assert [(one["pid"], one["signal"], one["stage"]) for one in ended] == [(process.pid, "SIGINT", "")], err
        process.wait(timeout=30)
        assert process.returncode == 130 and processes(run) in ([], [follower.pid])
        assert attempts(run) == {"corpus": ["COMPLETED"], "base": ["CANCELLED"]}
        follower.communicate(timeout=30)
        assert follower.returncode == 0  # what it followed is over
    execute(run, quiet=True)
    assert attempts(run) == {"corpus": ["COMPLETED"], "base": ["CANCELLED", "COMPLETED"]}


@pytest.mark.slow
def test_a_job_whose_launcher_was_killed_is_seen_and_cancelled(
    make: Make, repo_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make(["corpus", "base"])
    with working(run, repo_root) as (process, work):
        process.kill()
        process.wait(timeout=30)
        assert holder(run.path) is None
        assert runs("list", "--root", str(run.path.parent), "--json") == 0
        (row,) = json.loads(capsys.readouterr().out)["runs"]
        assert (row["state"], row["stage"]) == ("running", "base")
        os.kill(work, signal.SIGCONT)
        (ended,) = cancel(run.path, ["corpus", "base"])
        assert ended.stage == "base"
        deadline = time.monotonic() + 30
        while processes(run) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert processes(run) == []
    assert runs("list", "--root", str(run.path.parent)) == 0
    assert "interrupted" in capsys.readouterr().out


@pytest.mark.slow
def test_following_ends_with_its_stage_though_the_run_goes_on(make: Make, repo_root: Path) -> None:
    run = make(["corpus", "base"])
    with working(run, repo_root):
        follower = verb(repo_root, "logs", str(run.path), "corpus", "-f")
        follower.communicate(timeout=30)
        assert follower.returncode == 0
