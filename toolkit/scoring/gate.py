"""Whether a model got worse than allowed: by a least drop, and by a test that several benchmarks do not fool.

Decides pass or fail; leaves the numbers to `compare` and what follows to the caller.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.errors import UsageError
from toolkit.scoring.compare import Changed, Compared, Comparison, compare
from toolkit.stats import holm


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One benchmark in one mode: `p` is one-sided (the second is worse), `p_adjusted` by Holm over all rows."""

    benchmark: str
    mode: str
    shots: int
    n: int
    before: float
    after: float
    difference: float
    low: float
    high: float
    p: float
    p_adjusted: float
    smallest: float | None
    worse: bool


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """`worse` when any row is; `items` are those of the worse rows that were right before and are wrong now."""

    a: str
    b: str
    worse: bool
    min_drop: float
    alpha: float
    rows: tuple[Judged, ...]
    items: tuple[Changed, ...]
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return json.loads(json.dumps(dataclasses.asdict(self)))


def judge(a: str | Path, b: str | Path, *, min_drop: float = 0.01, alpha: float = 0.05) -> Verdict:
    """Whether `b` is worse than `a` on any benchmark that both were scored on.

    Worse is a row whose accuracy fell by `min_drop` or more and whose one-sided exact McNemar test, adjusted by Holm
    for the number of rows, is below `alpha`. Raises as `compare`, and UsageError for a bound without sense.
    """
    if not (math.isfinite(min_drop) and 0 <= min_drop <= 1):
        raise UsageError(f"min_drop must be between 0 and 1, not {min_drop}", do="0.01 is one percentage point")
    if not 0 < alpha < 1:
        raise UsageError(f"alpha must be between 0 and 1, not {alpha}", do="0.05 is usual")
    return verdict(compare(a, b), min_drop=min_drop, alpha=alpha)


def verdict(found: Comparison, *, min_drop: float = 0.01, alpha: float = 0.05) -> Verdict:
    """As `judge`, of a comparison that is already made."""
    rows = [
        _judged(row, adjusted, min_drop, alpha)
        for row, adjusted in zip(found.rows, holm([row.p_worse for row in found.rows]), strict=True)
    ]
    items = [item for row, one in zip(found.rows, rows, strict=True) if one.worse for item in row.worse]
    return Verdict(
        a=found.a,
        b=found.b,
        worse=any(one.worse for one in rows),
        min_drop=min_drop,
        alpha=alpha,
        rows=tuple(rows),
        items=tuple(items),
        notes=found.notes,
    )


def _judged(row: Compared, adjusted: float, min_drop: float, alpha: float) -> Judged:
    same = ("benchmark", "mode", "shots", "n", "before", "after", "difference", "low", "high", "smallest")
    # the last digits of a difference of means must not decide: 0.53 - 0.54 is a drop of 0.01
    dropped = -row.difference >= min_drop - 1e-12 and row.difference < 0
    return Judged(
        **{name: getattr(row, name) for name in same},
        p=row.p_worse,
        p_adjusted=adjusted,
        worse=dropped and adjusted < alpha,
    )
