"""How much of a text repeats itself: lines, paragraphs and runs of words that stand in it more than once.

Decides how repetition is measured; the thresholds are a recipe's.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolkit.cleaning import Repetition

if TYPE_CHECKING:
    import numpy as np

WORDS = 100  # shorter texts are not judged by runs of words: a list of tumours says "tumour of" in each line
LINES = 5  # nor those of fewer lines by lines
_PARAGRAPH = re.compile(r"\n\s*\n")
_REFERENCE = re.compile(r"\[(bib_ref|fig_ref)\].{0,600}?\[/\1\]")
_BUCKETS = 4  # per run of words, of the count that tells sound texts without a look at each run
_AGAIN, _LONGEST = 5, 10
_EXCERPT = 300


@dataclass(frozen=True, kw_only=True)
class Found:
    """The first measure that is over its threshold, and a piece of the text that repeats."""

    measure: str
    share: float
    what: str
    sample: str


def worst(text: str, rules: Repetition) -> Found | None:
    """The first measure over its threshold, or None for a sound text."""
    found = _pieces(text.split("\n"), "lines", "line_characters", rules)
    if found is None and "\n\n" in text:
        found = _pieces(_PARAGRAPH.split(text), "paragraphs", "paragraph_characters", rules)
    return found or _runs(text, rules)


def _pieces(pieces: Sequence[str], by_number: str, by_length: str, rules: Repetition) -> Found | None:
    seen = Counter(piece for piece in pieces if piece)
    number = seen.total()
    if number < LINES or len(seen) == number:
        return None
    again = [(piece, count - 1) for piece, count in seen.items() if count > 1]
    length = sum(len(piece) * count for piece, count in seen.items())
    for measure, share in (
        (by_number, sum(count for _, count in again) / number),
        (by_length, sum(len(piece) * count for piece, count in again) / length),
    ):
        if share > getattr(rules, measure):
            most = max(again, key=lambda item: (item[1] * len(item[0]), item[0]))
            what = f"of the {by_number} have stood before"
            return Found(measure=measure, share=share, what=what, sample=most[0][:_EXCERPT])
    return None


def _runs(text: str, rules: Repetition) -> Found | None:
    import numpy as np

    from toolkit.corpus import words

    if "_ref]" in text:
        text = _REFERENCE.sub("", text)  # the title of a work stands at each of its citations
    hashes = words.hashes(text)
    number = len(hashes)
    if number < WORDS:
        return None
    run, held = hashes, None
    for n in range(2, _LONGEST + 1):
        run = run[:-1] * np.uint64(0x9E3779B97F4A7C15) + hashes[n - 1 :]
        run ^= run >> np.uint64(29)
        if n < _AGAIN:
            share, at = _top(run, n, number, getattr(rules, f"top_{n}"))
            measure, what = f"top_{n}", f"of the words are one run of {n}"
        else:
            share, at, held = _again(run, held, n, number)
            measure, what = f"again_{n}", f"of the words are in runs of {n} that have stood before"
        if share > getattr(rules, measure):
            places = words.spans(text)
            sample = text[places[at][0] : places[at + n - 1][1]][:_EXCERPT]
            return Found(measure=measure, share=min(1.0, share), what=what, sample=sample)
        # Longer runs stand twice at some of these places at most, and each covers no more words than it has.
        longer = range(n + 1, _LONGEST + 1)
        if held is not None and all(len(held) * m <= getattr(rules, f"again_{m}") * number for m in longer):
            return None
    return None


def _buckets(run: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(bucket of each run, how many runs each bucket holds): equal runs share one, and a few others do by chance."""
    import numpy as np

    bits = max(8, (_BUCKETS * len(run)).bit_length())
    bucket = (run >> np.uint64(64 - bits)).astype(np.int64)
    return bucket, np.bincount(bucket, minlength=1 << bits)


def _top(run: np.ndarray, n: int, number: int, limit: float) -> tuple[float, int]:
    """(share of the words in the most frequent run, where it stands first); the fullest bucket bounds it from above."""
    import numpy as np

    _, counts = _buckets(run)
    if counts.max() * n <= limit * number:
        return 0.0, 0
    _, first, counts = np.unique(run, return_index=True, return_counts=True)
    most = counts.max()
    return most * n / number, int(first[counts == most].min())


def _again(run: np.ndarray, held: np.ndarray | None, n: int, number: int) -> tuple[float, int, np.ndarray]:
    """(share of the words in runs that have stood before, where the first such run stands, all places of runs that
    stand more than once). `held` are those places for runs one word shorter, outside which there can be none.
    """
    import numpy as np

    if held is None:
        bucket, counts = _buckets(run)
        held = np.flatnonzero(counts[bucket] > 1)
    held = held[held < len(run)]
    values = run[held]
    order = np.argsort(values, kind="stable")
    same = values[order][1:] == values[order][:-1]
    later = np.sort(held[order][1:][same])
    twice = np.zeros(len(held), dtype=bool)
    twice[order[1:][same]] = twice[order[:-1][same]] = True
    if not len(later):
        return 0.0, 0, held[:0]
    covered = np.minimum(np.diff(later, append=later[-1] + n), n).sum()
    return float(covered) / number, int(later[0]), held[twice]
