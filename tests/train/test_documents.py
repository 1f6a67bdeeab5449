"""`data.reset_attention`: attention ends where a document ends, by a mask and packed, and both are exact."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.train.conftest import Start
from tests.train.forks import Forks
from toolkit.runs import Run

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def probe(forks: Forks, prepared: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Four rows of real training samples, several documents each, through NeMo's model in each of the three ways."""
    folder = tmp_path_factory.mktemp("documents")
    words = [
        sys.executable, str(HERE / "document_probe.py"), str(prepared.path / "recipe.yaml"),
        str(prepared.stage("shards") / "shards"), "4352", str(folder),
    ]  # fmt: skip
    code = forks.run_ranks(words, processes=1, folder=folder, threads=1)
    log = (folder / "log").read_text()
    assert code == 0, log[-3000:]
    return json.loads(next(line for line in log.splitlines() if line.startswith("PROBE ")).removeprefix("PROBE "))


def test_on_a_gpu_transformer_engine_packs_and_other_layers_mask(probe: dict[str, Any]) -> None:
    """The data step, packed, masked, positions that begin anew, and the fused softmax, which reads no mask."""
    assert probe["ways"] == {
        "pack": ["packed_data_step", True, False, True, True],
        "mask": ["gpt_data_step", False, True, True, False],
        "across": ["gpt_data_step", False, False, False, True],
    }


def test_packing_allows_the_pairs_that_megatrons_mask_allows(probe: dict[str, Any]) -> None:
    assert probe["documents"] > probe["rows"] == 4, "a row with one document shows nothing"
    assert probe["same_pairs"] and 0 < probe["pairs"] < 4 * 128 * 129 // 2
    assert probe["positions_restart"] and probe["row_starts"]
    assert probe["packed_shape"] == [1, 512] and probe["longest"] < 128


def test_a_document_is_read_as_if_it_were_alone(probe: dict[str, Any]) -> None:
    """Logits of every document within its row, against those of the same model on that document by itself."""
    assert probe["scale"] > 0.5
    assert probe["mask_is_alone"] <= 1e-5
    assert probe["pack_is_alone"] <= 1e-5
    assert probe["across_is_alone"] > 0.1, "attention across documents must be seen, else nothing was compared"


def test_only_a_mask_that_is_needed_is_made(probe: dict[str, Any]) -> None:
    assert probe["has_mask"] == [True, False]
    assert probe["eod_counts"] == 1.0, "the loss on the end of a document counts, as the paper had it"


def test_packed_and_masked_trainings_agree_across_a_pipeline(start: Start, tmp_path: Path) -> None:
    """One process with masks; tp=2, pp=2 with sequence parallelism and selective recomputation, packed. Between the
    stages goes one long row; its attention is a CPU's stand-in for Transformer Engine's, all else is what a GPU runs.
    """
    batch = {"steps": 4, "warmup_steps": 1, "valid_every": 4, "valid_batches": 1, "micro_batch": 4, "global_batch": 8}
    given = {"train": batch, "data": {"reset_attention": True}}
    masked = start(tmp_path / "masked", **given)
    parallel = {"sequence": True, "recompute": "selective"}
    packed = start(tmp_path / "packed", tp=2, pp=2, pack=True, parallel=parallel, **given)
    assert len(masked.losses) == 4
    assert max(abs(masked.losses[s] - packed.losses[s]) for s in masked.losses) <= 2e-4
    assert abs(masked.valid_losses[4] - packed.valid_losses[4]) <= 2e-4
