"""Markup inside a paragraph: letters, raised and lowered characters, citations, mentions of figures and tables.

Works on the serialised article, so that one regular expression sees all of it; characters that XML forbids stand for
what is decided later (a citation until the brackets around it are known, `<` until the tags are gone).
"""

from __future__ import annotations

import re
from functools import lru_cache
from html.entities import html5

from toolkit.corpus.jats_references import References, cut

# Forbidden in XML and no white space to Python, so no text holds them and `str.split` leaves them whole.
# Each kind of mark begins with one letter, which a regular expression finds fast: \x01 a citation (\x01\x03 one whose
# words are a name), \x04 a mention, which waits for its caption; all end with \x02.
NUMBER, NAMED, END, MENTION, BREAK, BLANK = "\x01", "\x01\x03", "\x02", "\x04", "\x06", "\x07"
MENTIONED = re.compile("\x04(\\d+)\x02")
CITATION = re.compile(r"\s*\[bib_ref\].*?\[/bib_ref\]")
_LESS, _MORE, _AND = "\x0e", "\x0f", "\x10"

_ASCII_BLANKS = "\n\t\r"
# U+2000 and U+3000 are rare, and slow to look for: their last byte is that of every ASCII letter's first.
_BLANKS = _ASCII_BLANKS + "\x85\xa0" + "".join(map(chr, range(0x2001, 0x200B))) + "\u2028\u2029\u202f\u205f"
# Serialised: attributes end in a quote, and what has no content ends in "/>".
_XREF = re.compile(r'<xref(\s[^>]*")?>([^<]*(?:<(?!/xref>)[^<]*)*)</xref>|<xref(?:\s[^>]*)?/>')
_RAISED = re.compile(r"<(sup|sub)(?:\s[^>]*)?>([^<]*)</\1>|<su[pb](?:\s[^>]*)?/>")
_ENTITY = re.compile(r"&(#?\w+);")
_ESCAPED = {"lt": _LESS, "gt": _MORE, "amp": _AND, "#13": " "}
_UNSEEN = frozenset(("fn", "aff", "corresp", "author-notes", "author-note", "contrib"))
_LETTERS = re.compile(r"[^\W\d_]{2}")
_ANY_TAG = re.compile(r"<[^>]*>")
_SEPARATORS = " \t\n,;–—‐−-[]()*"

_MARK = r"\x01\x03?\d*\x02"
_BETWEEN = r"(?:\s*[,;/–—‐−-]?\s*(?:and\s+|&\s*)?|\]\s*[,;–—‐−-]?\s*(?:and\s+)?\[|\)\s*[,;–—‐−-]?\s*(?:and\s+)?\()"
_RUN = re.compile(rf"({_MARK}(?:{_BETWEEN}{_MARK})*)")
_ONE = re.compile(r"\x01(\x03?)(\d*)\x02")
_LEAD = re.compile(
    r"(?:\b(?:see(?: also)?|reviewed (?:in|by)|(?:for )?(?:a )?reviews?,? see|e\.g\.|i\.e\.|cf\.?|as in|from|in|and|by|"
    r"refs?\.?|references?|data from|adapted from)[\s,:]*)+$",
    re.I,
)
_FIRST_WORD = re.compile(r"[^\W\d]+\.?")
_PANEL = re.compile(r"\w{0,4}")
_STOP = re.compile(r"[.;:](?=\s|$)|\s\(|\)")
_DANGLING = frozenset(
    ("in", "by", "from", "of", "with", "to", "see", "e.g.", "e.g.,", "cf", "cf.", "ref", "ref.", "refs", "refs.",
     "reference", "references")
)  # fmt: skip
_KIND = re.compile(r"(?:^|(?<=[\s(\[]))(?:figures?|figs?\.?|tables?|tabs?\.)\s*$", re.I)
_KIND_START = re.compile(r"^(?:supplementary\s+)?(?:figures?|figs?\.?|tables?|tabs?\.?)\s*", re.I)
_PLAIN_AFTER = frozenset(" .,;")
_CLOSING = {"[": "]", "(": ")"}


class Marks:
    """What the marks of one article stand for: citations (what they cite, words) and mentions (float's id, words)."""

    def __init__(self, *, tags: bool, references: References, floats: set[str], notes: bool) -> None:
        self.tags, self.references, self.floats, self.notes = tags, references, floats, notes
        self.even = False  # whether every blank of the part at hand is a plain one
        self.cited: list[tuple[str, str]] = []
        self.mentioned: list[tuple[str, str]] = []
        self.marked: dict[str, str] = {}  # marks by the markup they stand for; most works are cited again

    def prepare(self, xml: str, *, verbatim: bool = False) -> str:
        """A serialised part without inline markup; `verbatim` when it holds lines that are to be kept as they are."""
        # Looking for one character is ten times faster than for two.
        if "&" in xml:
            xml = _ENTITY.sub(_letter, xml)
        self.even = not verbatim
        if self.even:  # blanks made alike here cost a third of what splitting every paragraph does
            for blank in _ASCII_BLANKS if xml.isascii() else _BLANKS:
                if blank in xml:
                    xml = xml.replace(blank, " ")
        xml = _XREF.sub(self._xref, xml)
        xml, count = _RAISED.subn(_raise, xml)
        while count and "<su" in xml:  # one in another
            xml, count = _RAISED.subn(_raise, xml)
        return xml

    def _xref(self, found: re.Match[str]) -> str:
        mark = self.marked.get(found[0])
        if mark is None:
            mark = self.marked[found[0]] = self._mark(found[1] or "", found[2] or "")
        return mark

    def _mark(self, attributes: str, words: str) -> str:
        if not words:
            return ""
        kind = attributes.partition(' ref-type="')[2].partition('"')[0]
        target = attributes.partition(' rid="')[2].partition('"')[0]
        if not kind:
            kind = "bibr" if target in self.references else "fig" if target in self.floats else ""
        if kind == "bibr":
            tags = self.references.cite(target) if self.tags else ""
            if words.isdigit():
                named = False
            else:
                words = _ANY_TAG.sub("", words)
                named = _LETTERS.search(words) is not None and words.lstrip()[:1] not in "[("
            if not (tags or named):
                return NUMBER + END
            self.cited.append((tags, words))
            return f"{NAMED if named else NUMBER}{len(self.cited) - 1}{END}"
        if kind in _UNSEEN or (kind == "table-fn" and not self.notes):
            return ""
        if kind == "table-fn":
            return f"<sup>{words}</sup>"
        if self.tags and kind in ("fig", "table") and (first := target.partition(" ")[0]) in self.floats:
            self.mentioned.append((first, _ANY_TAG.sub("", words)))
            return f"{MENTION}{len(self.mentioned) - 1}{END}"
        return words

    def finish(self, text: str) -> str:
        """A paragraph as it is read: blanks made single, citations taken out of their brackets."""
        text = text.strip() if self.even and "  " not in text else " ".join(text.split())
        if END in text:
            if NUMBER in text:
                text = self._cite(text)
            if MENTION in text:
                text = _swallow(text)
        if BREAK in text:
            text = re.sub(r"[ \x06]*\x06[ \x06]*", BREAK, text).strip(BREAK + " ")
        return text

    def _cite(self, text: str) -> str:
        pieces = _RUN.split(text)
        left, quick = pieces[0], not self.tags
        for i in range(1, len(pieces), 2):
            run, right = pieces[i], pieces[i + 1]
            if quick and left[-1:] == "[" and right[:1] == "]" and right[1:2] in _PLAIN_AFTER and NAMED not in run:
                head = left[:-1].rstrip()
                if head[-1:] not in ("(", "["):  # as nine in ten of the numbers in brackets stand
                    left = (_undangle(head) if right[1] != " " else head) + right[1:]
                    continue
            bare, left, right = _unbracket(left, right)
            words = "" if bare else self._words(run)
            tags = self._tags(run) if self.tags else ""
            inserted = f"{words} {tags}".strip()
            if not inserted:
                if bare and right[:1] in (".", ",", ";", ""):
                    left = _undangle(left.rstrip())
                left = left.rstrip() if right[:1] in (" ", ".", ",", ";", ":", ")", "]", "?", "!", "") else left
                if left[-1:] in ("(", "[", ""):
                    right = right.lstrip(" ")
                left += right
                continue
            if tags and not words and left[-1:] in ("(", "[") and right.strip():
                # [1, their figure five]: the citation goes before the bracket, the rest stays in it
                left, right = left[:-1], left[-1] + right.lstrip()
            if left and left[-1] not in " ([\x06-–/":
                left += " "
            left += inserted
            left += right if not right or right[0] in " .,;:)]?!\x06-–'’" else " " + right
        return left

    def _words(self, run: str) -> str:
        """The names and years of a run that stands in a sentence as its subject or object; numbers say nothing."""
        if NAMED not in run:
            return ""
        words = _ONE.sub(lambda one: self.cited[int(one[2])][1] if one[1] else "", run)
        return re.sub(r"\s*[(\[]\s*[,;]?\s*[)\]]", "", words).strip(" ,;-–")

    def _tags(self, run: str) -> str:
        said = [self.cited[int(number)][0] for _, number in _ONE.findall(run) if number]
        return " ".join(filter(None, said))


def _undangle(left: str) -> str:
    """ "as shown in [1]." is "as shown."."""
    while left[left.rfind(" ") + 1 :].lower() in _DANGLING and " " in left:
        left = left[: left.rfind(" ")].rstrip()
    return left


def last(text: str) -> str:
    """The text with its real `<`, `>`, `&`, line ends and blanks."""
    for mark, letter in ((_LESS, "<"), (_MORE, ">"), (_AND, "&"), (BREAK, "\n"), (BLANK, " ")):
        if mark in text:
            text = text.replace(mark, letter)
    return text


def _letter(found: re.Match[str]) -> str:
    """Of an entity that only the unread DTD declares the name says which letter it is, unless it is none."""
    name = found[1]
    return _ESCAPED[name] if name in _ESCAPED else html5.get(f"{name};", "")


def _raise(found: re.Match[str]) -> str:
    if found[1] is None:
        return ""
    text, start, end = found.string, found.start(), found.end()
    before = text[start - 1] if start else ""
    if before == ">" and text.endswith("</sub>", 0, start):
        before = text[start - 7]  # x<sub>i</sub><sup>2</sup>: what is lowered stands before what is raised
    inner = found[2].strip()
    raised = _raised(found[1], inner, before, text[end : end + 1])
    # Blanks set into the raised part belong to the line: R<sup>2 </sup>= 0.3
    return raised if inner == found[2] else found[2][: -len(found[2].lstrip()) or None] + raised + _after(found[2])


def _after(text: str) -> str:
    return text[len(text.rstrip()) :]


@lru_cache(maxsize=8192)
def _raised(name: str, inner: str, before: str, after: str) -> str:
    """Raised numbers need a mark, 10<sup>-3</sup> is not 10-3; charges, isotopes, ordinals and notes have their own.

    Citations set that way are citations still. `before` and `after` are the characters beside, `inner` has no blanks
    at its ends.
    """
    if END in inner:
        bare = _ONE.sub("", inner)
        return inner if bare.strip(_SEPARATORS) else "".join(found[0] for found in _ONE.finditer(inner))
    if not inner or not inner.strip(",;"):
        return ""
    if name == "sub":
        return ("_" if before.isdigit() and inner[0].isdigit() else "") + inner
    if before == ">" and after.isalpha() and re.fullmatch(r"[a-z]|[*†‡§¶#]+", inner):
        return inner + " "  # the sign of a note, before its words
    if re.fullmatch(r"\d{1,3}m?", inner) and after.isupper() and not (before.isalnum() or before in ")]"):
        return inner  # 14C, 99mTc
    if re.fullmatch(r"\d?[+\-−–]|[+\-−–]\d?", inner) and (before.isalpha() or before == "]") and len(inner) == 2:
        return inner if inner[-1] in "+-−–" else "^" + inner  # Ca2+ but s^-1
    if re.fullmatch(r"[+\-−–/]+|[®™©°′″'*†‡§¶#|]+|st|nd|rd|th|a?o", inner):
        return inner  # Na+, Trp53-/-, the 1st
    if before.isalnum() or before in ")]}%\x0e\x0f" or (before and ord(before) > 127):
        return f"^({inner})" if re.search(r"[\w)]\s*[+\-−–*/]\s*[\w(]", inner) and inner[0] != "(" else "^" + inner
    return inner


def _unbracket(left: str, right: str) -> tuple[bool, str, str]:
    """(whether brackets or the end of a list hid the citation, what stands before it, what after it)."""
    bare = False
    if left[-1:] == "[" and right[:1] == "]":
        left, right, bare = left[:-1], right[1:], True
        if left[-1:] == " " and right[:1] not in (")", "]"):
            return True, left, right
    while True:
        tail = right[:8].lstrip(" ")
        close = tail.lstrip(",;. ")
        head = left[-48:].rstrip()
        lead = None
        if close[:1] in (")", "]"):
            lead = None if head[-1:] in ("[", "(") else _LEAD.search(head)
        elif head[-1:] not in ("[", "("):
            return bare, left, right
        opened = (head[: lead.start()] if lead else head).rstrip(" ,;")
        if opened[-1:] in ("[", "(") and close[:1] == _CLOSING[opened[-1]]:
            cut = len(left.rstrip()) - len(head) + len(opened) - 1
            left, right = left[:cut], right[len(right[:8]) - len(close) + 1 :]
            if left and not left[-1].isspace() and right[:1].isalnum():
                left += " "
            bare = True
        elif head[-1:] in ("[", "(") and tail[:1] in (",", ";") and tail[1:].strip():
            left, right = left.rstrip(), right.lstrip()[1:].lstrip()
            return True, left, right
        elif tail[:1] in ("]", ")") and not bare and (head[-1:] in (",", ";") or lead):
            cut = len(left.rstrip()) - len(head) + len((head[: lead.start()] if lead else head).rstrip(" ,;"))
            return True, left[:cut], right.lstrip()
        elif bare and tail[:1] in ("]", ")") and head[-1:] in (",", ";"):
            return True, left.rstrip(" ,;"), right.lstrip()
        else:
            return bare, left, right


def _swallow(text: str) -> str:
    """ "Figure" before a mention goes into it."""
    pieces = re.split("(\x04\\d+\x02)", text)
    for i in range(1, len(pieces), 2):
        if found := _KIND.search(pieces[i - 1][-16:]):
            pieces[i - 1] = pieces[i - 1][: len(pieces[i - 1]) - len(found[0])]
    return "".join(pieces)


def mention(words: str, label: str, caption: str) -> str:
    """`Figure 2B: what it shows`, cut as the paper cut it: at a stop after 20 characters, then to 12 words."""
    number = _KIND_START.sub("", words.strip())
    kind = _FIRST_WORD.match(label)
    own = label[kind.end() :].strip(" .:") if kind else label.rstrip(".:")
    if kind and number.startswith(own) and _PANEL.fullmatch(number, len(own)):
        own = number
    name = f"{kind[0]} {own}".strip() if kind else own or words.strip()
    short = " ".join(caption.split(None, 13)[:13])
    for stop in _STOP.finditer(short, 20):
        short = short[: stop.start() + (stop[0] == ")")]
        break
    short = cut(short)
    if short.count("(") > short.count(")") and short.find("(") > 0:
        short = short[: short.rfind("(")].rstrip()
    return f"{name}: {short}" if short else name
