"""Options found by their own words: which of them a piece of text names.

Decides when a text is an option's text, or so near that only one can be meant (another spelling, order, ending or a
slip of the pen); leaves where to look to `extract`.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Sequence

_WORDS = re.compile(r"[^\W_]+(?:[.,/][0-9]+)*|[+%<>=]")
_SKIP = {"a", "an", "the", "of", "to", "in", "and", "or", "with", "for", "by", "on", "is"}
_LEAST = 0.8  # of an option's words must be there, when it is not there as a whole
_AHEAD = 0.25  # of the words, before the next best option
_SHORT = 14  # words of a text that may stand for an option in words of its own

_SAME = {
    "per cent": "%",
    "percent": "%",
    "milligram": "mg",
    "intravenous": "iv",
    "intravenously": "iv",
    "intramuscular": "im",
    "intramuscularly": "im",
    "subcutaneous": "sc",
    "subcutaneously": "sc",
    "plus": "and",
    "mo": "month",
    "wk": "week",
    "yr": "year",
    "hr": "hour",
    "cannot": "can not",
}
_OTHERWISE = re.compile(rf"\b(?:{'|'.join(sorted(_SAME, key=len, reverse=True))})\b")
_UNIT = re.compile(r"(?<![\w.,])(\d+)(?=(?:[mu]?g|mcg|kg|[md]?l|[mc]?m|mmhg|hrs?|h|min|days?|iu|mmol|meq)\b)")
_PLURAL = re.compile(r"(?<=[a-z]{2}[a-hj-rtv-z])s\b")
_IES = re.compile(r"(?<=[a-z]{2})ies\b")
_ALL = re.compile(
    r"\b(all|none) (?:of )?(?:(?:the|these|those) )?(?:above|these|them|those|options?|choices?|three|four|five)\b"
)
_NOT = re.compile(r"n't\b")
_INITIALS = re.compile(r"\b([a-z])\.([a-z])\b\.?")
_DENIALS = {"not", "no", "never", "neither", "without", "none"}


def words(text: str) -> list[str]:
    """The words of `text` in one spelling: lower case, no plurals, no articles at its beginning.

    Numbers stay whole (2.5, 1/2); what differs from country to country (anaemia, 5mg, per cent) does not differ here.
    """
    return list(_words(text) if len(text) < 200 else _words.__wrapped__(text))


@functools.lru_cache(maxsize=8192)
def _words(text: str) -> tuple[str, ...]:
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    text = _PLURAL.sub("", _IES.sub("y", text.lower().replace("ae", "e").replace("oe", "e")))
    text = _OTHERWISE.sub(lambda match: _SAME[match[0]], _UNIT.sub(r"\1 ", text))
    if "'" in text:
        text = _NOT.sub(" not", text.replace("can't", "can not").replace("won't", "will not"))
    if "." in text:
        text = _INITIALS.sub(r"\1\2", text)
    if "all " in text or "none " in text:
        text = _ALL.sub(r"\1 above", text)
    found = _WORDS.findall(text)
    while len(found) > 1 and found[0] in ("a", "an", "the"):
        found = found[1:]
    return tuple(found)


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
    kept, reach, since = [], -1, 0  # the end that lies furthest of those before, and where the longest with it begins
    for begin, end, i in sorted(found, key=lambda one: (one[0], -one[1])):
        if end > reach:
            reach, since = end, begin
        if (begin, end) == (since, reach):
            kept.append((begin, i))
    return list(dict.fromkeys(i for _, i in sorted(kept)))


def meant(text: str, options: Sequence[str]) -> int | None:
    """The one `prepared` option that a short answer stands for, or None when that is none or more than one.

    The whole text, its beginning, a part of one option alone, or nearly all words of one option and of no other.
    """
    mine = words(text)
    if not mine:
        return None
    whole = f" {' '.join(mine)} "
    if whole in options:
        return options.index(whole) if options.count(whole) == 1 else None
    same = [i for i, option in enumerate(options) if _same_words(mine, option.split())]
    if len(same) == 1:
        return same[0]
    begins = [i for i, option in enumerate(options) if option.strip() and whole.startswith(option)]
    if begins:
        return max(begins, key=lambda i: len(options[i]))
    inside = named(text, options)
    if len(inside) == 1:
        larger = [i for i, option in enumerate(options) if i != inside[0] and options[inside[0]] in option]
        return inside[0] if not larger else _full(_content(mine), options, larger, inside[0])
    if inside:
        return None
    close = [i for i, option in enumerate(options) if option.replace(" ", "") == "".join(mine)]
    if len(close) == 1:
        return close[0]  # BRCA-1, BRCA1
    if not set(mine) <= _SKIP:
        starts = [i for i, option in enumerate(options) if option.startswith(whole)]
        around = starts or [i for i, option in enumerate(options) if len(whole) >= 7 and whole in option]
        if len(around) == 1:
            return around[0]
    found = _nearest(mine, options)
    return near(text, options) if found is None else found


def several(text: str, index: int, options: Sequence[str]) -> bool:
    """Whether a text that begins with the option at `index` goes on with another one: "aspirin and heparin"."""
    whole = f" {' '.join(words(text))} "
    if not whole.startswith(options[index]):
        return False
    rest = whole[len(options[index]) :]
    rest = rest.partition(" ")[2] if rest.startswith(("and ", "or ")) else ""
    rest = rest.removeprefix("also ").removeprefix("possibly ")
    return any(f" {rest}".startswith(option) for i, option in enumerate(options) if i != index and option.strip())


def near(text: str, options: Sequence[str]) -> int | None:
    """The one option that a short text names by its words in another order, ending or spelling, or by some of them."""
    mine = words(text)
    content = _content(mine)
    if not content or len(mine) > _SHORT:
        return None
    if len(content) > 1:
        for holds in (_in_order, lambda part, of: set(part) <= set(of)):
            found = [i for i, option in enumerate(options) if holds(content, option.split())]
            if found:
                return _only(found)
    return _full(content, options, range(len(options)), None)


def _only(found: Sequence[int]) -> int | None:
    return found[0] if len(found) == 1 else None


def _content(mine: Sequence[str]) -> list[str]:
    return [word for word in mine if word not in _SKIP]


def _same_words(mine: Sequence[str], wanted: Sequence[str]) -> bool:
    return len(wanted) > 1 and sorted(_content(mine)) == sorted(_content(wanted))


def _in_order(part: Sequence[str], of: Sequence[str]) -> bool:
    rest = iter(of)
    return all(word in rest for word in part)


def _full(content: Sequence[str], options: Sequence[str], among: Sequence[int], otherwise: int | None) -> int | None:
    """The one option `among` which all words are in `content`, if not letter by letter."""
    found, denied = [], not _DENIALS.isdisjoint(content)
    for i in among:
        wanted = _content(options[i].split())
        exact = any(_like(word, one, False) for word in content if len(word) > 3 for one in wanted)
        if denied is _DENIALS.isdisjoint(wanted):
            continue  # "it is not live" is not "it is live"
        if wanted and all(any(_like(word, one, exact) for word in content) for one in wanted):
            found.append(i)
    return _only(found) if found else otherwise


_ENDING = re.compile(r"(?:ed|ing|ly|al|ation|ion|[ed])$")
_NUMBERS = {"zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7"}
_NUMBERS |= {"eight": "8", "nine": "9", "ten": "10"}


def _like(word: str, wanted: str, shortened: bool) -> bool:
    """Whether `word` is `wanted` with another ending, a slip, or (when `shortened` may be) its beginning or initial."""
    if word == wanted or _NUMBERS.get(word) == wanted:
        return True
    if not (word.isalpha() and wanted.isalpha()):
        return False
    if shortened and len(wanted) > 6 and (len(word) == 1 or 3 <= len(word) <= 5) and wanted.startswith(word):
        return True
    if min(len(word), len(wanted)) < 4:
        return False
    stem = _ENDING.sub("", word)
    return (len(stem) > 3 and stem == _ENDING.sub("", wanted)) or (len(wanted) > 5 and _slip(word, wanted))


def _slip(word: str, wanted: str) -> bool:
    """One letter more, less or other, or two exchanged; not at the beginning (abduction, adduction)."""
    at = next((i for i, (a, b) in enumerate(zip(word, wanted, strict=False)) if a != b), min(len(word), len(wanted)))
    if at > 0 and word[at : at + 2] == wanted[at : at + 2][::-1] and word[at + 2 :] == wanted[at + 2 :]:
        return len(word) == len(wanted)
    return at > 2 and word[at + (len(word) >= len(wanted)) :] == wanted[at + (len(wanted) >= len(word)) :]


def _nearest(mine: Sequence[str], options: Sequence[str]) -> int | None:
    """By shared words; short options must be there as they are."""
    have = set(mine) - _SKIP
    shares = []
    for i, option in enumerate(options):
        wanted = set(option.split()) - _SKIP
        other = len(wanted) < 3 or _DENIALS.isdisjoint(wanted) is not _DENIALS.isdisjoint(have)
        shares.append((0.0 if other else len(wanted & have) / len(wanted), i))
    shares.sort(reverse=True)
    if shares and shares[0][0] >= _LEAST and (len(shares) == 1 or shares[0][0] - shares[1][0] >= _AHEAD):
        return shares[0][1]
    return None
