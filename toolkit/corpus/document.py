"""What every reader yields: a document, or a bad row with its file and line.

Decides the fields of the corpus and how a text is tidied; leaves reading to the readers and keeping to the rules.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f]")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, kw_only=True)
class Document:
    """One line of `train.jsonl` or `valid.jsonl`; `date` is ISO 8601 as far as it is known, `license` a short id."""

    id: str
    source: str
    subset: str
    title: str
    text: str
    url: str = ""
    license: str = "unknown"
    date: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class BadRow:
    """A row (or a whole file) that could not be read; `line` counts from 1, 0 when the file has no such thing."""

    file: str
    line: int
    why: str
    sample: str = ""


def tidy(text: str) -> str:
    """Line ends as "\\n", no control characters, no blanks at line ends, at most one empty line; all else stays."""
    text = _CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    text = re.sub(r"[ \t]+\n", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def has_lone_surrogate(text: str) -> bool:
    """True for text that no UTF-8 file can hold."""
    return bool(_LONE_SURROGATE.search(text))


def content_id(text: str) -> str:
    """An id for a document that brings none: the same text has the same one wherever it stands."""
    return "sha1:" + hashlib.sha1(text.encode("utf-8", "surrogatepass")).hexdigest()
