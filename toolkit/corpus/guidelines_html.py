"""The text of a web page: its main content as headings, paragraphs, lists and tables, without the site around it.

Decides what of a page is content and how its structure is written; leaves rules about wording to `guidelines_clean`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from toolkit.corpus.characters import NotAPage, decode
from toolkit.corpus.document import tidy
from toolkit.corpus.guidelines_clean import paragraphs
from toolkit.corpus.guidelines_walk import HEADINGS, Writer, flat, heading


def _named(names: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", names))


_NEVER = _named("""script style template noscript iframe object embed applet svg canvas audio video map input select
    textarea button datalist progress head link meta title img nav dialog""")
_ROLES = _named("navigation banner contentinfo search dialog alertdialog complementary menu menubar toolbar")
# Words in class and id of what stands around the content. They are compared whole: "menu", not "menucolumn".
_AROUND = _named("""ad ads advert advertisement banner breadcrumb breadcrumbs comments consent cookie cookies disqus
    editsection feedback footer gdpr menu modal nav navbar navbox navigation newsletter noprint onetrust pagination
    pager popup promo related share sharing sidebar skip skiplink skipnav social subscribe subnav toc toolbar topbar
    tracking""")
_MAIN = (
    "//main",
    "//*[@role='main']",
    "//*[@id='mw-content-text']",
    "//article",
    "//*[@id='main-content' or @id='maincontent' or @id='content' or @id='main' or @id='article']",
    "//*[contains(concat(' ', normalize-space(@class), ' '), ' main-content ')]",
)
_GONE = "gone"
_DEPTH = 500  # of elements; pages that people made have less than a tenth of it
_DATES = (
    "article:modified_time",
    "dcterms.modified",
    "dc.date",
    "citation_date",
    "article:published_time",
    "last-modified",
)
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


@dataclass(frozen=True, kw_only=True)
class Page:
    """`text` as Markdown; what the page does not state is empty. `licence` is a link or words, not yet a short id."""

    title: str
    text: str
    url: str = ""
    date: str = ""
    licence: str = ""
    language: str = ""


def extract(data: bytes, *, tables: str = "caption") -> Page:
    """The content of an HTML page; `tables`: "text" keeps their cells, "caption" their captions alone.

    Raises `NotAPage` for what is no HTML, is nested beyond reason, or is in no encoding that can be told.
    """
    from lxml import etree, html

    text = decode(data)
    if "<" not in text:
        raise NotAPage("holds no HTML element")
    parser = html.HTMLParser(encoding="utf-8", no_network=True, huge_tree=True, remove_comments=True, remove_pis=True)
    try:
        root = html.document_fromstring(text.encode("utf-8", "replace"), parser=parser)
    except (etree.ParserError, etree.XMLSyntaxError, ValueError) as err:
        raise NotAPage(f"cannot be parsed as HTML ({err})") from err
    if any("xcessive depth" in entry.message for entry in parser.error_log):
        raise NotAPage("elements are nested too deeply")
    meta = _meta(root)
    _drop(root)
    main = _main(root)
    blocks = list(Writer(tables=tables).blocks(main))
    title = _title(root, main, meta)
    if title and blocks and blocks[0].lstrip("# ").casefold() == title.casefold():
        blocks = blocks[1:]
    return Page(
        title=title,
        text=tidy(paragraphs(blocks)),
        url=meta.get("canonical", "") or meta.get("og:url", ""),
        date=next((meta[name] for name in _DATES if meta.get(name)), ""),
        licence=meta.get("licence", ""),
        language=(root.get("lang") or "").split("-")[0].lower(),
    )


def _meta(root: Any) -> dict[str, str]:
    """What head and links state, by lower-case name."""
    found: dict[str, str] = {}
    for element in root.iter("meta"):
        name = (element.get("property") or element.get("name") or element.get("http-equiv") or "").strip().lower()
        if name and element.get("content"):
            found.setdefault(name, " ".join(element.get("content").split()))
    for element in root.iter("link", "a"):
        relations = (element.get("rel") or "").lower().split()
        link = (element.get("href") or "").strip()
        if "canonical" in relations and link.startswith(("http://", "https://")):
            found.setdefault("canonical", link)
        if "license" in relations and link:
            found.setdefault("licence", link)
    for element in root.iter("title"):
        found.setdefault("title", flat(element))
    for name in ("dcterms.rights", "dc.rights", "copyright"):
        found.setdefault("licence", found.get(name, ""))
    return found


def _drop(root: Any) -> None:
    """Take away what is never content, and the site's frame unless that would take most of the page with it.

    Raises `NotAPage` for elements in more than `_DEPTH` others.
    """
    from lxml import etree

    lengths = _lengths(root)
    whole = max(1, lengths[root])
    for element, length in lengths.items():
        if element is root or element.getparent() is None or not isinstance(element.tag, str):
            continue
        if element.tag in _NEVER or (_is_around(element) and 2 * length < whole):
            element.tag = _GONE
    # Not element by element: the library cannot set a text that holds control characters, which pages can.
    etree.strip_elements(root, _GONE, with_tail=False)


def _lengths(root: Any) -> dict[Any, int]:
    """Characters in each element, in document order; one walk, for pages can be nested with bad intent."""
    from lxml import etree

    lengths: dict[Any, int] = {}
    above: list[int] = []
    for event, element in etree.iterwalk(root, events=("start", "end")):
        if event == "start":
            if len(above) >= _DEPTH:
                raise NotAPage("elements are nested too deeply")
            lengths[element] = 0
            above.append(len(element.text or "") if isinstance(element.tag, str) else 0)
        else:
            lengths[element] = length = above.pop()
            if above:
                above[-1] += length + len(element.tail or "")
    return lengths


def _is_around(element: Any) -> bool:
    if element.tag in ("footer", "form"):
        return True
    if element.tag in ("header", "aside"):  # an article's own head holds its title, its asides are boxed text
        return not element.xpath("ancestor::article | ancestor::main")
    attributes: Mapping[str, str] = element.attrib
    if attributes.get("role", "").lower() in _ROLES or "hidden" in attributes:
        return True
    if attributes.get("aria-hidden", "").lower() == "true":
        return True
    if re.search(r"display\s*:\s*none|visibility\s*:\s*hidden", attributes.get("style", ""), re.I):
        return True
    if element.tag in ("body", "main", "article", "html", "tr", "td", "th", "p") or element.tag in HEADINGS:
        return False
    named = f"{attributes.get('class', '')} {attributes.get('id', '')}"
    return any(word.lower() in _AROUND for word in _WORDS.findall(named))


def _main(root: Any) -> Any:
    """The element that holds the content: the first kind of marked one with enough text, else the body."""
    whole = len(flat(root))
    for path in _MAIN:
        found = [(len(flat(e)), -i, e) for i, e in enumerate(root.xpath(path))]
        if found:
            length, _, element = max(found, key=lambda item: item[:2])
            if length >= 0.5 * whole or (len(found) == 1 and length >= max(200, 0.3 * whole)):
                return element
    body = root.find("body")
    return root if body is None else body


def _title(root: Any, main: Any, meta: Mapping[str, str]) -> str:
    for place in (main, root):
        for element in place.iter("h1"):
            if words := heading(flat(element)):
                return words
    title, site = meta.get("og:title", "") or meta.get("title", ""), meta.get("og:site_name", "")
    if site and (found := re.fullmatch(rf"(.+?)\s+[|–—·-]\s+{re.escape(site)}", title)):
        return found[1]
    return title.split(" | ")[0]
