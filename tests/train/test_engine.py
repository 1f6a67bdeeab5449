"""The schedule that ran is the one asked for; Megatron and the exported HF model agree."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.train.conftest import STEPS, Trained
from tests.train.forks import Forks
from toolkit import checkpoint
from toolkit.runs import Run

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent


@pytest.mark.parametrize(("kind", "passes"), [("safe", True), ("stock", False)])
def test_the_printer_makes_no_collective_of_its_own(kind: str, passes: bool, forks: Forks, tmp_path: Path) -> None:
    """`stock` is the control: when it passes, NeMo has mended its printer and `SafePrinter` can go."""
    words = [sys.executable, str(HERE / "printer_ranks.py"), kind]
    code = forks.run_ranks(words, processes=2, folder=tmp_path, threads=1)
    assert (code == 0) is passes, (tmp_path / "log").read_text()[-2000:]


def test_the_schedule_that_ran_is_the_one_asked_for(prepared: Run, parallel: Trained) -> None:
    """Warm-up over three steps, then a cosine to the least rate at the horizon: as NeMo's scheduler counts."""
    import math

    peak, least = prepared.recipe.train.lr, prepared.recipe.train.min_lr
    rates = {row["step"]: row["lr"] for row in parallel.rows if "lr" in row}
    for step in range(1, STEPS + 1):
        done = step - 1
        if done <= 3:
            wanted = peak * (done + 1) / 4
        else:
            wanted = least + 0.5 * (peak - least) * (1 + math.cos(math.pi * (done - 3) / (STEPS - 3)))
        assert rates[step] == pytest.approx(wanted, rel=1e-6), step


@pytest.mark.parametrize("steps", [0, STEPS])
def test_exported_model_and_megatron_give_the_same_logits(
    prepared: Run, parallel: Trained, forks: Forks, tmp_path: Path, steps: int
) -> None:
    """The imported base (tp=1 reads what import wrote) and the checkpoint of four ranks, fp32."""
    import numpy as np
    import torch
    from transformers import AutoModelForCausalLM

    source = parallel.checkpoint(steps) if steps else prepared.stage("import") / "checkpoint"
    words = prepared.stage("shards") / "shards" / "tokenizer"
    base = prepared.stage("base") / "hf"
    exported = checkpoint.export_hf(
        source, tmp_path / "hf", config=base, tokenizer=words, vocab_size=4113, progress=False
    )
    tokens = torch.randint(0, 4113, (2, 64), generator=torch.Generator().manual_seed(1))
    (tmp_path / "tokens.json").write_text(json.dumps(tokens.tolist()))
    run = [
        sys.executable,
        str(HERE / "megatron_logits.py"),
        str(prepared.path / "recipe.yaml"),
        str(source),
        str(words),
    ]
    run += [str(tmp_path / "tokens.json"), str(tmp_path / "out.npy")]
    code = forks.run_ranks(run, processes=1, folder=tmp_path, threads=1)
    assert code == 0, (tmp_path / "log").read_text()[-3000:]
    megatron = np.load(tmp_path / "out.npy")[..., : exported.vocab_size]
    with torch.no_grad():
        hf = AutoModelForCausalLM.from_pretrained(tmp_path / "hf", dtype=torch.float32)(tokens).logits.numpy()
    assert np.abs(hf - megatron).max() <= 1e-4
    assert np.abs(hf).max() > 1e-2, "all logits are near zero: nothing was compared"
    if not steps:  # what import and export changed: the rows that the added tokens need, nothing else
        found = checkpoint.diff(base, tmp_path / "hf")
        assert {d.name for d in found.differing} == {"model.embed_tokens.weight", "lm_head.weight"}
        assert not found.only_a and not found.only_b


def test_every_step_of_four_ranks_is_watched(parallel: Trained) -> None:
    from tests.train.test_watching import scalars

    steps = [row for row in parallel.rows if "loss" in row and "event" not in row]
    assert [row["step"] for row in steps] == list(range(1, STEPS + 1))
    for row in steps:
        assert {"lr", "grad_norm", "tokens", "step_s", "data_s", "tokens_per_s", "rss_gib", "elapsed_s"} <= row.keys()
        assert row["tokens_per_s_device"] == pytest.approx(row["tokens_per_s"] / 4, abs=0.05)
        assert 0 < row["data_s"] < row["step_s"], "rank 0 takes its micro-batches within the step"
        assert "mfu" not in row and "memory_gib" not in row, "a CPU has no peak"
    shown = scalars(parallel.folder / "tensorboard")
    assert shown["loss"] == [(row["step"], pytest.approx(row["loss"])) for row in steps]
    at_intervals = [row["step"] for row in parallel.rows if "valid_loss" in row and not row.get("full")]
    assert at_intervals and [step for step, _ in shown["valid_loss"]] == at_intervals
