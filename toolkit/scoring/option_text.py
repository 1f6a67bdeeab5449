"""Options found by their own words: which of them a piece of text names.

Decides when a text is an option's text, or so near that only one can be meant; leaves where to look to `extract`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_WORDS = re.compile(r"[^\W_]+(?:[.,/][0-9]+)*|[+%<>=]")
_SKIP = {"a", "an", "the", "of", "to", "in", "and", "or", "with", "for", "by", "on", "is"}
_LEAST = 0.8  # of an option's words must be there, when it is not there as a whole
_AHEAD = 0.25  # of the words, before the next best option


def words(text: str) -> list[str]:
    """The words of `text` in lower case, articles at its beginning left out; numbers stay whole (2.5, 1/2)."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    found = _WORDS.findall(text.lower())
    while len(found) > 1 and found[0] in ("a", "an", "the"):
        found = found[1:]
    return found


def prepared(options: Sequence[str]) -> list[str]:
    """Each option as its words between blanks, so that a search finds whole words."""
    return [f" {' '.join(words(option))} " for option in options]


def named(text: str, options: Sequence[str]) -> list[int]:
    """Indices of the `prepared` options whose words are in `text`, in the order of the text.

    An option that is part of another one that is there does not count at the same place: the longer one is meant.
    """
    whole = f" {' '.join(words(text))} "
    found = []
    for i, option in enumerate(options):
        at = whole.find(option) if option.strip() else -1
        while at >= 0:
            found.append((at, at + len(option), i))
            at = whole.find(option, at + 1)
    kept = [(a, i) for a, b, i in found if not any(c <= a and b <= d and d - c > b - a for c, d, _ in found)]
    return list(dict.fromkeys(i for _, i in sorted(kept)))


def meant(text: str, options: Sequence[str]) -> int | None:
    """The one `prepared` option that a short answer stands for, or None when that is none or more than one.

    The whole text, its beginning, a part of one option alone, or nearly all words of one option and of no other.
    """
    mine = words(text)
    if not mine:
        return None
    whole = f" {' '.join(mine)} "
    for i, option in enumerate(options):
        if option == whole:
            return i
    begins = [i for i, option in enumerate(options) if option.strip() and whole.startswith(option)]
    if begins:
        return max(begins, key=lambda i: len(options[i]))
    inside = named(text, options)
    if len(inside) == 1:
        return inside[0]
    if inside:
        return None
    if len(whole) >= 7 and not set(mine) <= _SKIP:
        around = [i for i, option in enumerate(options) if whole in option]
        if len(around) == 1:
            return around[0]
    return _nearest(mine, options)


def _nearest(mine: Sequence[str], options: Sequence[str]) -> int | None:
    """By shared words; short options must be there as they are."""
    have = set(mine) - _SKIP
    shares = []
    for i, option in enumerate(options):
        wanted = set(option.split()) - _SKIP
        shares.append((len(wanted & have) / len(wanted) if len(wanted) >= 3 else 0.0, i))
    shares.sort(reverse=True)
    if shares and shares[0][0] >= _LEAST and (len(shares) == 1 or shares[0][0] - shares[1][0] >= _AHEAD):
        return shares[0][1]
    return None
