"""The same recipe gives the same losses whatever the layout, and checkpoints move between layouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.train.conftest import STEPS, Start, Trained

pytestmark = pytest.mark.slow
TOLERANCE = 2e-4  # fp32; sums over ranks are taken in another order
LAYOUTS: dict[str, dict[str, Any]] = {
    "sequence parallel": {"tp": 2, "pp": 2, "parallel": {"sequence": True}},
    "distributed optimizer over dp": {"tp": 2, "dp": 2},
    "no distributed optimizer": {"dp": 2, "parallel": {"distributed_optimizer": False}},
    "interleaved": {"pp": 2, "parallel": {"vp": 2}},
}


def difference(a: dict[int, float], b: dict[int, float]) -> float:
    assert a.keys() == b.keys() and a
    return max(abs(a[step] - b[step]) for step in a)


def after(step: int, losses: dict[int, float]) -> dict[int, float]:
    return {s: loss for s, loss in losses.items() if s > step}


def test_one_process_and_four_agree_at_every_step(single: Trained, parallel: Trained) -> None:
    """tp=2, pp=2 with the distributed optimizer."""
    assert list(single.losses) == list(range(1, STEPS + 1))
    assert difference(single.losses, parallel.losses) <= TOLERANCE
    assert difference(single.valid_losses, parallel.valid_losses) <= TOLERANCE
    assert [row["step"] for row in single.rows if row.get("full")] == [STEPS], "all of the validation set, at the end"
    assert single.losses[STEPS] < single.losses[1] - 1, "thirty steps must teach something"


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_agrees_with_one_process(start: Start, single: Trained, tmp_path: Path, name: str) -> None:
    """Beyond the warm-up and over a validation; `parallel` is compared to the last step."""
    some = {"steps": 12, "decay_steps": STEPS, "valid_every": 6, "valid_full": False}
    made = start(tmp_path, train=some, **LAYOUTS[name])
    assert list(made.losses) == list(range(1, 13)) and list(made.valid_losses) == [6, 12]
    assert difference(made.losses, {step: single.losses[step] for step in made.losses}) <= TOLERANCE


@pytest.mark.parametrize(
    "wrong",
    [{"deallocate_pipeline_outputs": True}, {"overlap_p2p_comm": False, "batch_p2p_comm": True}],
    ids=["outputs freed before they are sent", "both neighbours are one rank, and messages are told apart by order"],
)
def test_the_interleaved_schedule_trains_wrongly_without_its_settings(
    start: Start, single: Trained, tmp_path: Path, wrong: dict[str, bool]
) -> None:
    """The control: nothing fails, and the losses are others. When it agrees, gloo or Megatron was mended."""
    misled = start(tmp_path, pp=2, parallel={"vp": 2}, config=wrong, train={"steps": 10, "decay_steps": STEPS})
    assert max(abs(loss - single.losses[step]) for step, loss in misled.losses.items()) > 100 * TOLERANCE


@pytest.mark.parametrize(
    ("source", "layout"),
    [
        ("parallel", {}),
        ("single", {"tp": 2, "pp": 2}),
        ("single", {"dp": 2}),
        ("single", {"pp": 2, "parallel": {"vp": 2}}),
    ],
    ids=["2x2 to 1x1", "1x1 to 2x2", "dp=1 to dp=2", "1x1 to interleaved"],
)
def test_a_checkpoint_goes_on_at_another_layout(
    start: Start, tmp_path: Path, request: pytest.FixtureRequest, source: str, layout: dict[str, Any]
) -> None:
    """Weights, optimizer and position in the data, all resharded."""
    whole: Trained = request.getfixturevalue(source)
    gone_on = start(tmp_path, resume=whole.checkpoint(20), **layout)
    assert difference(gone_on.losses, after(20, whole.losses)) <= TOLERANCE


def test_every_rank_has_written_to_the_checkpoint_in_the_form_that_any_layout_reads(parallel: Trained) -> None:
    import torch

    weights = parallel.checkpoint(STEPS) / "weights"
    assert {path.name.split("_")[2] for path in weights.glob("*.distcp")} == {"0", "1", "2", "3"}
    common = torch.load(weights / "common.pt", weights_only=False)
    assert common["content_metadata"]["distrib_optim_sharding_type"] == "fully_reshardable"


def test_weights_alone_give_the_same_loss_on_the_same_batch(start: Start, parallel: Trained, tmp_path: Path) -> None:
    """The 2x2 checkpoint restored at 2x2 and at 1x1: the first batch of a new training has the same loss."""
    once = {"steps": 2, "warmup_steps": 0, "save_every": 5}
    source = str(parallel.checkpoint(STEPS))
    four = start(tmp_path / "four", tp=2, pp=2, weights=source, train=once)
    one = start(tmp_path / "one", weights=source, train=once)
    assert abs(four.losses[1] - one.losses[1]) <= TOLERANCE
    assert four.losses[1] < parallel.losses[1] - 1, "the trained weights were not restored"
