"""The interval against values that others have published or worked out."""

from __future__ import annotations

import math
import random
from fractions import Fraction
from statistics import mean, stdev

import pytest

from toolkit.stats import bootstrap_ci, holm, mcnemar_exact, mean_sd, paired_bootstrap, smallest_detectable, wilson


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (5, 10, 0.2366, 0.7634),
        # Newcombe, Statistics in Medicine 17 (1998) 857-872, Table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval_against_published_values(correct: int, n: int, low: float, high: float) -> None:
    assert [round(bound, 4) for bound in wilson(correct, n)] == [low, high]
    assert [round(bound, 4) for bound in wilson(correct / n * n, n)] == [low, high]  # from an accuracy
    assert wilson(n - correct, n) == pytest.approx((1 - high, 1 - low), abs=5e-5)


@pytest.mark.parametrize("n", [1, 3, 10, 28, 1273])
def test_the_share_is_within(n: int) -> None:
    assert wilson(0, n)[0] == 0 and wilson(n, n)[1] == 1
    for correct in range(n + 1):
        low, high = wilson(correct, n)
        assert 0 <= low <= correct / n <= high <= 1


def test_nothing_counted_says_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


def test_mean_and_deviation() -> None:
    values = [42.3, 39.9, 44.7]
    assert mean_sd(values) == pytest.approx((mean(values), stdev(values)))
    assert mean_sd([0.5]) == (0.5, 0.0)


def exact(b: int, c: int) -> float:
    n, k = b + c, min(b, c)
    tail = sum(math.comb(n, i) for i in range(k + 1))
    return float(min(Fraction(1), Fraction(2 * tail, 2**n)))


@pytest.mark.parametrize(
    ("b", "c"), [(0, 0), (0, 1), (0, 5), (1, 1), (3, 9), (15, 5), (7, 8), (100, 140), (500, 400), (3, 900)]
)
def test_mcnemar_is_exact(b: int, c: int) -> None:
    assert mcnemar_exact(b, c) == pytest.approx(exact(b, c), rel=1e-11) == mcnemar_exact(c, b)
    worse = Fraction(sum(math.comb(b + c, i) for i in range(c + 1)), 2 ** (b + c))
    assert mcnemar_exact(b, c, one_sided=True) == pytest.approx(float(worse), rel=1e-11)


def test_mcnemar_of_many() -> None:
    """Against the normal approximation with continuity correction, which is good at this size."""
    b, c = 50_400, 49_600
    z = (b - c - 1) / math.sqrt(b + c)
    assert mcnemar_exact(b, c) == pytest.approx(math.erfc(z / math.sqrt(2)), rel=1e-3)
    assert mcnemar_exact(0, 100_000) < 1e-300
    with pytest.raises(ValueError):
        mcnemar_exact(-1, 3)


def test_bootstrap_is_seeded_and_near_the_normal_interval() -> None:
    values = [1.0] * 800 + [0.0] * 473
    low, high = bootstrap_ci(values, seed=3)
    assert (low, high) == bootstrap_ci(values, seed=3) == bootstrap_ci(sorted(values), seed=3)
    half = 1.96 * math.sqrt(0.6284 * 0.3716 / 1273)
    assert (low, high) == pytest.approx((0.6284 - half, 0.6284 + half), abs=0.002)
    assert bootstrap_ci([0.5] * 9) == (0.5, 0.5)
    with pytest.raises(ValueError):
        bootstrap_ci([])


def test_bootstrap_by_counts_is_the_plain_one() -> None:
    """Drawn by how often each value comes or one by one: the same distribution."""
    rng = random.Random(1)
    few = [rng.choice([-1.0, 0.0, 0.0, 0.0, 1.0, 1.0]) for _ in range(300)]
    many = [value + 1e-9 * i for i, value in enumerate(few)]  # all different: drawn one by one
    assert bootstrap_ci(few, resamples=4000) == pytest.approx(bootstrap_ci(many, resamples=4000), abs=0.01)
    normal = 1.96 * stdev(few) / math.sqrt(300)
    assert bootstrap_ci(few) == pytest.approx((mean(few) - normal, mean(few) + normal), abs=0.01)


def test_bootstrap_covers_what_it_says() -> None:
    rng, n = random.Random(5), 200
    inside = 0
    for seed in range(200):
        low, high = bootstrap_ci([float(rng.random() < 0.7) for _ in range(n)], seed=seed, resamples=500)
        inside += low <= 0.7 <= high
    assert 0.89 < inside / 200 <= 0.99


def test_paired_bootstrap_draws_pairs() -> None:
    a, b = [1.0] * 60 + [0.0] * 40, [1.0] * 50 + [0.0] * 50
    low, high = paired_bootstrap(a, b)
    assert low < -0.1 < high < 0
    assert paired_bootstrap(a, a) == (0, 0)
    assert bootstrap_ci(b)[0] < bootstrap_ci(a)[0] + 0.01  # unpaired, the two intervals overlap widely
    with pytest.raises(ValueError):
        paired_bootstrap(a, b[:-1])


@pytest.mark.parametrize(("n", "discordance"), [(200, 0.3), (1273, 0.2), (4183, 0.1)])
def test_the_smallest_difference_is_seen_in_four_of_five(n: int, discordance: float) -> None:
    """By trial: sets of `n` items with that difference, judged by the exact test."""
    difference, rng = smallest_detectable(n, discordance), random.Random(2)
    assert difference is not None and 0 < difference < discordance
    seen, trials = 0, 400
    for _ in range(trials):
        worse = better = 0
        for _ in range(n):
            draw = rng.random()
            worse += draw < (discordance + difference) / 2
            better += (discordance + difference) / 2 <= draw < discordance
        seen += mcnemar_exact(worse, better) < 0.05
    assert 0.74 < seen / trials < 0.86


def test_differences_that_cannot_be_seen() -> None:
    assert smallest_detectable(20, 0.1) is None and smallest_detectable(0, 0.5) is None
    assert smallest_detectable(100, 0.0) is None
    assert smallest_detectable(10_000, 0.2) < smallest_detectable(1_000, 0.2)


def test_holm_against_the_worked_definition() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == [] and holm([0.2]) == [0.2] and holm([0.9, 0.8]) == [1.0, 1.0]
