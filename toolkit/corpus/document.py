"""What every reader yields: a document, a row that cannot be read, one that is left out, or a record withdrawn.

Decides the fields of the corpus and how a text is tidied; leaves reading to the readers and keeping to the rules.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_BEFORE_DOI = re.compile(r"(?:https?://(?:dx\.|www\.)?doi\.org/|doi:\s*)+(?=10\.)", re.I)
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f]")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")

WRITTEN = ("id", "source", "subset", "title", "text", "url", "license", "date", "meta")


@dataclass(frozen=True, kw_only=True)
class Document:
    """One line of a part of the corpus (the fields of `WRITTEN`), and what steers its way there.

    `date` is ISO 8601 as far as it is known, `license` a short id. `keys` are ids that other sources share, in lower
    case: "pmid:123", "pmc:pmc12", "doi:10.1/x", "s2:123". Of documents that share a key the lowest `rank` stays (0 a
    full text, 1 an abstract), of the same rank and id the highest `version` (an ISO date or a number padded with
    zeros), else the first. `retracted` is what the source says; `retracts` are keys of articles that this one says are
    retracted, by which they go in whichever source and version they stand: its own, or those that a notice names.
    `language` (ISO 639-1) is what it states of itself, `"none"` for code and other things in no language. `weight` is
    for upsampling.
    """

    id: str
    source: str
    subset: str
    title: str
    text: str
    url: str = ""
    license: str = "unknown"
    date: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)
    keys: tuple[str, ...] = ()
    rank: int = 0
    version: str = ""
    retracted: bool = False
    retracts: tuple[str, ...] = ()
    language: str = ""
    weight: Any = None

    def as_dict(self) -> dict[str, Any]:
        """What is written of it."""
        return {name: getattr(self, name) for name in WRITTEN}


@dataclass(frozen=True, kw_only=True)
class BadRow:
    """A row (or a whole file) that could not be read; `line` counts from 1, 0 when the file has no such thing."""

    file: str
    line: int
    why: str
    sample: str = ""


@dataclass(frozen=True, kw_only=True)
class Left:
    """`count` sound documents that a reader leaves out itself, by the name of its rule, such as `not_sampled`.

    `retracts` as of a `Document`: notices seldom have an abstract.
    """

    rule: str
    id: str = ""
    sample: str = ""
    count: int = 1
    retracts: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Withdrawal:
    """The source withdraws the record with this key; documents of an older or the same `version` go, no later one."""

    key: str
    version: str = ""


Item = Document | BadRow | Left | Withdrawal


def tidy(text: str) -> str:
    """Line ends as "\\n", no control characters, no blanks at line ends, at most one empty line; all else stays."""
    text = _CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    if " \n" in text or "\t\n" in text:  # the search below tries at every blank
        text = re.sub(r"[ \t]+\n", "\n", text)
    if "\n\n\n" in text:
        text = re.sub(r"\n{3,}", "\n\n", text)
    return text.strip()


def has_lone_surrogate(text: str) -> bool:
    """True for text that no UTF-8 file can hold."""
    return bool(_LONE_SURROGATE.search(text))


def bare_doi(value: str) -> str:
    """A DOI without the address or the `doi:` that some write before it, so that it is the same in all sources."""
    return _BEFORE_DOI.sub("", value.strip())


def content_id(text: str) -> str:
    """An id for a document that brings none: the same text has the same one wherever it stands."""
    return "sha1:" + hashlib.sha1(text.encode("utf-8", "surrogatepass")).hexdigest()
