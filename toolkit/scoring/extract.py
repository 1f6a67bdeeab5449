"""The final answer of a generated text, or why it has none; and the majority of several.

Decides which of a text's statements is its last word, and when nothing may be taken for an answer: a guess by the
reader would be an error that nobody sees, so what is not clear is invalid. Leaves single sentences to `statements`,
`verdicts` and `conclusions`.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from toolkit.scoring import option_text
from toolkit.scoring.conclusions import IF, conclusion, listing
from toolkit.scoring.follows import OUTSIDE, SEVERAL, Space, combined, target
from toolkit.scoring.items import LETTERS
from toolkit.scoring.plain import breaks, plain, unframed
from toolkit.scoring.statements import foreign, lower, speaks_foreign, statements
from toolkit.scoring.verdicts import Found, line_labels, marked, turn, verdict

WORDS = ("yes", "no", "maybe")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """`label` is one of the labels, or None with `why`: none, refusal, two answers, outside the options, cut short ...

    `how` says what it was read from: statement, start, line, verdict, conclusion, text.
    """

    label: str | None
    how: str = ""
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Vote:
    """The majority of several answers. `agreement` is the winner's share of all samples, invalid ones included."""

    label: str | None
    agreement: float
    votes: dict[str, int]
    invalid: int
    why: str = ""


def extract(text: str, *, labels: Sequence[str], options: Sequence[str] = (), question: str = "") -> Answer:
    """The answer that `text` ends up with.

    `labels` are letters (A, B, ...) or the answers' words (yes, no, maybe); `options` the texts in the same order, if
    known; `question` lets a text repeat it before it answers. Of several statements the last counts; what follows a
    new question, the end token or "###" does not; denied ones and those under a condition do not.
    """
    space = _space(tuple(labels), tuple(options))
    clean, why = plain(text)
    if why:
        return Answer(label=None, why=why)
    ended = _ended(clean, space)
    if ended is not None:
        return Answer(label=labels[ended], how="statement")
    clean = unframed(clean)
    found = _found(clean, space, question)
    if found[0] is None and found[1] in _OPEN and (added := _ADDED.search(clean)) and clean[: added.start()].strip():
        shorter = _found(clean[: added.start()].rstrip(), space, question)
        found = shorter if shorter[0] is not None else found
    if found[0] is None and space.words and not space.letters and len(clean.split()) <= 12:
        found = _found(clean, _lettered(len(labels)), question)  # the words' letters in the usual list: (A) yes (B) no
    if isinstance(found[0], int):
        return Answer(label=labels[found[0]], how=found[1])
    return Answer(label=None, why=found[1])


_OPEN = ("none", "cut short", "options only listed", "two answers")
_ADDED = re.compile(  # what is added to an answer that has been given
    r"\n[ \t#>-]{0,40}(?:(?:[Bb]rief |[Ss]hort )?(?:[Ee]xplanation|[Rr]ationale|[Rr]eason(?:ing)?|[Jj]ustification)|"
    r"[Cc]onfidence|[Cc]ertainty|[Ss]ources?|[Rr]eferences?)\b[^\n:]{0,30}(?::|\n)"
)


def vote(answers: Sequence[Answer]) -> Vote:
    """Majority among the answers that have a label; of equally many, the one that was given first wins."""
    votes = Counter(answer.label for answer in answers if answer.label is not None)
    invalid = len(answers) - votes.total() if answers else 0
    if not votes:
        reasons = Counter(answer.why for answer in answers)
        return Vote(
            label=None,
            agreement=0.0,
            votes={},
            invalid=invalid,
            why=max(reasons, key=reasons.__getitem__, default="none"),
        )
    winner = max(votes, key=votes.__getitem__)  # a Counter keeps the order of first coming, and max the first of equals
    return Vote(label=winner, agreement=votes[winner] / len(answers), votes=dict(votes), invalid=invalid)


@functools.lru_cache(maxsize=1024)
def _space(labels: tuple[str, ...], options: tuple[str, ...]) -> Space:
    letters = "".join(labels) if all(len(label) == 1 for label in labels) else ""
    words = _words(labels) or _words(options)
    return Space(letters=letters, options=() if words else options, words=words, combined=combined(letters, options))


@functools.lru_cache(maxsize=8)
def _lettered(n: int) -> Space:
    return Space(letters=LETTERS[:n], options=())


def _words(texts: Sequence[str]) -> dict[str, int]:
    found = {text.strip(" .").lower(): i for i, text in enumerate(texts)}
    return found if len(found) > 1 and set(found) <= set(WORDS) else {}


def _found(text: str, space: Space, question: str) -> Found:
    """The first piece of `text` that gives an answer decides; pieces end where something else begins."""
    if not text.strip():
        return None, "empty"
    whole = lower(text)
    begun, first = 0, "none"  # what the piece without an answer was invalid for
    for at, kind in [*breaks(text), (len(text), "end")]:
        piece, low = text[begun:at], whole[begun:at]
        asked = _BEGUN.match(piece) is not None
        if not piece.strip(" \n#*>-"):
            continue
        if asked and (first != "none" if not question else not _repeats(piece, question, 0.6 if begun else 0.3)):
            return None, "another question" if first == "none" else first
        found = _strong(piece, low, space)
        if found is None and kind in ("question", "part", "end"):
            found = _weak(piece, low, space)
            if found[0] is None and kind != "end":
                if len(piece.split()) > 4:
                    first = found[1]
                found, begun = None, at
        if found:
            return found
    return None, first


_END = re.compile(
    r"answer(?:_choice)?(?: is|\"?:)\s*[\"(]?(?P<letter>[A-E])(?P<text>[).:]? [^.\n]{0,120})?[\")]?[.\s\"}]*",
)
_LEAD = re.compile(
    r"(?:(?:Therefore|Thus|Hence|So|In conclusion|Overall|Final|Based on (?:this|these|"
    r"the above)[a-z ]*),? ?)?(?:(?:[Tt]he )?(?:final |correct |best )?)?"
)


def _ended(text: str, space: Space) -> int | None:
    """The answer of a text that ends with a plain statement of it and says nothing else of that kind near the end.

    A short cut alone: what it finds is what `_found` would find, which a test holds it to.
    """
    tail = text[-600:]
    at = tail.rfind("nswer")
    if at < 1 or tail.find("nswer") != at or space.words or not space.letters:
        return None
    begun = max(tail.rfind("\n", 0, at), tail.rfind(". ", 0, at) + 1, tail.rfind('"', 0, at)) + 1
    match = _END.fullmatch(f"a{tail[at:]}")
    if not match or match["letter"] not in space.letters or not _LEAD.fullmatch(tail, begun, at - 1):
        return None
    index, named = space.letters.index(match["letter"]), match["text"]
    if named and not (space.options and f" {' '.join(option_text.words(named))} " == space.texts()[index]):
        return None
    return None if len(text) > len(tail) - 1 and breaks(text) else index


_BEGUN = re.compile(
    r"[\s#>*\d.)-]{0,40}(?:\w+ )?(?:Question|QUESTION|Problem|Q)\b\s*\d*\s*[:.\n](?!\s*\(?[A-Ja-j]\)?[.)]?\s*(?:\n|$))"
)


def _repeats(text: str, question: str, least: float) -> bool:
    """Whether a text that begins with a question begins with this one: by the share of its longer words."""
    asked = option_text.words(question)[:40]
    wanted = {word for word in asked if len(word) > 4} or set(asked)
    return len(wanted & set(option_text.words(text[: 300 + len(question)]))) >= least * len(wanted)


_TURN = re.compile(
    r"\b(?:wait|actually|correction|on second thought|sorry|apologi[sz]e|mistake|scratch that|reconsider|"
    r"re-?evaluat\w*|let me re\w*|"
    r"revis(?:e|ed|ing)|however|but|instead|upon|hmm|no,|final|rather|changed?|update[ds]?|therefore|thus|hence|so|"
    r"in conclusion|overall)\b"
)
_ANEW = re.compile(r"\b(?:but|however|so|therefore|thus|hence|in fact|actually|yet)\b")
_TEMPT = re.compile(
    r"\b(?:tempt\w*|might think|may think|could think|one might|some (?:might|may|would)|many (?:would|students|"
    r"people)|students|"
    r"at first(?: glance)?|initially|my first thought|initial (?:thought|impression|guess)|distractor|often (?:choose|"
    r"pick)|"
    r"would be wrong|whether|mistaken\w*|wrongly|incorrectly)\b"
)
_TAKEN_BACK = re.compile(
    r"[^\n.!?]{0,60}?\b(?:but|however)\b[^\n.!?]{0,40}?\b(?:wrong|incorrect|not (?:right|correct)|not the)\b"
    r"|[)\"']*\s+(?:is|are) (?:incorrect|wrong|not)\b"
)
_ASKED = re.compile(r"[)\]\"'.:]*[^\n.!?]{0,80}\?")
_SPOKEN = re.compile(r"[a-z]{2,}")


def _strong(text: str, low: str, space: Space) -> Found | None:
    """The last statement that counts, or the answer that a text begins with; None without either."""
    said = statements(text, low, space, lambda one: not _apart(low, one.start, one.end, one.loose, ":" in one.cue))
    if not said and speaks_foreign(low):
        said = foreign(text, low, space)
    if not said:
        right = marked(text, low, space)
        return _start(text, low, space) if right is None else (right, "verdict")
    last = said[-1]
    for one in said[:-1]:
        if one.answer != last.answer and one.cue == last.cue and _run_through(low[one.end : last.start]):
            return None, "two answers"
    if last.answer == SEVERAL:
        return _chosen(text, low, last.end, space)
    turned = _turned(text, low, last.end, space)
    if turned is not None and turned[0] != last.answer:
        return turned
    return (None, "outside the options") if last.answer == OUTSIDE else (int(last.answer), "statement")


def _weak(text: str, low: str, space: Space) -> Found:
    return conclusion(text, low, space, lambda start, end: _apart(low, start, end, True, False))


def _apart(low: str, start: int, end: int, loose: bool, marked: bool) -> bool:
    """Whether a statement is a question, under a condition, or what others might think."""
    if not marked and low.find("?", end, end + 100) >= 0 and _ASKED.match(low, end):
        return True
    begun = max(low.rfind(mark, 0, start) for mark in (". ", "\n", "? ", "; ")) + 1
    before = _ANEW.split(low[max(begun, start - 300) : start])[-1]
    if loose and (IF.search(before) or IF.search(low, end, _sentence_end(low, end))):
        return True
    return bool(_TEMPT.search(before)) or bool(_TAKEN_BACK.match(low, end))


_CHOOSES = re.compile(r"[^\w\n]*(?:so|but|since|however|therefore|thus|hence|yet|though|although|given|as)\b")
_SO = re.compile(r"\b(?:so|therefore|thus|hence),?\s+(?:(?:it|this|that)(?:'s| is| must be)\s+)?")
_RULED_OUT = re.compile(r"[^.\n]*\b(?:ruled out|incorrect|wrong|excluded|eliminated|not|cannot|unlikely)\b")


def _chosen(text: str, low: str, at: int, space: Space) -> Found:
    """Of several answers the one that the text goes on to choose: "A or D; since it is systolic, D"."""
    rest, after = text[at:], low[at:]
    found = verdict(rest, after, space)
    then = [*_SO.finditer(after)][-1:] if found is None else []
    if then and (spot := target(rest, then[0].end(), space, bare=True)) and isinstance(spot[0], int):
        return spot[0], "statement"
    if found is None and _CHOOSES.match(after):
        found = _weak(rest, after, space)
    return found if found and found[0] is not None else (None, "two answers")


def _sentence_end(low: str, at: int) -> int:
    found = low.find(".", at, at + 120)
    return found if found >= 0 else at + 120


def _run_through(between: str) -> bool:
    """Whether nothing is said between two statements in the same words: a model that runs through the letters."""
    return len(_SPOKEN.findall(between)) <= 2 and not _TURN.search(between)


_INSTEAD = re.compile(
    r"\b(?:it(?:'s| is| must be| should be)|this is|mean(?:t)?|i(?:'d| would) say|change (?:it |my answer )?to|"
    r"make (?:it|that)|"
    r"must be|should be)\s+"
)
_LABEL = re.compile(r"(?<![\w'])[A-J](?![\w'-])")


def _turned(text: str, low: str, at: int, space: Space) -> Found | None:
    """What a text says after it takes back its statement: "... no wait, it is B"."""
    at = turn(low, at)
    if at is None:
        return None
    rest, low = text[at:], low[at:]
    found = verdict(rest, low, space)
    if found is not None:
        return found
    instead = _INSTEAD.search(low)
    spot = target(rest, instead.end(), space) if instead else None
    for label in _LABEL.finditer(rest, 0, 60) if spot is None else ():
        if _RULED_OUT.match(low, label.end()) or _SAID_OF_IT.match(low, label.end()):
            continue
        spot = spot or target(rest, label.start(), space, bare=True)
    return (spot[0], "verdict") if spot and isinstance(spot[0], int) else None


_SAID_OF_IT = re.compile(
    r"[)\]\"'.:]*(?:(?:,|,? and|,? or)\s+\(?[a-j]\)?)*\s+(?:is|was|are|were|can|cannot|could|would|does|has|"
    r"may|might|should|seems|appears|describes|refers|represents)\b"
    r"(?!\s+(?:the\s+)?(?:(?!part|not\b|less\b|never\b)\w+\s+)?(?:correct|right|best|answer))"
)
_WORD_ENDS = re.compile(
    r"[)\]\"']*\s*(?:$|[.,;:!\n(–—-]|(?:there|the|this|it|these|because|based|since|as|i|we|that|according|study|"
    r"results?|is)\b)"
)


_SOON = 400  # characters in which an answer given at once is taken back
_LINE_ENDS = re.compile(r"[\s.)]*(?:\n|$)|[).:]\s+\w")
_FIRST = re.compile(
    r"[^\w(\[{<\"'$]*(?:(?:[Pp]robably|[Dd]efinitely|[Ll]ikely|[Mm]ost likely|[Pp]erhaps|[Cc]learly|I think|I believe|"
    r"I'd say|[Ii]t's),?\s+)?"
)


def _start(text: str, low: str, space: Space) -> Found | None:
    """The answer that the text begins with, unless it begins with a list of all options."""
    spot = target(text, _FIRST.match(text).end(), space, bare=True)  # type: ignore[union-attr]
    if spot is None:
        return None
    answer, end, kind = spot
    if text.startswith("?", end):
        return None
    if answer == SEVERAL:
        return None if _RULED_OUT.match(low, end) else _chosen(text, low, end, space)
    if answer == OUTSIDE:
        return (None, "outside the options") if len(text.split()) <= 12 else None
    if answer == 0 and text.startswith("A:", end - 1):  # "Q: ... A: C" names who speaks, and then the answer
        spoken = target(text, end + 1, space)
        if spoken and isinstance(spoken[0], int) and _LINE_ENDS.match(text, spoken[1]):
            return spoken[0], "start"
    if kind == "word":
        return (int(answer), "start") if _WORD_ENDS.match(low, end) else None
    if _SAID_OF_IT.match(low, end) or listing(text, space):
        return None
    turned = _turned(text[: end + _SOON], low[: end + _SOON], end, space)
    if turned is not None and turned[0] is not None:
        return turned
    if len({letter for _, _, letter in line_labels(text)}) > 1:
        found = verdict(text, low, space)  # it may go through the options in an order of its own
        if found and found[0] is not None:
            return found
    return int(answer), "start"
