"""Which documents of a whole corpus are others over again: same record, same words, or nearly the same words.

Decides the rules and their order (withdrawn, retracted, ids, exact, near) and who stays; leaves the work to `judge`.
"""

from __future__ import annotations

import functools
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.cleaning import Duplicates

if TYPE_CHECKING:
    import numpy as np

    from toolkit.corpus.fingerprints import Names

# The numbers in the arrays of `Verdicts.reasons`.
REASONS = ("", "withdrawn", "retracted", "same_id", "exact_duplicate", "near_duplicate")
WITHDRAWN, RETRACTED, SAME_ID, EXACT, NEAR = range(1, 6)


@dataclass(frozen=True, kw_only=True)
class Winner:
    """The document that stays in the place of another: `number` in its unit from 0."""

    unit: int
    number: int
    id: str


class Verdicts:
    """What becomes of each document: `reasons` has for every unit an array of uint8, shape (documents,), 0 to keep,
    else the place of the rule in `REASONS`; `counts` is rule -> documents removed.
    """

    def __init__(
        self, reasons: Sequence[np.ndarray], counts: dict[str, int], winners: np.ndarray, folders: Sequence[Path]
    ) -> None:
        self.reasons, self.counts = reasons, counts
        self._winners, self._folders = winners, folders
        self._names = functools.lru_cache(maxsize=64)(self._names_of)
        self._begins = list(accumulate((len(unit) for unit in reasons), initial=0))

    def winner(self, unit: int, number: int) -> Winner | None:
        """In whose favour the document was removed; None for one that stays, is withdrawn or retracted."""
        if self.reasons[unit][number] in (0, WITHDRAWN, RETRACTED):
            return None
        place = int(self._winners[self._begins[unit] + number])
        found = bisect_right(self._begins, place) - 1  # of units without documents the one behind them
        number = place - self._begins[found]
        return Winner(unit=found, number=number, id=self._names(found)[number])

    def _names_of(self, unit: int) -> Names:
        from toolkit.corpus.fingerprints import Names

        return Names(self._folders[unit])


def decide(folders: Sequence[Path], work: Path, rules: Duplicates, workers: int = 1) -> Verdicts:
    """Judge all documents whose fingerprints lie in `folders` (of `fingerprints.Collector`, one a unit, in order).

    A document goes with any key that is withdrawn or retracted, by whichever source. Of documents that share a key
    (over any number of steps) the lowest rank stays, of those the first; and of its revisions, that have its id and
    rank, the highest version. Of exact and near duplicates the lowest rank stays, of those the first. A document that
    one rule removed counts in no later one. `work` holds arrays, 13 bytes a document,
    and 5 while the verdicts are in use; what was in files of their names is replaced. The verdicts do not depend on
    `workers`. Raises `DataError` for missing or damaged fingerprints or such of other rules, `DiskFull`.
    """
    from toolkit.corpus.judge import judge

    return judge([Path(folder) for folder in folders], Path(work), rules, max(1, workers))
