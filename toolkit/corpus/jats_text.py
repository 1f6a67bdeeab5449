"""Plain text of a JATS article: title, abstract and body with headings, paragraphs, lists, captions and formulas.

Decides what of the markup a reader would miss (tables' cells, citations, footnotes and author data go; inequalities and
intervals stay letter by letter); leaves files, ids and licences to `jats.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.entities import html5
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lxml.etree import _Element

_CITATION = "\ue000"  # stands where a citation was until the brackets around it are gone
_DROPPED_TAGS = frozenset(
    (
        "email",
        "fn",
        "fn-group",
        "graphic",
        "inline-graphic",
        "inline-supplementary-material",
        "label",
        "media",
        "object-id",
        "ref-list",
        "sec-meta",
        "supplementary-material",
        "table",
        "table-wrap-foot",
        "attrib",
        "permissions",
        "alt-text",
        "long-desc",
        "index-term",
        "processing-meta",
        "funding-group",
        "author-notes",
        "contrib-group",
        "aff",
    )  # fmt: skip
)
_DROPPED_REFS = frozenset(("bibr", "fn", "table-fn", "aff", "corresp", "author-notes"))
_BLOCKS = frozenset(
    (
        "p",
        "list",
        "def-list",
        "disp-formula",
        "disp-formula-group",
        "disp-quote",
        "fig",
        "fig-group",
        "table-wrap",
        "table-wrap-group",
        "boxed-text",
        "verse-group",
        "preformat",
        "speech",
        "statement",
        "sec",
        "code",
        "array",
    )  # fmt: skip
)
_NO_PROSE_SECTIONS = frozenset(("supplementary-material", "display-objects", "ref-list"))
_NO_PROSE_TITLES = frozenset(
    (
        "acknowledgements",
        "acknowledgments",
        "author contributions",
        "authors contributions",
        "authors' contributions",
        "competing interests",
        "conflict of interest",
        "conflicts of interest",
        "disclosure",
        "funding",
        "pre-publication history",
        "references",
        "supplementary material",
    )  # fmt: skip
)
_SKIPPED_ABSTRACTS = frozenset(("graphical", "teaser", "toc", "web-summary", "video"))
_LEAD_IN = r"(?:see(?: also)?|reviewed (?:in|by)|(?:for )?(?:a )?reviews?,? see|e\.g\.|i\.e\.|cf\.?|as in|from|in|and)"


def article_text(article: _Element) -> tuple[str, str]:
    """(title, text). The text begins with the title; empty text means that the file holds no prose."""
    titles = article.find("{*}front/{*}article-meta/{*}title-group/{*}article-title")
    title = "" if titles is None else _finish(_inline(titles))
    parts: list[str] = []
    for abstract in article.iterfind("{*}front/{*}article-meta/{*}abstract"):
        if abstract.get("abstract-type") not in _SKIPPED_ABSTRACTS:
            parts += _section(abstract, 1, heading="Abstract")
    for body in article.iterfind("{*}body"):
        parts += _blocks(body, 0)
    return title, "\n\n".join([title, *parts] if title and parts else parts)


def _name(element: _Element) -> str:
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def _section(element: _Element, depth: int, heading: str = "") -> list[str]:
    own = element.find("{*}title")
    heading = heading or ("" if own is None else _finish(_inline(own)))
    if element.get("sec-type") in _NO_PROSE_SECTIONS or heading.lower().replace("’", "'") in _NO_PROSE_TITLES:
        return []
    parts = _blocks(element, depth)
    return [f"{'#' if depth == 1 else '##'} {heading}", *parts] if heading and parts else parts


def _blocks(element: _Element, depth: int) -> list[str]:
    """The paragraphs below a section, body or box; stray text and inline elements form paragraphs of their own."""
    parts: list[str] = []
    for kind, item in _split(element):
        if kind == "text":
            parts.append(_finish(item))
        else:
            parts += _block(item, depth)
    return [part for part in parts if part]


def _split(element: _Element) -> Iterator[tuple[str, str | _Element]]:
    """An element's content as runs of inline text and block children, in order."""
    run = element.text or ""
    for child in element:
        name = _name(child)
        if name in _BLOCKS:
            yield "text", run
            yield "block", child
            run = ""
        elif not (name == "title" and _name(element) != "p"):
            run += _inline_child(child)
        run += child.tail or ""
    yield "text", run


def _block(element: _Element, depth: int) -> list[str]:
    name = _name(element)
    if name == "sec":
        return _section(element, depth + 1)
    if name in ("list", "def-list"):
        lines = []
        for item in element:
            if _name(item) == "list-item":
                lines.append("- " + "\n".join(_blocks(item, depth)))
            elif _name(item) == "def-item":
                both = (" ".join(_inline(e) for e in item.iterfind("{*}" + part)) for part in ("term", "def"))
                lines.append("- " + ": ".join(_finish(words) for words in both))
        return ["\n".join(line for line in lines if line.strip("- :"))]
    if name in ("fig", "table-wrap", "boxed-text", "fig-group", "table-wrap-group"):
        return _captioned(element, depth)
    if name in ("disp-formula", "array"):
        return [_finish(_formula(element))]
    if name in ("preformat", "code"):
        return ["".join(element.itertext()).strip()]
    title = element.find("{*}title")
    own = [] if title is None else [_finish(_inline(title))]
    return own + _blocks(element, depth)


def _captioned(element: _Element, depth: int) -> list[str]:
    """Label and caption in one paragraph; of a box its text as well; what hangs below (cells, images) is left out."""
    words = []
    for child in element:
        if _name(child) == "label":
            words.append(_finish(_inline(child)).rstrip(".:") + ".")
        elif _name(child) == "caption":
            words += [_finish(_inline(e)) for e in child if _name(e) in ("title", "p")]
    out = [" ".join(word for word in words if word.strip("."))]
    if _name(element) == "boxed-text":
        title = element.find("{*}title")
        out += [] if title is None else [_finish(_inline(title))]
        out += [part for child in element if _name(child) in _BLOCKS for part in _block(child, max(depth, 1))]
    elif _name(element).endswith("-group"):
        out += [part for child in element if _name(child) in _BLOCKS for part in _block(child, depth)]
    return [part for part in out if part]


def _inline(element: _Element) -> str:
    text = element.text or ""
    for child in element:
        text += _inline_child(child) + (child.tail or "")
    return text


def _inline_child(child: _Element) -> str:
    name = _name(child)
    if not name:  # an entity that only the unread DTD declares; its name says which letter it is, unless it is none
        return html5.get(f"{child.name};", "") if hasattr(child, "name") else ""
    if name == "xref":
        return _CITATION if child.get("ref-type") in _DROPPED_REFS else _inline(child)
    if name in _DROPPED_TAGS:
        return ""
    if name in ("inline-formula", "math", "tex-math", "alternatives", "disp-formula", "chem-struct"):
        return _formula(child)
    if name == "break":
        return " "
    if name in ("sup", "sub"):
        return _raised(_inline(child), name)
    if name in _BLOCKS:
        return " " + " ".join(_block(child, 1)) + " "
    return _inline(child)


def _raised(text: str, name: str) -> str:
    """Superscript numbers need a mark: 10<sup>-3</sup> is not 10-3. Citations set that way are citations still."""
    if _CITATION in text and not text.replace(_CITATION, "").strip(" ,;–-[]()*"):
        return _CITATION
    if name == "sup" and re.fullmatch(r"[+\-−–]?\d+(?:[.,/]\d+)?[+\-−–]?|[+\-−–]", text.strip()):
        return "^" + text.strip()
    return text


def _formula(element: _Element) -> str:
    """MathML as its letters, else TeX without its document frame, else nothing (an image)."""
    math = element if _name(element) == "math" else element.find(".//{*}math")
    if math is not None:
        return "".join(_math(math).split())
    tex = element if _name(element) == "tex-math" else element.find(".//{*}tex-math")
    if tex is not None:
        text = "".join(tex.itertext())
        inner = re.search(r"\\begin\{document\}(.*)\\end\{document\}", text, re.S)
        return " ".join((inner[1] if inner else text).replace("$$", "").strip().strip("$").split())
    return "" if _name(element) == "alternatives" else _inline(element)


def _math(element: _Element) -> str:
    name, parts = _name(element), [_math(child) for child in element if _name(child)]
    if name == "annotation" or name == "annotation-xml":
        return ""
    if len(parts) == 2 and name == "mfrac":
        return f"({parts[0]})/({parts[1]})"
    if len(parts) == 2 and name in ("msup", "msub"):
        return f"{parts[0]}{'^' if name == 'msup' else '_'}{parts[1]}"
    if len(parts) == 3 and name == "msubsup":
        return f"{parts[0]}_{parts[1]}^{parts[2]}"
    if name == "msqrt":
        return f"sqrt({''.join(parts)})"
    return (element.text or "") + "".join(parts)


def _finish(text: str) -> str:
    """Blanks made single, then the brackets and commas around citations removed; all other brackets stay."""
    text = re.sub(r"\s+", " ", text).strip()
    if _CITATION in text:
        mark = rf"{_CITATION}(?:[\s,;–—\-]*(?:and\s|&\s)?\s*{_CITATION})*"
        text = re.sub(rf"\[\s*(?:{_LEAD_IN}[\s,:]*)*{mark}\s*[,;.]?\s*\]", _CITATION, text)
        text = re.sub(rf"\(\s*(?:{_LEAD_IN}[\s,:]*)*{mark}\s*[,;.]?\s*\)", _CITATION, text)
        text = re.sub(rf"(?<=[(\[])\s*{mark}\s*[,;]\s*", "", text)
        text = re.sub(rf"[,;]?\s*(?:\b{_LEAD_IN}[\s,:]*)?{mark}(?=\s*[)\]])", "", text)
        text = re.sub(rf"\s*{mark}", "", text)
        text = re.sub(r"\s+([.,;])(?=\s|$)", r"\1", text)
    return text
