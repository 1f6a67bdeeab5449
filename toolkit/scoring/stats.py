"""How sure a proportion is. Nothing here knows what was counted."""

from __future__ import annotations

import math

Z95 = 1.959963984540054  # the 97.5 % quantile of the normal distribution


def wilson(correct: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Wilson score interval of `correct` out of `n`, within [0, 1] (Wilson 1927); (0, 1) when nothing was counted."""
    if n == 0:
        return 0.0, 1.0
    share, spread = correct / n, z * z / n
    centre = share + spread / 2
    half = z * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    return max(0.0, (centre - half) / (1 + spread)), min(1.0, (centre + half) / (1 + spread))
