"""The interval against values that others have published or worked out."""

from __future__ import annotations

import pytest

from toolkit.stats import wilson


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
