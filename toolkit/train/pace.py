"""Which rank stands out by its time among those that do the same work. Plain arithmetic; `stragglers` has the times."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Slowest:
    """`ratio` is its time to the median of its likes; `own_s` seconds a step."""

    rank: int
    own_s: float
    ratio: float


def slowest(own_s: Sequence[float], likes: Sequence[Sequence[int]]) -> Slowest | None:
    """The rank that stands out most. `likes` are the ranks that do the same work; groups of one tell nothing."""
    found = [
        Slowest(rank=rank, own_s=own_s[rank], ratio=own_s[rank] / median)
        for group in likes
        if len(group) > 1 and (median := statistics.median_low([own_s[r] for r in group])) > 0
        for rank in group
    ]
    return max(found, key=lambda s: s.ratio, default=None)


def likes_of(stage: Sequence[int], replicas: int) -> list[list[int]]:
    """Ranks that do the same work, each by itself: of the same pipeline stage, where the model is there more than once.

    Of one copy alone nothing can be said: its stages have different work (the last has the logits), and the ranks of a
    stage wait for each other in every layer. `stage` is that of each rank.
    """
    if replicas < 2:
        return []
    return [[rank for rank, of in enumerate(stage) if of == one] for one in sorted(set(stage))]
