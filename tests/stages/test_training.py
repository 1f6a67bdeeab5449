"""What the training stages read: rows of a real checkpoint, where to resume, what a curve says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from toolkit.errors import CheckpointError, ToolkitError
from toolkit.plan import steps
from toolkit.recipe import compose
from toolkit.runs import Run
from toolkit.stages import training
from toolkit.stages.context import Context
from toolkit.submit import execute

Make = Callable[..., Run]


@pytest.mark.slow
def test_rows_of_a_real_checkpoint(make: Make) -> None:
    """300 pieces and 17 added tokens, padded to a multiple of 128 x tp=2."""
    run = make(["corpus", "base", "shards", "import"])
    execute(run, quiet=True)
    checkpoint = run.stage("import") / "checkpoint"
    assert training.vocab_rows(checkpoint) == 512
    context = Context(run=run, step=steps(run.recipe)[-1])
    assert training.resume_from(context) is None
    with pytest.raises(ToolkitError):
        training.vocab_rows(run.stage("base") / "hf")


def test_no_checkpoint_no_rows(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        training.vocab_rows(tmp_path)


def test_weights_given_from_outside(make: Make) -> None:
    run = make(["pretrain"], "inputs.checkpoint=/given", "inputs.shards=/shards")
    context = Context(run=run, step=steps(run.recipe)[0])
    assert training.weights(context, "import") == Path("/given")
    assert context.tokenizer() == Path("/shards/tokenizer")


def test_nothing_to_resume_from_half_a_checkpoint(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    run = make(["pretrain"], "inputs.checkpoint=/given", "inputs.shards=/shards")
    context = Context(run=run, step=steps(run.recipe)[0])
    assert training.resume_from(context) is None
    (context.folder / training.CHECKPOINTS / "half").mkdir(parents=True)
    (context.folder / training.CHECKPOINTS / "half" / "weights").mkdir()
    assert training.resume_from(context) is None
    assert "no checkpoint to resume from" in capsys.readouterr().out


def test_the_figures_of_a_curve(tmp_path: Path) -> None:
    rows = [{"step": n, "loss": 9.0 - n, "tokens_per_s": 100.0 * n} for n in (1, 2, 3)]
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows[:2], {"step": 2, "valid_loss": 7.5}, rows[2]]))
    assert training.curve(path) == {
        "steps": 3, "first_loss": 8.0, "last_loss": 6.0, "valid_loss": 7.5, "tokens_per_s": 200.0,
    }  # fmt: skip


def test_what_a_damaged_curve_still_tells(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert training.curve(path) == {}
    lines = [
        '{"step": 1, "loss": 5.0, "tokens_per_s": 10.0}',
        '{"step": 1, "event": "spike", "loss": 99.0}',
        '{"step": 2, "loss": null, "tokens_per_s": null}',
        '{"step": 3, "loss": 4.0, "tokens_per_s": Infinity}',
        "[1]",
        "[" * 9000,
        '{"step": "x", "loss": 1.0}',
        '{"step": 4, "lo',
    ]
    path.write_bytes("\n".join(lines).encode() + b"\xff")
    assert training.curve(path) == {"steps": 3, "first_loss": 5.0, "last_loss": 4.0, "tokens_per_s": 10.0}


def test_the_figures_of_the_papers_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """40,200 tokens/s for 332 hours: 42.3 % and 486 kgCO2."""
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps({"step": 1, "loss": 1.0, "elapsed_s": 332 * 3600.0}) + "\n")
    figures = training.speed(path, compose("pretrain_70b").recipe, 40_200.0, 4096)
    assert figures["tokens_per_s_device"] == 314.06
    assert figures["mfu"] == {"6n": 0.4166, "6n_causal": 0.4312, "6n_full": 0.4474, "paper": 0.4228}
    assert figures["energy"]["kgco2"] == 486.154 and figures["energy"]["power_is"] == "the stated limit"
    (tmp_path / "power").mkdir()
    (tmp_path / "power/0.jsonl").write_text('{"seconds": 5, "gpus": 8, "power_w": 300}\n')
    measured = training.speed(path, compose("pretrain_70b").recipe, 40_200.0, 4096)["energy"]
    assert measured["power_is"] == "measured" and measured["kgco2"] == pytest.approx(486.154 * 300 / 400, abs=1e-3)
    wrong = training.speed(path, compose("pretrain_70b", ["cluster.peak_tflops=10"]).recipe, 40_200.0, 4096)
    assert "mfu" not in wrong and "no MFU" in capsys.readouterr().out
    assert "mfu" not in training.speed(path, compose("demo").recipe, 40_200.0, 128), "a CPU has no peak"
