"""How often a document stands in the corpus in the "PMC Upsampled" trial of the MEDITRON paper (its appendix B.4).

Decides the score of a document from its kind, journal, age and citations, and the number of copies from the score; the
readers bring what is known of a document, the builder gathers it over the corpus. The numbers are those of table 10.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import date as Date
from pathlib import Path

from toolkit.errors import DataError

# Publication types as PubMed names them; an article has all of its types' values added up.
TYPE_SCORES: Mapping[str, float] = {
    "guideline": 1.0,
    "practice guideline": 1.0,
    "patient education handout": 1.0,
    "meta-analysis": 1.0,
    "systematic review": 0.8,
    "clinical trial, phase iv": 0.8,
    "clinical trial, phase iii": 0.6,
    "clinical trial, phase ii": 0.4,
    "clinical trial, phase i": 0.2,
    "randomized controlled trial": 0.5,
    "review": 0.5,
    "observational study": 0.5,
    "comparative study": 0.5,
    "clinical study": 0.4,
    "case reports": 0.0,
    "editorial": 0.1,
    "letter": 0.1,
    "comment": 0.1,
}
# The names that Semantic Scholar has for some of these; its ClinicalTrial states no phase and is counted as a study.
_SEMANTIC_SCHOLAR: Mapping[str, str] = {
    "metaanalysis": "meta-analysis",
    "casereport": "case reports",
    "clinicaltrial": "clinical study",
    "lettersandcomments": "letter",
}
DROPPED_TYPES = frozenset(
    ("observational study, veterinary", "retracted publication", "retraction of publication", "preprint")
)
DROPPED_MESH = "animals"
JOURNAL_SCORE = 1.0  # for a journal of the user's list; the paper took the about 430 that UpToDate reviews
TODAY = Date(2023, 7, 15)  # the day of the paper's download, from which ages count
RECENT_DAYS, RECENT_SCORE = 365 * 5.5, 1.0
MIDDLE_DAYS, MIDDLE_SCORE = 365 * 10, 0.2
TOP_QUARTER_SCORE, MIDDLE_HALF_SCORE = 1.0, 0.5  # by citations a year

DROPPED = -1.0
NOT_KNOWN = -1.0


def features(
    *,
    types: Iterable[str],
    mesh: Iterable[str],
    journal: str,
    date: str,
    citations: int | None,
    journals: frozenset[str] = frozenset(),
) -> tuple[float, float, float]:
    """(score of types and journal or DROPPED, age in days, citations a year; NOT_KNOWN for what is not known).

    A `date` of a year or month alone counts as its first day. `journals` come from `journal_list`.
    """
    kinds = [_SEMANTIC_SCHOLAR.get(kind, kind) for kind in (kind.strip().lower() for kind in types)]
    if any(kind in DROPPED_TYPES for kind in kinds) or any(name.strip().lower() == DROPPED_MESH for name in mesh):
        score = DROPPED
    else:
        score = sum(TYPE_SCORES.get(kind, 0.0) for kind in kinds)
        score += JOURNAL_SCORE if journal_key(journal) in journals else 0.0
    age = _age(date)
    if citations is None or age == NOT_KNOWN:
        return round(score, 6), age, NOT_KNOWN
    # The first year counts whole, so that an article of this week is not divided by nothing.
    return round(score, 6), age, round(max(0, citations) / (age // 365 + 1), 6)


def thresholds(weights: Iterable[Sequence[float] | None]) -> list[float]:
    """The lower and the upper quartile of citations a year over the documents of which they are known; [0, 0] for none.

    Both are values that occur (nearest rank), so that they do not depend on the order of the documents.
    """
    rates = sorted(weight[2] for weight in weights if weight is not None and weight[2] != NOT_KNOWN)
    if not rates:
        return [0.0, 0.0]
    return [rates[(len(rates) - 1) // 4], rates[3 * (len(rates) - 1) // 4]]


def score(weight: Sequence[float], limits: Sequence[float]) -> float:
    """The whole score, DROPPED for a document that the trial leaves out.

    Age and citations count for an article only that its kind or its journal has brought over 0.
    """
    base, age, rate = weight
    if base <= 0:
        return base
    if age != NOT_KNOWN:
        base += RECENT_SCORE if age <= RECENT_DAYS else MIDDLE_SCORE if age <= MIDDLE_DAYS else 0.0
    if rate != NOT_KNOWN and rate > limits[0]:
        base += TOP_QUARTER_SCORE if rate > limits[1] else MIDDLE_HALF_SCORE
    return base


def copies(weight: Sequence[float] | None, limits: Sequence[float], seed: int, id: str) -> int:
    """How often the document is written: 1 + its score, the fraction of it as the chance of one more; 0 to drop it.

    The chance hangs on `seed` and the document's id alone. A document without a weight is written once.
    """
    if weight is None:
        return 1
    total = score(weight, limits)
    if total < 0:
        return 0
    whole = int(total)
    digest = hashlib.blake2b(
        f"{seed}\0{id}".encode("utf-8", "surrogatepass"), digest_size=8, person=b"upsample"
    ).digest()
    return 1 + whole + (int.from_bytes(digest, "big") / 2**64 < total - whole)


def journal_key(name: str) -> str:
    """A journal's name as it is compared: lower case, without the marks : , . -"""
    return " ".join(name.lower().translate({ord(mark): None for mark in ":,.-"}).split())


def journal_list(path: str | Path) -> frozenset[str]:
    """The names in a text file, one a line; '#' begins a remark. Raises `DataError` for a file that holds none."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as err:
        why = str(err.strerror) if isinstance(err, OSError) else "not UTF-8 text"
        raise DataError("the list of journals cannot be read", where=path, why=why) from err
    names = frozenset(key for line in lines if (key := journal_key(line.split("#", 1)[0])))
    if not names:
        raise DataError("the list of journals is empty", where=path, do="write one name a line")
    return names


def _age(date: str) -> float:
    parts = [int(part) for part in date.split("-") if part.isdigit()]
    if not parts:
        return NOT_KNOWN
    year, month, day = (*parts, 1, 1)[:3]
    try:
        return float(max(0, (TODAY - Date(year, month, day)).days))
    except ValueError:
        return NOT_KNOWN
