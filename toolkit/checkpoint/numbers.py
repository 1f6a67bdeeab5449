"""The four float types of models, block by block: from one to another, and how far two are apart.

Decides rounding (to nearest, ties to even, as torch does); leaves where the bytes come from to others. Takes numpy,
which knows no bfloat16: that is the upper half of a float32.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

ITEM = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
_PLAIN = {"float64": "<f8", "float32": "<f4", "float16": "<f2"}


def convert(block: memoryview, source: str, target: str) -> memoryview | bytes:
    """`block` of `source` numbers as `target` ones; itself when they are the same."""
    if source == target:
        return block
    import numpy as np

    values = _values(block, source)
    with np.errstate(over="ignore", invalid="ignore"):
        if target == "bfloat16":
            return _bfloat16(values.astype("<f4", copy=False)).tobytes()
        return values.astype(_PLAIN[target]).tobytes()


def farthest(a: memoryview, b: memoryview, source_a: str, source_b: str) -> float:
    """The largest |a - b| of two blocks of as many numbers; 0 where both are NaN or the same infinity, NaN where only
    one is NaN.
    """
    import numpy as np

    x, y = _values(a, source_a).astype("<f8"), _values(b, source_b).astype("<f8")
    with np.errstate(invalid="ignore"):
        gap = np.abs(x - y)
    gap[(x == y) | (np.isnan(x) & np.isnan(y))] = 0.0
    return float(gap.max()) if gap.size else 0.0


def worst(gaps: list[float]) -> float:
    """The largest, and NaN where one is."""
    return math.nan if any(map(math.isnan, gaps)) else max(gaps, default=0.0)


def same(a: memoryview, b: memoryview | bytes) -> bool:
    """Bit for bit."""
    import numpy as np

    return bool(np.array_equal(np.frombuffer(a, np.uint8), np.frombuffer(b, np.uint8)))


class Mean:
    """The mean row of a matrix whose blocks come one after the other, summed in float64."""

    def __init__(self, columns: int, dtype: str) -> None:
        import numpy as np

        self._sum, self._rows, self._dtype = np.zeros(columns), 0, dtype

    def add(self, block: memoryview) -> None:
        values = _values(block, self._dtype).astype("<f8").reshape(-1, len(self._sum))
        self._sum += values.sum(axis=0)
        self._rows += len(values)

    def row(self) -> bytes:
        mean = (self._sum / self._rows).astype("<f8")
        return bytes(convert(memoryview(mean).cast("B"), "float64", self._dtype))


def _values(block: Any, dtype: str) -> np.ndarray:
    import numpy as np

    if dtype == "bfloat16":
        return (np.frombuffer(block, "<u2").astype("<u4") << 16).view("<f4")
    return np.frombuffer(block, _PLAIN[dtype])


def _bfloat16(values: np.ndarray) -> np.ndarray:
    import numpy as np

    bits = np.ascontiguousarray(values).view("<u4")
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
    return np.where(np.isnan(values), 0x7FC0, rounded).astype("<u2")
