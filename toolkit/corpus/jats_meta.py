"""What an article says of itself in its front matter: ids, date, licence, journal, language, whether it is retracted.

Decides which of several statements counts; leaves the text to `jats_text.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from toolkit.corpus import licence
from toolkit.corpus.document import bare_doi

if TYPE_CHECKING:
    from lxml.etree import _Element

_HREF = "{http://www.w3.org/1999/xlink}href"
_LANG = "{http://www.w3.org/XML/1998/namespace}lang"
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_LANGUAGES = {"eng": "en", "fre": "fr", "fra": "fr", "ger": "de", "deu": "de", "spa": "es", "por": "pt", "ita": "it",
              "rus": "ru", "chi": "zh", "zho": "zh", "jpn": "ja", "pol": "pl", "tur": "tr", "dut": "nl", "nld": "nl",
              "kor": "ko", "cze": "cs", "ces": "cs", "hun": "hu", "scr": "hr", "hrv": "hr"}  # fmt: skip
_RETRACTED_TYPES = frozenset(("retraction", "retracted", "retracted-article", "retraction-notice", "withdrawal"))
_RETRACTED_LINKS = frozenset(("retracted-by", "retraction-forward", "retraction-in", "withdrawn-by"))
_RETRACTS = frozenset(("retracted-article", "retracted"))
_RETRACTED_TITLE = re.compile(r"\W*(?:RETRACTED|WITHDRAWN)\b|\W*(?:retracted|withdrawn)(?: article| paper)?\W*:|"
                              r"\W*(?:retraction|withdrawal)(?: note| notice)?\W*(?::|to:)", re.I)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Front:
    """`ids` holds pmc (as PMC1234), pmid and doi, those that are there; `date` YYYY, YYYY-MM or YYYY-MM-DD."""

    ids: Mapping[str, str] = field(default_factory=dict)
    date: str = ""
    licence: str = licence.UNKNOWN
    journal: str = ""
    kind: str = ""
    language: str = ""
    retracted: bool = False
    retracts: tuple[str, ...] = ()  # what a notice retracts, as keys: doi:, pmid: or pmc:


def front(article: _Element) -> Front:
    """Read before the text is, which changes the tree."""
    children: dict[str, list[_Element]] = {}
    journal = ""
    for part in article.iterchildren("{*}front"):
        for half in part:
            if _is(half, "article-meta"):
                for child in half:
                    if isinstance(child.tag, str):
                        children.setdefault(child.tag.rpartition("}")[2], []).append(child)
            elif _is(half, "journal-meta"):
                journal = next((_words(e) for e in half.iter("{*}journal-title")), "")
    kind = article.get("article-type", "")
    lang = article.get(_LANG, "").lower()
    language = _LANGUAGES.get(lang) or (lang[:2] if re.fullmatch(r"[a-z]{2}(?:[-_].*)?", lang) else "")
    return Front(
        ids=_ids(children.get("article-id", [])),
        date=_date(children.get("pub-date", [])),
        licence=_licence(children),
        journal=journal,
        kind=kind,
        language=language,
        retracted=_retracted(kind, children),
        retracts=tuple(_retracts(children.get("related-article", []))),
    )


def _is(element: _Element, name: str) -> bool:
    return isinstance(element.tag, str) and element.tag.rpartition("}")[2] == name


def _words(element: _Element) -> str:
    return " ".join("".join(element.itertext()).split())


def _ids(elements: list[_Element]) -> dict[str, str]:
    found: dict[str, str] = {}
    for element in elements:
        kind, value = element.get("pub-id-type", ""), _words(element)
        if kind in ("pmc", "pmcid") and (number := re.search(r"\d+", value)):
            found["pmc"] = f"PMC{number[0]}"
        elif kind in ("pmid", "doi") and value:
            found[kind] = bare_doi(value)
    return found


def _retracted(kind: str, children: Mapping[str, list[_Element]]) -> bool:
    """A retracted article, or the notice that retracts one: neither is to be learned from."""
    if kind.lower() in _RETRACTED_TYPES:
        return True
    if any(e.get("related-article-type", "").lower() in _RETRACTED_LINKS for e in children.get("related-article", [])):
        return True
    titles = (e for group in children.get("title-group", []) for e in group if _is(e, "article-title"))
    return any(_RETRACTED_TITLE.match(_words(title)) for title in titles)


def _retracts(links: list[_Element]) -> Iterator[str]:
    for link in links:
        if link.get("related-article-type", "").lower() not in _RETRACTS:
            continue
        kind, target = link.get("ext-link-type", "").lower(), link.get(_HREF, "").strip()
        if found := re.search(r"\b10\.\d{4,9}/\S+", target):
            yield f"doi:{found[0].lower()}"
        elif found := re.fullmatch(r"(?:PMC)?(\d+)", target, re.I):
            if kind == "pmid":
                yield f"pmid:{found[1]}"
            elif kind in ("pmc", "pmcid") or not target.isdecimal():
                yield f"pmc:pmc{found[1]}"


_short_id = lru_cache(maxsize=2048)(licence.short_id)  # a publisher says the same in all of its articles


def _licence(children: Mapping[str, list[_Element]]) -> str:
    """The most restrictive licence, each by its links, else its prose; older articles have a statement alone."""
    holders = [e for name in ("permissions", "license", "copyright-statement") for e in children.get(name, [])]
    texts: list[str] = []
    for element in (e for holder in holders for e in holder.iter("{*}license")):
        links = []
        for part in element.iter():
            links.append(part.get(_HREF, ""))
            if isinstance(part.tag, str) and part.tag.endswith("license_ref"):
                links.append(part.text or "")
        known = _short_id(tuple(links)) != licence.UNKNOWN
        texts += links if known else [element.get("license-type", "").replace("_", "-"), _words(element)]
    if (stated := _short_id(tuple(texts))) != licence.UNKNOWN:
        return stated
    return licence.short_id(_words(e) for holder in holders for e in holder.iter("{*}copyright-statement"))


def _date(elements: list[_Element]) -> str:
    """The earliest publication date, as precise as it is given."""
    dates = []
    for element in elements:
        given = {child.tag.rpartition("}")[2]: (child.text or "").strip() for child in element.iterchildren("*")}
        year, month, day = (given.get(name, "") for name in ("year", "month", "day"))
        if not re.fullmatch(r"[12]\d{3}", year):
            continue
        month = f"{_MONTHS.index(month[:3].lower()) + 1}" if month[:3].lower() in _MONTHS else month
        parts = [year]
        if month.isdecimal() and 1 <= int(month) <= 12:
            parts.append(f"{int(month):02d}")
            if day.isdecimal() and 1 <= int(day) <= 31:
                parts.append(f"{int(day):02d}")
        dates.append("-".join(parts))
    # Of dates in the same year the fuller one says more, so "2011-08-02" goes before "2011".
    return min(dates, key=lambda date: (date[:4], -len(date), date), default="")
