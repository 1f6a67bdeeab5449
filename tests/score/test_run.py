from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.scoring.conftest import write_rows
from tests.scoring.serving import Served
from toolkit import cli
from toolkit.score import __main__ as verbs
from toolkit.scoring import load_model

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
    return cli.run(verbs.main, [str(a) for a in argv])


def test_run_prints_and_writes_the_same(llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    pytest.importorskip("transformers")
    rows = write_rows(tmp_path / "letters_trained.jsonl", ROWS)
    base = ("run", "--model", llama, "--name", "tiny", "--benchmark", "demo_letters_trained", "--path", rows)
    assert run(*base, "-o", tmp_path / "out", "--json") == 0
    (shown,) = json.loads(capsys.readouterr().out)
    (written,) = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert {key: value for key, value in shown.items() if key in written} == written
    assert (shown["model_calls"], shown["kept"]) == (8, 0) and set(shown) - set(written) == {
        "model_calls", "tokens", "unique_tokens", "kept"
    }  # fmt: skip
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


def test_shots_seeds_and_modes(llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    pytest.importorskip("transformers")
    rows = write_rows(tmp_path / "rows.jsonl", ROWS)
    solved = [row | {"id": f"t{row['id']}", "question": f"{row['id']}. What else?"} for row in ROWS]
    train = write_rows(tmp_path / "train.jsonl", solved)
    base = ("run", "--model", llama, "--name", "tiny", "--benchmark", "demo_letters_trained", "--path", rows)
    base = (*base, "--train", train, "--shots", 1, "--seeds", "1234,432,32", "-o", tmp_path / "out")
    assert run(*base, "--json") == 0
    *single, together = json.loads(capsys.readouterr().out)
    assert [row["seed"] for row in single] == together["seeds"] == [1234, 432, 32]
    assert sum(row["model_calls"] for row in single) == 24
    stored = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert stored[-1] == together and len(stored) == 4
    lines = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    assert [line["seed"] for line in lines] == [1234] * 8 + [432] * 8 + [32] * 8
    assert run(*base, "--mode", "letter,cloze", "--paper-compat") == 0
    out = capsys.readouterr().out
    assert "letter, 1 shots  " in out and "over 3 seeds" in out and "cloze, 1 shots, seed 432" in out
    assert "as the released code, where that differs: prompt" in out
    assert run(*base) == 0
    assert "transformers was asked 0 times, 8 answers were known" in capsys.readouterr().out
    assert run(*base, "--fresh", "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["model_calls"] == 8


def test_a_megatron_checkpoint_is_exported_first(llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    from toolkit import checkpoint, tokenizer

    rows = write_rows(tmp_path / "rows.jsonl", ROWS)
    checkpoint.import_hf(llama, tmp_path / "step=9", progress=False)
    base = ("run", "--benchmark", "demo_letters_trained", "--path", rows, "--json")
    given = ("--model", tmp_path / "step=9", "--tokenizer", llama, "-o", tmp_path / "out")
    assert run(*base, *given) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert run(*base, "--model", llama, "-o", tmp_path / "hf") == 0
    (same,) = json.loads(capsys.readouterr().out)
    assert (shown["model"], shown["accuracy"]) == ("step=9", same["accuracy"])
    assert shown["mean_gold_logprob"] == pytest.approx(same["mean_gold_logprob"], abs=1e-6)
    (made,) = (tmp_path / "out" / "cache" / "models").iterdir()
    before = (made / "config.json").stat().st_mtime_ns
    assert run(*base, *given) == 0
    assert json.loads(capsys.readouterr().out)[0]["model_calls"] == 0
    assert (made / "config.json").stat().st_mtime_ns == before
    longer = tokenizer.extend(llama, tmp_path / "longer", ["[new]"])
    checkpoint.import_hf(llama, tmp_path / "step=19", vocab_size=longer.vocab_size, progress=False)
    trained = ("--model", tmp_path / "step=19", "--config", llama, "--tokenizer", tmp_path / "longer")
    assert run(*base, *trained, "-o", tmp_path / "out") == 0, "the base's config knows of one token less"
    assert json.loads(capsys.readouterr().out)[0]["accuracy"] == same["accuracy"]
    (tmp_path / "step=9-unfinished").touch()
    assert run(*base, *given) == 1
    assert "the checkpoint is not complete" in capsys.readouterr().err


def test_a_server_is_scored(llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    rows = write_rows(tmp_path / "rows.jsonl", ROWS)
    served = Served(load_model(llama))
    try:
        argv = ("run", "--url", served.url, "--benchmark", "demo_letters_trained", "--path", rows, "--json")
        assert run(*argv, "--model", "tiny", "--tokenizer", llama, "-o", tmp_path / "out") == 0
        (shown,) = json.loads(capsys.readouterr().out)
        assert (shown["engine"], shown["model"], shown["model_calls"], shown["n"]) == ("server", "tiny", 8, 8)
        assert run(*argv, "--model", "other", "-o", tmp_path / "out") == 2
        assert "the server has no model 'other'" in capsys.readouterr().err
    finally:
        served.close()


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["--benchmark", "medqa4", "--path", "x", "--engine", "server"], 1, "no such benchmark file"),
        (["--benchmark", "medqa4", "--path", "x", "--seeds", "1,two"], 2, "no whole numbers"),
        (["--benchmark", "medqa4", "--path", "x", "--seeds", "1,2"], 2, "nothing is drawn by them"),
        (["--benchmark", "medqa4", "--path", "x", "--samples", "4"], 2, "is of mode sc_cot"),
        (["--benchmark", "medqa4", "--path", "x", "--train", "y"], 2, "--train without --shots"),
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


def test_import_is_light():
    packages = "{'torch', 'transformers', 'numpy'}"
    code = f"import sys, toolkit.scoring, toolkit.score.__main__; print({packages} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.slow
def test_interrupt_leaves_what_came(llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    """Ctrl-C while the model is at work: exit code 130, one line, no scores; the next run goes on from there."""
    pytest.importorskip("transformers")
    rows = write_rows(tmp_path / "rows.jsonl", [ROWS[i % 8] | {"id": str(i)} for i in range(600)])
    argv = ["run", "--model", llama, "--benchmark", "demo_letters_trained", "--path", rows, "-o", tmp_path / "out"]
    argv = [*map(str, argv), "--batch-tokens", "1"]
    command = [sys.executable, "-W", "ignore", "-m", "toolkit.score", *argv]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    answers = tmp_path / "out" / "cache" / "answers"
    try:
        while process.poll() is None and not any(b'"id"' in f.read_bytes() for f in answers.glob("*.jsonl")):
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130 and err.strip().endswith("interrupted") and "Traceback" not in err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["cache"]
    assert run(*argv, "--json") == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert 0 < shown["kept"] < 600 and shown["model_calls"] == 600 - shown["kept"]
