"""Which answer stands directly at a place in a text: a label, a word, an option's own text, an option's number.

Decides what is a label and what only looks like one (an article, vitamin A, B cells, C. difficile); leaves where to
look to those who call.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from toolkit.scoring import option_text

OUTSIDE, SEVERAL = "outside", "several"  # instead of one label


@dataclass(frozen=True, kw_only=True)
class Space:
    """What may be answered: `letters` (or none, for answers that are words), the options' `texts`, the `words`.

    `words` maps yes, no and maybe to the index of their answer; empty when the answers are no such words.
    """

    letters: str
    options: tuple[str, ...]
    words: dict[str, int] = field(default_factory=dict)
    prepared: list[str] = field(default_factory=list)

    combined: dict[frozenset[str], int] = field(default_factory=dict)
    """Options that are several others together ("Both A and C"): the letters of these, and its index."""

    def texts(self) -> list[str]:
        if not self.prepared:
            self.prepared.extend(option_text.prepared(self.options))
        return self.prepared


_COMBINED = re.compile(
    r"(?i:both |options? |statements? |choices? )*[\"'(]*([A-J])[\"')]*"
    r"(?:(?:,| and|, and| &|/| \+)\s*[\"'(]*[A-J][\"')]*)+"
    r"(?: only| are (?:correct|true|right)| both| together)*\W*"
)


_EVERY = re.compile(
    r"(?i:all (?:of )?(?:(?:the|these) )?(?:above|options|answers|choices)(?: are (?:correct|true))?\W*)"
)


def combined(letters: str, options: Sequence[str]) -> dict[frozenset[str], int]:
    """By the letters that they name, the options that stand for several others."""
    found = {}
    for i, option in enumerate(options if letters else ()):
        if _COMBINED.fullmatch(option.strip()):
            named = frozenset(re.findall(r"\b[A-J]\b", option))
            if len(named) > 1 and named <= set(letters):
                found[named] = i
        elif _EVERY.fullmatch(option.strip()):
            found[frozenset(letters) - {letters[i]}] = i
    return found


EPITHET = re.compile(
    r"\.?\s*(?:coli|difficile|albicans|aureus|burgdorferi|cereus|perfringens|tetani|botulinum|neoformans|trachomatis|"
    r"jejuni|fragilis|anthracis|"
    r"histolytica|diphtheriae|immitis|psittaci|abortus|pylori|pneumoniae|meningitidis|gonorrhoeae|melaninogenica|"
    r"henselae|granulosus)\b"
)
_NOUNS = re.compile(
    r"\s+(?:cells?|lymphocytes?|dimer|reactive|peptide|fib(?:er|re)s?|waves?|antigen|vitamin|lymphoma|virus|"
    r"streptococc\w+|hepatitis|chain|"
    r"complement|strain|toxin)\b"
)
_CLEAN_END = re.compile(r"(?:(?<=([A-J]))\s+\1(?!\w))*\s*(?:$|\n|[)\]}>\"'.:,;!/|&+]|\(|\\|[–—-](?:\s|$))")
_ON = re.compile(
    r"\s+(?:because|since|as|due|for|which|and|or|but|is|with|based|given|in|on|not|only|alone|for sure|rather|"
    r"however|this|the|would|here|also|instead|if|it|by|so|if|when)\b"
)
_EPITHETS_ONLY = "BCDE"


@functools.lru_cache(maxsize=64)
def _letter(letters: str) -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """A letter after a cue; another letter joined to it; and letters listed or given as a range, as in a prompt."""
    upper, both = f"A-{max('J', letters[-1])}", letters + letters.lower()
    mark = r"[\s\"'(\[{<_:>=.#–—|-]{0,30}"  # bounded, here and below, or a run of brackets would take for ever
    named = r"options?|choice|letter|answer|statement|alternative|number|no\.|label|either|both|ans"
    lead = rf"{mark}(?:(?i:{named})\s*[:.\"'(\[{{#]{{0,6}}\s*)?"
    number = r"(?:Q?\d{1,2}[.):]\s+(?=[(\"\[]*[A-Z](?:[).:]|\s*(?:\n|$))))?"
    low = letters.lower()
    closed = r"(?=\s*[)\]\"'}:;>]|\s*[.,]?\s*(?:\n|$)|[.,]\s|\s+(?:because|since)\b)"
    first = rf"{lead}{number}(?:([{upper}])\1*|([{low}])\2*{closed})(?!\w)(?!-\w)(?!'[a-zA-Z])"
    verbs = (
        "is|are|was|were|would|can|could|cannot|does|do|has|have|may|might|should|being|describes?|represents?|refers?"
    )
    joint = (
        r"[)\]}\"'.:]*(?:(?:(?<=[).:\]])|\s*(?=\())[^\n;,.]{0,90}?)?\s*"
        r"(?:,\s*(?:and|or|then)|,|(?<=\))(?=\()|/|&|\+|\band/or\b|\band\b|\bor\b|\bas well as\b)\s*"
        r"(?:(?i:also|either|possibly|maybe|option|choice|answer)\s+)*"
        rf"[(\"'\[]*([{letters}]|(?<=\()[{low}])(?![\w'])"
        rf"(?!\s*[).:]?\s+(?:{verbs}|both)\b(?! (?:both )?correct))"
        r"(?=\s*(?:[)\].,;:\"'\n}/&+?!]|$|(?:and|or|are|both|together|because|as|since|but|in)\b|is correct))"
    )
    listed = (
        r"[\s\"'(\[{<_:>=.#–—|-]{0,4}(?i:(?:answers?|options?|choices?|one of|either|from|choose|"
        r"select)\s{0,4}[:(]{0,3}\s{0,4})?"
        rf"[(\[\"']{{0,3}}[{both}][)\]\"']{{0,3}}"
        rf"(?:\s*(?:-|–|—|to|through|thru|\.\.+)\s*[(\[\"']*[{upper}{upper.lower()}](?!\w)"
        rf"|(?:(?:\s*(?:,\s*or|,\s*and|,|/|\||\bor\b|\band\b)\s*|"
        rf"\s+)[(\[\"']*[{both}](?!\w)[)\]\"']*){{{max(len(letters) - 1, 2)},}})"
        r"(?:\s*[/,]\s*(?:\.\.\.|…))?"
    )
    return re.compile(first), re.compile(joint), re.compile(listed)


_WORD = re.compile(
    r"[\s\"'(\[{<_:>=.#–—-]*(?:(?i:option|choice|answer)\s*[:(]*\s*)?(?:\(?[A-Ea-e1-3][).:]\s*[(\"'\[]*)?"
    r"(?i:(yes|no|maybe)(?:\1)*\b|(yep|yeah|yup|nope|nah|uncertain|unclear|inconclusive|possibly|perhaps|affirmative|negative|"
    r"undetermined)\b(?=\W*(?:\n|$|\.)))"
)
_WORD_JOINT = re.compile(
    r"[\s)\"'\].]*(?:,|/|\||&|\band/or\b|\band\b|\bor\b)\s*[(\"'\[]*(yes|no|maybe)\b(?=\W*(?:$|\n|[.,;:)/\"'|]|\bor\b|"
    r"\band\b|depending))",
    re.I,
)
_LIKE = {"uncertain": "maybe", "unclear": "maybe", "inconclusive": "maybe", "possibly": "maybe", "perhaps": "maybe"}
_LIKE |= {"undetermined": "maybe", "affirmative": "yes", "negative": "no"}
_LIKE |= {"yep": "yes", "yeah": "yes", "yup": "yes", "nope": "no", "nah": "no"}


def target(text: str, at: int, space: Space, *, bare: bool = False) -> tuple[int | str, int, str] | None:
    """The answer that stands directly at `at`, where it ends, and whether it is a `letter`, `word`, `text`, `number`.

    `bare` takes letters and words alone, not the options' texts and numbers. None when no answer stands there.
    """
    if space.words:
        found = _word(text, at, space)
        if found:
            return found
    if space.letters:
        found = _lettered(text, at, space)
        if found and found[0] == SEVERAL and space.combined:
            whole = _more(space.letters).match(text, found[1])
            end = whole.end() if whole else found[1]
            both = frozenset(re.findall(rf"(?<![\w'])[{space.letters}](?![\w'])", text[at:end]))
            return space.combined.get(both, SEVERAL), end, "letter"
        if found:
            return found
    if bare:
        return None
    return _texted(text, at, space)


_SPECIES = re.compile(r"\.\s+[a-z]{3,}")
_PAIR = re.compile(r"\W*(?:either|both|between)\b", re.I)


def without_lists(text: str, space: Space) -> str:
    """`text` without places that list all labels, or a range of them, as prompts do."""
    return _letter(space.letters)[2].sub(" ", text)


def _word(text: str, at: int, space: Space) -> tuple[int | str, int, str] | None:
    match = _WORD.match(text, at)
    if not match:
        return None
    word = (match[1] or _LIKE[match[2].lower()]).lower()
    end, seen = match.end(), {word}
    while joint := _WORD_JOINT.match(text, end):
        seen.add(joint[1].lower())
        end = joint.end()
    if len(seen) == 2 and text.startswith(":", end):  # "Yes/no: yes"
        return target(text, end + 1, space, bare=True)
    if len(seen) >= 3:  # the words of the prompt: yes, no or maybe
        return target(text, end, space, bare=True)
    if word == "no" and len(seen) == 1 and re.match(r"\s+[a-z]", text[end : end + 3]) and not _ON.match(text, end):
        following = re.match(r"\s+(?:there|it|they|these|we|i|patients?|statistically)\b", text[end : end + 15], re.I)
        if not following:
            return None  # "no difference": no answer by itself
    return (SEVERAL if len(seen) > 1 else space.words[word]), end, "word"


@functools.lru_cache(maxsize=64)
def _more(letters: str) -> re.Pattern[str]:
    """What goes on with two letters that are joined: ", and D"."""
    return re.compile(rf"(?:\s*(?:,\s*and\b|,|\band\b|&|/)\s*\(?[{letters}]\)?(?![\w']))*")


@functools.lru_cache(maxsize=64)
def _second(letters: str) -> re.Pattern[str]:
    """The second of a pair after "either", "both" or "between"."""
    return re.compile(rf"[^\n.;]{{0,60}}?\b(?:or|and)\s+(?:option )?\(?[{letters}](?!\w)")


_SEPARATES = frozenset(",/|-–—otaOTABCDEFGHIJbcdefghij.") | {""}


def _lettered(text: str, at: int, space: Space) -> tuple[int | str, int, str] | None:
    first, joint, listed = _letter(space.letters)
    match = first.match(text, at)
    if not match:
        return None
    letter, end = (match[1] or match[2]).upper(), match.end()
    after = text[end : end + 4].lstrip(")]\"' ")
    echo = listed.match(text, at) if after[:1] in _SEPARATES else None
    if echo and len(set(re.findall(rf"\b[{space.letters}]\b", echo[0].upper()))) > 1:
        return _lettered(text, echo.end(), space)
    if match[1] and not _stands(text, match.start(1), end, letter, space):
        return None
    if letter not in space.letters:
        named = _SPECIES.match(text, end)  # H. influenzae
        return (OUTSIDE, end, "letter") if _CLEAN_END.match(text, end) and not named else None
    index = space.letters.index(letter)
    pair = _second(space.letters).match(text, end) if _PAIR.match(text, at) else None
    if pair:
        return SEVERAL, pair.end(), "letter"
    other = joint.match(text, end)
    if other and other[1].upper() != letter and _two(text[end : other.start(1)], text[end : other.end()], index, space):
        return SEVERAL, other.end(), "letter"
    return index, end, "letter"


_JOIN = {"then", "and", "or", "option", "choice", "answer", "also", "either", "possibly", "maybe", "as", "well"}


def _two(between: str, whole: str, index: int, space: Space) -> bool:
    """Whether a second letter is a second answer: only the first option's own words may stand between the two."""
    said = [word for word in option_text.words(between) if word not in _JOIN]
    if not space.options:
        return len(said) <= 4
    own = space.texts()[index]
    return set(said) <= set(own.split()) and f" {' '.join(option_text.words(whole))} " not in own


def _stands(text: str, start: int, end: int, letter: str, space: Space) -> bool:
    """Whether a capital is a label and not an article, or a part of a name such as B cell or C. difficile."""
    if letter in _EPITHETS_ONLY and EPITHET.match(text, end) and not _is_text(text, end, letter, space):
        return False
    if _CLEAN_END.match(text, end):
        return True
    if _is_text(text, end, letter, space):
        return True
    if letter in "AI":
        return bool(_ON.match(text, end))
    return not _NOUNS.match(text, end)


def _is_text(text: str, end: int, letter: str, space: Space) -> bool:
    """Whether the words after a letter are those of its option."""
    if letter not in space.letters or not space.options:
        return False
    wanted = space.texts()[space.letters.index(letter)].split()
    return bool(wanted) and option_text.words(text[end : end + 80])[:1] == wanted[:1]


_FAR = 400  # characters in which an option's text must be
_SENTENCE = re.compile(r"\s*[\s:\"'(\[{<>=–—-]*([^\n]*?)(?:[.!?](?=[\s\"')\]]|$)|\n|$)")
_LINE = re.compile(r"[\s:\"'(\[{<>=–—-]*([^\n]*)")
ASIDE = re.compile(r"[,;]?\s{1,4}(?:(?:and|but)\s+)?(?:not|rather than|instead of|unlike|as opposed to)\b")
_CLAUSE = re.compile(r"[,;(]|\s+(?:because|since|which|as|due to|given)\b")
_NUMBER = re.compile(
    r"[\s\"'(\[{#:]*(?:(?i:option|choice|number|no\.?|answer|statement)\s*[:#(]*\s*){0,2}(\d{1,2})(?=\s*(?:[).:,\"'\]}]|$|"
    r"\n)|\s+(?:is|because|since)\b)(?![.,:]\d)"
)
_DOUBT = re.compile(
    r"\b(?:not|rules? out|ruled out|unlikely|exclude[sd]?|incorrect|less likely|isn't|aren't|wrong|cannot|"
    r"eliminate[sd]?)\b",
    re.I,
)


def _texted(text: str, at: int, space: Space) -> tuple[int | str, int, str] | None:
    options = space.texts() if space.options else []
    near = text[at : at + _FAR]
    sentence = _SENTENCE.match(near)
    if options and sentence and sentence[1]:
        said = ASIDE.split(sentence[1])[0]
        index = option_text.meant(said, options)
        if index is None:
            index = option_text.meant(_CLAUSE.split(said)[0], options)
        if index is None and len(said) < 60:
            line = _LINE.match(near)
            index = option_text.meant(line[1], options) if line and line[1] != said else None
        if index is not None:
            short = len(said.split()) <= 30
            if option_text.several(said, index, options):
                return SEVERAL, at + sentence.end(1), "text"
            begins = option_text.words(said)[:1] == options[index].split()[:1]
            if begins or (short and not _DOUBT.search(said)):
                return index, at + sentence.end(1), "text"
    number = _NUMBER.match(text, at)
    if number and 1 <= int(number[1]) <= len(space.options or space.letters or space.words):
        return int(number[1]) - 1, number.end(), "number"
    return None
