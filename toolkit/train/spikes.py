"""Whether a loss is a spike against the running median of those before it. Plain arithmetic on the host; what follows
from a spike is `guards`'.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from toolkit.recipe.schema import Guard

_MAD_TO_SIGMA = 1.4826  # of a normal distribution
_ENOUGH = 0.25  # of the window, before anything is called a spike


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One loss against those before it; `median` and `limit` are None while there are too few."""

    loss: float
    median: float | None
    limit: float | None

    @property
    def spike(self) -> bool:
        return self.limit is not None and self.loss > self.limit


class Window:
    """The last losses, and how many spikes in a row stand at its end.

    Losses join it whether they are spikes or not: a median does not mind a few, and a loss that stays where it has
    jumped is one day the new normal. Steps whose update was skipped are not seen at all.
    """

    def __init__(self, guard: Guard) -> None:
        self.guard = guard
        self.losses: deque[float] = deque(maxlen=guard.window)
        self.in_a_row, self.onset = 0, 0

    def see(self, step: int, loss: float) -> Seen:
        """Take the loss of `step`; `onset` is the first step of the spikes in a row."""
        seen = self.judge(loss)
        self.losses.append(loss)
        if not seen.spike:
            self.in_a_row, self.onset = 0, 0
            return seen
        self.in_a_row += 1
        self.onset = self.onset or step
        return seen

    def judge(self, loss: float) -> Seen:
        if len(self.losses) < max(2, math.ceil(_ENOUGH * self.guard.window)):
            return Seen(loss=loss, median=None, limit=None)
        median = statistics.median(self.losses)
        spread = _MAD_TO_SIGMA * statistics.median(abs(other - median) for other in self.losses)
        limit = median + self.guard.deviations * max(spread, self.guard.floor * abs(median))
        return Seen(loss=loss, median=median, limit=limit)


def recall(guard: Guard, rows: Iterable[Mapping[str, Any]]) -> tuple[Window, int]:
    """The window as it was after the last of `rows` of metrics.jsonl, and how many of their last steps were skipped."""
    window, skipped = Window(guard), 0
    for row in rows:
        if "step" not in row or "loss" not in row:
            continue  # an event, a validation
        if row.get("skipped"):
            skipped += 1
            continue
        skipped = 0
        loss = row["loss"]
        if isinstance(loss, (int, float)) and math.isfinite(loss):
            window.see(int(row["step"]), float(loss))
    return window, skipped
