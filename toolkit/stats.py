"""How sure a proportion is. Nothing here knows what was counted."""

from __future__ import annotations

import math

Z95 = 1.959963984540054  # the 97.5 % quantile of the normal distribution


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
