"""Plain text of an article that GROBID has read for S2ORC: prose with headings, from a string and spans into it.

Decides what of an article a reader would miss (everything before the abstract, authors, bibliography and
acknowledgements go; what follows a figure stays); leaves spans to `s2orc_spans.py`, records and ids to `s2orc.py`.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from toolkit.corpus.s2orc_spans import Layer, Span, gaps, holds, merged

# Stand where a citation was until the brackets around it are gone, and for a finished one while that is done.
_CITATION, _HELD = "\ue000", "\ue001"
_WORDS = 12  # of a cited title or a caption, as in the paper's corpus
_BACK_MATTER = re.compile(
    r"author'?s?'? (?:contributions?|details|information)|contributors?|contributions? of (?:the )?authors?"
    r"|corresponding author|orcid(?: ids?)?|acknowledge?ments?|role of the funding source"
    r"|funders?\b.*|funding(?! (?:of|for|in) (?!this|our|the (?:present|study|work)))\b.*"
    r"|(?:financial|grant|research) (?:support|disclosures?)\b.*|sources? of (?:funding|support)"
    r"|(?:conflicts?|declarations?|statements?|competing|disclosures?|duality) (?:of )?"
    r"(?:competing |conflicting |potential )?(?:financial |personal )?interests?\b.*|declarations?|disclosures?"
    r"|references?|bibliography|literature cited|pre-?publication history|publisher'?s? note|open access|copyright\b.*"
    r"|supp(?:lementa(?:ry|l)|orting) (?:material|information|data|files?|content)s?\b.*|additional information"
    r"|data (?:availability|sharing)\b.*|availability of (?:supporting )?data\b.*|(?:provenance and )?peer review"
    r"|peer review(?! (?:of|for|in|as)\b)\b.*",
    re.I,
)
_MAIN = re.compile(
    r"\b(?:abstract|introduction|background|aims?|objectives?|methods?|methodology|materials?|patients|results?|findings"
    r"|discussion|conclusions?|limitations?|summary|case|appendix|overview|recommendations?)\b",
    re.I,
)
_CAPTION_HEADING = re.compile(r"(?:fig(?:ure)?s?|tables?|box|scheme)\s*\.?\s*[S\d]\w*\s*[.:|]?", re.I)
_LABEL = re.compile(
    r"\s*((?:supplementary |extended data )?(?:fig(?:ure)?s?|tables?|box|scheme|chart|plate)\b[\s.]{0,4}[\w.-]{0,12}?)"
    r"[\s.:|]{0,6}\n",
    re.I,
)
_NO_PROSE = ("title", "author", "authoraffiliation", "venue", "publisher", "sectionheader", "abstract", "formula")
# For text on one line, where no blank stands before a citation's mark.
_RESOLVED = re.compile(rf"{_CITATION}(\[bib_ref\] [^{_CITATION}]* \[/bib_ref\]){_CITATION}")
_WAITING = re.compile(rf"{_HELD}(\d+){_HELD}")
_ONE = rf"{_HELD}\d+{_HELD}"
# A bracket around nothing but citations goes; one that holds other words stays whole.
_BRACKETED = re.compile(rf"[(\[] ?({_ONE}(?:[ ,;–—&\-]{{0,4}}(?:and )?(?:{_ONE}|{_CITATION}))*) ?[)\]]")
_GROUP = re.compile(rf"{_CITATION}(?:[ ,;–—\-]*(?:and |& )?{_CITATION})+")
_ALONE = re.compile(
    rf"[(\[] ?(?:(?:see(?: also)?|reviewed in|e\.g\.|i\.e\.|cf\.?|as in)[ ,:]*)*{_CITATION} ?[,;.]? ?[)\]]"
)
_FIRST = re.compile(rf"([(\[]) ?{_CITATION} ?[,;] ?")
_STOP = re.compile(r" ([.,;])(?= |$)")
_BLANKS = re.compile(r" {2,}")
_PIECES = re.compile(r"\n\s*\n|\n(?=\[formula\])|(?<=\[/formula\])\n")


class Unreadable(Exception):
    """Annotations without which the text cannot be told from the rest; its message says why."""


def title(body: Layer) -> str:
    """The first span that is called a title; GROBID takes page headers for titles at times."""
    return next((_one_line(body.text[span.start : span.end]) for span in body["title"]), "")


def article(body: Layer, bibliography: Layer | None, abstract: str, *, tags: bool, table_text: bool) -> str:
    """The whole text below the title. `abstract` is one that stands beside the body, empty when it is part of it.

    `tags` wraps citations, figures, tables and formulas in the paper's tokens; `table_text` keeps what was read of a
    table's cells. Raises `Unreadable` when the paragraphs' annotation cannot be read.
    """
    if not body["paragraph"] and "paragraph" in body.unread:
        raise Unreadable("annotation 'paragraph' is not a list of spans")
    writer = _Writer(body, bibliography or body, tags=tags, table_text=table_text)
    return writer.write(abstract)


@dataclass(frozen=True, kw_only=True)
class _Block:
    """Something that stands on its own; `depth` is that of a heading, 0 for all else."""

    at: int
    text: str
    depth: int = 0
    figure: bool = False


class _Writer:
    """Holds what the renderings of one article share: resolved references, captions, and where figures stand."""

    def __init__(self, body: Layer, bibliography: Layer, *, tags: bool, table_text: bool) -> None:
        self.body, self.tags, self.table_text = body, tags, table_text
        self.text = body.text.replace(_CITATION, " ").replace(_HELD, " ")  # glyphs of symbol fonts; offsets stay
        self.cited = dict(_cited(bibliography))
        self.figures = [span for span in body["figure"] if span.end - span.start < len(self.text)]
        self.captions: dict[str, tuple[str, str]] = {}
        self.inner = sorted(
            (
                (span, kind)
                for kind in ("bibref", "figureref", "tableref", "formula")
                for span in body[kind]
            ),
            key=lambda pair: (pair[0].start, -pair[0].end),
        )  # fmt: skip
        self.starts = [span.start for span, _ in self.inner]
        self.captions = {span.name("id"): self._caption(span) for span in self.figures if span.name("id")}

    def write(self, abstract: str) -> str:
        blocks = [_Block(at=-1, text="Abstract", depth=1), _Block(at=-1, text=_one_line(abstract))] if abstract else []
        parts = merged(self.body["abstract"])
        if parts and not abstract:
            blocks.append(_Block(at=-1, text="Abstract", depth=1))
            blocks += [_Block(at=-1, text=text) for span in parts for text in self._prose(span.start, span.end)]
        begin = self._begin(parts)
        blocks += sorted(self._blocks(begin), key=lambda block: block.at)
        return "\n\n".join(_trimmed(blocks))

    def _begin(self, abstract: Sequence[Span]) -> int:
        """Where the article itself begins: after the abstract, else at the first heading, else at once.

        What is called an abstract but stands behind half of the prose is none (a second one in another language).
        """
        prose = self.body["paragraph"]
        half = sum(span.end - span.start for span in prose) / 2
        for span in reversed(abstract):
            if sum(part.end - part.start for part in prose if part.end <= span.start) <= half:
                return span.end
        heads = [span for span in self.body["sectionheader"] if not holds(self.figures, span)]
        return heads[0].start if heads else 0

    def _blocks(self, begin: int) -> Iterator[_Block]:
        for span in self.body["sectionheader"]:
            if span.start >= begin and not holds(self.figures, span):
                yield self._heading(span)
        outside = merged([*self.figures, *self.body["table"], *self.body["bibentry"]])
        for span in self._paragraphs(begin, outside):
            for number, text in enumerate(self._prose(span.start, span.end, outside)):
                yield _Block(at=span.start + min(number, span.end - span.start - 1), text=text)
        taken = merged([*self.body["paragraph"], *self.body["abstract"], *outside])
        for span in self.body["formula"]:
            if span.start >= begin and not holds(taken, span):
                yield _Block(at=span.start, text=self._formula(span).strip())
        seen: set[str] = set()
        for span in self.figures:
            text = self._figure(span)
            if text and text.lower() not in seen:
                seen.add(text.lower())
                yield _Block(at=span.start, text=text, figure=True)
        for span in self.body["table"] if self.table_text else ():
            if span.start >= begin and not holds(self.figures, span):
                yield _Block(at=span.start, text=_lines(self.text[span.start : span.end]), figure=True)

    def _heading(self, span: Span) -> _Block:
        words = _one_line(self.text[span.start : span.end])
        text = words.strip(" .:")
        caption = _CAPTION_HEADING.match(text)
        if caption and len(text) > caption.end() + 20:  # a caption that was taken for a heading
            kind = "table" if text.lower().startswith("table") else "fig"
            return _Block(at=span.start, text=f"[{kind}] {words} [/{kind}]" if self.tags else words)
        if len(text) > 200:
            return _Block(at=span.start, text=words)
        numbers = [part for part in span.name("n").split(".") if part.strip()]
        short = len(text.split()) <= 3 and _MAIN.search(text)
        return _Block(at=span.start, text=self._calm(text), depth=min(len(numbers), 4) or (1 if short else 2))

    def _calm(self, heading: str) -> str:
        """INTRODUCTION becomes Introduction; words that the article itself writes in capitals keep them."""
        if heading.upper() != heading or not any(c.isalpha() for c in heading):
            return heading[:1].upper() + heading[1:]

        def word(found: re.Match[str]) -> str:
            own = found[0]
            common = len(own) > 1 and (self._occurs(own.lower()) or self._occurs(own.capitalize()))
            return own.lower() if common or (len(own) > 4 and self.text.count(own) <= 1) else own

        calm = re.sub(r"[^\W\d_]+", word, heading)
        return calm[:1].upper() + calm[1:]

    def _occurs(self, word: str) -> bool:
        """Whether the text has this word, so written, behind a blank."""
        at = self.text.find(f" {word}")
        while at >= 0:
            end = at + 1 + len(word)
            if not self.text[end : end + 1].isalpha():
                return True
            at = self.text.find(f" {word}", end)
        return False

    def _paragraphs(self, begin: int, outside: Sequence[Span]) -> Iterator[Span]:
        """The paragraphs in order, no letter twice; without that annotation, what no other span takes."""
        spans = self.body["paragraph"]
        if not spans:
            taken = [*outside, *(span for name in _NO_PROSE for span in self.body[name])]
            last = min((span.start for span in self.body["bibentry"]), default=len(self.text))
            spans = gaps(merged(taken), begin, last)
        at = begin
        for span in spans:
            start = max(span.start, at)
            at = max(at, span.end)
            if start < span.end and not holds(outside, Span(start=start, end=span.end)):
                yield Span(start=start, end=span.end)

    def _prose(self, start: int, end: int, outside: Sequence[Span] = ()) -> list[str]:
        """One span as paragraphs: broken at empty lines and around what stands inside and is placed by itself."""
        first = bisect_right(outside, start, key=lambda span: span.end)
        pieces = gaps(outside[first : bisect_left(outside, end, key=lambda span: span.start)], start, end)
        texts = []
        for piece in pieces:
            text = self._inline(piece.start, piece.end)
            parts = _PIECES.split(text) if "\n" in text else (text,)
            texts += [line for part in parts if (line := _finish(part))]
        return texts

    def _inline(self, start: int, end: int) -> str:
        """The text between two offsets with its references rendered; what overlaps or reaches over is plain text."""
        out, at = [], start
        for index in range(bisect_left(self.starts, start), bisect_left(self.starts, end)):
            span, kind = self.inner[index]
            if span.start < at or span.end > end:
                continue
            out.append(self.text[at : span.start])
            out.append(self._reference(span, kind))
            at = span.end
        out.append(self.text[at:end])
        return "".join(out)

    def _reference(self, span: Span, kind: str) -> str:
        words = self.text[span.start : span.end]
        if kind == "formula":
            return self._formula(span)
        if kind == "bibref":
            cited = self.cited.get(span.name("ref_id"), "") if self.tags else ""
            opens, closes = words.count("(") - words.count(")"), words.count("[") - words.count("]")
            lead, tail = "(" * (opens > 0) + "[" * (closes > 0), ")" * (opens < 0) + "]" * (closes < 0)
            return f"{lead}{_CITATION}{cited}{_CITATION}{tail}" if cited else f"{lead}{_CITATION}{tail}"
        if not self.tags:
            return words
        caption = self.captions.get(span.name("ref_id"), ("", ""))[1]
        label = _one_line(words).strip("()[] ,;.")
        if not caption or not label:
            return words
        lead, tail = words[: len(words) - len(words.lstrip("([ "))], words[len(words.rstrip(")] ,;.")) :]
        return f"{lead}[fig_ref] {label}: {_short(caption)} [/fig_ref]{tail}"

    def _formula(self, span: Span) -> str:
        words = _one_line(self.text[span.start : span.end])
        return f"\n[formula] {words} [/formula]\n" if self.tags else words

    def _caption(self, span: Span) -> tuple[str, str]:
        """(label, caption) of a figure or table."""
        inside = self.text[span.start : span.end]
        found = _LABEL.match(inside)
        label = _one_line(found[1]).strip(" .:") if found else ""
        caption = next(iter(self.body.within("figurecaption", span)), None)
        if caption is None:
            cells = self.body.within("table", span)
            stop = cells[0].start if cells else span.end
            return label, _finish(self._inline(min(span.start + (found.end() if found else 0), stop), stop))
        return label, _finish(self._inline(caption.start, caption.end))

    def _figure(self, span: Span) -> str:
        label, caption = self.captions.get(span.name("id")) or self._caption(span)
        caption = caption.strip()
        table = (
            span.attributes.get("type") == "table"
            or span.name("id").startswith("tab")
            or label.lower().startswith("tab")
        )
        if re.fullmatch(r"\W*(?:\(?cont(?:inue|\.)?d?\)?)?\W*", caption, re.I):
            caption = ""
        words = f"{label}: {caption}" if label and caption and not caption.startswith(label) else caption
        kind = "table" if table else "fig"
        out = f"[{kind}] {words} [/{kind}]" if words and self.tags else words
        cells = self.body.within("table", span) if self.table_text else ()
        text = "\n".join(_lines(self.text[cell.start : cell.end]) for cell in cells)
        return "\n".join(part for part in (out, text) if part.strip())


def _cited(bibliography: Layer) -> Iterator[tuple[str, str]]:
    """id -> "title, first author's last name" of the works with a known title, as a citation's tokens hold it."""
    lasts = "bibauthorlastname"
    for entry in bibliography["bibentry"]:
        titles = bibliography.within("bibtitle", entry)
        if not titles or not entry.name("id"):
            continue
        words = _one_line(bibliography.text[titles[0].start : titles[0].end]).strip(" .,\"'“”")
        names = bibliography.within(lasts, entry)
        name = _one_line(bibliography.text[names[0].start : names[0].end]).strip(" .,") if names else ""
        if words:
            short = " ".join(words.split()[:_WORDS])
            yield entry.name("id"), f"[bib_ref] {short}{', ' + name if name else ''} [/bib_ref]"


def _short(caption: str) -> str:
    """A caption cut at its first stop once it has 20 characters, then to twelve words."""
    stop = next((found.start() for found in re.finditer(r"[.;:()]", caption) if found.start() > 20), len(caption))
    return " ".join(caption[:stop].split()[:_WORDS]).strip(" ,")


def _finish(text: str) -> str:
    """One line; citations without their brackets, the resolved ones as tokens."""
    text = _one_line(text)
    if _CITATION not in text:
        return text
    held: list[str] = []

    def hold(found: re.Match[str]) -> str:
        held.append(found[1])
        return f"{_HELD}{len(held) - 1}{_HELD}"

    # Each step first asks for what it needs: most paragraphs need few of them.
    if "[bib_ref]" in text:
        text = _RESOLVED.sub(hold, text)
    text = text.replace(f" {_CITATION}", _CITATION)
    if held:
        text = _BRACKETED.sub(r"\1", text)
    text = _GROUP.sub(_CITATION, text)
    if "(" in text or "[" in text:
        text = _FIRST.sub(r"\1", _ALONE.sub(_CITATION, text))
    for close in ")]":
        text = text.replace(f"{_CITATION} {close}", _CITATION + close)
        for separator in (",", ";", ""):
            text = text.replace(separator + _CITATION + close, close)
    text = text.replace(_CITATION, "")
    if held:
        text = _WAITING.sub(lambda found: f" {held[int(found[1])]} ", text)
    if "  " in text:
        text = _BLANKS.sub(" ", text)
    if " ." in text or " ," in text or " ;" in text:
        text = _STOP.sub(r"\1", text)
    return text.strip()


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _lines(text: str) -> str:
    return "\n".join(line for part in text.splitlines() if (line := _one_line(part)))


def _trimmed(blocks: Sequence[_Block]) -> Iterator[str]:
    """The blocks as text, without sections that say nothing of the subject and headings with nothing below."""
    open_heads: list[_Block] = []
    dropping = False
    for block in blocks:
        if block.depth:
            dropping = bool(_BACK_MATTER.fullmatch(block.text.replace("’", "'").strip(" .:")))
            open_heads = [head for head in open_heads if head.depth < block.depth]
            if not dropping:
                open_heads.append(block)
        elif block.text and (block.figure or not dropping):
            for head in open_heads:
                yield f"{'#' * head.depth} {head.text}"
            open_heads = []
            yield block.text
