"""Mends the damage that files bring along: wrong decodings, stray glyphs, invisible characters, and who wrote the text.

Decides what is damage and what merely unusual (inequalities, intervals, units, Greek and signs stay letter by letter);
leaves reading to the readers and the look of personal data to `personal`.
"""

from __future__ import annotations

import dataclasses
import functools
import html
import re
import unicodedata
from collections.abc import Set
from dataclasses import dataclass
from typing import Any

from toolkit.corpus import personal
from toolkit.corpus.document import Document, tidy
from toolkit.corpus.glyphs import LIGATURES, SYMBOL
from toolkit.errors import MissingPackage

HOLE = "\ufffd"
_EXCERPT = 160
_PLAIN = bytes([9, 10, *range(32, 127)])

# UTF-8 read in another encoding: a lead byte as a letter, then the continuation bytes it calls for. First Latin-1 and
# Windows-1252 and -1250, then Windows-1251, Mac Roman and code page 437, by the leads of what English text holds.
_TAIL = "\x80-\xbf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸŚŤŹśťźˇ˘ŁĄŞŻ˛łąşĽ˝ľż"
_MOJIBAKE = re.compile(
    f"[Â-ßĂĹĚĎĐ][{_TAIL}]|[à-ïĺďâ][{_TAIL}¬ŹĽ ][{_TAIL}{HOLE} ]|â[{_TAIL}][^\\s\\w]|ð[{_TAIL}]{{2}}|[âÃÂ]{HOLE}"
    "|в[‚„†‡€‰€Ђ‹‘’“”•–—™][\\S ]|[ВГОП][Ђ-Џђ-џ‚-™ -¿ҐґЇїІіЁёЄєЎўЈјЅѕ±°µ·»]"
    "|‚[Ä-Ü][^\\s\\w]|‚[ÄÅÇàâÜ]|√[©®∂∏±†°¢£§•¶ß™´¨Ø∞µ∑πªºΩæø¿¡ƒ≈∆«»…ÄÅÉÑÖÜ≠†]|¬[µ∞±≤≥Ω∑∂∫π∏ª©®Æ§¶•Ø†]|[Œœ][^\x00-\x7f]"
    "|Γ[ÇëåäêÖÿ»áîôöòûùÉæÆ]|[├┬╬╧][^\\s]"
)
_LEADS = frozenset(map(chr, range(0xC2, 0xF1))) | frozenset("ĂĹĚĎĐĺďвВГОП‚√¬ŒœΓ├┬╬╧")

# What is replaced by a table. C1 controls are Windows-1252's signs in a text that says it is Latin-1.
_TABLE: dict[int, str] = {
    **dict.fromkeys([*range(0x09), *range(0x0E, 0x20), 0x7F, 0xAD, 0x034F, 0x061C, 0x115F, 0x1160, 0x180E, 0x200B], ""),
    **dict.fromkeys([0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2060, 0x2070), 0xFE0E, 0xFE0F, 0xFEFF], ""),
    **dict.fromkeys([*range(0xFFF9, 0xFFFD), 0xFFFE, 0xFFFF], ""),
    **{code: bytes([code]).decode("cp1252", "ignore") for code in range(0x80, 0xA0)},
    **dict.fromkeys([0xA0, 0x1680, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000], " "),
    **{0x0B: "\n", 0x0C: "\n", 0x0D: "\n", 0x2028: "\n", 0x2029: "\n\n"},
    **{0x2329: "⟨", 0x232A: "⟩"},  # NFC would make Chinese punctuation of them
    **dict.fromkeys([*range(0xD800, 0xE000), *range(0xE000, 0xF900)], HOLE),
    **SYMBOL,
    **LIGATURES,
}
_ODD = frozenset(map(chr, _TABLE)) | {HOLE, "\u200c", "\u200d"}
_ODDITIES = re.compile(f"[{re.escape(''.join(map(chr, sorted(_TABLE))))}\U000e0000-\U0010ffff]")
# Joiners are letters in the scripts that need them, and nothing behind a Latin one.
_JOINERS = re.compile("(?:(?<=[\\x00-\u036f\u2000-\u206f])|^)[\u200c\u200d]+")
_APOSTROPHE = re.compile(f"(?<=[A-Za-z]){HOLE}(?=(?:s|t|re|ll|ve|d|m)\\b)")
_LOST_BULLET = re.compile(f"^[ \t]*{HOLE}+[ \t]+", re.M)

_ENTITY = re.compile(r"&(?:[a-zA-Z]{2,8}\d{0,2}|#\d{2,6}|#[xX][0-9A-Fa-f]{2,5});")
# Where a text holds tags, or a reference in quotation marks, references are what it is about.
_ABOUT_MARKUP = re.compile(
    r"</?[a-zA-Z][^<>\n]{0,200}>|<!--|[\"'`]&#?\w+;[\"'`]|&lt;[/!]?[a-zA-Z]+[1-6]?(?:\s[^&]{0,80})?/?&gt;"
)

RULES = {
    "mojibake": "UTF-8 that had been read as another encoding, read again",
    "entities": "character references that the source had escaped twice, resolved",
    "glyphs": "controls, invisible and private characters, ligatures and odd blanks, replaced",
    "unicode": "letters and their accents, composed (NFC)",
    **personal.RULES,
}


@dataclass(frozen=True, kw_only=True)
class Change:
    """What was mended (a key of `RULES`), and a piece of the text where it was; personal data are masked in it."""

    rule: str
    sample: str


def document(doc: Document) -> tuple[Document, tuple[Change, ...]]:
    """The document with title and text mended, and what was changed (each rule once); mostly nothing is.

    Raises `MissingPackage` where a text needs ftfy and there is none.
    """
    title, in_title = text(doc.title)
    body, changes = text(doc.text)
    body, found = personal.remove(body)
    if found:
        changes += tuple(Change(rule=rule, sample=sample) for rule, sample in found)
        body = tidy(body)
    if not changes and not in_title:
        return doc, ()
    known = {change.rule for change in changes}
    changes += tuple(change for change in in_title if change.rule not in known)
    return dataclasses.replace(doc, title=title, text=body), changes


def text(given: str) -> tuple[str, tuple[Change, ...]]:
    """`given` mended, and what was changed; personal data are left alone here. A second time changes nothing."""
    changes: list[Change] = []
    body, signs = given, _signs(given)
    if _is_suspicious(body, signs):
        body = _note(changes, "mojibake", body, "\n".join(map(_decode, body.split("\n"))))
    if "&" in body and _ENTITY.search(body) and not _ABOUT_MARKUP.search(body):
        body = _note(changes, "entities", body, _ENTITY.sub(lambda found: _resolve(found[0]), body))
    if changes:
        signs = _signs(body)
    if not signs.isdisjoint(_ODD) or (signs and max(signs) >= "\U000e0000"):
        body = _note(changes, "glyphs", body, tidy(_glyphs(body)))
        signs = _signs(body)
    if not all(map(_composed, signs)):
        body = _note(changes, "unicode", body, unicodedata.normalize("NFC", body))
    return body, tuple(changes)


def _is_suspicious(body: str, signs: Set[str]) -> bool:
    """Whether `_MOJIBAKE` is in the text; asked of what stands behind each lead, for most texts hold none or few."""
    for lead in signs & _LEADS:
        at = body.find(lead)
        while at >= 0:
            if _MOJIBAKE.match(body, at):
                return True
            at = body.find(lead, at + 1)
    return False


def _signs(body: str) -> Set[str]:
    """The characters that are neither printable ASCII nor blank. Deleting bytes is some ten times as fast as a search,
    and what remains of most texts is short.
    """
    return set(body.encode("utf-8", "surrogatepass").translate(None, _PLAIN).decode("utf-8", "surrogatepass"))


@functools.lru_cache(4096)
def _composed(letter: str) -> bool:
    """False for letters that NFC may replace, or join with the one before them."""
    return not unicodedata.combining(letter) and unicodedata.is_normalized("NFC", "a" + letter) and not (
        "\u1160" <= letter <= "\u11ff"
    )  # fmt: skip


def _note(changes: list[Change], rule: str, old: str, new: str) -> str:
    if new != old:
        start = max(0, _first_difference(old, new) - _EXCERPT // 2)
        changes.append(Change(rule=rule, sample=personal.masked(new[start : start + _EXCERPT])))
    return new


def _first_difference(old: str, new: str) -> int:
    low, high = 0, min(len(old), len(new))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if old[:middle] == new[:middle] else (low, middle - 1)
    return low


def _glyphs(body: str) -> str:
    if "\r" in body:
        body = body.replace("\r\n", "\n")
    body = _ODDITIES.sub(lambda found: _glyph(found[0]), body)
    if "\u200c" in body or "\u200d" in body:
        body = _JOINERS.sub("", body)
    if HOLE in body:
        # Other holes stay visible: closing one could join what stood apart, and 5?10 mg is not 510 mg.
        body = _LOST_BULLET.sub("- ", _APOSTROPHE.sub("’", body))
    return body


def _glyph(letter: str) -> str:
    code = ord(letter)
    return "" if 0xE0000 <= code < 0xF0000 else HOLE if code >= 0xF0000 else _TABLE[code]


def _resolve(entity: str) -> str:
    """The character that is meant, or the reference as it stands where HTML knows no such name."""
    letter = html.unescape(entity)
    return letter if len(letter) == 1 and unicodedata.category(letter) != "Cc" else entity


def _decode(line: str) -> str:
    """A line read again where ftfy is sure that it was read wrongly; all else that ftfy can mend is off."""
    if line.isascii() or not _MOJIBAKE.search(line):
        return line
    fix, config = _ftfy()
    return fix(line, config)


@functools.cache
def _ftfy() -> tuple[Any, Any]:
    try:
        import ftfy
    except ImportError as err:
        raise MissingPackage(
            "ftfy is not installed, and a text of the corpus needs it (UTF-8 that was read as another encoding)",
            do="install the toolkit's data extra",
        ) from err
    config = ftfy.TextFixerConfig(
        unescape_html=False, remove_terminal_escapes=False, fix_latin_ligatures=False, fix_character_width=False,
        uncurl_quotes=False, fix_line_breaks=False, fix_surrogates=False, remove_control_chars=False,
        normalization=None, fix_encoding=True, restore_byte_a0=True, replace_lossy_sequences=True,
        decode_inconsistent_utf8=True, fix_c1_controls=False, explain=False,
    )  # fmt: skip
    return ftfy.fix_encoding, config
