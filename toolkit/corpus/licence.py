"""Short licence ids from links and legal prose, and which of them need a special permission.

Decides what a licence is called and whether it restricts use; leaves to `build` what happens to such documents.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

UNKNOWN = "unknown"

_CC_URL = re.compile(r"creativecommons\.org/licen[sc]es/(by(?:-nc)?(?:-nd|-sa)?)(?:/(\d\.\d))?", re.I)
_ZERO = re.compile(r"creativecommons\.org/publicdomain/zero|\bCC[- ]?0\b|\bCC[- ]?zero\b", re.I)
_PUBLIC_DOMAIN = re.compile(r"creativecommons\.org/publicdomain/mark|\bpublic[- ]domain\b", re.I)
_SHORT = re.compile(r"\bCC[- ]BY((?:[- ](?:NC|ND|SA))*)(?:[- ]?v?(\d\.\d))?(?![\w])", re.I)
_PROSE = re.compile(r"creative\s+commons[\s,]+(?:public\s+)?attribution(.{0,120})", re.I | re.S)
_PARTS = (
    ("NC", re.compile(r"non-?\s?commercial", re.I)),
    ("ND", re.compile(r"no-?\s?deriv", re.I)),
    ("SA", re.compile(r"share-?\s?alike", re.I)),
)
_OTHER = re.compile(r"\b(MIT|Apache-2\.0|BSD-[23]-Clause|OGL|ODC-BY|U\.?S\.? Government)\b", re.I)


def _one(text: str) -> str:
    """The id of one link or one piece of prose; links are exact and go first."""
    if found := _CC_URL.search(text):
        version = f"-{found[2]}" if found[2] else ""
        return f"CC-{found[1].upper()}{version}"
    if _ZERO.search(text):
        return "CC0-1.0"
    if found := _SHORT.search(text):
        parts = found[1].upper().replace(" ", "-")
        version = f"-{found[2]}" if found[2] else ""
        return f"CC-BY{parts}{version}"
    if found := _PROSE.search(text):
        # The name of the licence ends where the sentence goes on to what it permits.
        name = re.split(r"\blicen[sc]e\b|\bwhich\b|\bthat\b", found[1], maxsplit=1, flags=re.I)[0]
        parts = "".join(f"-{part}" for part, pattern in _PARTS if pattern.search(name))
        version = re.search(r"\b(\d\.\d)\b", found[1])
        return f"CC-BY{parts}" + (f"-{version[1]}" if version else "")
    if _PUBLIC_DOMAIN.search(text):
        return "public-domain"
    if re.search(r"non-?\s?commercial", text, re.I):
        return "non-commercial"
    if found := _OTHER.search(text):
        return found[1]
    return UNKNOWN


def short_id(texts: Iterable[str]) -> str:
    """The licence that a document states in any of `texts` (links, then prose): of several, the most restrictive."""
    found = [name for name in map(_one, texts) if name != UNKNOWN]
    if not found:
        return UNKNOWN
    return max(found, key=lambda name: (is_restricted(name), any(c.isdigit() for c in name)))


def is_restricted(name: str) -> bool:
    """True for licences that forbid commercial use or derived works; a model trained on the text may be both."""
    upper = name.upper()
    return "-NC" in upper or "-ND" in upper or upper == "NON-COMMERCIAL"
