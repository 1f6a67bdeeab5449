"""How large checkpoints are, how many lie there at once, and what is said when they do not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from toolkit.errors import PlanRefused
from toolkit.models import Shape
from toolkit.plan import room
from toolkit.recipe import compose
from toolkit.recipe.schema import Guard, Parallel, Train

LLAMA_70B = Shape(layers=80, hidden=8192, ffn=28672, heads=64, kv_heads=8, vocab=32768)
LONG = Train(steps=11500, seq_length=4096, micro_batch=2, global_batch=512, lr=1.5e-4, save_every=500, keep=2)


def test_a_checkpoint_of_70b_takes_14_bytes_a_parameter() -> None:
    asked = room.room(LLAMA_70B, LONG, Parallel(), Guard(), in_background=True)
    assert asked.checkpoint_bytes == pytest.approx(14 * LLAMA_70B.parameters, rel=0.02)
    assert 960e9 < asked.checkpoint_bytes < 990e9
    assert (asked.at_once, asked.for_ever) == (4, 0)


@pytest.mark.parametrize(
    ("precision", "distributed", "expected"),
    [("bf16", True, 14), ("bf16", False, 14), ("fp32", True, 16), ("fp32", False, 12)],
)
def test_bytes_for_each_parameter(precision: str, distributed: bool, expected: int) -> None:
    assert room.bytes_per_parameter(precision, distributed_optimizer=distributed) == expected


def test_what_lies_there_at_once() -> None:
    def at_once(guard: Guard | None = None, in_background: bool = False, **train: int) -> int:
        return room.room(
            LLAMA_70B, replace(LONG, **train), Parallel(), guard or Guard(), in_background=in_background
        ).at_once

    assert at_once(keep=2) == 3
    assert at_once(keep=2, in_background=True) == 4
    assert at_once(Guard(spike="rollback"), keep=2) == 4
    assert at_once(keep=10, steps=1001) == 3, "no more than there are saves"


def test_checkpoints_that_do_not_fit_are_refused_with_the_numbers() -> None:
    asked = room.room(LLAMA_70B, LONG, Parallel(), Guard(), in_background=True)
    with pytest.raises(PlanRefused) as refused:
        room.check(asked, LONG, where=Path("/runs/x"), free_bytes=2_000_000_000_000)
    text = str(refused.value)
    assert "4 checkpoints of 97" in text and "room for 2,000 GB" in text and "2 would fit" in text
    assert "train.keep" in text and refused.value.exit_code == 3
    there = asked.checkpoint_bytes * 2
    assert room.check(asked, LONG, where=Path("/runs/x"), free_bytes=2_000_000_000_000, there_bytes=there) == ""


def test_those_kept_for_ever_are_warned_of() -> None:
    train = replace(LONG, keep_every=1000)
    asked = room.room(LLAMA_70B, train, Parallel(), Guard(), in_background=True)
    assert asked.for_ever == 11
    told = room.check(asked, train, where=Path("/runs/x"), free_bytes=6 * 10**12)
    assert "keeps 11 checkpoints for ever" in told and "after 2 of them" in told
    assert room.check(asked, train, where=Path("/runs/x"), free_bytes=10**14) == ""


def test_the_launcher_warns_and_leaves_the_refusal_to_the_training() -> None:
    recipe = compose("pretrain_7b", []).recipe
    told = room.outlook(recipe, free_bytes=10**11)
    assert told.startswith("warning: ") and "train.keep" in told and "refused" in told
    assert room.outlook(recipe, free_bytes=10**14) == ""
    assert room.outlook(compose("demo", ["stages=[corpus]"]).recipe, free_bytes=0) == ""
