"""A night's beginning: never two at once, nothing for nothing, and what broke off is taken up again."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.night.conftest import HOSTILE
from toolkit import cli, files, launch, tonight
from toolkit.errors import DiskFull
from toolkit.night import History
from toolkit.night import __main__ as verb
from toolkit.runs import Run, create, held

Put = Callable[[str, int], Path]


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = cli.run(verb.main, ["run", *words])
    said = capsys.readouterr()
    return code, said.out, said.err


HOLD = "import sys, time; from pathlib import Path; from toolkit.runs import held\n" + (
    "with held(Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(60)"
)


def test_two_nights_never_overlap_and_a_killed_one_is_no_obstacle(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "nights").mkdir()
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "nights")], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        code, out, err = run(capsys, *words)
        assert code == 1 and "another night is at work" in err and f"pid {other.pid}" in err and out == ""
    finally:
        other.send_signal(signal.SIGKILL)
        other.wait()
    assert run(capsys, *words)[0] == 0


def test_a_night_whose_job_lives_on_is_at_work(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "train").mkdir()
    recipe = tonight.recipe_of("nightly", words)
    before = create(recipe, command=["x"], plan={})
    History(tmp_path / "nights").begin(before.path)
    folder = before.stage("night") / "parts" / "0"
    folder.mkdir(parents=True)
    with held(folder):
        code, _, err = run(capsys, *words)
        assert code == 1 and "another night is at work" in err and f"Process {os.getpid()} on" in err
    code, _, _ = run(capsys, *words)
    assert code == 0
    night = History(tmp_path / "nights").nights()[-1]
    assert night["state"] == "nothing new" and "did not come to a verdict" in night["broken"]


def _stopped(words: list[str], tmp_path: Path) -> tuple[Run, str]:
    """The run of a night that has begun, and the script that stands for sendmail."""
    (tmp_path / "train").mkdir(exist_ok=True)
    program = tmp_path / "sendmail"
    program.write_text(f'#!/bin/sh\ncat >>"{tmp_path}/letters"\n')
    program.chmod(0o755)
    words += ["night.hooks.mail=[team@example.org]", f"night.hooks.sendmail='{program}'"]
    run = create(tonight.recipe_of("nightly", words), command=["x"], plan={})
    History(tmp_path / "nights").begin(run.path)
    return run, str(tmp_path / "letters")


def test_people_are_told_of_a_verdict_whose_night_was_stopped_before_it_could(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, letters = _stopped(words, tmp_path)
    one = {"series": "a", "step": 9, "state": "worse", "scores": {"b letter": None}, "lines": ["b fell"], "items": []}
    outcome = {"night": before.id, "worse": True, "series": [{"series": "a", "page": "p", "checkpoints": [one]}],
               "failed": []}  # fmt: skip
    files.write_json(before.stage("night") / "outcome.json", outcome)
    for _ in range(2):
        assert run(capsys, *words)[0] == 0
    assert Path(letters).read_text().count("Subject: nightly: scores are worse") == 1
    night = next(one for one in History(tmp_path / "nights").nights() if one["night"] == before.id)
    assert night["worse"] and night["told"] == ["mail to team@example.org: handed over"]


@pytest.mark.parametrize("damaged", [False, True])
def test_a_night_that_broke_off_is_told_once_even_when_nothing_is_left(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], damaged: bool
) -> None:
    before, letters = _stopped(words, tmp_path)
    if damaged:
        (before.path / "recipe.yaml").write_text("{")
    said = [run(capsys, *words) for _ in range(2)]
    assert [code for code, _, _ in said] == [0, 0]
    assert before.id in said[0][1] and before.id not in said[1][1]
    assert Path(letters).read_text().count("Subject: nightly: a night broke off") == 1


def test_people_are_told_of_a_checkpoint_that_could_not_be_scored(words: list[str], tmp_path: Path) -> None:
    before, letters = _stopped(words, tmp_path)
    failed = [{"series": "a", "step": 9, "why": "its weights are not finite"}]
    outcome = {"night": before.id, "worse": False, "series": [], "failed": failed, "doubts": []}
    files.write_json(before.stage("night") / "outcome.json", outcome)
    tonight.ended(before)
    said = Path(letters).read_text()
    assert "Subject: nightly: not all is scored or compared" in said and "not finite" in said


def test_nothing_new_makes_no_run(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train").mkdir()
    code, out, _ = run(capsys, *words)
    assert code == 0 and "nothing new" in out and not (tmp_path / "runs").exists()
    assert cli.run(launch.main, ["recipe=nightly", *words]) == 0  # the launcher is the same
    assert "nothing new" in capsys.readouterr().out and not (tmp_path / "runs").exists()


def test_half_written_ones_are_skipped_and_given_up(
    words: list[str], watched: Put, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = watched("good", 9)
    path.with_name("step=9-unfinished").touch()
    for said in ("(try 1 of 2)", "(try 2 of 2)"):
        code, out, _ = run(capsys, *words, "night.tries=2")
        assert code == 0 and "skipped: train-" in out and said in out
    code, out, _ = run(capsys, *words, "night.tries=2")
    assert code == 0 and "given up: train-" in out and "did not end" in out
    assert cli.run(verb.main, ["status", str(tmp_path / "nights")]) == 0
    assert "step 9: tried 2 times" in capsys.readouterr().out
    page = next((tmp_path / "nights").glob("series/*/page.html")).read_text()
    assert "saving it did not end" in page and "Nothing has been scored yet" in page
    assert cli.run(verb.main, ["page", str(tmp_path / "nights"), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["pages"]) == 1


def test_what_is_missing_is_said_before_anything_is_written(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(capsys, *words[:-1])
    assert code == 2 and "score.paths.demo_letters_heldout" in err
    code, _, err = run(capsys, *words)
    assert code == 2 and "there is no folder" in err
    code, _, err = run(capsys, "recipe=demo")
    assert code == 2 and "no stage night" in err
    (tmp_path / "train").mkdir()
    code, _, err = run(capsys, *words, f"night.history='{words[-1].split(chr(39))[1]}/x'")
    assert code == 1 and "cannot be made" in err
    assert cli.run(verb.main, ["status", str(tmp_path / "none")]) == 1
    assert not (tmp_path / "runs").exists()


def test_a_full_disk_counts_no_night(
    words: list[str], watched: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched("good", 9)

    def full(path: Path, value: object) -> None:
        raise DiskFull("no space left while writing", where=path)

    monkeypatch.setattr(files, "write_json", full)
    assert cli.run(verb.main, ["run", *words]) == 1
    monkeypatch.undo()
    history = History(tmp_path / "nights")
    assert history.nights() == [] and all(not history.tries(series) for series in history.series())


@pytest.mark.slow
def test_broken_weights_are_left_out_and_a_killed_night_is_taken_up_again(
    words: list[str], watched: Put, models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A night is killed after its first checkpoint; the next one scores what is left, and asks nothing twice; then a
    checkpoint is worse.
    """
    from safetensors.torch import load_file, save_file

    from toolkit import checkpoint

    hf = Path(shutil.copytree(models["hf"], tmp_path / "broken"))
    (file,) = hf.glob("*.safetensors")
    save_file({key: value * float("nan") for key, value in load_file(file).items()}, file, metadata={"format": "pt"})
    watched("good", 9), watched("same", 29)
    checkpoint.import_hf(hf, tmp_path / "train" / "step=19", progress=False)
    history = History(tmp_path / "nights")
    command = [sys.executable, "-m", "toolkit.night", "run", *words, "night.tries=2"]
    night = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "nights").glob("series/*/step=9/scores.json")):
        assert night.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(night.pid, signal.SIGKILL)
    night.wait()
    for job in (tmp_path / "runs").glob("*/stages/night/**/lock"):  # the payload is a child in a session of its own
        said = job.read_text().split()
        if said[:1] == ["pid"]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(said[1]), signal.SIGKILL)
    (series,) = history.series()
    kept = (history.place(series) / "step=9" / "scores.json").stat().st_mtime_ns
    deadline = time.monotonic() + 30
    while (got := run(capsys, *words, "night.tries=2"))[0] == 1 and "at work" in got[2]:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert got[0] == 0, got
    assert "did not come to a verdict" in got[1]
    assert (history.place(series) / "step=9" / "scores.json").stat().st_mtime_ns == kept
    assert [(one.step, one.verdict["state"]) for one in history.scored(series)] == [(9, "first"), (29, "good")]
    left_out = history.nights()[-1]["failed"]
    assert [one["step"] for one in left_out] == [19] and "finite" in left_out[0]["why"]
    assert "finite" in history.tries(series)["step=19"].reason

    watched("worse", 39)
    code, _, err = run(capsys, *words, "night.tries=2")
    assert code == 5 and "step 39" in err and "page.html" in err
    last = history.scored(series)[-1]
    assert (last.step, last.verdict["state"], last.verdict["reference"]) == (39, "worse", "step=29")
    assert history.good(series).step == 29
    page = (history.place(series) / "page.html").read_text()
    items = last.verdict["items"]
    assert len(items) > 20 and all(f">{item['id']}<" in page for item in items)
    assert HOSTILE not in page and "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "Step 39 is worse" in page and page.count("<svg") == 2
    assert "1 of 1 training got worse" in (tmp_path / "nights" / "index.html").read_text()
    code, out, _ = run(capsys, *words, "night.tries=2")
    assert code == 0 and "nothing new" in out and "given up: train-" in out and "finite" in out
