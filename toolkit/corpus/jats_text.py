"""Text of a JATS article as a reader would wish it: title, abstracts, body, appendices, glossaries, floats.

Decides by the article's structure which parts are read and what a citation says; blocks are formed by `jats_flow.py`,
inline markup is settled by `jats_inline.py`, formulas by `jats_math.py`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lxml import etree

from toolkit.corpus import jats_math, personal
from toolkit.corpus.jats_flow import Flow
from toolkit.corpus.jats_inline import CITATION, MENTIONED, Marks, last, mention
from toolkit.corpus.jats_references import References

if TYPE_CHECKING:
    from lxml.etree import _Element

_SKIPPED_ABSTRACTS = frozenset(("graphical", "teaser", "toc", "web-summary", "video", "key-image"))
_ABSTRACTS = {"plain-language-summary": "Plain language summary", "executive-summary": "Executive summary",
              "summary": "Summary", "author-highlights": "Highlights", "highlights": "Highlights",
              "key-points": "Key points", "editor": "Editor's summary", "synopsis": "Synopsis"}  # fmt: skip
_DROPPED = (
    "graphic", "inline-graphic", "media", "supplementary-material", "object-id", "sec-meta", "attrib", "permissions",
    "alt-text", "long-desc", "index-term", "index-term-range-end", "processing-meta", "ref-list", "sig-block",
    "contrib-group", "aff", "fn-group", "kwd-group", "trans-title", "address", "rt", "rp", "textual-form",
    "nav-pointer",
)  # fmt: skip
_INLINE = (
    "italic", "bold", "sc", "underline", "overline", "roman", "sans-serif", "monospace", "strike", "ext-link", "uri",
    "named-content", "styled-content", "abbrev", "funding-source", "award-id", "related-article", "related-object",
    "x", "fixed-case", "inline-formula", "alternatives", "private-char", "ruby", "rb", "target", "math", "tex-math",
    "chem-struct", "inline-supplementary-material", "email",
)  # fmt: skip
_CELLS = ("table", "table-wrap-foot", "fn")
_BACK = frozenset(("app-group", "app", "glossary", "sec"))
_FLOATS = frozenset(("floats-group", "floats-wrap"))
_FLOAT_TAGS = ("fig", "table-wrap", "fig-group", "table-wrap-group")


def article_text(article: _Element, *, markup: str = "plain", tables: str = "caption") -> tuple[str, str]:
    """(title, text). The text begins with the title; empty text means that the file holds no prose.

    `markup` "tags" writes citations, mentions, captions and display formulas between the paper's tokens, "plain"
    leaves citations out with their brackets; `tables` "text" keeps cells, a line a row. The tree is changed.
    """
    tags, cells = markup == "tags", tables == "text"
    prefix = (article.prefix or "") + ":" if article.prefix else ""
    front, body, back, floats = _parts(article)
    meta = _child(front, "article-meta")
    title_group = _child(meta, "title-group")
    title_element, subtitle = _child(title_group, "article-title"), _child(title_group, "subtitle")
    references = References(article if tags else None)
    roots = [e for e in [title_element, subtitle, *_abstracts(article, meta), *body, *back, *floats] if e is not None]
    identified, mails = set(), False
    # The front is done as a whole: each call costs more than what it finds there.
    for root in ([] if meta is None else [meta]) + body + back + floats:
        etree.strip_elements(root, *_DROPPED_NAMES, *(() if cells else _CELL_NAMES), with_tail=False)
        if tags and root is not meta:
            identified |= {e.get("id", "") for e in root.iter(*_FLOAT_NAMES)}
        for mail in root.iter("{*}email"):
            mail.clear(keep_tail=True)
            mail.text, mails = personal.GAP, True
        jats_math.settle(root)
        etree.strip_tags(root, *_INLINE_NAMES)
    marks = Marks(tags=tags, references=references, floats=identified - {""}, notes=cells)
    flow = Flow(marks)
    title = ""
    for root in roots:
        xml = etree.tostring(root, encoding="unicode", with_tail=False)
        if prefix:
            xml = re.sub(rf"(</?){re.escape(prefix)}", r"\1", xml)
        xml = marks.prepare(xml, verbatim=next(root.iter("{*}preformat", "{*}code"), None) is not None)
        if root is title_element or root is subtitle:
            words = _title(xml, marks)
            title = f"{title}{'' if title[-1:] in ':?!.' else ':'} {words}" if title and words else title or words
            continue
        name = etree.QName(root).localname
        flow.heading = _ABSTRACTS.get(root.get("abstract-type", ""), "Abstract")
        flow.behind = name in _BACK
        flow.read(xml)
    blocks = [title, *flow.out] if title and flow.out else flow.out
    text = "\n\n".join(blocks)
    if tags:
        text = MENTIONED.sub(_Mentions(marks, flow), text)
    if mails:
        title, text = personal.close_gaps(title), personal.close_gaps(text)
    return last(title), last(text).strip()


_DROPPED_NAMES = tuple("{*}" + name for name in _DROPPED)
_INLINE_NAMES = tuple("{*}" + name for name in _INLINE)
_FLOAT_NAMES = tuple("{*}" + name for name in _FLOAT_TAGS)
_CELL_NAMES = tuple("{*}" + name for name in _CELLS)


def _parts(article: _Element) -> tuple[_Element | None, list[_Element], list[_Element], list[_Element]]:
    """(front, bodies, what is read of the back, floats); translations and replies in sub-articles are not read."""
    front, body, back, floats = None, [], [], []
    for child in article:
        name = _local(child)
        if name == "front":
            front = child
        elif name == "body":
            body.append(child)
        elif name == "back":
            back += [part for part in child if _local(part) in _BACK]
        elif name in _FLOATS:
            floats.append(child)
    return front, body, back, floats


def _local(element: _Element) -> str:
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def _child(element: _Element | None, name: str) -> _Element | None:
    return None if element is None else next((child for child in element if _local(child) == name), None)


def _abstracts(article: _Element, meta: _Element | None) -> list[_Element]:
    """Those in the article's own language that are prose."""
    lang = "{http://www.w3.org/XML/1998/namespace}lang"
    own = article.get(lang, "")[:2].lower()
    found = [] if meta is None else [child for child in meta if _local(child) == "abstract"]
    return [
        one
        for one in found
        if one.get("abstract-type") not in _SKIPPED_ABSTRACTS
        and (not own or not one.get(lang) or one.get(lang, "")[:2].lower() == own)
    ]


def _title(xml: str, marks: Marks) -> str:
    text = re.sub(r"<fn\b.*?</fn>", "", xml, flags=re.S)
    text = marks.finish(re.sub("<[^>]*>", "", text.replace("<break/>", " ")))
    return CITATION.sub("", MENTIONED.sub("", text)).strip(" *†‡")


class _Mentions:
    """Replaces the mentions, which wait for the captions of the whole article."""

    def __init__(self, marks: Marks, flow: Flow) -> None:
        self.marks, self.flow = marks, flow
        self.known: dict[tuple[str, str], str] = {}

    def __call__(self, found: re.Match[str]) -> str:
        said = target, words = self.marks.mentioned[int(found[1])]
        if said not in self.known:
            label, caption = self.flow.captions.get(target, ("", ""))
            name = mention(words, label, CITATION.sub("", MENTIONED.sub("", caption[:400])))
            self.known[said] = f"[fig_ref] {name} [/fig_ref]" if name else words
        return self.known[said]
