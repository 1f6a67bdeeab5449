"""The same recipe gives the same losses whatever the layout, and checkpoints move between layouts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.train.conftest import STEPS, Start, Trained

pytestmark = pytest.mark.slow
TOLERANCE = 2e-4  # fp32; sums over ranks are taken in another order


def difference(a: dict[int, float], b: dict[int, float]) -> float:
    assert a.keys() == b.keys() and a
    return max(abs(a[step] - b[step]) for step in a)


def test_one_process_and_four_agree_at_every_step(start: Start, parallel: Trained, tmp_path: Path) -> None:
    single = start(tmp_path)
    assert list(single.losses) == list(range(1, STEPS + 1))
    assert difference(single.losses, parallel.losses) <= TOLERANCE
    assert single.losses[STEPS] < single.losses[1] - 1, "thirty steps must teach something"


def test_a_checkpoint_of_four_ranks_goes_on_in_one_process(start: Start, parallel: Trained, tmp_path: Path) -> None:
    """Weights, optimizer and position in the data, all resharded from 2x2 to 1x1."""
    single = start(tmp_path, resume=parallel.checkpoint(20))
    rest = {step: loss for step, loss in parallel.losses.items() if step > 20}
    assert difference(single.losses, rest) <= TOLERANCE


def test_every_rank_has_written_to_the_checkpoint(parallel: Trained) -> None:
    names = [p.name for p in (parallel.checkpoint(STEPS) / "weights").glob("*.distcp")]
    assert {name.split("_")[2] for name in names} == {"0", "1", "2", "3"}


def test_weights_alone_give_the_same_loss_on_the_same_batch(start: Start, parallel: Trained, tmp_path: Path) -> None:
    """The 2x2 checkpoint restored at 2x2 and at 1x1: the first batch of a new training has the same loss."""
    once = {"steps": 2, "warmup_steps": 0, "save_every": 5}
    source = str(parallel.checkpoint(STEPS))
    four = start(tmp_path / "four", tp=2, pp=2, weights=source, train=once)
    one = start(tmp_path / "one", weights=source, train=once)
    assert abs(four.losses[1] - one.losses[1]) <= TOLERANCE
    assert four.losses[1] < parallel.losses[1] - 1, "the trained weights were not restored"


def test_sequence_parallel_agrees(start: Start, parallel: Trained, tmp_path: Path) -> None:
    sequence = start(tmp_path, tp=2, pp=2, parallel={"sequence": True}, train={"steps": 10})
    first = {step: loss for step, loss in parallel.losses.items() if step <= 2}
    assert difference({s: v for s, v in sequence.losses.items() if s <= 2}, first) <= TOLERANCE
