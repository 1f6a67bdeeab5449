"""What NeMo saves is the model it was given, at every layout: imported, trained by a step too small to change a bit,
and exported bit-equal to the start.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.train.conftest import Start
from toolkit import checkpoint
from toolkit.runs import Run

pytestmark = pytest.mark.slow

STILL = {"steps": 1, "warmup_steps": 0, "lr": 1e-60, "min_lr": 0.0, "save_every": 1, "valid_every": 1}
LAYOUTS = {
    "1x1": {"tp": 1, "pp": 1, "parallel": {"distributed_optimizer": False}},
    "2x2 with sequence parallel": {"tp": 2, "pp": 2, "parallel": {"sequence": True}},
    "2x1 with distributed optimizer": {"tp": 2, "pp": 1, "dp": 2},
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_nemo_gives_back_what_it_was_given(name: str, start: Start, prepared: Run, tmp_path: Path) -> None:
    trained = start(tmp_path / "training", train=STILL, **LAYOUTS[name])
    saved = trained.checkpoint(1)
    assert trained.losses[1] > 5  # it has seen the data
    base = prepared.stage("base") / "hf"
    imported = prepared.stage("import") / "checkpoint"
    checkpoint.export_hf(imported, tmp_path / "start", config=imported / "hf_config.json", progress=False)
    checkpoint.export_hf(saved, tmp_path / "out", config=imported / "hf_config.json", progress=False)
    seen = checkpoint.inspect(saved)
    assert seen.optimizer_bytes > seen.weight_bytes  # which lies in the same files
    assert checkpoint.diff(tmp_path / "start", tmp_path / "out").equal
    assert checkpoint.verify(tmp_path / "out", saved, megatron=None, progress=False).equal
    old = checkpoint.check_hf(base).shape.vocab_size
    assert checkpoint.check_hf(tmp_path / "out").shape.vocab_size >= old
