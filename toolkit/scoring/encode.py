"""A prompt and its answers as token ids, fitted to the model's window.

Decides which tokens stand for an answer and what is left out when the window is too small; leaves words to `prompts`
and numbers to `engines`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from toolkit.errors import DataError
from toolkit.scoring.engines import Ask, Words
from toolkit.scoring.items import Item
from toolkit.scoring.prompts import Prompt

Build = Callable[[Item, Sequence[Item]], Prompt]
"""The prompt of an item behind demonstrations."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One item as an engine is asked. `places[i]` are the places in `ask.forms` of answer i's forms.

    What was left out for the window: `dropped` demonstrations, and `cut` is "", "context" or "prompt". `whole` says
    that answers are judged by all of their tokens, in a mode that looks at the next one.
    """

    item: Item
    ask: Ask
    places: tuple[tuple[int, ...], ...] = ()
    dropped: int = 0
    cut: str = ""
    whole: bool = False


@dataclass(frozen=True, kw_only=True)
class _Encoded:
    ids: list[int]
    tails: tuple[tuple[list[int], ...], ...]  # by answer, by form
    forms: tuple[tuple[str, ...], ...]
    whole: bool = False
    opening: str = ""  # what a conversation has to begin with

    @property
    def longest(self) -> int:
        return max((len(tail) for tails in self.tails for tail in tails), default=0)


def request(
    words: Words | None,
    window: int | None,
    item: Item,
    build: Build,
    demonstrations: Sequence[Item] = (),
    *,
    letters: bool = True,
    bos: bool = False,
    new_tokens: int = 0,
) -> Request:
    """`item` as asked of a model with `words` (None: as text, fitted to nothing).

    `letters`: an answer is its next token where these differ, else all of its tokens; without it, always all.
    `new_tokens` shall find room in the window after the prompt, or half of it. What does not fit: demonstrations go
    first, from the first on, then the middle of the context, then all of it, then the beginning of the prompt
    (in a conversation, of its last turn).
    Raises DataError for a prompt without tokens and for answers that alone exceed the window.
    """
    if words is None:
        prompt = build(item, demonstrations)
        places, flat = _flat(prompt.answers)
        return Request(item=item, ask=Ask(key=item.id, text=prompt.text, ids=[], forms=flat), places=places)
    head = [words.bos_id] if bos and words.bos_id is not None else []

    def encoded(part: Item, shown: Sequence[Item]) -> tuple[str, _Encoded]:
        prompt = build(part, shown)
        return prompt.text, _encode(words, prompt, head, letters)

    def made(text: str, found: _Encoded, **left_out: object) -> Request:
        places, forms = _flat(found.forms)
        tails = tuple(tail for tails in found.tails for tail in tails)
        ask = Ask(key=item.id, text=text, ids=found.ids, forms=forms, tails=tails)
        return Request(item=item, ask=ask, places=places, whole=found.whole, **left_out)  # type: ignore[arg-type]

    text, found = encoded(item, demonstrations)
    if not found.ids:
        raise DataError(f"the prompt of item '{item.id}' gives no token")
    if window is None:
        return made(text, found)
    after = min(new_tokens, window // 2)

    def room() -> int:
        return window - max(found.longest - 1, after)

    if room() < 1 + len(head):
        why = f"{found.longest} tokens, and the model has {window} positions"
        raise DataError(f"an answer of item '{item.id}' is longer than the model's window", why=why)
    dropped = 0
    while len(found.ids) > room() and dropped < len(demonstrations):
        dropped += 1
        text, found = encoded(item, demonstrations[dropped:])
    if len(found.ids) <= room():
        return made(text, found, dropped=dropped)
    shown = demonstrations[dropped:]
    if item.context:
        ids = words.encode(item.context)
        keep = len(ids) - (len(found.ids) - room())
        while keep > 1:
            first, last = words.decode(ids[: (keep + 1) // 2]), words.decode(ids[-(keep // 2) :])
            part = dataclasses.replace(item, context=f"{first.rstrip()} ... {last.lstrip()}")
            text, found = encoded(part, shown)
            if len(found.ids) <= room():
                return made(text, found, dropped=dropped, cut="context")
            keep -= max(1, len(found.ids) - room())
        text, found = encoded(dataclasses.replace(item, context=""), shown)
        if len(found.ids) <= room():
            return made(text, found, dropped=dropped, cut="context")
    first = head + (words.encode(found.opening) if found.opening else [])
    if len(first) > room() // 2 or found.ids[: len(first)] != first:
        first = head
    ids = first + found.ids[len(first) - room() :]
    return made(words.decode(ids), dataclasses.replace(found, ids=ids), dropped=dropped, cut="prompt")


def _flat(forms: Sequence[Sequence[str]]) -> tuple[tuple[tuple[int, ...], ...], tuple[str, ...]]:
    places, flat = [], []
    for several in forms:
        places.append(tuple(range(len(flat), len(flat) + len(several))))
        flat += several
    return tuple(places), tuple(flat)


def _encode(words: Words, prompt: Prompt, head: list[int], letters: bool) -> _Encoded:
    ids, tails = _divide(words.encode, prompt.text, prompt.answers)
    forms, whole = prompt.answers, False
    if letters and tails:
        kept, whole = _next_tokens(tails)
        forms = tuple(tuple(forms[i][j] for j in some) for i, some in enumerate(kept))
        tails = tuple(tuple(tails[i][j] for j in some) for i, some in enumerate(kept))
        if not whole:
            tails = tuple(tuple(tail[:1] for tail in several) for several in tails)
    opening = prompt.shared if prompt.turns else ""
    return _Encoded(ids=head + ids, tails=tails, forms=forms, whole=whole, opening=opening)


def _divide(
    encode: Callable[[str], list[int]], prompt: str, answers: Sequence[Sequence[str]]
) -> tuple[list[int], tuple[tuple[list[int], ...], ...]]:
    """The prompt's ids, and what each form has after them (an empty list: it is no way to go on).

    A tokenizer may merge a form with the prompt's end. Such a form is left out where its answer has another; else the
    prompt is the beginning that it shares with all usual forms, so that answers stay comparable.
    """
    alone = encode(prompt)
    whole = [[encode(prompt + form) for form in several] for several in answers]
    shared = len(alone)
    for several in whole:
        if any(ids[: len(alone)] == alone and len(ids) > len(alone) for ids in several):
            continue
        for ids in several[:1]:
            same = next((i for i, (a, b) in enumerate(zip(alone, ids, strict=False)) if a != b), len(alone))
            shared = min(shared, same, len(ids) - 1)
    tails = (tuple(ids[shared:] if ids[:shared] == alone[:shared] else [] for ids in several) for several in whole)
    return alone[:shared], tuple(tails)


def _next_tokens(tails: Sequence[Sequence[list[int]]]) -> tuple[list[list[int]], bool]:
    """(which forms of each answer count, whether by all of their tokens).

    By the next token, where the usual forms differ in it: then another form counts if it is one token, and no other
    answer's. Else each counts with all of its tokens, unless it begins as another one of the same answer.
    """
    usual = [next((j for j, tail in enumerate(several) if tail), 0) for several in tails]
    firsts = [several[j][0] for several, j in zip(tails, usual, strict=True)]
    if len(set(firsts)) == len(firsts):
        kept, taken = [], set(firsts)
        for several, j in zip(tails, usual, strict=True):
            some = [j]
            for other, tail in enumerate(several):
                if other != j and len(tail) == 1 and tail[0] not in taken:
                    taken.add(tail[0])
                    some.append(other)
            kept.append(some)
        return kept, False
    kept = []
    for several in tails:
        found: list[int] = []
        for j in sorted((j for j, tail in enumerate(several) if tail), key=lambda j: (len(several[j]), j)):
            if not any(several[j][: len(several[other])] == several[other] for other in found):
                found.append(j)
        kept.append(sorted(found))
    return kept, True
