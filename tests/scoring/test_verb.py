from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.scoring.conftest import write_rows
from toolkit import cli, score
from toolkit.errors import UsageError

ROWS = [
    {
        "id": str(i),
        "question": "What may Brolax cause?",
        "options": ["cough", "tremor", "itching", "a dry mouth"],
        "answer": i % 4,
    }
    for i in range(8)
]


def run(*argv: object) -> int:
    return cli.run(score.main, [str(a) for a in argv])


def test_list(capsys: pytest.CaptureFixture):
    assert run("list") == 0
    assert "medqa4                   letter    1273  MedQA, 4 options" in capsys.readouterr().out
    assert run("list", "--json") == 0
    listed = {spec["name"]: spec for spec in json.loads(capsys.readouterr().out)}
    assert listed["pubmedqa"]["answers"] == ["yes", "no", "maybe"]


def test_run_prints_and_writes_the_same(llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    pytest.importorskip("transformers")
    rows = write_rows(tmp_path / "letters_trained.jsonl", ROWS)
    base = ("run", "--model", llama, "--name", "tiny", "--benchmark", "demo_letters_trained", "--path", rows)
    assert run(*base, "-o", tmp_path / "out", "--json") == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert [shown] == json.loads((tmp_path / "out" / "scores.json").read_text())
    assert (shown["model"], shown["n"], shown["mode"]) == ("tiny", 8, "letter")
    assert run(*base, "--mode", "cloze", "--limit", 4, "-o", tmp_path / "two") == 0
    out = capsys.readouterr().out
    assert "tiny  demo_letters_trained  cloze" in out and "note: 4 of 8 items" in out


def test_run_with_several_benchmarks(llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    pytest.importorskip("transformers")
    trained, heldout = (write_rows(tmp_path / f"{x}.jsonl", ROWS[:n]) for x, n in (("t", 8), ("h", 4)))
    names = ("demo_letters_trained", "demo_letters_heldout")
    paths = ("--path", f"{names[1]}={heldout}", "--path", f"{names[0]}={trained}")
    assert run("run", "--model", llama, "--benchmark", ",".join(names), *paths, "-o", tmp_path / "out") == 0
    assert [s["n"] for s in json.loads((tmp_path / "out" / "scores.json").read_text())] == [8, 4]


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["--benchmark", "medqa5", "--path", "x"], 2, "no benchmark 'medqa5'"),
        (["--benchmark", ",", "--path", "x"], 2, "names none"),
        (["--benchmark", "medqa4,pubmedqa", "--path", "x"], 2, "belongs to no benchmark"),
        (["--benchmark", "medqa4", "--path", "x", "--path", "y"], 2, "Give --path once"),
        (["--benchmark", "medqa4"], 1, "does not say where its file is"),
        (["--benchmark", "medqa4", "--path", "nothing.jsonl"], 1, "no such benchmark file"),
    ],
)
def test_user_errors_are_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture, argv: list[str], code: int, message: str
):
    assert run("run", "--model", tmp_path, "-o", tmp_path / "out", *argv) == code
    err = capsys.readouterr().err
    assert err.startswith("error: ") and message in err and "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_bad_model_is_one_message(tmp_path: Path, capsys: pytest.CaptureFixture):
    pytest.importorskip("transformers")
    rows = write_rows(tmp_path / "rows.jsonl", ROWS)
    argv = ("run", "--model", tmp_path, "--benchmark", "demo_letters_trained", "--path", rows, "-o", tmp_path / "out")
    assert run(*argv, "--json") == 1
    printed = capsys.readouterr()
    assert json.loads(printed.out)["error"] == "CheckpointError" and "config.json is missing" in printed.err


def test_paths_are_given_to_their_benchmarks():
    assert score._paths(["a=b"], ["medqa4"]) == {"medqa4": "a=b"}
    assert score._paths(["medqa4=b=c"], ["medqa4"]) == {"medqa4": "b=c"}
    with pytest.raises(UsageError):
        score._paths(["b"], ["medqa4", "pubmedqa"])


def test_import_is_light():
    code = "import sys, toolkit.scoring, toolkit.score; print({'torch', 'transformers', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.slow
def test_interrupt_leaves_nothing(llama: Path, tmp_path: Path):
    """Ctrl-C while the model is at work: exit code 130, one line, no output folder."""
    pytest.importorskip("transformers")
    rows = write_rows(tmp_path / "rows.jsonl", [ROWS[i % 8] | {"id": str(i)} for i in range(4_000)])
    state = tmp_path / "progress.json"
    argv = ["run", "--model", llama, "--benchmark", "demo_letters_trained", "--path", rows, "-o", tmp_path / "out"]
    env = os.environ | {"TOOLKIT_PROGRESS": str(state)}
    command = [sys.executable, "-m", "toolkit.score", *map(str, argv), "--batch-tokens", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
    try:
        while not state.exists() and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130 and err.strip().endswith("interrupted") and "Traceback" not in err
    assert not (tmp_path / "out").exists()
