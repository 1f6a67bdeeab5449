"""Whether a file counts its answers from 0 or from 1. MedMCQA's `cop` does one in the original file and the other in
its copy on the hub. Decides by the numbers that occur, else by what the explanations call the answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from toolkit.errors import DataError

# "Ans. is 'c' i.e., ...", "Ans-a.", "Answer: (b)": how explanations begin that name the letter.
_NAMED = re.compile(r"\W{0,3}ans(?:wer)?\W{0,4}(?:is\W{1,4})?([a-h])(?![a-z])", re.IGNORECASE)
_FEWEST, _SHARE = 5, 0.8


def whole(value: Any) -> int | None:
    """`value` as a whole number: itself, or its digits in a CSV cell."""
    if type(value) is int:
        return value
    if isinstance(value, str) and re.fullmatch(r"-?\d{1,3}", value.strip(), re.ASCII):
        return int(value)
    return None


def base(values: Sequence[Any], explanations: Sequence[str], n: int) -> str | None:
    """`index` (from 0) or `number` (from 1) for answers among `n` options, None where it cannot be told.

    A 0 or an n decides. A file that has neither (a piece of one) is decided by at least five explanations that name
    their letter, four fifths of them with one voice.
    """
    numbers = {number for value in values if (number := whole(value)) is not None}
    if 0 in numbers or n in numbers:
        return None if {0, n} <= numbers else "index" if 0 in numbers else "number"
    votes = {"index": 0, "number": 0}
    for value, explanation in zip(values, explanations, strict=True):
        number, named = whole(value), _NAMED.match(explanation)
        if number is not None and named:
            place = ord(named[1].upper()) - ord("A")
            votes["index"] += place == number
            votes["number"] += place == number - 1
    best = max(votes, key=votes.__getitem__)
    total = sum(votes.values())
    return best if total >= _FEWEST and votes[best] >= _SHARE * total else None


def unknown(values: Sequence[Any], column: str, file: Path) -> DataError:
    seen = sorted({number for value in values if (number := whole(value)) is not None})
    why = f"'{column}' holds the numbers {seen[:8]}"
    do = "score more rows, or set gold to index (0-based) or number (1-based) in a copy of the benchmark's file"
    if 0 in seen:  # alone it would have decided
        why, do = f"{why}: 0 and one beyond the last option both occur", "mend the rows that count otherwise"
    return DataError("cannot tell whether answers count from 0 or from 1", where=file, why=why, do=do)
