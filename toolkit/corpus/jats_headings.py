"""Titles of sections: how they are written, and which sections say nothing of the article's subject.

Decides by the section's type and title; the back matter that has elements of its own never gets here.
"""

from __future__ import annotations

import re
from functools import lru_cache

NO_PROSE_KINDS = frozenset(
    (
        "supplementary-material", "supplementary", "supporting-information", "ref-list", "coi-statement", "conflict",
        "data-availability", "funding-information", "funding", "author-contributions", "contributions",
        "author-contribution", "acknowledgement", "acknowledgments", "acknowledgements", "ethics-statement", "pubhist",
    )
)  # fmt: skip
_NO_PROSE = re.compile(
    r"acknowledge?ments?(?: and .*)?|(?:sources? of )?(?:funding|(?:financial )?support)|role of (?:the )?funding .*|"
    r"funding(?! (?:of|for|in) (?!this|our|the (?:present|study|work)))(?: .*)?|"  # "Funding of hospitals" is a subject
    r"(?:financial|grant|funding) (?:support|disclosures?|information|sources?)(?: .*)?|"
    r"authors?'?s? (?:contributions?|details|information|affiliations?|notes?|disclosures?.*|statement)|"
    r"contributors?|contributorship(?: statement)?|credit author.*|disclosures?(?: statement)?|"
    r"(?:disclosure|declarations?|statement)s? of (?:(?:potential )?conflicts? of |(?:potential )?competing |\w+ )?"
    r"(?:interests?|funding|authorship)|"
    r"(?:potential |possible )?(?:conflicts? of|competing(?: financial)?|conflicting) interests?(?: .*)?|"
    r"pre-?publication history|references|bibliography|literature cited|further reading|"
    r"(?:electronic )?(?:supplement(?:ary|al)|supporting) (?:materials?|information|data|files?)(?: .*)?|"
    r"additional (?:files?|information)|data (?:availability|sharing|accessibility)(?: .*)?|"
    r"availability of (?:supporting )?data(?: .*)?|peer[ -]review(?! (?:of|for|in|as)\b)(?: .*)?|"
    r"provenance and peer review|"
    r"publisher'?s? (?:note|disclaimer)|consent for publication|generative ai statement|orcid(?: .*)?"
)
# In the body what is said of ethics and consent is a part of the methods, and supplements are what people take.
_NO_PROSE_BEHIND = re.compile(
    r"supplements?|ethic(?:s|al)(?: .*)?|(?:informed )?consent(?: .*)?|institutional review.*"
)
_STANDARD = re.compile(
    r"(?:abstract|summary|introduction|background|(?:materials?|patients|subjects)?(?: and )?methods|"
    r"(?:results(?: and )?)?(?:discussion)?|conclusions?|limitations|objectives?|aims?|case (?:report|presentation))"
)


@lru_cache(maxsize=4096)
def heading(words: str, *, behind: bool) -> tuple[str, bool]:
    """(a section's title as it is written, whether the section says nothing of the subject).

    `behind`: the section stands in the back matter.
    """
    plain = re.sub(r"^(?:[\divx]+\.)*[\divx]*[.)]?\s+(?=\w)", "", words.lower().replace("’", "'")).strip(" .:")
    drop = _NO_PROSE.fullmatch(plain) is not None
    if behind and plain not in ("declaration", "declarations"):  # whose parts are judged one by one
        drop = drop or _NO_PROSE_BEHIND.fullmatch(plain) is not None
    first = words.split(None, 1)[0]
    if words.isupper() and _STANDARD.fullmatch(plain):
        words = words.capitalize()
    elif first.islower() and first.isalpha() and len(first) > 2:
        words = words[0].upper() + words[1:]
    return words.rstrip(":"), drop
