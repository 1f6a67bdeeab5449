"""Sentences that state an answer, such as "the answer is (C)", found from the end of a text.

Decides what counts as stating, and for which answer; leaves which of several statements is the last word to `extract`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from toolkit.scoring.follows import SEVERAL, Space, target


@dataclass(frozen=True)
class Statement:
    """`answer` is an index, OUTSIDE or SEVERAL; the text from `start` to `end` states it, `cue` are its first words."""

    start: int
    end: int
    answer: int | str
    cue: str
    how: str
    negated: bool = False
    loose: bool = False  # would be, could be, might be


_FILLERS = (
    r"(?:[\s\"'(\[{<:>=,–—-]*\b(?:not|most|more|likely|probably|clearly|definitely|indeed|therefore|thus|hence|"
    r"actually|really|simply|"
    r"still|best|correctly|correct|also|given|represented|described|provided|by|as follows|as|that|the|to be|to|"
    r"would be|"
    r"following|undoubtedly|certainly|obviously|presumably|i think|i believe|is|in fact|again)\b)*"
)
_COPULA = (
    r"(?:(?:,\s*)?(?:then|therefore|thus|hence|so|i think|i believe|in my opinion|clearly|likely|here|in this case|"
    r"below|above)?[\s,]*"
    r"(?P<verb>is|was|are|be|would(?: \w+ly| therefore| then| thus)? be|should(?: \w+ly)? be|will(?: \w+ly)? be|"
    r"must be|could be|can be|may be|"
    r"might be|has to be|seems(?: to be)?|appears to be|remains|becomes|can't be|cannot be|can not be|isn't|"
    r"wouldn't be|must|shall be)\b"
    r"(?:\s*[:=>–—-]+)?|\s*[\"']?\s*(?P<sign>:|=|\|(?=[ \t]*[^\s|])|->|=>|→|⇒|–|—|-(?=\s))[:=>]*|(?P<line>[ \t]*\n))"
)
_NOUN = (
    r"(?:[ _-]?(?:choice|option|letter|key|text|index|idx|number|code|selection|label|is correct|statement))?[\"']?"
    r"(?:\s*\((?!\W*[a-zA-Z]\W*\))[^()\n]{0,80}\))?"
    r"(?:\s+(?:to|for|of|in|among|from|out of|based on|given|according to|regarding|i would|i'd)\b[^.:\n]{0,120}?)?"
)
_ANSWER = re.compile(rf"answer(?P<many>s)?{_NOUN}\s*{_COPULA}{_FILLERS}")
_DIRECT = re.compile(
    r"(?:answer|option|choice)(?:[ _-](?:choice|option|letter))?\s*(?=[(\[\"']?[a-z][)\]\"'.:,]|[a-z]\s*(?:\n|$)|\n)"
)
_OTHER = re.compile(
    r"(?:option|choice|response|alternative|decision|conclusion|prediction|selection|verdict|judg[e]?ment|one|letter|"
    r"solution|label|pick)"
    rf"{_NOUN}\s*{_COPULA}{_FILLERS}"
)
_ADJECTIVE = re.compile(
    r"(?:correct|best|right|first|final|likely|appropriate|suitable|accurate|chosen|selected|closest|only|logical|"
    r"plausible|my|our|your|the|matching|preferred|"
    r"[\"'{_]|(?:^|\n)\W*|1st|safer|better|\w+est|overall|fitting|single|reasonable|\bmodel)[\s_\"']*$"
)
_WRONG = re.compile(
    r"(?:(?:in|un)correct|(?:wrong|worst|second|third|next best|2nd|3rd|other|another|not the|isn't the|eliminated?|"
    r"incorrect \w+|least)(?:\s+\w+)?)[\s_-]*$"
)
_VERB = re.compile(
    r"(?:choose|chose|select(?:ed)?|pick(?:ed)?|go with|going with|went with|opt for|opting for|guess|would say|d say|"
    r"ll say|settle on|"
    rf"lean(?:ing)? towards?|vote for|conclude|stick with|answer with)(?:\s+(?:answer|option|"
    rf"choice))?(?:\s+(?:would be|is))?{_FILLERS}"
)
_BY_ME = re.compile(
    r"(?:^|[\n.:;,>]|\b(?:i|we|i'd|i'll|we'd|we'll|i'm|am|would|will|and|so|therefore|thus|hence|let's|let us|to|must|"
    r"should|can|confidently|finally))\s*$"
)
_NOT_I = re.compile(r"(?:\byou|\bthey|students?|\bnot|n't|never|people|many|some|others?|please)\s*(?:\w+\s+)?$")
_FOREIGN = re.compile(
    r"(?:r[ée]ponse|respuesta|antwort|risposta|resposta|ответ\w*|cevap|odpowied[zź]|答案|答え|解答|正解|选择|選擇|选|選|정답|답|الإجابة|"
    r"الجواب|उत्तर|svar|antwoord|"
    r"jawaban|đáp án)(?:\s+(?:correcta|correcte|correta|corretta|richtige|final\w*|правильный|الصحيحة|est|es|è|é|ist|"
    r"lautet|dir))*"
    r"[\s\"']*(?:est|es|è|é|ist|lautet|is|是|为|為|は|은|는|:|=|-)?[\s:\"']*(?:la|die|das|der|l'|option|opción|opção)?"
)
OTHERS = (
    "option",
    "choice",
    "response",
    "alternative",
    "decision",
    "conclusion",
    "prediction",
    "selection",
    "verdict",
    "pick",
    "letter",
)
# Verbs by a part that they share, which is looked for first.
VERBS = {
    "cho": ("choose", "chose"),
    "select": ("select",),
    "pick": ("pick",),
    " with": ("go with", "going with", "went with", "stick with"),
    " for": ("opt for", "opting for", "vote for"),
    "guess": ("guess",),
    " say": ("would say", "'d say", "'ll say"),
    "ettle on": ("settle on",),
    " toward": ("leaning toward", "lean toward"),
}


def lower(text: str) -> str:
    """In lower case, every character at its place (a few of other alphabets would become two)."""
    low = text.lower()
    return low if len(low) == len(text) else "".join(c.lower() if len(c.lower()) == 1 else c for c in text)


def _cue_ends(low: str, at: int, trigger: str) -> Iterator[tuple[re.Match[str], bool]]:
    """Where an answer may follow the trigger at `at`, and whether by a letter alone."""
    if trigger == "answer":
        match = _ANSWER.match(low, at)
        if match:
            yield match, False
    else:
        match = _OTHER.match(low, at)
        if match and _ADJECTIVE.search(low, max(0, at - 24), at):
            yield match, False
    direct = _DIRECT.match(low, at)
    if direct and trigger in ("answer",):
        yield direct, True


NEARBY = 400  # characters between statements that may belong to one run through the letters


def statements(text: str, low: str, space: Space, counts: Callable[[Statement], bool]) -> list[Statement]:
    """The last statement in `text` that `counts`, and those of the same kind shortly before it, in their order.

    `low` is `lower(text)`. What is denied, or said of a wrong answer, is no statement.
    """
    found: list[Statement] = []

    def take(one: Statement | None) -> None:
        if one is not None and not one.negated and counts(one):
            found.append(one)

    at = low.rfind("answer")
    while at >= 0 and (not found or at > found[0].start - NEARBY):
        take(_about(text, low, at, "answer", space))
        at = low.rfind("answer", 0, at)
    floor = max((one.start for one in found), default=0)
    tail = low[max(0, floor - NEARBY) :] if floor else low
    if "correct" in tail:
        for at in _places(low, "correct", floor):
            if not low.startswith(("correct answer", "correct option", "correct choice"), at):
                take(_correct(text, low, at, space))
    for trigger in [word for word in OTHERS if word in tail]:
        for at in _places(low, trigger, floor):
            if not low.startswith("s", at + len(trigger)):
                take(_about(text, low, at, trigger, space))
    for verb in [word for part, words in VERBS.items() if part in tail for word in words if word in tail]:
        for at in _places(low, verb, floor):
            take(_chosen(text, low, at, verb, space))
    if " from " in tail:
        for match in _CHANGED.finditer(low, floor):
            spot = target(text, match.end(), space, bare=True)  # drugs are changed from one to another, too
            take(Statement(match.start(), spot[1], spot[0], "changed", spot[2]) if spot else None)
    if "ans." in tail or "ans:" in tail or "ans " in tail or "ans-" in tail:
        for match in _ANS.finditer(low, floor):
            spot = target(text, match.end(), space, bare=True)
            take(Statement(match.start(), spot[1], spot[0], "ans:", spot[2]) if spot else None)
    if len(found) > 1:
        found.sort(key=lambda one: one.start)
    return found


def _places(low: str, word: str, at: int) -> Iterator[int]:
    at = low.find(word, at)
    while at >= 0:
        yield at
        at = low.find(word, at + len(word))


def _chosen(text: str, low: str, at: int, verb: str, space: Space) -> Statement | None:
    match = _VERB.match(low, at + (verb[0] == "'"))
    before = low[max(0, at - 24) : at]
    mine = _I_OR_WE.search(before) if verb == "chose" else _BY_ME.search(before)
    if not match or not mine or _NOT_I.search(before):
        return None
    spot = target(text, match.end(), space)
    if spot is None or spot[2] == "number":
        return None
    return Statement(at, spot[1], spot[0], "verb", spot[2], " not" in match[0])


_CHANGED = re.compile(
    r"\b(?:chang|switch|revis|updat|correct)(?:e|ed|ing)?\b[^.\n]{0,40}?\bfrom\b[^.\n]{1,60}?\bto\s+(?:be )?"
)


_I_OR_WE = re.compile(r"\b(?:i|we)\s*$")
_CORRECT = re.compile(
    r"correct(?:ed)?\s*(?:response|one|letter|alternative|statement|diagnosis|treatment|selection|match|management|"
    r"next step|step|sequence|order)?"
    rf"{_NOUN}\s*{_COPULA}{_FILLERS}"
)


def _correct(text: str, low: str, at: int, space: Space) -> Statement | None:
    match = _CORRECT.match(low, at)
    if not match or low.startswith("in", at - 2) or match["line"]:
        return None
    spot = target(text, match.end(), space)
    if spot is None:
        return None
    return Statement(at, spot[1], spot[0], "correct", spot[2], " not" in match[0] or "n't" in match[0])


_SAID_OF_IT = re.compile(r"[)\]\"'.:,]*\s+(?:is|was|can|could|would|does|has|may|seems|describes|refers)\b")


def _about(text: str, low: str, at: int, trigger: str, space: Space) -> Statement | None:
    """A statement by the word at `at`: what it is joined to, or what stands right behind it."""
    for match, direct in _cue_ends(low, at, trigger):
        spot = target(text, match.end(), space, bare=direct)
        if spot is None:
            continue
        groups = match.groupdict()
        verb = groups.get("verb") or ""
        if groups.get("many") and verb in ("", "are") and spot[0] != SEVERAL:
            continue  # "the answer choices are A. ...": the options, not an answer
        if direct and _SAID_OF_IT.match(low, spot[1]):
            continue  # "answer choice A is wrong": said about it, not for it
        before = low[max(0, at - 24) : at]
        word = _BREAK.split(before)[-1].split()
        if "also" in match[0] and verb:
            spot = (SEVERAL, *spot[1:])  # besides what was said before
        negated = " not" in match[0] or "n't" in verb or "can" in verb and "not" in verb or bool(_WRONG.search(before))
        if negated and (instead := _INSTEAD.match(low, match.end())):
            other = target(text, instead.end(), space)
            if other and isinstance(other[0], int):
                spot, negated = other, False
        loose = verb.startswith(("would", "could", "might", "may"))
        return Statement(at, spot[1], spot[0], " ".join([*word[-1:], match[0]]), spot[2], negated, loose)
    return None


_INSTEAD = re.compile(
    r"[^\n.;]{0,80}[.;,]?\s+(?:but(?: rather)?|it(?:'s| is| must be)|rather,?|instead,?(?: it is)?)\s+"
)
_ANS = re.compile(r"\bans\b\.?\s*(?:is\b|:|-|=)?\s*")
_BREAK = re.compile(r"[\n.:;,]")


_FOREIGN_WORDS = (
    "respuesta",
    "antwort",
    "risposta",
    "resposta",
    "reponse",
    "cevap",
    "jawaban",
    "antwoord",
    "odpowied",
    "svar",
)


def speaks_foreign(low: str) -> bool:
    """Whether a look for the words of other languages may be worth it."""
    return not low.isascii() or any(word in low for word in _FOREIGN_WORDS)


def foreign(text: str, low: str, space: Space) -> list[Statement]:
    """Statements with the word for "answer" of some other languages."""
    found = []
    for match in _FOREIGN.finditer(low):
        spot = target(text, match.end(), space)
        if spot and spot[2] in ("letter", "text", "word"):
            found.append(Statement(match.start(), spot[1], spot[0], "foreign", spot[2]))
    for match in _FOREIGN_AFTER.finditer(text) if not found else ():
        if match[1] in space.letters:
            found.append(Statement(match.start(), match.end(), space.letters.index(match[1]), "foreign", "letter"))
    return found


_FOREIGN_AFTER = re.compile(  # the letter first: "B가 정답입니다", "B是正确的", "Bが正解"
    r"(?<![A-Za-z])([A-J])[)\].]?\s*(?:(?:번|가|이|은|는|が|は|是|项|項|选项|選項|最为|最)\s*){1,3}(?:정답|답|正解|正确|正確|答案|答え|合适|恰当)"
)
