"""Takes out of a text what points at a person: mail addresses, lines of correspondence, authors' affiliations.

Decides what such a line looks like; what guidelines tell patients to call or to write to in a sentence stays.
"""

from __future__ import annotations

import re

RULES = {
    "mail": "mail addresses, taken out of their sentences",
    "correspondence": "lines that say how to reach an author, taken out",
    "affiliation": "lines of authors' affiliations between a title and its text, taken out",
}

# Affiliations stand between a title and the text. Where that has begun, such a line is a study's setting.
_BEGINS = re.compile(r"#|(?:abstract|summary|introduction|background|objectives?|aims?|purpose|overview)\b", re.I)
_SENTENCE = 8  # words, that end with a full stop, begin the text too
HEAD = 40  # lines in which affiliations are looked for: further down such a line may be the matter itself
_EXCERPT = 160
_LONGEST = 600  # characters of a line that is nothing but correspondence or affiliation
_LOCAL = 64  # characters of the local part of an address, the longest that mail knows (RFC 5321)

_LETTERS = "A-Za-zÀ-ÖØ-öø-ɏ"  # Latin ones: those of a script without blanks could be words before the address
_DOMAIN = re.compile(
    rf"@(?:[{_LETTERS}0-9](?:[{_LETTERS}0-9-]{{0,62}})\.){{1,8}}[{_LETTERS}]{{2,24}}(?![{_LETTERS}0-9-])"
)
_LOCAL_PART = re.compile(rf"[{_LETTERS}0-9._%+'-]+$")
_SPELT = re.compile(
    r"\b[A-Za-z0-9._%+-]{2,64}\s?[\[({]\s?at\s?[\])}]\s?(?:[A-Za-z0-9-]{1,63}(?:\.|\s?[\[({]\s?dot\s?[\])}]\s?)){1,6}[A-Za-z]{2,24}\b",
    re.I,
)
GAP = "\ue001"  # stands where an address was until its brackets and what leads to it are gone
# Blanks are counted out: any number of them in front of a mark would be looked at again from each of them.
_S = r"\s{0,3}"
_GAPS = rf"{GAP}(?:{_S}(?:(?:[,;/]|or|and){_S})?{GAP})*"
_MAIL = rf"(?:(?:e-?mails?|electronic mail|mail|contact|correspondence)(?:\s{{1,3}}address(?:es)?)?{_S}[:;-]?{_S})?"
_IN_BRACKETS = re.compile(rf"{_S}[(\[<{{]{_S}{_MAIL}(?:mailto:)?{_GAPS}{_S}[)\]>}}]", re.I)
_LED = re.compile(rf"(?<![\w-])(?:e-?mails?|electronic mail)(?:\s{{1,3}}address(?:es)?)?{_S}[:;-]{_S}{_GAPS}", re.I)
_TO = r"(?:\b(?:at|to|via|by|from|and|or|on)[ \t]{1,3})?"
_LEFT = re.compile(rf"[ \t]{{0,3}}{_TO}{_GAPS}(?=[ \t]{{0,3}}(?:[.,;)\n]|$))|{_TO}{_GAPS}[ \t]{{0,3}}", re.I)

# One of these stands in every text that has a line of correspondence; looking for them costs next to nothing.
_HINTS = ("orrespond", "ORRESPOND", "eprint", "EPRINT", "mail", "MAIL", "ax:", "AX:", GAP)
_ADDRESSED = re.compile(
    r"^\W{0,4}(?:(?:please\s+)?(?:address|send)\s+)?(?:all\s+)?"
    r"(?:correspondence|reprint requests?|requests for reprints)"
    r"(?:\s+(?:and|or)\s+(?:reprint requests?|requests for reprints|offprints?))?"
    r"(?:\s+(?P<sure>(?:should|may|can) be (?:addressed|sent|directed|made) to)\b|\s+to\b\s*:?|\s*:)"
    r"|^\W{0,4}(?:corresponding authors?|author for correspondence|for correspondence)"
    r"(?:\s*[:.,;*†–-]|\s+(?:at|is)\b|\s*$)"
    r"|^\W{0,4}(?:e-?mail|electronic mail)(?:\s+address(?:es)?)?\s*:|^\W{0,4}(?:tele)?fax(?:\s*(?:no|number))?\.?\s*:",
    re.I,
)
_REACHED = re.compile(
    r"\b(?:department|dept|division|universit\w*|hospital|institut\w*|school|faculty|college|cent(?:er|re)|clinic|street|avenue"
    rf"|road|box|(?:tele)?fax|tel|phone|e-?mail|M\.?D|Ph\.?D|Dr|Prof)\b|[@{GAP}]|\+\d{{1,3}}[ -]?\(?\d",
    re.I,
)
_NUMBER = re.compile(
    r"^\W{0,4}(?:tel|telephone|phone|mobile|(?:tele)?fax)(?:\s*(?:no|number))?\s*[.:]*\s*[+(]?\d[\d\s()+./-]{5,40}$",
    re.I,
)
_NEAR = 3  # lines: a telephone number that near to a line of correspondence belongs to it; others are a service's
_FEW = 6  # words of a line that is hardly more than an address

_UNIT = re.compile(
    r"^(?:[\d*†‡§¶#]{1,3}[.)\]]?\s*|[a-h]\s+|[(\[]?[\da-h][)\]]\s*|\W{1,3})?(?:from (?:the )?)?(?:"
    r"(?:department|dept\.?|division|div\.?|section|unit|school|faculty|institut[eo]?|laborator(?:y|ies)|lab|college"
    r"|cent(?:er|re)|service|clinics?|hospital|chair|graduate school|programme?|universit\w+)\b"
    r"|[\w’'.&-]+(?:\s+[\w’'.&-]+){0,6}\s+"
    r"(?:university|hospital|institute|clinic|college|medical (?:school|cent(?:er|re)))\b)",
    re.I,
)
# A sentence says something of its subject; an address does not.
_SAYS = re.compile(
    r"\b(?:is|are|was|were|be|been|has|have|had|do|does|did|can|could|may|might|must|should|will|would|offers?|provides?"
    r"|recommends?|includes?|requires?|treats?|admits?|suggests?|who|which|that|patients?|if|when|not)\b|[?!]",
    re.I,
)
_COUNTRIES = (
    "USA|U.S.A|UK|United States|United States of America|United Kingdom|Canada|Australia|New Zealand|Germany|France"
    "|Italy|Spain|Portugal|Switzerland|Austria|Belgium|Netherlands|Sweden|Norway|Denmark|Finland|Ireland|Poland|Greece"
    "|Turkey|Israel|Iran|India|Pakistan|Bangladesh|China|Japan|Korea|Taiwan|Thailand|Singapore|Malaysia|Vietnam|Indonesia"
    "|Philippines|Brazil|Argentina|Chile|Mexico|Colombia|Peru|Egypt|Nigeria|Kenya|Uganda|Tanzania|Ethiopia|Ghana"
    "|South Africa|Saudi Arabia|Russia|Ukraine|Hungary|Czech Republic|Romania|England|Scotland|Wales"
)
_PLACE = re.compile(
    rf"(?:{_COUNTRIES.replace('.', '[.]')}|[A-Z]{{2}} \d{{5}}(?:-\d{{4}})?|[A-Z]\d[A-Z] \d[A-Z]\d)\W*$"  # and postcodes
)


def remove(body: str) -> tuple[str, list[tuple[str, str]]]:
    """`body` without personal data, and (rule, masked sample) of what was taken out, each rule once."""
    found: dict[str, str] = {}
    marked = _marked(body, found) if "@" in body or "(at)" in body or "[at]" in body else body
    lines = marked.split("\n")
    gone = _affiliations(lines) | (_correspondence(lines) if any(hint in marked for hint in _HINTS) else {})
    if gone:
        for index, rule in sorted(gone.items()):
            found.setdefault(rule, masked(lines[index].replace(GAP, "[…]")[:_EXCERPT]))
        marked = "\n".join(line for index, line in enumerate(lines) if index not in gone)
    if not found:
        return body, []
    return close_gaps(marked), list(found.items())


def close_gaps(marked: str) -> str:
    """A text in which `GAP` stands for each address without them, the brackets around them and what leads to them."""
    return _LEFT.sub("", _LED.sub("", _IN_BRACKETS.sub("", marked))) if GAP in marked else marked


def _correspondence(lines: list[str]) -> dict[int, str]:
    gone = {index for index, line in enumerate(lines) if len(line) <= _LONGEST and _is_correspondence(line)}
    near = gone | {index for index, line in enumerate(lines) if GAP in line and len(line.split()) <= _FEW}
    if near:
        around = {index + step for index in near for step in range(-_NEAR, _NEAR + 1) if 0 <= index + step < len(lines)}
        gone |= {index for index in around if len(lines[index]) <= _LONGEST and _NUMBER.match(lines[index])}
    return dict.fromkeys(gone, "correspondence")


def _is_correspondence(line: str) -> bool:
    found = _ADDRESSED.match(line)
    if found is None or found["sure"]:
        return found is not None
    reached = _REACHED.search(line) or found[0].rstrip().endswith(":")
    return bool(reached and (GAP in line or not _SAYS.search(line)))


def _affiliations(lines: list[str]) -> dict[int, str]:
    """Affiliations stand below a title, so the first line is none."""
    gone, seen = {}, 0
    for index, line in enumerate(lines):
        if not line:
            continue
        if seen and len(line) <= _LONGEST and "," in line and _is_affiliation(line):
            gone[index] = "affiliation"
        elif seen and (_BEGINS.match(line) or (line[-1] in ".?!" and len(line.split()) >= _SENTENCE)):
            break
        seen += 1
        if seen == HEAD:
            break
    return gone


def _is_affiliation(line: str) -> bool:
    if not _UNIT.match(line) or _SAYS.search(line):
        return False
    if _PLACE.search(line):
        return True
    words = [word for word in re.findall(r"[^\W\d_]{4,}", line) if word.lower() not in ("with", "from")]
    names = sum(word[0].isupper() for word in words)
    return line.count(",") >= 2 and names >= 0.8 * len(words) and "." not in line[:-1]


def masked(sample: str) -> str:
    """`sample` with the local parts of mail addresses hidden, for reports."""
    return re.sub(rf"[{_LETTERS}0-9._%+'-]{{1,64}}(?=@[{_LETTERS}0-9-]{{1,63}}\.)", "…", sample)


def _marked(body: str, found: dict[str, str]) -> str:
    """Addresses replaced by a mark. Looked for from the sign on and back from it: a search for the part before the sign
    would take quadratic time on a long run of letters without one.
    """
    pieces, done = [], 0
    for domain in _DOMAIN.finditer(body):
        local = _LOCAL_PART.search(body[max(done, domain.start() - _LOCAL) : domain.start()])
        if local is None or local[0] == "git":  # git@host:path names a repository
            continue
        start = domain.start() - len(local[0].lstrip("'.-"))
        if start == domain.start():
            continue
        found.setdefault("mail", _around(body, start, domain.end()))
        pieces += [body[done:start], GAP]
        done = domain.end()
    body = "".join([*pieces, body[done:]])
    if "(at)" in body or "[at]" in body:
        for spelt in _SPELT.finditer(body):
            found.setdefault("mail", _around(body, spelt.start(), spelt.end()))
        body = _SPELT.sub(GAP, body)
    return body


def _around(body: str, start: int, end: int) -> str:
    before = body[max(0, start - _EXCERPT // 2) : start].rpartition("\n")[2]
    return masked(f"{before}[…]{body[end : end + _EXCERPT // 2].partition(chr(10))[0]}".replace(GAP, "[…]"))
