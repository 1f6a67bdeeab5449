"""What counts as a spike, and which rank stands out: the arithmetic alone."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.recipe.schema import Guard
from toolkit.train import pace, spikes
from toolkit.train import rows as lines

GUARD = Guard(window=16, deviations=6.0, floor=0.02)


def test_a_loss_far_above_the_median_is_a_spike_and_one_below_is_none() -> None:
    window = spikes.Window(GUARD)
    for step in range(1, 11):
        assert not window.see(step, 2.0 + 0.01 * (step % 3)).spike
    seen = window.see(11, 3.0)
    assert seen.spike and window.in_a_row == 1 and window.onset == 11
    assert window.see(12, 3.1).spike and (window.in_a_row, window.onset) == (2, 11)
    assert not window.see(13, 1.0).spike and (window.in_a_row, window.onset) == (0, 0)


def test_the_limit_is_the_median_and_six_deviations_of_at_least_the_floor() -> None:
    window = spikes.Window(GUARD)
    losses = [2.0, 2.1, 1.9, 2.2, 1.8, 2.0]
    for step, loss in enumerate(losses, 1):
        window.see(step, loss)
    mad = statistics.median(abs(loss - 2.0) for loss in losses)
    assert window.judge(9.0).limit == pytest.approx(2.0 + 6 * 1.4826 * mad)
    flat = spikes.Window(GUARD)
    for step in range(1, 6):
        flat.see(step, 2.0)
    assert flat.judge(9.0).limit == pytest.approx(2.0 + 6 * 0.02 * 2.0)
    assert not flat.judge(2.2).spike and flat.judge(2.25).spike


def test_nothing_is_a_spike_before_a_quarter_of_the_window_is_known() -> None:
    window = spikes.Window(GUARD)
    for step, loss in enumerate((1.0, 100.0, 1.0, 50.0), 1):
        assert not window.see(step, loss).spike
    assert window.judge(5000.0).limit is not None


def test_a_level_that_stays_becomes_the_new_normal() -> None:
    window = spikes.Window(GUARD)
    seen = [window.see(step, 2.0 if step <= 16 else 4.0).spike for step in range(1, 40)]
    assert all(seen[16:24]) and not any(seen[25:])


@given(st.lists(st.floats(0.1, 20, allow_nan=False), min_size=0, max_size=60), st.integers(0, 60))
def test_the_window_recalled_from_the_rows_is_the_one_that_was(losses: list[float], cut: int) -> None:
    whole = spikes.Window(GUARD)
    rows = []
    for step, loss in enumerate(losses, 1):
        whole.see(step, loss)
        rows.append({"step": step, "loss": loss})
    begun, _ = spikes.recall(GUARD, rows[:cut])
    for row in rows[cut:]:
        begun.see(row["step"], row["loss"])
    assert (begun.losses, begun.in_a_row, begun.onset) == (whole.losses, whole.in_a_row, whole.onset)


def test_skipped_steps_are_counted_at_the_end_and_seen_by_no_window(tmp_path: Path) -> None:
    rows = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": None, "skipped": True}, {"step": 2, "event": "skipped"}]
    rows += [{"step": 3, "loss": 99.0, "skipped": True}, {"step": 3, "valid_loss": 2.0}]
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) + '\n[1]\n{"step": 4, "lo', encoding="utf-8")
    window, skipped = spikes.recall(GUARD, lines.read(path))
    assert list(window.losses) == [2.0] and skipped == 2
    assert spikes.recall(GUARD, [*rows, {"step": 4, "loss": 2.0}])[1] == 0
    assert lines.read(tmp_path / "none") == []


def test_the_slowest_rank_is_compared_with_those_that_do_the_same() -> None:
    """dp=2, pp=2: the last stage has the logits to do, and takes twice as long as the first; that is no straggler."""
    stage = [0, 0, 1, 1]
    assert pace.likes_of(stage, replicas=2) == [[0, 1], [2, 3]]
    slow = pace.slowest([1.0, 1.0, 2.0, 2.1], pace.likes_of(stage, replicas=2))
    assert slow is not None and (slow.rank, slow.ratio) == (3, pytest.approx(1.05))
    slow = pace.slowest([1.0, 1.5, 2.0, 2.1], pace.likes_of(stage, replicas=2))
    assert slow is not None and (slow.rank, slow.ratio, slow.own_s) == (1, 1.5, 1.5)


def test_with_one_copy_of_the_model_there_is_nobody_to_compare_with() -> None:
    assert pace.likes_of([0, 0, 1, 1], replicas=1) == [] and pace.slowest([1.0, 1.0, 2.0, 2.0], []) is None
    assert pace.slowest([1.0], [[0]]) is None and pace.slowest([0.0, 0.0], [[0, 1]]) is None
