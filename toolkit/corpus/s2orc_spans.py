"""Spans that point into a text, as S2ORC's annotations hold them, and what can be said of where they lie.

Decides which spans can be trusted; leaves what they mean to `s2orc_text.py`.
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Span:
    start: int
    end: int
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def name(self, key: str) -> str:
        """An id among the attributes; numbers are ids as well."""
        value = self.attributes.get(key)
        return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""


class Layer:
    """A string and its spans by kind, sorted, each once; spans that do not fit are left aside and counted.

    Spans of one kind do not overlap, but for paragraphs.
    """

    def __init__(self, text: str, annotations: object) -> None:
        self.text = text
        self.ignored = 0
        self.unread: list[str] = []
        # The second layout writes the same names with underscores. What nobody asks for is never read.
        given = annotations.items() if isinstance(annotations, Mapping) else ()
        self._raw = {str(kind).replace("_", "").lower(): value for kind, value in given}
        self._spans: dict[str, list[Span]] = {}

    def __getitem__(self, kind: str) -> list[Span]:
        if kind not in self._spans:
            self._spans[kind] = self._read(kind, self._raw.get(kind))
        return self._spans[kind]

    def within(self, kind: str, outer: Span) -> list[Span]:
        spans = self[kind]
        first = bisect_left(spans, outer.start, key=lambda span: span.start)
        last = bisect_right(spans, outer.end, key=lambda span: span.start)
        return [span for span in spans[first:last] if span.end <= outer.end]

    def _read(self, kind: str, value: object) -> list[Span]:
        if isinstance(value, str) and value.strip():
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                self.unread.append(kind)
                return []
        if value is None or (isinstance(value, str) and not value.strip()):
            return []
        if not isinstance(value, list):
            self.unread.append(kind)
            return []
        found: dict[tuple[int, int], Span] = {}
        for entry in value:
            start, end = (_offset(entry.get(key)) if isinstance(entry, dict) else -1 for key in ("start", "end"))
            if not 0 <= start < end <= len(self.text):
                self.ignored += 1
                continue
            attributes = entry.get("attributes")
            span = Span(start=start, end=end, attributes=attributes if isinstance(attributes, dict) else {})
            # Some records hold every span twice; of two the one that says more stays.
            if (start, end) not in found or (span.attributes and not found[start, end].attributes):
                found[start, end] = span
        spans = sorted(found.values(), key=lambda span: (span.start, -span.end))
        return spans if kind == "paragraph" else self._apart(spans)

    def _apart(self, spans: Sequence[Span]) -> list[Span]:
        """Those that begin behind the end of the one before; in sound records that is all of them."""
        out: list[Span] = []
        for span in spans:
            if out and span.start < out[-1].end:
                self.ignored += 1
            else:
                out.append(span)
        return out


def _offset(value: object) -> int:
    """Offsets are numbers, in older files written as text; they count code points, as Python does."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 12:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else -1


def merged(spans: Sequence[Span]) -> list[Span]:
    """The same ground in spans that neither touch nor overlap."""
    out: list[Span] = []
    for span in sorted(spans, key=lambda span: span.start):
        if out and span.start <= out[-1].end:
            out[-1] = Span(start=out[-1].start, end=max(out[-1].end, span.end))
        else:
            out.append(Span(start=span.start, end=span.end))
    return out


def holds(zones: Sequence[Span], span: Span) -> bool:
    """Whether `span` lies inside one of `zones`, which are sorted and do not overlap."""
    place = bisect_right(zones, span.start, key=lambda zone: zone.start) - 1
    return place >= 0 and span.end <= zones[place].end


def gaps(taken: Sequence[Span], start: int, end: int) -> list[Span]:
    """What `taken`, merged and sorted, leaves of the ground between two offsets."""
    out, at = [], start
    for span in taken:
        if span.start >= end:
            break
        if span.start > at:
            out.append(Span(start=at, end=span.start))
        at = max(at, span.end)
    return [*out, Span(start=at, end=end)] if at < end else out
