"""How large a training's checkpoints are, how many of them lie on the disk at once, and whether they fit there.

Arithmetic on the recipe; where the checkpoints are, and how much room is there, is told by who asks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from toolkit.errors import PlanRefused
from toolkit.models import Shape
from toolkit.plan.layout import layout, shape
from toolkit.recipe.schema import Guard, Parallel, Recipe, Train

_MOMENTS, _MASTER, _FP32, _BF16 = 8, 4, 4, 2  # bytes for each parameter
_BESIDES = 1.01  # metadata, and the frame around each tensor: measured at 1.9 million parameters


@dataclass(frozen=True, kw_only=True)
class Room:
    """Bytes of one checkpoint; how many there are at once at most; how many are kept for ever by the last step."""

    checkpoint_bytes: int
    at_once: int
    for_ever: int

    @property
    def needed_bytes(self) -> int:
        return self.at_once * self.checkpoint_bytes


def bytes_per_parameter(precision: str, *, distributed_optimizer: bool) -> int:
    """The weights as they are trained, two moments in fp32 and, where there is one, the optimizer's own fp32 copy of
    the weights. In fp32 Megatron's distributed optimizer has such a copy, its plain one has not.
    """
    if precision == "bf16":
        return _BF16 + _MASTER + _MOMENTS
    return _FP32 + (_MASTER if distributed_optimizer else 0) + _MOMENTS


def room(shape: Shape, train: Train, parallel: Parallel, guard: Guard, *, in_background: bool) -> Room:
    """`shape` with its padded vocabulary. The newest `keep` lie there while the next one is written; in the background
    one more may be under way; and what a rollback has set aside.
    """
    each = bytes_per_parameter(train.precision, distributed_optimizer=parallel.distributed_optimizer)
    extra = 1 + int(in_background) + int(guard.spike == "rollback")
    saves = -(-train.steps // train.save_every)
    return Room(
        checkpoint_bytes=int(shape.parameters * each * _BESIDES),
        at_once=min(train.keep + extra, saves),
        for_ever=train.steps // train.keep_every if train.keep_every else 0,
    )


def outlook(recipe: Recipe, free_bytes: int) -> str:
    """What to say before a job is even queued; '' when the checkpoints of its pretraining will fit where runs are."""
    if "pretrain" not in recipe.stages:
        return ""
    model = replace(shape(recipe), vocab=layout(recipe).vocab_padded)
    in_background = recipe.train.async_save and recipe.cluster.device == "gpu"
    asked = room(model, recipe.train, recipe.parallel, recipe.guard, in_background=in_background)
    try:
        return check(asked, recipe.train, where=Path(recipe.runs), free_bytes=free_bytes)
    except PlanRefused as err:
        return f"warning: {err} The training will be refused where it is so when it begins."


def check(asked: Room, train: Train, *, where: Path, free_bytes: int, there_bytes: int = 0) -> str:
    """Raise `PlanRefused` when the checkpoints do not fit; returns a warning, or '', about those kept for ever.

    `there_bytes` is what checkpoints of an earlier attempt take, which make room for the next.
    """
    each, available = asked.checkpoint_bytes, free_bytes + there_bytes
    if asked.needed_bytes > available:
        fit = max(0, available // each)
        raise PlanRefused(
            f"{asked.at_once} checkpoints of {gb(each)} need {gb(asked.needed_bytes)}, and there is room for "
            f"{gb(available)}",
            where=where,
            why=f"train.keep={train.keep} are kept while the next is written",
            do=f"{fit} would fit: make room, or give a smaller train.keep, or another folder by runs=",
        )
    ever = asked.for_ever * each
    if asked.needed_bytes + ever > available:
        fit = (available - asked.needed_bytes) // each
        return (
            f"warning: train.keep_every={train.keep_every} keeps {asked.for_ever} checkpoints for ever, {gb(ever)}; "
            f"after {fit} of them {where} is full"
        )
    return ""


def gb(count: int) -> str:
    """In GB of 10^9 bytes, as disks are sold; small ones in MB."""
    return f"{count / 1e9:,.0f} GB" if count >= 10**10 else f"{count / 1e6:,.1f} MB"
