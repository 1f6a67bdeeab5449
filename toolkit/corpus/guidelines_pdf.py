"""The text of a PDF: paragraphs and headings from its lines, without what repeats at the edges of its pages.

Decides how lines are put together again; leaves finding them to `guidelines_pdf_child`, a process with limits of time
and memory, so that no file can take the build down.
"""

from __future__ import annotations

import json
import re
import signal
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit.corpus.document import tidy
from toolkit.corpus.guidelines_clean import paragraphs
from toolkit.errors import MissingPackage

PAGES, CHARACTERS = 5000, 20_000_000
_CHILD = Path(__file__).with_name("guidelines_pdf_child.py")
_EDGE = 3  # lines at the top and at the bottom of a page that may be its running head or foot
_LETTERS = 20  # a page on average; below it the text is a stamp on scanned pages
_BULLET = re.compile(r"^[•●▪◦‣⁃∙■□➢➤✓❖\uf0b7\uf0a7]\s*")
_ENTRY = re.compile(r"^(?:[-–—o]\s+\S|\(?(?:\d{1,2}|[a-zA-Z]|[ivx]{1,4})[.)]\s+\S|\d{1,2}(?:\.\d{1,2})+\.?\s+\S)")
_SENTENCE_END = re.compile(r"[.!?:;][\"”’)\]]*$")
_SOFT = "\ufffe\u00ad\x02"  # hyphens that the library takes for those of a broken word
_LEADER = re.compile(r"(?:\s?\.){6,}\s*(?:\d+|[ivxlc]+)$")  # of a table of contents
_WORD = re.compile(r"[^\W\d_]+(?:[-‐][^\W\d_]+)*")


class NotAPdf(Exception):
    """A PDF that cannot be read; the reader turns it into a bad row."""


class NoText(Exception):
    """A sound PDF without text: scanned pages, drawings."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """`x`, `y` (points, y upwards) of its first letter, `size` of its letters."""

    text: str
    size: float
    x: float
    y: float
    page: int


@dataclass(frozen=True, kw_only=True)
class Pdf:
    """`broken` pages of `pages` could not be read; `text` holds the others."""

    title: str
    text: str
    pages: int
    broken: int = 0


def read(file: Path, *, seconds: int = 60, memory_mib: int = 1024, pages: int = PAGES) -> Pdf:
    """The text of a PDF. Raises `NotAPdf` with the reason, `NoText`, or `MissingPackage`.

    `seconds` are of CPU time, so that what is read does not depend on how busy the machine is.
    """
    command = [sys.executable, "-I", str(_CHILD), str(file), str(pages), str(CHARACTERS), str(seconds), str(memory_mib)]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60 + 20 * seconds, check=False
        )
    except subprocess.TimeoutExpired as err:
        raise NotAPdf(f"the PDF library did not end within {60 + 20 * seconds} seconds") from err
    if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        raise NotAPdf(f"the PDF library was ended after {seconds} seconds of CPU time")
    if done.returncode < 0:
        raise NotAPdf(f"the PDF library crashed on it ({signal.Signals(-done.returncode).name})")
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        if "No module named 'pypdfium2'" in said:
            raise MissingPackage("pypdfium2 is needed to read PDF", where=file, do="install the extra 'data'")
        if "MemoryError" in said or "allocate" in said:
            raise NotAPdf(f"needs more than the {memory_mib} MiB of memory that are allowed")
        raise NotAPdf(f"the PDF library failed ({said[:200]})")
    try:
        answer = json.loads(done.stdout)
    except ValueError as err:
        raise NotAPdf("the PDF library ended before it had answered") from err
    if "error" in answer:
        raise NotAPdf(answer["error"])
    found = [
        [Line(text=text, size=size, x=x, y=y, page=number) for text, size, x, y in lines]
        for number, lines in enumerate(answer["pages"])
    ]
    letters = sum(c.isalpha() for lines in found for line in lines for c in line.text)
    if letters < _LETTERS * max(1, len(found) - answer["broken"]):
        raise NoText(f"{letters} letters on {len(found)} pages: scanned, or drawings")
    title, text = compose(found)
    first = " ".join(line.text for line in found[0]) if found else ""
    return Pdf(title=_title(answer["title"], first) or title, text=text, pages=len(found), broken=answer["broken"])


def _title(stated: str, first: str) -> str:
    """The title in the metadata, when the first page says it too: programs leave names of files and their own there."""
    title = " ".join(stated.split())
    return title if len(title) >= 8 and _flat(title) in _flat(first) else ""


def _flat(text: str) -> str:
    return "".join(c for c in text.lower() if c.isalnum())


def compose(pages: Sequence[Sequence[Line]]) -> tuple[str, str]:
    """(title, text) of the lines: the title is what stands in the largest letters on the first pages, or empty."""
    lines = [line for page in without_edges(pages) for line in page if not _LEADER.search(line.text)]
    if not lines:
        return "", ""
    sizes: Counter[float] = Counter()
    for line in lines:
        sizes[line.size] += len(line.text)
    body = sizes.most_common(1)[0][0]
    steps = [a.y - b.y for a, b in zip(lines, lines[1:], strict=False) if a.page == b.page and 0 < a.y - b.y < 3 * body]
    leading = statistics.median(steps) if steps else 1.2 * body
    known = Counter(w.lower() for line in lines for w in _WORD.findall(line.text.rstrip(_SOFT + "-‐")))
    blocks: list[tuple[float, str]] = []  # size of a heading, 0 for others; text
    before: Line | None = None
    for line in lines:
        text = _BULLET.sub("- ", line.text)
        size = line.size if _is_heading(line, body) else 0.0
        if before is not None and blocks and not _begins(before, line, leading, body) and blocks[-1][0] == size:
            blocks[-1] = (size, joined(blocks[-1][1], text, known))
        else:
            blocks.append((size, text))
        before = line
    levels = sorted({size for size, _ in blocks if size}, reverse=True)[:3]
    title = next((text for size, text in blocks[:10] if size and size == levels[0]), "") if levels else ""
    if title:
        blocks.remove((levels[0], title))
    parts = []
    for size, text in blocks:
        text = text.translate(dict.fromkeys(map(ord, _SOFT), "-")).strip()
        parts.append(f"{'#' * (levels.index(size) + 1 if size in levels else 4)} {text}" if size else text)
    return title.translate(dict.fromkeys(map(ord, _SOFT), "-")), tidy(paragraphs(parts))


def without_edges(pages: Sequence[Sequence[Line]]) -> list[list[Line]]:
    """The pages without running heads, feet and page numbers.

    Those are the outermost lines of at least three pages, each next to or next but one to another, that are equal but
    for their numbers, or have the number of the page at one of their ends; and they stand apart from the text.
    """
    kept = [sorted(page, key=lambda line: -line.y) for page in pages]
    for _ in range(_EDGE):
        outer = [{0: page[0], len(page) - 1: page[-1]} if page else {} for page in kept]
        seen: dict[str, list[int]] = {}
        for number, lines in enumerate(outer):
            for i, line in lines.items():
                if _stands_apart(kept[number], i):
                    for pattern in _patterns(line, number):
                        seen.setdefault(pattern, []).append(number)
        cut = {pattern for pattern, found in seen.items() if _runs(found)}
        if not cut:
            break
        for number, lines in enumerate(outer):
            gone = {i for i, line in lines.items() if _stands_apart(kept[number], i) and cut & _patterns(line, number)}
            kept[number] = [line for i, line in enumerate(kept[number]) if i not in gone]
    left = [set(map(id, page)) for page in kept]
    return [[line for line in page if id(line) in left[number]] for number, page in enumerate(pages)]


def _stands_apart(page: Sequence[Line], i: int) -> bool:
    """Whether the outermost line `i` is of other letters than its neighbour, or further from it than lines are."""
    if len(page) < 3:
        return True
    line, inner = page[i], page[1 if i == 0 else i - 1]
    gap = abs(line.y - inner.y)
    return gap > 1.7 * max(line.size, inner.size) or gap < 1 or abs(line.size - inner.size) > 0.05 * inner.size


def _patterns(line: Line, number: int) -> set[str]:
    """What the line would be a repetition of on other pages: its words, or that a number in it counts the pages."""
    text = " ".join(line.text.lower().split())
    found = set()
    if len(text) < 80:
        numbers = re.findall(r"^\W*(?:page )?(\d{1,4})(?= |\W*$)|(?:^|[\W_])(\d{1,4})\W*$|\bpage (\d{1,4})\b", text)
        found = {f"page + {int(''.join(groups)) - number}" for groups in numbers}
    words = re.sub(r"\d+|\b[ivxlc]+$", "#", text)
    return found | ({words} if sum(map(str.isalpha, words)) > 3 else set())


def _runs(found: Sequence[int]) -> bool:
    """True for at least three pages in a row, on every or on every other page."""
    run = 1
    for a, b in zip(found, found[1:], strict=False):
        run = run + 1 if 0 < b - a <= 2 else run if a == b else 1
        if run >= 3:
            return True
    return False


def _is_heading(line: Line, body: float) -> bool:
    return line.size >= 1.15 * body and any(c.isalpha() for c in line.text)


def _begins(before: Line, line: Line, leading: float, body: float) -> bool:
    """Whether `line` begins a paragraph, rather than going on with the one of `before`."""
    if abs(before.size - line.size) > 0.1 * body and (_is_heading(before, body) or _is_heading(line, body)):
        return True
    if _BULLET.match(line.text) or _ENTRY.match(line.text):
        return True
    step = before.y - line.y
    if before.page != line.page or step < -0.5 * body:  # a new page or column
        return bool(_SENTENCE_END.search(before.text)) or _is_heading(before, body)
    if step > (1.35 if not _is_heading(line, body) else 2.0) * leading * max(1.0, line.size / body):
        return True
    return line.x > before.x + 0.8 * body and bool(_SENTENCE_END.search(before.text))


def joined(text: str, following: str, known: Counter[str]) -> str:
    """Two lines of a paragraph as one; a word that was broken at the end of the first is mended with care.

    The hyphen goes when the word is known without it elsewhere in the document (`known`, in lower case), it stays in
    compounds that are known with it or whose halves are both words, and between numbers.
    """
    if not text or not following:
        return text + following
    last = text[-1]
    if last in "–—−/" and text[-2:-1].isdigit() and following[0].isdigit():
        return text + following
    if last not in _SOFT + "-‐" or not text[:-1] or text[-2].isspace():
        return f"{text} {following}"
    stem = text[:-1]
    left, right = re.search(r"[^\W\d_]+$", stem), re.match(r"[^\W\d_]+", following)
    if left is None or right is None or not following[0].islower() or left[0].isupper():
        return f"{stem}-{following}"
    whole, halves = (left[0] + right[0]).lower(), f"{left[0]}-{right[0]}".lower()
    if known[whole] != known[halves]:
        return stem + following if known[whole] > known[halves] else f"{stem}-{following}"
    if known[left[0].lower()] > 1 and known[right[0].lower()] > 1:
        return f"{stem}-{following}"
    return stem + following
