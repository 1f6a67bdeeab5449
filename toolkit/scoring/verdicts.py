"""Options that a text calls right, most likely or the only one left, without the word "answer".

Decides which labels are judged so, also in a list that goes through all options; leaves plain statements to
`statements` and texts without any judgement to `conclusions`.
"""

from __future__ import annotations

import functools
import re

from toolkit.scoring.follows import Space, target

Found = tuple[int | None, str]  # an option's index and how it was found, or None and why not

_MOST = (
    r"(?:(?:the|a)\s+)?(?:single |only |clearly |indeed |therefore |thus |also |then |probably |likely |definitely |"
    r"our |my )*"
    r"(?:(?:most|best|more) )?(?:\w+ly )?(?:correct|right|best|likely|appropriate|accurate|suitable|consistent|"
    r"plausible|true|fitting|better|preferred|recommended|what (?:i|we)|"
    r"logical|answer|indicated)\b"
)
_IS = r"(?:is|would be|appears to be|appears|seems to be|seems|should be|must be|will be|remains|becomes|being)"
_AFTER = re.compile(rf"[)\].:]*([^.\n?;]{{0,160}}?)\b{_IS}\s+(?!not\b){_MOST}")
_UNDER = re.compile(r"\s*(?:if|for a|in a patient|when)\b")
_UNLIKE = re.compile(r"\b(?:not|no|in|less|incorrect|wrong|unlikely|if|neither|nor|least)\b")
_FITS = re.compile(
    r"[).]*\s+(?:(?:best |clearly |most closely )?(?:fits|explains|matches|answers)\s+(?:the \w+|best|all)|"
    r"remains?\b(?! [a-z]))"
)
_HINT = re.compile(
    r"(?:\b(?:is|be|are|was|being|seems|appears|remains|likely|indeed|thus|therefore|the|probably|with|leaving|leaves|"
    r"only|option|choice|"
    r"answer)|:|'s)[\s:\"'(\[]*$"
)
_WORD = r"(?:(?:option|choice|answer)\s+)?[\"'(\[]*$"
_ITS = re.compile(
    r"(?:^|[.!?:;,\n]\s*)(?:so |therefore,? |thus,? |hence,? )?(?:it|that|this)(?:'s| is| must be| has to be|"
    r" should be)\s+[\"'(\[]*"
    rf"{_WORD}"
)
_LEFT = re.compile(rf"\b(?:leaving|leaves|left with)\s+(?:us with\s+)?(?:only\s+)?{_WORD}")
_BEFORE = re.compile(
    r"\b(?P<much>most|more|best|correct|right|appropriate)\b[^.\n;?]{0,140}?(?:\b(?:is|be|are|was|being|seems|appears|"
    r"remains)|:)(?:\s*:)?\s*"
    r"(?:therefore |thus |likely |indeed |to be |the |probably )*[\"'(\[]*(?P<word>(?:option|choice|"
    r"answer)\s+)?[\"'(\[]*$"
)
_NEGATIVE = re.compile(r"\b(?:not|least|incorrect|less)\b")
_ARTICLE = re.compile(r"\s+(?!is\b|would\b|seems\b|appears\b|remains\b|fits\b|best\b|should\b|must\b)\w")
CORRECTS = (
    "wait",
    "actually",
    "correction",
    "second thought",
    "sorry",
    "apolog",
    "mistake",
    "error",
    "scratch that",
    "reconsider",
)
CORRECTS += ("evaluat", "let me re", "revis", "no,", "no.", "hold on", "hmm", "n't be right", "was wrong", "reflection")
_CORRECTS = re.compile(
    r"\bwait\b|\bactually\b|\bcorrection\b|on second thought|\bsorry\b|apologi[sz]e|my mistake|made an? (?:mistake|"
    r"error)|scratch that|"
    r"reconsider|re-?evaluat|let me re|\brevis(?:e|ed|ing)\b|\bno,|\bhold on\b|\bhmm+\b|n't be right|\bi was wrong\b|"
    r"\bon reflection\b"
)
CONCLUDES = re.compile(
    r"^(?:as|since|because)\b|\b(?:therefore|thus|hence|so|in conclusion|conclu\w+|overall|in summary|consequently|"
    r"finally|accordingly|ultimately|to sum|given|based on|"
    r"for these reasons|as a result|by elimination|process of elimination|which makes|making|this makes|leaves|"
    r"left with|best|final)\b"
)


def turn(low: str, at: int = 0) -> int | None:
    """Where a text takes back what it said, from `at` on, or None."""
    later = low[at:]
    for word in CORRECTS:
        if word in later:
            match = _CORRECTS.search(low, at)
            return match.start() if match else None
    return None


def line_labels(text: str) -> list[tuple[int, int, str]]:
    """(start, end, letter) of each line that begins with a label, or is one."""
    if text[:1] != "\n":
        return [(max(0, a - 1), b - 1, letter) for a, b, letter in line_labels("\n" + text)]
    return [(match.start(), match.end(), match[1].upper()) for match in _LINE_LABEL.finditer(text)]


_LINE_LABEL = re.compile(r"\n[ \t>|-]*(?:[Oo]ption |[Cc]hoice )?\(?([A-Ja-j])(?:[).:]|[ \t]*(?=\n|$))")


@functools.lru_cache(maxsize=64)
def _tokens(letters: str) -> re.Pattern[str]:
    return re.compile(rf"[{letters}](?![\w'-])|\([{letters.lower()}]\)")


def verdict(text: str, low: str, space: Space) -> Found | None:
    """The option that the text calls right or most likely; two different ones are two answers."""
    if not space.letters or space.words:
        return None
    seen: list[tuple[int, int]] = []
    for match in _tokens(space.letters).finditer(text):
        at, end = match.span()
        before = text[at - 1 : at]
        if before and (before.isalnum() or before in "_.'-"):
            continue
        letter = _judged(text, low, at, end, match[0].strip("()").upper(), space)
        if letter:
            seen.append((at, space.letters.index(letter)))
    seen += _in_list(text, low, space)
    for match in _LOWER.finditer(low) if not seen and "option " in low else ():
        seen += [(match.start(), "abcdefghij".index(match[1]))] if match[1].upper() in space.letters else []
    for match in _ORDINAL.finditer(low) if " option" in low or " choice" in low or " one is" in low else ():
        index = _ORDINALS.index(match[1])
        seen += [(match.start(), index)] if index < len(space.letters) else []
    for match in (
        _ALONE.finditer(text)
        if "only" in low or "but" in low or "except" in low or "than" in low or " it is" in low
        else ()
    ):
        if match["letter"] in space.letters:
            seen.append((match.start(), space.letters.index(match["letter"])))
    if not seen:
        return None
    seen.sort()
    last = seen[-1]
    if len({index for _, index in seen}) == 1:
        return last[1], "verdict"
    begun = max(low.rfind(". ", 0, last[0]), low.rfind("\n", 0, last[0])) + 1
    if CONCLUDES.search(low, begun, last[0] + 40) or turn(low[: last[0]]) is not None:
        return last[1], "verdict"
    return None, "two answers"


def _judged(text: str, low: str, at: int, end: int, letter: str, space: Space) -> str | None:
    """The letter that is called right around the label at `at`: itself, or one named after it in the sentence."""
    hint = _HINT.search(low, max(0, at - 16), at)
    if letter in "AI" and not (hint and "option" in hint[0]) and _ARTICLE.match(low, end):
        return None
    after = _AFTER.match(low, end)
    if after and not _UNLIKE.search(after[1]) and not _UNDER.match(low, after.end()):
        nearer = re.findall(rf"(?<![\w.'-])([{space.letters}])(?![\w'-])", text[after.start(1) : after.end(1)])
        return nearer[-1] if nearer else letter  # "D would help, but B is better"
    if _FITS.match(low, end):
        return letter
    if not hint:
        return None
    begun = max(0, at - 190)
    if _LEFT.search(low, begun, at):
        return letter
    if _ITS.search(low, begun, at):
        spot = target(text, at, space, bare=True)
        return letter if spot and isinstance(spot[0], int) and text[spot[1] : spot[1] + 1] != "?" else None
    much = _BEFORE.search(low, begun, at)
    if (
        much
        and not _NEGATIVE.search(much[0])
        and (much["word"] or text[at - 1] == "(" or text[end : end + 1] in (")", ".", ":"))
    ):
        return letter
    return None


_LOWER = re.compile(rf"\boption ([a-j])\s+{_IS}\s+(?!not\b){_MOST}")
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")
_ORDINAL = re.compile(
    rf"\bthe ({'|'.join(_ORDINALS)}) (?:(?:option|choice|one) is (?:the )?(?:correct|right|best|most)\b|"
    r"(?:option|choice)\W*$)"
)
_OF = r"(?:(?:option|choice|answer)\s+)?\(?"
# What is set apart from all others: "only B fits", "all but B are wrong", "B is the only one that ...", "B it is".
_ALONE = re.compile(
    rf"(?:\b[Oo]nly\s+{_OF}(?=[A-J]\)?\s+(?:is|makes|fits|can|remains|works|explains|matches|would)\b"
    r"(?! (?:not|wrong|incorrect|partly|partially))|[A-J]\W*$)"
    r"|\b(?:[Aa]ll|[Ee]very\w*|[Nn]one|[Nn]othing|[Nn]o)\b[^\n.;]{0,40}?\b(?:except|but|besides|other than|apart from)"
    rf"\s+(?:for\s+)?{_OF}(?=[A-J]\)?\s+(?:is|are|can|makes?|fits?|seems?|match(?:es)?)\b)"
    r"|(?<![\w.'-])\(?(?=[A-J]\)?\s+is the only\b"
    r"(?! (?:\w+ )?(?:wrong|incorrect|false|one that (?:is|does|can)(?:n't| not))))"
    r"|(?:^|[.!;]\s+|\bso )(?=[A-J] it is\b))(?P<letter>[A-J])"
)
_RIGHT = re.compile(
    r"\b(?:this|it|which|that)\s+(?:is|would be|must be|seems)\s+(?:therefore |thus |indeed |clearly )?(?:the |"
    r"a )?(?:single )?(?:most |best )?"
    r"(?:correct|right|best|likely|appropriate|answer|accurate)\b|(?:^\s*|[:.–—-]\s*)(?:correct|right)\b|✓|✅|✔"
)
_NOT_RIGHT = re.compile(r"\b(?:not|incorrect|wrong|isn't)\b")


def _in_list(text: str, low: str, space: Space) -> list[tuple[int, int]]:
    """Of options gone through line by line: those whose own words say that they are right."""
    lines = line_labels(text)
    if len(lines) < 2:
        return []
    found = []
    for i, (start, end, letter) in enumerate(lines):
        until = lines[i + 1][0] if i + 1 < len(lines) else low.find("\n\n", end)
        said = low[end : until if until >= 0 else len(low)]
        if letter in space.letters and _RIGHT.search(said) and not _NOT_RIGHT.search(said):
            found.append((start, space.letters.index(letter)))
    return found


_ENTRY = re.compile(
    r"(?:^|[\n|{,;(\"'.!?\]]|[.:;!?,✓✔✅❌✗✘]\s)\s*(?:[-•]\s+)?(?P<box>\[[ xX]\]\s*)?(?:[Oo]ption |[Cc]hoice )?[(\"']?"
    r"(?P<letter>[A-J])[)\"'.:]{0,2}(?=[\s|:✓✔✅❌✗✘-])"
)
_YES = r"\b(?:true|correct|right|yes)\b|[✓✔✅☑]|\[x\]"
_MARK = re.compile(
    rf"(?P<yes>{_YES})|\b(?:false|incorrect|wrong|no|not|cannot|unlikely|reject\w*|exclu\w+)\b|n't\b|[❌✗✘✖]|\[ \]"
)
_SIGN = re.compile("[✓✔✅☑]")


def marked(text: str, low: str, space: Space) -> int | None:
    """Of options gone through one by one, each marked right or wrong, the only one that is marked right.

    As lines, in one sentence, in a table, with boxes to tick or as JSON ({"A": false, "B": true}).
    """
    if not space.options or space.words or not ("B" in text and "C" in text):
        return None
    words = "true" in low or "correct" in low or "right" in low or "yes" in low or "[x]" in low
    if not words and (text.isascii() or not _SIGN.search(text)):
        return None
    if any(_MARK.search(option) for option in space.texts()):
        return None  # options that sound like a judgement
    entries = [entry for entry in _ENTRY.finditer(text) if entry["letter"] in space.letters]
    letters = [entry["letter"] for entry in entries]
    if len(set(letters)) != len(letters) or letters != sorted(letters) or len(letters) < min(3, len(space.letters)):
        return None
    right = []
    for entry, until in zip(entries, [*(entry.start() for entry in entries[1:]), len(low)], strict=True):
        said = (entry["box"] or "").lower() + low[entry.end() : until].partition("\n\n")[0]
        mark = _MARK.search(said)
        if mark is None or (mark[0] in ("yes", "no") and not re.search(r"\w", said[: mark.start()])):
            return None  # not marked, or "A. Yes", which may be an option's text
        if mark["yes"]:
            right.append(space.letters.index(entry["letter"]))
    return right[0] if len(right) == 1 else None
