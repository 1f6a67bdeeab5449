"""Texts that never say "the answer is": a last line, a concluding sentence, an option's own words, or nothing.

Decides what such a text comes to and, when that is nothing, why; all of it errs on the side of invalid.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence

from toolkit.scoring import option_text
from toolkit.scoring.follows import ASIDE, EPITHET, OUTSIDE, SEVERAL, Space, target, without_lists
from toolkit.scoring.verdicts import CONCLUDES, Found, line_labels, verdict

_NEAR = re.compile(
    r"\b(?:most|likely|best|consistent|diagnosis|suggest\w*|indicat\w+|should|risk|cause[ds]?|due to|answer|correct|"
    r"appropriate|therefore|"
    r"thus|hence|so|characteristic|typical|classic|points? to|conclu\w+|produced|is the|treatment|next step)\b"
)
_REST = re.compile(rf"(?:{ASIDE.pattern})(?!\s+\(?[A-J]\b)[^.\n;]*")  # what is set against the answer
_CONTRAST = re.compile(r"\b(?:instead|whereas|while|by contrast|in contrast|on the other hand)\b", re.I)
_REFUSES = (
    "can't",
    "cannot",
    "unable",
    "not able",
    "sorry",
    "apolog",
    "an ai",
    "language model",
    "not know",
    "n't know",
    "not have",
    "n't have",
)
_REFUSES += (
    "not enough",
    "insufficient",
    "none of",
    "no correct",
    "no right",
    "not listed",
    "not provided",
    "not possible",
    "consult",
    "n/a",
    "won't",
)
_REFUSAL = re.compile(
    r"\b(?:i (?:can(?:no|')t|am (?:not able|unable)|do(?:n't| not) (?:know|have)|will not|won't)|i'm (?:not able|"
    r"unable|sorry)|as an ai|"
    r"language model|i apologi[sz]e|sorry|cannot (?:be )?(?:determine|answer|provide)\w*|can't (?:determine|answer|"
    r"provide)|unable to|"
    r"insufficient (?:information|data|evidence)|not enough (?:information|data)|none of the (?:above|options|answers|"
    r"choices|given)|"
    r"no (?:correct|right) answer|not (?:listed|provided|possible to)|consult (?:a|your|with)|n/a)\b"
)
_DENIES = re.compile(
    r"\b(?:not|no|never|incorrect|unlikely|wrong|rules? out|ruled out|eliminate[ds]?|exclude[ds]?|less|"
    r"contraindicated|n't)\b|n't\b"
)
_DENIED_LABEL = re.compile(
    r"\b(?:not|incorrect|unlikely|wrong|rules? out|ruled out|eliminate[ds]?|exclude[ds]?)\b|n't\b"
)
IF = re.compile(r"\b(?:if|unless|were|had|assuming|suppos\w+|hypothetical\w*|in case)\b")
_BREAK = re.compile(r"(?<!\b[a-z]\.[a-z])[.!?]\s+(?=[A-Z(\"'])")
_LAST = 6  # sentences that may conclude
_FULL = re.compile(r"[.!?)\"'\]:]\s*$")
_ITEM = re.compile(r"\W*(?:[Oo]ption |[Cc]hoice )?\(?[A-Ja-j][).:]\s")


def listing(text: str, space: Space) -> bool:
    """Whether the text begins by going through the options in order: A ..., B ..., and so on."""
    lines = line_labels(text)
    order = [letter for _, _, letter in lines]
    if len(order) > 1 and order[:2] == list(space.letters[:2]) and not text[: lines[0][0]].strip():
        return True
    inline = _INLINE.findall(" " + text[:600] + " ")
    return len(inline) > 2 and inline[:3] == list(space.letters[:3])


_INLINE = re.compile(r"[\s{,][\"'(]?([A-J])[\"').:]{0,2}(?=\s)(?!\s+(?:is|was|are|were|would|can|cannot|could|does)\b)")


@functools.lru_cache(maxsize=64)
def _label(letters: str) -> re.Pattern[str]:
    """Labels as they are marked in prose: option B, (B), B), B. and B at the end."""
    return re.compile(
        rf"(?:(?i:option|choice|answer)\s+[(\"']?|(?<!\w)\()([{letters}])(?![\w'])\)?"
        rf"|(?<![\w.'-])([{letters}])(?:[).:,;](?=\s|$)|(?=\s*$))"
    )


@functools.lru_cache(maxsize=64)
def _denied(letters: str) -> re.Pattern[str]:
    """Labels that are said not to be it: "not A or C", "rule out A, B and D"."""
    label = rf"(?:option |answer )?\(?[{letters}]\)?(?![\w'])"
    words = r"not|n't|rul(?:e|es|ed|ing) out|eliminat(?:e[ds]?|ing)|exclud\w+|except|neither|incorrect \w+ (?:is|are)"
    words += r"|(?:can't|cannot|can not|isn't|won't|couldn't) be"
    more = rf"(?:(?:,\s*(?:and |or )?|\s+(?:and|or|nor)\s+){label})*"
    return re.compile(rf"(?i:\b(?:{words})):?\s+(?:options? |answers? )?{label}{more}")


@functools.lru_cache(maxsize=64)
def _joined(letters: str) -> re.Pattern[str]:
    one = rf"([{letters}])(?![\w'])"
    return re.compile(rf"(?<![\w'.-]){one}(?:,\s*[{letters}]\b)*,?\s*(?:\band\b|\bor\b|/|&)\s*\(?{one}(?!-)")


def _labels(text: str, space: Space) -> list[str]:
    """The different labels marked in `text`, without lists of all of them and without those that are denied."""
    text = _denied(space.letters).sub(" ", without_lists(text, space))
    joined = _joined(space.letters).search(text)
    if joined and joined[1] != joined[2]:
        return [joined[1], joined[2]]
    found = _label(space.letters).finditer(text)
    return list(dict.fromkeys(m[1] or m[2] for m in found if not (m[2] and EPITHET.match(text, m.end() - 1))))


def conclusion(text: str, low: str, space: Space, apart: Callable[[int, int], bool]) -> Found:
    """What a text without a plain statement comes to. `apart(start, end)` says that a place is a mere supposition."""
    if not text.strip():
        return None, "empty"
    lines = [line for line in text.strip().splitlines() if line.strip()]
    found = _whole(text, lines, space) or _last_line(lines, space) or verdict(text, low, space)
    if found:
        return found
    if any(word in low for word in _REFUSES) and _REFUSAL.search(low) and not _names_refusal(text, space):
        return _nevertheless(text, space) or (None, "refusal")
    parts = _sentences(text.strip())
    found = _best(text, low, space, apart) or _praised(parts, space) or _last_words(parts, space)
    if found:
        return found
    if listing(text.lstrip(), space):
        return None, "options only listed"
    if not _FULL.search(text[-40:]) and len(parts) > 1:
        return None, "cut short"
    return _lone(text, parts, space) or (None, "none")


_BUT = re.compile(r"\b(?:but|however|nevertheless|that said|for exam purposes)\b", re.I)


def _nevertheless(text: str, space: Space) -> Found | None:
    """The one label after a refusal that goes on with "but"."""
    rest = _BUT.split(text)
    if space.words or len(rest) < 2 or _REFUSAL.search(rest[-1].lower()) or _DENIED_LABEL.search(rest[-1].lower()):
        return None
    labels = _labels(rest[-1], space)
    return (space.letters.index(labels[0]), "conclusion") if len(labels) == 1 else None


def _names_refusal(text: str, space: Space) -> bool:
    """Whether it is an option's text that sounds like a refusal: "cannot be determined"."""
    own = [i for i, option in enumerate(space.options) if _REFUSAL.search(option.lower())]
    return bool(own) and any(i in own for i in option_text.named(text, space.texts()))


def _sentences(text: str) -> list[str]:
    """The last sentences, in their order: what a text comes to is not said further up."""
    parts: list[str] = []
    for line in reversed(text.splitlines()):
        mine, begun = [], 0
        for match in _BREAK.finditer(line):
            mine.append(line[begun : match.start() + 1].strip())
            begun = match.end()
        parts[:0] = [part for part in [*mine, line[begun:].strip()] if part]
        if len(parts) > _LAST:
            break
    return parts


def _whole(text: str, lines: Sequence[str], space: Space) -> Found | None:
    """A text, or its first line, that is an option's text or a number and no more."""
    first = lines[0]
    if space.words or len(first) > 400 or (len(lines) > 1 and listing(text.lstrip(), space)):
        return None
    own = f" {' '.join(option_text.words(first))} "
    texts = space.texts() if space.options else []
    if own in texts:
        rest = {f" {' '.join(option_text.words(line))} " for line in lines[1:]}
        return (None, "options only listed") if rest & (set(texts) - {own}) else (texts.index(own), "text")
    low = first.lower()
    if len(lines) > 1 or len(first.split()) > 40:
        return None
    if IF.search(low) and not any(IF.search(text) for text in texts):
        return None
    if _REFUSAL.search(low) and not _names_refusal(first, space):
        return None
    spot = target(first, 0, space)
    if spot is None or not isinstance(spot[0], int) or spot[2] not in ("text", "number"):
        return None
    first = _NUMBERED.sub("", first)
    mine = option_text.words(first)
    if spot[2] == "text" and mine[0] not in texts[spot[0]].split() and len(" ".join(mine)) > len(texts[spot[0]]) + 2:
        return None  # it is somewhere in the sentence, which is for `_lone` to judge
    if spot[2] == "text" and _SAID_NOT.match(f" {' '.join(mine)} ".partition(texts[spot[0]])[2]):
        return None
    others = [i for i in option_text.named(_CONTRAST.split(ASIDE.split(first)[0])[0], texts) if i != spot[0]]
    others = [i for i in others if spot[2] != "text" or texts[i] not in texts[spot[0]]]
    if others and spot[2] == "text":
        said = _REASON.split(first)[0]
        others = [] if said != first and option_text.meant(said, texts) == spot[0] else others
    return (spot[0], "text") if not others else None


_SAID_NOT = re.compile(
    r"(?:\w+ )?(?:is|would be|should|can|could|was|are|d[eo]s?|will|may|might|seem) (?:not|incorrect|wrong|unlikely|"
    r"contraindicated|false|less)\b"
)
_REASON = re.compile(r"[,;:.]?\s+(?:because|since|as|due to|given that)\b")  # the answer stands before it
_NUMBERED = re.compile(r"^\W*\d{1,2}[.):]\s+(?=\w)")


def _last_line(lines: Sequence[str], space: Space) -> Found | None:
    """An answer alone on the last line, as models that reason first often end."""
    if len(lines) < 2 or listing("\n".join(lines[-max(len(space.letters), 2) :]), space):
        return None
    spot = target(lines[-1], 0, space, bare=True)
    if spot is None or spot[0] == OUTSIDE:
        return None
    if spot[0] == SEVERAL:
        return None, "two answers"
    rest = lines[-1][spot[1] :].strip(" .)]}\"':*")
    if rest and spot[2] == "word":
        return None
    if rest and not (space.options and option_text.meant(rest, space.texts()) == spot[0]):
        return None
    before = [letter for _, _, letter in line_labels("\n".join(lines[:-1]))]
    if rest and (len(before) > 1 or before == list(space.letters[: int(spot[0])])):
        return None if before else (int(spot[0]), "line")  # the last of a list
    return int(spot[0]), "line"


_BEST = re.compile(
    r"(?:best|most (?:likely|appropriate|probable|suitable|consistent|accurate)|correct|preferred|first-line|"
    r"of choice|recommended|safest|causative|responsible|"
    r"next step|diagnosis|underlying cause|likely cause)\b[^.\n?;]{0,120}?\b(?:is|would be|should be|must be|was|are|"
    r"be)"
    r"(?:\s+(?:likely|probably|therefore|thus|most likely|to))*:?\s+"
)
_NOT = re.compile(r"not\b")


def _best(text: str, low: str, space: Space, apart: Callable[[int, int], bool]) -> Found | None:
    """The option that the last sentence of the kind "the best treatment is ..." goes on with."""
    if not space.options:
        return None
    found = None
    for match in _BEST.finditer(low):
        at, end = match.span()
        if low[at - 1 : at].isalpha() or _NOT.match(low, end) or apart(at, end):
            continue
        spot = target(text, end, space)
        if spot and spot[2] == "text" and isinstance(spot[0], int):
            found = spot[0], "conclusion"
    return found


_PRAISE = re.compile(
    r"(?:\w )?(?:is|would be|should be) (?:the |therefore |thus |what is |clearly )*(?:single )?(?:best|correct|"
    r"right|recommended|preferred|needed|most (?:likely|appropriate)|answer|(?:first line |\w+ )?treatment of choice|"
    r"drug of choice)\b(?! answer if| only if| if )"
)


def _praised(parts: Sequence[str], space: Space) -> Found | None:
    """The one option of which the last sentences say that it is right or recommended."""
    if not space.options or space.words:
        return None
    found = set()
    for part in parts[-2:]:
        said = f" {' '.join(option_text.words(part))} "
        if part.rstrip().endswith("?") or IF.search(part.lower()):
            continue
        for i in option_text.named(part, space.texts()):
            own = space.texts()[i]
            found |= {i} if _PRAISE.match(said, said.find(own) + len(own)) else set()
    return (found.pop(), "conclusion") if len(found) == 1 else None


def _last_words(parts: Sequence[str], space: Space) -> Found | None:
    """The label, word or option that the last concluding sentence names."""
    for i, part in enumerate(reversed(parts[-_LAST:])):
        low = part.lower()
        if not CONCLUDES.search(low) or low.rstrip().endswith("?") or _ITEM.match(part) or IF.search(low):
            continue
        if space.words:
            seen = {(a or b) for a, b in _SPOKEN.findall(low)}
            if len(seen) == 1:
                return space.words[seen.pop()], "conclusion"
            continue
        if i == 0 and len(parts) > 1 and len(part) > 60 and not _FULL.search(part):
            continue  # it may have been cut before it came to the point
        part = ASIDE.split(part)[0]
        then = _THEN.split(part)[-1]
        labels = _labels(then, space)
        part, labels = (then, labels) if labels else (part, _labels(part, space))
        if len(labels) > 1:
            return None, "two answers"
        if labels and not _DENIED_LABEL.search(_denied(space.letters).sub(" ", part).lower()):
            return space.letters.index(labels[0]), "conclusion"
        index = _text_in(part, space)
        if index is not None:
            return index, "conclusion"
    return None


_SPOKEN = re.compile(r"\b(yes|maybe)\b|(?:,|is|:)\s*(no)\b(?=\W*$|[.,])")


_THEN = re.compile(r"\b(?:[Ss]o|[Tt]herefore|[Tt]hus|[Hh]ence|leav(?:es|ing))\b")


_VERB = re.compile(r"\b(?:is|was|are|were|would|should|can|could|does|do|will|may|might|has|have)\s*$")


def _text_in(part: str, space: Space) -> int | None:
    """The one option that a sentence names by its text and does not deny."""
    if not space.options:
        return None
    part, *aside = ASIDE.split(part)
    if aside and _VERB.search(part.lower()):
        return None  # "aspirin is | not responsible"
    found = option_text.named(part, space.texts())
    index = found[0] if len(found) == 1 else None if found else option_text.near(part, space.texts())
    if index is None:
        return None
    own, said = space.texts()[index], part.lower()
    if _DENIES.search(own):  # an option that is itself a denial: no change
        said = f" {' '.join(option_text.words(part))} ".replace(own, " ")
    return None if _DENIES.search(said) else index


_WHICH = re.compile(r"\b(?:is|be|pick|choose|select|prefer|say|favou?r|with|for)\s+the (former|latter)\b")
_DENIED_WORD = re.compile(r"\b(?:not|neither|nor)\s+(?:an?\s+)?(?:\w+\s+)?[\"']?(?:yes|no|maybe)\b")
_ASKS = re.compile(r"[^.!?\n]{0,200}\?")
_UNDER = re.compile(r"\W*(?:[Ii]f|[Uu]nless)\b")
_COUNTED = re.compile(r" (?:option|choice|number|statement|answer) ")


def _lone(text: str, parts: Sequence[str], space: Space) -> Found | None:
    """The only label in a short text, or the only option that its last sentence names."""
    low = text.lower()
    short = len(text.split()) < 60 and not low.rstrip().endswith("?")
    if space.words:
        low = _DENIED_WORD.sub(" ", low)
        seen = {match for match in re.findall(r"\b(?:yes|maybe)\b|\b(?<!with )no(?=[\s\"']*(?:[.,;!]|$))", low)}
        return (space.words[seen.pop()], "text") if short and len(seen) == 1 else None
    if len(parts) == 1 and IF.search(low):
        return None
    if short:
        labels = _labels(_ASKS.sub(" ", _REST.sub(" ", text)) if "?" in text else _REST.sub(" ", text), space)
        if len(labels) > 1:
            which = _WHICH.search(low) if len(labels) == 2 else None
            return (space.letters.index(labels[which[1] == "latter"]), "text") if which else (None, "two answers")
        if labels and not _DENIED_LABEL.search(_denied(space.letters).sub(" ", _REST.sub(" ", text)).lower()):
            return space.letters.index(labels[0]), "text"
    last = [part for part in parts[-2:] if not _CONTRAST.search(part)][-1:]
    said = last and not _ITEM.match(last[0]) and (len(parts) == 1 or not _UNDER.match(last[0]))
    index = _text_in(last[0], space) if said else None
    if index is not None:
        said = f" {' '.join(option_text.words(last[0]))} "
        own = space.texts()[index]
        brief = len(said.split()) <= 8 and len(parts) == 1 and not (own.strip().isdigit() and _COUNTED.search(said))
        alone = said == own and not any(f" {' '.join(option_text.words(one))} " in space.texts() for one in parts[:-1])
        if _NEAR.search(said) or f" is{own}" in said or brief or alone or (short and len(own.split()) > 1):
            return index, "text"
    return None
