"""What of a guideline's text is not guidance: references, thanks, disclaimers, the site's own lines.

Decides by whole sections and whole lines only, never inside a sentence: inequalities, bracketed intervals and list
markers of clinical text look like markup, and rules on characters have damaged them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from toolkit.corpus.document import tidy

_HEADING = re.compile(r"^(#{1,6})\s+(.+?)\s*#*$")
_LISTED = re.compile(r" *(?:- |\d+\. )")


def _headings(text: str) -> frozenset[str]:
    return frozenset(name.strip() for name in re.split(r"[|\n]", text) if name.strip())


# A section with such a heading goes, with its subsections. Compared without numbers, signs and case, as a whole.
_TAILS = _headings("""
    references|reference list|reference|bibliography|literature cited|works cited|selected references
    acknowledgements|acknowledgments|acknowledgement|acknowledgment|funding|funding sources|sources of funding
    financial support|disclaimer|disclaimers|legal disclaimer|legal notice|copyright|copyright notice|terms of use
    permissions|conflict of interest|conflicts of interest|competing interests|declaration of interests
    declarations of interest|disclosures|authors|author information|author contributions|contributors
    about the authors|guideline panel members|panel members|external links|see also|further reading
    related articles|related links|related topics|more information from the web|table of contents|contents
    navigation menu|suggested citation|how to cite|citation|cite this page|print version|your comments
    share this page|contact us|about this site
""")
# Sections that say how a guideline came about, in the sources that have them on every page.
_OF_SOURCE = {
    "nice": _headings("""
        the committee|committee members|committee details|guideline committee|implementation
        putting this guideline into practice|update information|finding more information and committee details
        finding more information and resources|about this guideline|your responsibility|project team
        advisory committee membership|sources of evidence considered by the committee
    """),
    "cma": _headings("about the guideline|guideline development|how to use this guideline"),
    "wikidoc": _headings("editor in chief|associate editors in chief"),
}
# Without the marks of a heading, as in PDFs that set it in the letters of the text.
_UNMARKED = re.compile(r"(?:\d{1,2}\.?\s+)?(?:references|bibliography|literature cited|acknowledge?ments)\s*:?", re.I)
# Lines that belong to a site, as a whole.
_LINE = re.compile(
    r"""(?:skip\ to\ (?:main\ )?content|back\ to\ (?:the\ )?top|return\ to\ top|top\ of\ page
    |jump\ to\ (?:navigation|search).*|(?:print|email|share)(?:\ this)?(?:\ page)?|share\ on\ \w+|tweet
    |download(?:\ (?:as\ )?pdf)?|(?:next|previous)(?:\ page|\ chapter)?|home|menu|search|advertisement|sign\ in|log\ in
    |subscribe(?:\ now)?|(?:we|this\ (?:web)?site)\ uses?\ cookies\b.*|(?:accept|reject|manage)(?:\ all)?\ cookies
    |cookie\ (?:policy|settings|preferences)|all\ rights\ reserved\.?
    |(?:copyright\ )?(?:©|\(c\))\ ?(?:copyright\ )?\d{4}\b.{0,80}|template:\S+|\[edit(?:\ source)?\]
    |\[?(?:https?://|www\.)\S+?\]?|!\[[^\]]*\]\([^)]*\))""",
    re.I | re.X,
)
_LINK = re.compile(
    r"(?<!!)\[([^\[\]]+)\]\((?:https?://|mailto:|/|\#|\.\.?/)[^()\s]*(?:\([^()\s]*\)[^()\s]*)*(?:\s+\"[^\"]*\")?\)"
)
_ENDORSES = re.compile(
    r"\b(?:was|were|has been|have been) (?:developed|created|produced)\b.{0,200}\b(?:and was |and |was |is )?"
    r"(?:endorsed|affirmed)\b.{0,60}\b(?:AAFP|American Academy of Family Physicians)",
    re.I | re.S,
)
_ENDORSED_SHORT = 1500  # characters; guidelines that the Academy wrote itself are longer
_PENDING = re.compile(r"^\W*(?:status:? )?(?:in development|update in progress|projected publication)\b", re.I | re.M)
_REDIRECT = re.compile(r"^\W*redirect(?:s|ed)? (?:to|from|page)\b.*$", re.I | re.M)


def clean(text: str, source: str = "") -> str:
    """`text` (Markdown) without what is no guidance; `source` is a tag of `guidelines_sources`, or empty."""
    tails = _TAILS | _OF_SOURCE.get(source, frozenset())
    kept: list[str] = []
    below = 0  # level of the section that is being left out
    lines = _LINK.sub(r"\1", text).split("\n")
    read = 0
    for number, line in enumerate(lines):
        read += len(line)
        if heading := _HEADING.match(line):
            level = len(heading[1])
            if below and level > below:
                continue
            below = level if _plain(heading[2]) in tails else 0
        elif not below and 2 * read > len(text) and _UNMARKED.fullmatch(line) and not lines[number - 1]:
            below = 6
        if not below and not _LINE.fullmatch(line.strip(" *_•|-")):
            kept.append(line)
    text = tidy("\n".join(kept))
    return tidy(_without_empty_ends(_REDIRECT.sub("", text) if source == "wikidoc" else text))


def left_out(text: str, source: str) -> str:
    """The rule by which a whole page is no guideline, or "": it only endorses another's, or announces one."""
    if source == "aafp" and len(text) < _ENDORSED_SHORT and _ENDORSES.search(text):
        return "only_endorses_others"
    if source == "idsa" and len(text) < _ENDORSED_SHORT and _PENDING.search(text):
        return "in_development"
    if source == "wikidoc" and _REDIRECT.match(text) and len(text) < 200:
        return "redirect"
    return ""


def paragraphs(blocks: Iterable[str]) -> str:
    """Blocks with an empty line between them, entries of a list without."""
    parts: list[str] = []
    before = ""
    for block in blocks:
        if parts:
            parts.append("\n" if _LISTED.match(before) and _LISTED.match(block) else "\n\n")
        parts.append(block)
        before = block
    return "".join(parts)


def beginning(text: str) -> str:
    """The first 500 letters and digits, in lower case: by it the paper took pages of one source as the same."""
    found = "".join(c for c in text[:4000].lower() if c.isalnum())[:500]
    return found if len(found) == 500 else "".join(c for c in text.lower() if c.isalnum())[:500]


def _plain(heading: str) -> str:
    """A heading's words: no number before them, no marks around, lower case."""
    words = re.sub(r"^[\W\d_]+(?=[^\W\d_])", "", heading.lower().replace("&", "and"))
    return " ".join(re.sub(r"[^\w\s]+", " ", words).split())


def _without_empty_ends(text: str) -> str:
    """Headings at the end that nothing follows go as well."""
    lines: Sequence[str] = text.split("\n")
    end = len(lines)
    while end and (not lines[end - 1].strip() or _HEADING.match(lines[end - 1])):
        end -= 1
    return "\n".join(lines[:end]) if end else text
