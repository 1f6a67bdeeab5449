"""Which documents a corpus keeps: by licence, retraction, date, length, repetition and language.

Decides about one document at a time, and in which order the rules are asked; leaves text to `mend`, other documents to
`dedup`, and counting to `tally`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from toolkit.cleaning import Filters, Language, Length, Repetition
from toolkit.corpus import language, licence, repetition
from toolkit.corpus.document import Document

_DATED = re.compile(r"(\d{4})(?!\d)(?:[-/](\d\d?)(?![\d])(?:[-/](\d\d?)(?!\d))?)?|(\d{4})(\d\d)(\d\d)(?!\d)")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_NAMED = (
    r"(jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?)"
)
_DAY, _FOUR = r"(\d\d?)(?:st|nd|rd|th)?", r"((?:19|20)\d\d)(?!\d)"
# Year, month and day in each: 2023 Sep 1, September 1, 2023, 1st Sep 2023.
_WRITTEN = tuple(
    (re.compile(pattern, re.I), order)
    for pattern, order in (
        (rf"\b{_FOUR}[\s-]+{_NAMED}\b\.?(?:[\s-]+{_DAY}\b)?", (1, 2, 3)),
        (rf"(?:\b{_DAY}[\s.-]+(?:of\s+)?)?\b{_NAMED}\b[\s.,-]+{_FOUR}", (3, 2, 1)),
        (rf"\b{_NAMED}\b[\s.]+{_DAY}[\s,]+{_FOUR}", (3, 1, 2)),
    )
)
_YEAR = re.compile(r"(?<!\d)(?:19|20)\d\d(?!\d)")
_WORD_LIKE = re.compile(r"\S+")
_EXCERPT = 300


@dataclass(frozen=True, kw_only=True)
class Removed:
    """Why a document is out: the rule, a sentence, a piece of the text, and what the report counts below the rule."""

    rule: str
    why: str
    sample: str = ""
    detail: str = ""


def check(doc: Document, rules: Filters, seed: int = 0) -> Removed | None:
    """The first rule that takes the document out, or None; `seed` chooses the pieces that languages are judged by.

    Raises `MissingPackage` when languages are asked for and the package that knows them is not installed.
    """
    if not doc.text or doc.text.isspace():
        return Removed(rule="empty", why="holds no text")
    return (
        _licence(doc, rules.licences)
        or _retracted(doc, rules.retracted)
        or _cutoff(doc, rules.cutoff)
        or _length(doc, rules.length)
        or _repetition(doc, rules.repetition)
        or _language(doc, rules.language, seed)
    )


def is_after(date: str, cutoff: str) -> bool:
    """True when `date`, as far as it is known, is later than `cutoff`; a text without a year is not."""
    known = precise(date)
    length = min(len(known), len(cutoff))
    return bool(known) and known[:length] > cutoff[:length]


def precise(date: str) -> str:
    """A stated date as YYYY, YYYY-MM or YYYY-MM-DD, "" without a year: "2023-9-1T12:00Z" and "1 Sep 2023" are one."""
    plain = _DATED.match(date)
    if plain and (plain[2] or plain[4] or plain.end() == len(date)):
        year, month, day = (plain[1], plain[2], plain[3]) if plain[1] else (plain[4], plain[5], plain[6])
        return _iso(year, int(month or 0), int(day or 0))
    for pattern, (y, m, d) in _WRITTEN:
        if found := pattern.search(date):
            return _iso(found[y], _MONTHS.index(found[m][:3].lower()) + 1, int(found[d] or 0))
    if plain:
        return plain[1]
    found = _YEAR.search(date)
    return found[0] if found else ""


def _iso(year: str, month: int, day: int) -> str:
    if not 1 <= month <= 12:
        return year
    return f"{year}-{month:02d}-{day:02d}" if 1 <= day <= 31 else f"{year}-{month:02d}"


def _licence(doc: Document, allow: tuple[str, ...]) -> Removed | None:
    if licence.is_allowed(doc.license, allow):
        return None
    needs = ", ".join(sorted(licence.groups(doc.license)))
    return Removed(rule="licence", why=f"{doc.license} (needs {needs})", sample=_head(doc), detail=doc.license)


def _retracted(doc: Document, asked: bool) -> Removed | None:
    if not (asked and doc.retracted):
        return None
    return Removed(rule="retracted", why="the source says so", sample=_head(doc))


def _cutoff(doc: Document, cutoff: str) -> Removed | None:
    if not cutoff or not is_after(doc.date, cutoff):
        return None
    return Removed(rule="after_cutoff", why=f"of {doc.date}", sample=_head(doc), detail=precise(doc.date)[:4])


def _length(doc: Document, rules: Length) -> Removed | None:
    length = len(doc.text)
    if length < rules.min_characters:
        return Removed(rule="too_short", why=f"{length} characters", sample=_head(doc), detail="characters")
    # Text of n words holds 2n - 1 characters at least; words of 40 characters on average there are not.
    if rules.min_words and length < 40 * rules.min_words:
        words = sum(1 for _ in _WORD_LIKE.finditer(doc.text))
        if words < rules.min_words:
            return Removed(rule="too_short", why=f"{words} words", sample=_head(doc), detail="words")
    if 0 < rules.max_characters < length:
        return Removed(rule="too_long", why=f"{length:,} characters", sample=_head(doc), detail="characters")
    return None


def _repetition(doc: Document, rules: Repetition) -> Removed | None:
    if not rules.enabled or doc.language in language.NONE:
        return None
    found = repetition.worst(doc.text, rules)
    if found is None:
        return None
    return Removed(rule="repetition", why=f"{found.share:.0%} {found.what}", sample=found.sample, detail=found.measure)


def _language(doc: Document, rules: Language, seed: int) -> Removed | None:
    if not rules.keep or doc.language in language.NONE:
        return None
    if doc.language and doc.language.partition("-")[0].lower() not in rules.keep:
        stated = doc.language.lower()[:8]
        return Removed(rule="language", why=f"the source states {stated}", sample=_head(doc), detail=stated)
    shares = language.judge(doc.text, seed=seed, name=doc.id)
    others = {code: share for code, share in (shares or {}).items() if code not in rules.keep}
    if sum(others.values()) < rules.threshold:
        return None
    likely, share = max(others.items(), key=lambda item: (item[1], item[0]))
    return Removed(rule="language", why=f"{likely} ({share:.0%})", sample=_head(doc), detail=likely)


def _head(doc: Document) -> str:
    return doc.text[:_EXCERPT]
