"""The answer extraction of the scorer released with MEDITRON, as its results were counted; for comparison alone.

Decides what that scorer would have compared with the right answer, faults included (`maybe` is never valid, the first
character counts); leaves our own reading to `extract`. Source: benchmarks.py and evaluate.py of epfLLM/meditron.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

VALID = frozenset("abcde") | {"yes", "no"}
_NOT_ALNUM = re.compile(r"[^a-z0-9]+")


def answer(text: str, *, cot: bool, few_shot: bool = False, words: bool = False) -> str:
    """What is compared: a string of `VALID`, or anything else for an answer that cannot be read.

    Lower case; of a few-shot text what stands before the first blank line; of a chain of thought the first word after
    the last "answer is"; then letters and digits alone, and of a letter question their first character. `words` are
    yes and no, a word said twice counting once.
    """
    text = text.lower()
    if few_shot:
        text = text.split("\n\n")[0]
    if cot:
        _, cue, after = text.rpartition("answer is")
        text = (after.split() or [""])[0] if cue else text
    text = _NOT_ALNUM.sub("", text)
    if words:
        half = len(text) // 2
        return text[:half] if text and text[:half] * 2 == text else text
    return text[:1]


def vote(answers: Sequence[str]) -> str:
    """The most frequent string, the first seen of equals; one that cannot be read may win."""
    return Counter(answers).most_common(1)[0][0] if answers else ""
