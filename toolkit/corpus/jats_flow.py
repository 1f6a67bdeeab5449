"""The blocks of an article in the order in which they are read: headings, paragraphs, lists, captions, tables' rows.

Decides what becomes a block and where it stands; `jats_headings.py` knows which sections say nothing of the subject,
inline markup is settled in `jats_inline.py` before and after.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

from toolkit.corpus.jats_headings import NO_PROSE_KINDS, heading
from toolkit.corpus.jats_inline import BLANK, BREAK, Marks

_TAG = re.compile("<([^>]*)>")
_NOTE_SIGN = re.compile(r"(?:\^[a-z](?:,[a-z])*|[*†‡§¶]+)(?=\.?$)")  # of a note below the table, which is not read
_SECTIONS = frozenset(("sec", "app", "glossary", "abstract"))
_ROMAN = ("", "i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x")


@dataclass(slots=True)
class _Frame:
    """An open element: what was being written when it began, and what it has gathered."""

    name: str
    out: list[str]
    run: list[str]
    held: list[str]
    start: int = 0
    drop: bool = False
    label: str = ""
    caption: list[str] = field(default_factory=list)
    attributes: str = ""
    count: int = 0
    spans: dict[int, int] = field(default_factory=dict)


class Flow:
    """Reads serialised XML and gathers `out`, one string a block, and `captions`, (label, words) by a float's id.

    A figure, table or box stands after the paragraph in which it was put, so that no sentence is torn apart.
    """

    def __init__(self, marks: Marks) -> None:
        self.marks, self.tags = marks, marks.tags
        self.out: list[str] = []
        self.run: list[str] = []  # pieces of the paragraph that is being read
        self.held: list[str] = []  # floats that wait for its end
        self.stack: list[_Frame] = []
        self.depth = 0
        self.heading = ""  # of an abstract without a title
        self.behind = False  # in the back matter
        self.captions: dict[str, tuple[str, str]] = {}
        self.seen: set[str] = set()

    def read(self, xml: str) -> None:
        pieces = _TAG.split(xml)
        for i in range(1, len(pieces), 2):
            if pieces[i - 1]:
                self.run.append(pieces[i - 1])
            tag = pieces[i]
            handler = _HANDLERS.get(tag)
            if handler is None:
                name, _, attributes = tag.partition(" ")
                empty = tag[-1:] == "/"
                handler = _HANDLERS.get(name.rstrip("/") if empty else name)
                if handler is not None:
                    handler(self, attributes)
                    if empty and (close := _HANDLERS.get("/" + name.rstrip("/"))):
                        close(self, "")
            else:
                handler(self, "")
        self.run.append(pieces[-1])
        self.flush()

    # paragraphs

    def flush(self, _: str = "") -> None:
        """End the paragraph, if there is one."""
        if self.run:
            if text := self.marks.finish("".join(self.run) if len(self.run) > 1 else self.run[0]):
                self.out.append(text)
            self.run = []
        if self.held:
            self.out += self.held
            self.held = []

    def take(self) -> str:
        """The words since the last block, which are no paragraph."""
        text = self.marks.finish("".join(self.run))
        self.run = []
        return text

    def push(self, name: str, attributes: str = "") -> None:
        self.stack.append(_Frame(name, self.out, self.run, self.held, attributes=attributes))
        self.out, self.run, self.held = [], [], []

    def pop(self) -> tuple[_Frame, list[str]]:
        """The innermost element and its blocks; what was being written before it goes on."""
        self.flush()
        frame, blocks = self.stack.pop(), self.out
        self.out, self.run, self.held = frame.out, frame.run, frame.held
        return frame, blocks

    # sections

    def open_section(self, name: str, attributes: str) -> None:
        self.flush()
        kind = re.search(r'\bsec-type="([^"]*)"', attributes)
        drop = kind is not None and kind[1].lower() in NO_PROSE_KINDS
        self.stack.append(_Frame(name, self.out, self.run, self.held, start=len(self.out), drop=drop))
        self.depth += 1
        if name == "abstract":
            self.out.append("# " + self.heading)
            self.stack[-1].count = 1

    def close_section(self, _: str) -> None:
        self.flush()
        if not self.stack or self.stack[-1].name not in _SECTIONS:
            return  # it began in what a citation hides, where no section may stand
        frame = self.stack.pop()
        self.depth -= 1
        if frame.drop or len(self.out) <= frame.start + frame.count:
            del self.out[frame.start :]

    def close_title(self, _: str) -> None:
        words = self.take()
        frame = self.stack[-1] if self.stack else None
        if not words:
            return
        if frame is None or frame.name not in _SECTIONS:
            if frame is not None and frame.name == "caption" and words[-1] not in ".?!:;…":
                words += "."
            self.out.append(words)
            return
        words, drop = heading(words, behind=self.behind)
        frame.drop = frame.drop or drop
        if frame.name == "app" and frame.label:
            words = words if frame.label.lower() in words.lower() else f"{frame.label.rstrip('.:')}. {words}"
        words = f"{'#' * min(self.depth, 6)} {words}"
        if frame.count:
            self.out[frame.start] = words
        else:
            self.out.append(words)
            frame.count = 1

    # labels and captions

    def open_label(self, _: str) -> None:
        self.push("label")

    def close_label(self, _: str) -> None:
        _, blocks = self.pop()
        if self.stack:
            self.stack[-1].label = " ".join(blocks)

    def open_caption(self, _: str) -> None:
        self.push("caption")

    def close_caption(self, _: str) -> None:
        _, blocks = self.pop()
        if self.stack:
            if not self.marks.notes:
                blocks = [block[:-6] + _NOTE_SIGN.sub("", block[-6:]) for block in blocks]
            self.stack[-1].caption += blocks

    def close_float(self, _: str) -> None:
        """A figure, table or group: its label and caption in one paragraph, then what else it holds in words."""
        frame, rest = self.pop()
        label, caption = frame.label.rstrip(".: "), " ".join(frame.caption)
        if found := re.search(r'\bid="([^"]*)"', frame.attributes):
            self.captions[found[1]] = (label, caption)
        if frame.name.endswith("-group"):
            self.held += ([self._captioned(label, caption, "")] if caption else []) + rest
            return
        kind = "table" if frame.name == "table-wrap" else "fig"
        rows = "\n".join(rest) if self.marks.notes or kind == "fig" else ""
        again = caption.strip("()[]. ").lower() in ("", "continued", "cont", "contd") and not rows
        text = self._captioned(label, caption, rows)
        if again or text in self.seen:
            return
        self.seen.add(text)
        self.held.append(f"[{kind}] {text} [/{kind}]" if self.tags else text)

    def _captioned(self, label: str, caption: str, rows: str) -> str:
        sign = ":" if self.tags else "."
        head = f"{label}{sign} {caption}" if label and caption else label + (sign if label else "") or caption
        return f"{head}\n{rows}".strip() if rows else head

    def close_box(self, _: str) -> None:
        frame, rest = self.pop()
        if head := self._captioned(frame.label.rstrip(".: "), " ".join(frame.caption).rstrip("."), ""):
            self.held.append(head)
        self.held += rest

    def close_labelled(self, _: str) -> None:
        """A statement, footnote or speech: its label before its first words."""
        frame, blocks = self.pop()
        if frame.name == "fn" and not any(outer.name == "table-wrap" for outer in self.stack):
            return
        if blocks and frame.label:
            sign = " " if frame.name == "fn" else ": " if frame.name == "speech" else ". "
            blocks[0] = frame.label.rstrip(".: ") + sign + blocks[0]
        self.out += blocks

    # lists

    def open_list(self, name: str, attributes: str) -> None:
        self.flush()
        self.push(name, attributes)

    def close_item(self, _: str) -> None:
        """Marker and words; further paragraphs and lists in the item stand below, two blanks in."""
        frame, blocks = self.pop()
        outer = self.stack[-1] if self.stack else None
        if frame.name == "def-item":
            sign = "- "
            blocks = [f"{frame.label}: {' '.join(blocks)}".strip(": ")] if blocks or frame.label else []
        else:
            sign = frame.label + " " if any(c.isalnum() for c in frame.label) else "- "
            if outer is not None and sign == "- ":
                outer.count += 1
                sign = _number(outer.attributes, outer.count) or sign
        if lines := "\n".join(blocks).split("\n") if blocks else []:
            self.out.append("\n  ".join([sign + lines[0], *lines[1:]]))

    def close_list(self, _: str) -> None:
        _, items = self.pop()
        if items:
            self.out.append("\n".join(items))

    def close_term(self, _: str) -> None:
        words = self.take()
        if self.stack:
            self.stack[-1].label = words

    # tables

    def open_cell(self, attributes: str) -> None:
        self.push("cell", attributes)

    def close_cell(self, _: str) -> None:
        frame, blocks = self.pop()
        table = self.stack[-1] if self.stack else None
        if table is None or table.name != "table":
            self.out += blocks
            return
        if table.spans:
            self._fill(table.spans)
        across, down = _spans(frame.attributes)
        if down > 1:
            table.spans.update(dict.fromkeys(range(len(self.out), len(self.out) + across), down - 1))
        self.out.append(" ".join(blocks).replace(BREAK, " ") if blocks else "")
        if across > 1:
            self.out += [""] * (across - 1)

    def _fill(self, spans: dict[int, int]) -> None:
        """Nothing in the columns that a cell of a row above reaches into."""
        while spans.get(len(self.out), 0) > 0:
            spans[len(self.out)] -= 1
            self.out.append("")

    def close_row(self, _: str) -> None:
        table = self.stack[-1] if self.stack else None
        if table is None or table.name != "table":
            return
        self.run = []
        if table.spans:
            self._fill(table.spans)
            for column in [column for column in table.spans if column >= len(self.out)]:
                table.spans[column] -= 1
        if any(self.out):
            table.caption.append(" | ".join(self.out).rstrip(" |").lstrip())
        self.out = []

    def open_table(self, _: str) -> None:
        self.flush()
        self.push("table")

    def close_table(self, _: str) -> None:
        self.run = []
        frame, _rest = self.pop()
        if frame.caption:
            self.out.append("\n".join(frame.caption))

    # formulas and lines kept as they are

    def close_formula(self, _: str) -> None:
        frame, blocks = self.pop()
        if not (words := " ".join(blocks).replace(BREAK, " ")):
            self.run.append(BREAK)  # an image: the line ends where it stood
        else:
            words = f"{words} {frame.label}".strip()
            self.run.append(f"{BREAK}[formula] {words} [/formula]{BREAK}" if self.tags else BREAK + words + BREAK)

    def close_verbatim(self, _: str) -> None:
        text, self.run = "".join(self.run).strip("\r\n").rstrip(), []
        self.run.append(text.replace("\r\n", "\n").replace("\n", BREAK).replace(" ", BLANK).replace("\t", BLANK * 4))
        frame, blocks = self.pop()
        self.out += blocks

    def blank(self, _: str) -> None:
        self.run.append(" ")

    def close_line(self, _: str) -> None:
        self.run.append(BREAK)


@lru_cache(maxsize=1024)
def _spans(attributes: str) -> tuple[int, int]:
    """(columns, rows) of a cell, within reason."""
    found = (re.search(rf'\b{kind}span="(\d{{1,3}})"', attributes) for kind in ("col", "row"))
    across, down = (max(1, min(int(one[1]), 64)) if one else 1 for one in found)
    return across, down


def _number(attributes: str, count: int) -> str:
    """The marker of an ordered list's item, nothing for others."""
    found = re.search(r'\blist-type="([^"]*)"', attributes)
    kind = found[1].lower() if found else ""
    if kind in ("order", "ordered", "number", "arabic", "1"):
        return f"{count}. "
    if kind in ("alpha-lower", "alpha-upper") and count <= 26:
        letter = chr(96 + count)
        return f"{letter.upper() if kind == 'alpha-upper' else letter}. "
    if kind in ("roman-lower", "roman-upper") and count < len(_ROMAN):
        return f"{_ROMAN[count].upper() if kind == 'roman-upper' else _ROMAN[count]}. "
    return ""


def _pushing(name: str) -> Callable[[Flow, str], None]:
    return lambda flow, attributes: flow.push(name, attributes)


def _flushing(name: str) -> Callable[[Flow, str], None]:
    return lambda flow, attributes: flow.open_list(name, attributes)


def _section(name: str) -> Callable[[Flow, str], None]:
    return lambda flow, attributes: flow.open_section(name, attributes)


_HANDLERS: dict[str, Callable[[Flow, str], None]] = {
    "title": Flow.flush, "/title": Flow.close_title, "label": Flow.open_label, "/label": Flow.close_label,
    "caption": Flow.open_caption, "/caption": Flow.close_caption, "disp-formula": _pushing("formula"),
    "/disp-formula": Flow.close_formula, "boxed-text": _pushing("boxed-text"), "/boxed-text": Flow.close_box,
    "/term": Flow.close_term, "speaker": Flow.flush, "/speaker": Flow.close_term,
    "td": Flow.open_cell, "/td": Flow.close_cell, "th": Flow.open_cell,
    "/th": Flow.close_cell, "/tr": Flow.close_row, "table": Flow.open_table, "/table": Flow.close_table,
    "array": Flow.open_table, "/array": Flow.close_table,
    "preformat": _flushing("preformat"), "/preformat": Flow.close_verbatim, "code": _flushing("code"),
    "/code": Flow.close_verbatim, "/verse-line": Flow.close_line, "break": Flow.blank,
}  # fmt: skip
for _one in _SECTIONS:
    _HANDLERS |= {_one: _section(_one), "/" + _one: Flow.close_section}
for _one in ("fig", "table-wrap", "fig-group", "table-wrap-group", "chem-struct-wrap"):
    _HANDLERS |= {_one: _pushing(_one), "/" + _one: Flow.close_float}
for _one in ("list", "def-list"):
    _HANDLERS |= {_one: _flushing(_one), "/" + _one: Flow.close_list}
for _one in ("list-item", "def-item"):
    _HANDLERS |= {_one: _flushing(_one), "/" + _one: Flow.close_item}
for _one in ("statement", "speech"):
    _HANDLERS |= {_one: _flushing(_one), "/" + _one: Flow.close_labelled}
_HANDLERS |= {"fn": _pushing("fn"), "/fn": Flow.close_labelled}  # the sentence in which a note hangs goes on
for _one in (
    "p", "disp-quote", "verse-group", "def", "subtitle", "disp-formula-group", "body", "back", "app-group",
    "floats-group", "floats-wrap", "table-wrap-foot", "tbody", "question", "answer", "term-head", "def-head",
):  # fmt: skip
    _HANDLERS |= {_one: Flow.flush, "/" + _one: Flow.flush}
