"""How sure a proportion or a difference is, and how small a difference a set could show.

Decides the estimators, all in the standard library; knows nothing of what was counted or who is compared.
"""

from __future__ import annotations

import bisect
import itertools
import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import NormalDist

Z95 = 1.959963984540054  # the 97.5 % quantile of the normal distribution
_FEW = 8  # so many different values are drawn by their counts, more one by one


def wilson(correct: float, n: int, z: float = Z95) -> tuple[float, float]:
    """Wilson score interval of `correct` out of `n`, within [0, 1] (Wilson 1927); (0, 1) when nothing was counted.

    `correct` need not be whole: a share that was written down is as good as the count that it came from.
    """
    if n == 0:
        return 0.0, 1.0
    share, spread = correct / n, z * z / n
    centre = share + spread / 2
    half = z * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    low, high = (centre - half) / (1 + spread), (centre + half) / (1 + spread)
    return max(0.0, min(low, share)), min(1.0, max(high, share))  # rounding may put an end past 0, 1 or the share


def mean_sd(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (divisor n - 1) of at least one value; the deviation of one value is 0."""
    mean = math.fsum(values) / len(values)
    spread = math.fsum((value - mean) ** 2 for value in values)
    return mean, math.sqrt(spread / (len(values) - 1)) if len(values) > 1 else 0.0


def bootstrap_ci(
    values: Sequence[float], *, seed: int = 0, resamples: int = 10_000, confidence: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of `values` (Efron 1979); the same seed gives the same interval.

    `values` are what each item got: 0 or 1, a share over seeds, or a difference between two models on that item.
    """
    if not values:
        raise ValueError("no values to draw from")
    low, high = (1 - confidence) / 2, (1 + confidence) / 2
    means = sorted(_means(values, random.Random(seed), resamples))
    return _quantile(means, low), _quantile(means, high)


def paired_bootstrap(
    a: Sequence[float], b: Sequence[float], *, seed: int = 0, resamples: int = 10_000, confidence: float = 0.95
) -> tuple[float, float]:
    """Bootstrap interval of mean(b) - mean(a), drawing items with what both models got on them."""
    differences = [y - x for x, y in zip(a, b, strict=True)]
    return bootstrap_ci(differences, seed=seed, resamples=resamples, confidence=confidence)


def mcnemar_exact(b: int, c: int, *, one_sided: bool = False) -> float:
    """p of McNemar's exact test: `b` items only the first has right, `c` items only the second (McNemar 1947).

    Two-sided by default (twice the smaller tail, at most 1). `one_sided` asks whether the second is worse: the
    chance of `b` or more of b + c fair coins. Sums from the largest term on, so b + c may be in the millions.
    """
    if min(b, c) < 0:
        raise ValueError("counts cannot be negative")
    if one_sided:
        return _coins(b + c, c)
    return min(1.0, 2 * _coins(b + c, min(b, c)))


def smallest_detectable(n: int, discordance: float, *, alpha: float = 0.05, power: float = 0.8) -> float | None:
    """The difference in accuracy that a two-sided exact McNemar test on `n` items shows with that power.

    `discordance` is the share of items on which the two models differ. Normal approximation (Connor 1987) with a
    continuity correction, as the exact test is conservative; None when even all of the differing items on one side
    would not do.
    """
    if n < 1 or not 0 < discordance <= 1:
        return None
    za, zb = NormalDist().inv_cdf(1 - alpha / 2), NormalDist().inv_cdf(power)
    reach = za * math.sqrt(discordance) + 1 / math.sqrt(n)
    a, half, c = n + zb * zb, reach * math.sqrt(n), reach * reach - zb * zb * discordance
    root = half * half - a * c
    if root < 0:
        return None
    difference = (half + math.sqrt(root)) / a
    return difference if difference <= discordance else None


def holm(ps: Sequence[float]) -> list[float]:
    """p values adjusted for being several (Holm 1979), in the given order: compare each with alpha itself."""
    adjusted, highest = [0.0] * len(ps), 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[i]))
        adjusted[i] = highest
    return adjusted


def _coins(n: int, k: int) -> float:
    """P(X <= k) of n fair coins."""
    if k >= n:
        return 1.0
    if 2 * k >= n:  # the other tail is the shorter sum
        return 1.0 - _coins(n, n - k - 1)
    top = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - n * math.log(2)
    term = total = 1.0
    for i in range(k, 0, -1):
        term *= i / (n - i + 1)
        total += term
        if term < total * 1e-17:
            break
    return min(1.0, math.exp(top + math.log(total)))


def _means(values: Sequence[float], rng: random.Random, resamples: int) -> Iterator[float]:
    """Means of `resamples` draws with replacement; few different values are drawn by how often each comes."""
    n, counts = len(values), sorted(Counter(values).items())
    if len(counts) > _FEW:
        yield from (math.fsum(rng.choices(values, k=n)) / n for _ in range(resamples))
        return
    tables: dict[tuple[int, int], tuple[int, list[float]]] = {}
    for _ in range(resamples):
        total, left, behind = 0.0, n, n
        for i, (value, count) in enumerate(counts):
            if count == behind:
                total += value * left  # the last value takes what is left
                break
            if (i, left) not in tables:
                tables[i, left] = _binomial(left, count / behind)
            first, chances = tables[i, left]
            drawn = first + bisect.bisect_left(chances, rng.random() * chances[-1])
            total, left, behind = total + value * drawn, left - drawn, behind - count
        yield total / n


def _binomial(n: int, share: float) -> tuple[int, list[float]]:
    """The first count worth a thought and the cumulative chances from it on, ten standard deviations wide."""
    reach = 10 * math.sqrt(n * share * (1 - share)) + 10
    first, last = max(0, math.floor(n * share - reach)), min(n, math.ceil(n * share + reach))
    whole, odds = math.lgamma(n + 1), math.log(share / (1 - share))
    base = whole + n * math.log1p(-share)
    logs = (base + k * odds - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(first, last + 1))
    return first, list(itertools.accumulate(map(math.exp, logs)))


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Between the two nearest of sorted values."""
    at = share * (len(ordered) - 1)
    below = math.floor(at)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (at - below)
