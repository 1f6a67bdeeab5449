"""Whether a model is as often right as it is sure: its confidence in bins, and the expected calibration error.

Decides what confidence is (the share of the likeliest answer among the options); leaves drawing to the figures.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

BINS = 10


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Items whose confidence lies in [low, high): how many, their mean confidence, and the share that is right."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """`ece` is the mean of |accuracy - confidence| over bins of equal width, weighted by their items (Guo et al. 2017,
    arXiv 1706.04599); `over` is mean confidence less accuracy, positive for a model that is too sure.
    """

    bins: tuple[Bin, ...]
    n: int
    ece: float
    over: float


def confidence(logprobs: Sequence[float]) -> float | None:
    """The likeliest option's share of the options' probability; None where that is no number."""
    try:
        logprobs = [float(value) for value in logprobs]
    except OverflowError:  # a whole number beyond any float
        return None
    if len(logprobs) < 2 or any(math.isnan(value) for value in logprobs):
        return None
    top = max(logprobs)
    if not math.isfinite(top):
        return None
    return 1 / math.fsum(math.exp(value - top) for value in logprobs)


def reliability(answers: Iterable[tuple[float, bool]], bins: int = BINS) -> Reliability | None:
    """Of (confidence in [0, 1], whether it was right); None of no answers. Empty bins are left out."""
    counts, sums, right = [0] * bins, [0.0] * bins, [0] * bins
    for value, correct in answers:
        place = min(bins - 1, int(value * bins))
        counts[place] += 1
        sums[place] += value
        right[place] += correct
    n = sum(counts)
    if not n:
        return None
    made = tuple(
        Bin(low=i / bins, high=(i + 1) / bins, n=counts[i], confidence=sums[i] / counts[i],
            accuracy=right[i] / counts[i])
        for i in range(bins) if counts[i]
    )  # fmt: skip
    gaps = [one.n * abs(one.accuracy - one.confidence) for one in made]
    return Reliability(
        bins=made, n=n, ece=math.fsum(gaps) / n, over=(math.fsum(sums) - sum(right)) / n
    )  # fmt: skip
