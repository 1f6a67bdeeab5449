"""One walk over the elements of a page: headings, paragraphs, lists, tables and set text as blocks of Markdown.

Decides how the structure of a page is written; leaves which of its elements are content to `guidelines_html`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any


def _named(names: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", names))


HEADINGS = {f"h{n}": n for n in range(1, 7)}
_BLOCKS = {*HEADINGS} | _named("""address article aside blockquote body center dd details dialog div dl dt fieldset
    figcaption figure footer form header hgroup hr html legend main menu ol optgroup p pre section summary table tbody
    tfoot thead tr td th ul li caption noscript""")
_RAISED = re.compile(r"[+\-−–]?\d+(?:[.,/]\d+)?[+\-−–]?|[+\-−–]")


class Writer:
    """One walk over a tree without recursion: inline text is gathered, and a block's border ends the paragraph."""

    def __init__(self, *, tables: str) -> None:
        self.tables = tables
        self.line: list[str] = []
        self.lists: list[int | None] = []  # the next number of each open list, None for bullets
        self.item = ""
        self.heading = 0
        self.pre = 0

    def blocks(self, root: Any) -> Iterator[str]:
        from lxml import etree

        skip: Any = None
        for event, element in etree.iterwalk(root, events=("start", "end")):
            if skip is not None:
                if event == "end" and element is skip:
                    skip = None
                    self._add(element.tail)
                continue
            if not isinstance(element.tag, str):
                if event == "end":
                    self._add(element.tail)
                continue
            if event == "start":
                if element.tag == "table" and not _is_layout(element):
                    yield from self._end()
                    yield from self._table(element)
                    skip = element
                    continue
                if element.tag == "math" or (element.tag in ("sup", "sub") and not _has_blocks(element)):
                    self._add(_math(element) if element.tag == "math" else _raised(element))
                    skip = element
                    continue
                if element.tag in _BLOCKS:
                    yield from self._end()
                    self._open(element)
                elif element.tag == "br":
                    self.line.append("\n")
                self._add(element.text)
            else:
                if element.tag in _BLOCKS:
                    yield from self._end()
                    self._close(element)
                if element is not root:
                    self._add(element.tail)
        yield from self._end()

    def _add(self, text: str | None) -> None:
        if text:
            self.line.append(text if self.pre else re.sub(r"[ \t\r\n\f]+", " ", text))

    def _open(self, element: Any) -> None:
        tag = element.tag
        if tag in HEADINGS:
            self.heading = HEADINGS[tag]
        elif tag == "pre":
            self.pre += 1
        elif tag in ("ul", "menu"):
            self.lists.append(None)
        elif tag == "ol":
            start = element.get("start", "1")
            self.lists.append(int(start) if re.fullmatch(r"-?\d{1,6}", start) else 1)
        elif tag == "li":
            depth = "  " * max(0, len(self.lists) - 1)
            number = self.lists[-1] if self.lists else None
            self.item = f"{depth}- " if number is None else f"{depth}{number}. "
            if number is not None:
                self.lists[-1] = number + 1

    def _close(self, element: Any) -> None:
        tag = element.tag
        if tag in HEADINGS:
            self.heading = 0
        elif tag == "pre":
            self.pre = max(0, self.pre - 1)
        elif tag in ("ul", "ol", "menu") and self.lists:
            self.lists.pop()
        elif tag == "li":
            self.item = ""

    def _end(self) -> Iterator[str]:
        text = "".join(self.line)
        self.line = []
        if self.pre:
            text = text.strip("\n")
        else:
            text = "\n".join(part for raw in text.split("\n") if (part := re.sub(r"[ \t\r\f]+", " ", raw).strip(" ")))
        if not text.strip():
            return
        if self.heading:
            text = "#" * self.heading + " " + heading(text)
        elif self.item:
            text, self.item = self.item + text, ""
        yield text

    def _table(self, table: Any) -> Iterator[str]:
        for caption in table.iter("caption"):
            if words := _words(caption):
                yield words
            break
        if self.tables != "text":
            return
        rows = []
        for row in table.iter("tr"):
            if cells := [_words(cell) for cell in row.iterchildren("td", "th")]:
                rows.append(" | ".join(cells))
        if rows := [row for row in rows if row.strip(" |")]:
            yield "\n".join(rows)


def _is_layout(table: Any) -> bool:
    """Tables that lay out a page: they say so, hold headings or other tables, or have one column."""
    if table.get("role") in ("presentation", "none"):
        return True
    if next(table.iter("th", "caption"), None) is not None:
        return False
    if any(True for _ in table.iter(*HEADINGS)) or any(inner is not table for inner in table.iter("table")):
        return True
    return all(len(list(row.iterchildren("td"))) <= 1 for row in table.iter("tr"))


def _has_blocks(element: Any) -> bool:
    return any(isinstance(inner.tag, str) and inner.tag in _BLOCKS for inner in element.iter())


def _raised(element: Any) -> str:
    """Superscript numbers need a mark: 10<sup>-3</sup> is not 10-3. A link alone is a footnote's, and goes."""
    text = flat(element)
    if element.tag != "sup":
        return text
    linked = "".join(flat(link) for link in element.iter("a") if (link.get("href") or "").startswith("#"))
    if linked and not re.sub(r"[\s\[\],;*†‡–-]", "", text.replace(linked, "", 1)):
        return ""
    return "^" + text if _RAISED.fullmatch(text) else text


def _math(element: Any) -> str:
    return element.get("alttext") or "".join("".join(element.itertext()).split())


def heading(text: str) -> str:
    """A heading on one line, without the sign of a link to itself."""
    return " ".join(text.split()).rstrip("¶\U0001f517 ")


def flat(element: Any) -> str:
    return " ".join("".join(element.itertext()).split())


def _words(element: Any) -> str:
    """All text of an element on one line, with the marks of raised numbers."""
    from lxml import etree

    parts: list[str] = []
    skip: Any = None
    for event, inner in etree.iterwalk(element, events=("start", "end")):
        if skip is not None:
            if inner is skip and event == "end":
                skip = None
                parts.append(inner.tail or "")
            continue
        if not isinstance(inner.tag, str):
            parts.append((inner.tail or "") if event == "end" else "")
        elif event == "start":
            if inner is not element and inner.tag in ("sup", "sub"):
                parts.append(_raised(inner))
                skip = inner
                continue
            parts.append(" " if inner.tag in _BLOCKS or inner.tag == "br" else "")
            parts.append(inner.text or "")
        else:
            parts.append(" " if inner.tag in _BLOCKS else "")
            parts.append((inner.tail or "") if inner is not element else "")
    return " ".join("".join(parts).split())
