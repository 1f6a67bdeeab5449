"""Short licence ids from links, codes and legal prose, and the group of uses that each allows.

Decides what a licence is called and how far it restricts; leaves to `filters` which groups enter a corpus.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

UNKNOWN = "unknown"

GUIDELINE_OPEN, GUIDELINE_RESTRICTED = "guideline-open", "guideline-restricted"

_DASHES = re.compile("[\u2010-\u2015\u2212\u00ad]")
_CC_URL = re.compile(r"creativecommons\.org/licen[sc]es/((?:by|nc|nd|sa)(?:[-_](?:by|nc|nd|sa))*)(?:/(\d\.\d))?", re.I)
_ZERO = re.compile(r"creativecommons\.org/publicdomain/zero|\bCC[- ]?0\b|\bCC[- ]?zero\b|\bPDDL\b", re.I)
_PUBLIC_DOMAIN = re.compile(r"creativecommons\.org/publicdomain/mark|\bpublic[- ]domain\b|^pd$", re.I)
_SHORT = re.compile(r"\bCC[-_ ]?BY((?:[-_ ]?(?:NC|ND|SA))*)(?:[-_ ]?v?(\d(?:\.\d)?))?(?![\w])", re.I)
_PROSE = re.compile(r"creative\s+commons[\s,:]+(?:public\s+)?attribution(.{0,120})", re.I | re.S)
_PARTS = (
    ("NC", re.compile(r"non-?\s?commercial|\bNC\b", re.I)),
    ("ND", re.compile(r"no-?\s?deriv|\bND\b", re.I)),
    ("SA", re.compile(r"share-?\s?alike|\bSA\b", re.I)),
)
# (id, pattern): what is neither Creative Commons nor the public domain.
_OTHER = tuple(
    (name, re.compile(pattern, re.I))
    for name, pattern in (
        ("US-Gov", r"\b(?:work|employees?) of the (?:U\.?\s?S\.?|United States) (?:federal )?government|\bUS-Gov\b"
                   r"|\bU\.?S\.? Government (?:work|employees?)|^U\.?S\.? Government$"),
        ("OGL", r"\bopen government licen[sc]e\b|\bOGL\b"),
        ("ODC-BY", r"\bODC-?BY\b|\bopen data commons attribution\b"),
        ("Apache-2.0", r"\bApache[- ](?:licen[sc]e,? )?(?:version |v)?2(?:\.0)?\b"),
        ("MIT", r"^(?:the )?MIT(?: licen[sc]e)?$|\bMIT licen[sc]e\b"),
        ("BSD-2-Clause", r"\bBSD-2-Clause\b"),
        ("BSD-3-Clause", r"\bBSD-3-Clause\b"),
        ("ISC", r"^ISC$"),
        ("Unlicense", r"^Unlicense$"),
        ("MPL-2.0", r"\bMPL-2\.0\b"),
        ("AGPL", r"\bAGPL(?:-3\.0)?(?:-only|-or-later)?\b"),
        ("LGPL", r"\bLGPL(?:-[23]\.[01])?(?:-only|-or-later)?\b"),
        ("GPL", r"\bGPL(?:-[23]\.0)?(?:-only|-or-later)?\b"),
        ("GFDL", r"\bGFDL\b|\bGNU free documentation licen[sc]e\b"),
        (GUIDELINE_OPEN, r"^guideline-open$"),
        (GUIDELINE_RESTRICTED, r"^guideline-restricted$"),
        ("elsevier-user", r"elsevier\.com/open-?access/userlicense|\belsevier\b.{0,20}\buser licen[sc]e\b"),
        ("tdm-only", r"/tdm/userlicense|tdm_licen[sc]e|\btext and data mining only\b"),
        ("acs-authorchoice", r"\bauthor-?choice\b"),
        ("pmc-covid", r"for the duration of the (?:world health organi[sz]ation|COVID|declaration|public health)"),
        ("research-only", r"\b(?:for )?(?:research|personal|private|educational)(?: use| purposes?)? only\b"
                          r"|\bfor (?:personal|private) use\b"),
        ("publisher-specific", r"^publisher-specific|\bno-cc code\b"),
    )
)  # fmt: skip
_NONCOMMERCIAL = re.compile(r"non-?\s?commercial|\b(?:not? (?:be )?(?:for|used for)|no) commercial", re.I)
# Said beside the name of a licence that allows more. "commercial and non-commercial use" allows both.
_NO_COMMERCE = re.compile(
    r"\bpermits? (?:(?:any|unrestricted|all)\s)?non-?\s?commercial|\bnon-?\s?commercial (?:use|purposes?) only|"
    r"\bonly (?:be used )?for non-?\s?commercial|\bno commercial (?:re-?)?use|"
    r"\bcommercial (?:re-?)?use is (?:not (?:permitted|allowed)|prohibited|forbidden)",
    re.I,
)  # fmt: skip
_NONCOMMERCIAL_IDS = frozenset(("non-commercial", "elsevier-user", "acs-authorchoice", "research-only", "tdm-only"))
_RESTRICTED_IDS = frozenset((GUIDELINE_RESTRICTED, "tdm-only", "publisher-specific", "pmc-covid"))


def _creative_commons(parts: Iterable[str], version: str | None) -> str:
    """NC before ND before SA, as the licences are called today; 1.0 had other orders, and some without BY."""
    said = {part.upper() for part in parts}
    name = "-".join(["CC", *(part for part in ("BY", "NC", "ND", "SA") if part in said)])
    return f"{name}-{version if '.' in version else version + '.0'}" if version else name


def _all(text: str) -> list[str]:
    """The ids of every licence that one link or one piece of prose names."""
    text = _DASHES.sub("-", text)
    found = [_creative_commons(re.split("[-_]", m[1]), m[2]) for m in _CC_URL.finditer(text)]
    found += [_creative_commons(["BY", *re.findall("NC|ND|SA", m[1], re.I)], m[2]) for m in _SHORT.finditer(text)]
    for m in [] if found else _PROSE.finditer(text):
        # The name of the licence ends where the sentence goes on to what it permits.
        name = re.split(r"\blicen[sc]e\b|\bwhich\b|\bthat\b", m[1], maxsplit=1, flags=re.I)[0]
        version = re.search(r"\b(\d\.\d)\b", m[1])
        parts = [part for part, pattern in _PARTS if pattern.search(name)]
        found.append(_creative_commons(["BY", *parts], version and version[1]))
    if found and not any("-NC" in name for name in found) and _NO_COMMERCE.search(text):
        found.append("non-commercial")
    if _ZERO.search(text):
        found.append("CC0-1.0")
    if not found:
        found = [name for name, pattern in _OTHER if pattern.search(text)]
    if not found and _NONCOMMERCIAL.search(text):
        found.append("non-commercial")
    if not found and _PUBLIC_DOMAIN.search(text):
        found.append("public-domain")
    return found


def short_id(texts: Iterable[str]) -> str:
    """The licence that a document states in `texts` (links, codes, prose): of several, the most restrictive.

    An article under CC BY whose data are CC0 is under CC BY; `unknown` where nothing is recognised.
    """
    found = {name for text in texts if text for name in _all(text)}
    if not found:
        return UNKNOWN
    return max(found, key=lambda name: (_severity(name), any(c.isdigit() for c in name), name))


def _severity(name: str) -> tuple[int, int]:
    needs = groups(name)
    strength = ("restricted" in needs) * 4 + ("noncommercial" in needs) * 2 + ("no-derivatives" in needs)
    return strength, 2 if "-SA" in name else 1 if name.startswith("CC-") else 0


def groups(name: str) -> frozenset[str]:
    """The groups (`cleaning.LICENCE_GROUPS`) that must be allowed, all of them, for the licence `name`."""
    if name in (UNKNOWN, ""):
        return frozenset(("unknown",))
    upper = name.upper()
    needs = set()
    if (upper.startswith("CC") and "-NC" in upper) or name in _NONCOMMERCIAL_IDS:
        needs.add("noncommercial")
    if upper.startswith("CC") and "-ND" in upper:
        needs.add("no-derivatives")
    if name in _RESTRICTED_IDS:
        needs.add("restricted")
    return frozenset(needs or ("open",))


def is_allowed(name: str, allow: Iterable[str]) -> bool:
    """True when `allow` holds every group that the licence `name` needs, or a pattern (`CC-BY-NC-4.*`) that fits it."""
    allow = tuple(allow)
    return groups(name) <= set(allow) or any(fnmatchcase(name.lower(), pattern.lower()) for pattern in allow)
