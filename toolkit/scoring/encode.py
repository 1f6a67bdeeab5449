"""Items as token ids: one shared beginning, one tail per answer, fitted to the model's window.

Decides where an answer's tokens begin and what is left out when the window is too small; leaves numbers to `engine`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from toolkit.errors import DataError
from toolkit.scoring.hf import LoadedModel
from toolkit.scoring.items import Item
from toolkit.scoring.prompts import cloze_answers, cloze_prompt, letter_prompt


@dataclass(frozen=True, kw_only=True)
class Request:
    """Token ids of a prompt and of each answer after it. `cut` is "", "context" or "prompt": what was shortened."""

    item: Item
    prefix: list[int]
    tails: tuple[list[int], ...]
    cut: str = ""

    @property
    def one_token(self) -> bool:
        return all(len(tail) == 1 for tail in self.tails)


def request(loaded: LoadedModel, item: Item, *, mode: str, instruction: str = "", bos: bool = False) -> Request:
    """`item` as ids. A letter or word answer is its first token where these differ, else the whole of it.

    What does not fit: the middle of the context goes first, then all of it, then the beginning of the prompt.
    Raises DataError for an option without text and for answers that alone exceed the window.
    """
    letters = mode == "letter"
    build: Callable[[Item, str], str] = letter_prompt if letters else cloze_prompt
    answers = tuple(f" {label}" for label in item.labels) if letters else cloze_answers(item)
    if any(not answer.strip() for answer in answers):
        raise DataError(f"item '{item.id}' has an option without text", do="score it with mode letter")
    head = [loaded.bos_id] if bos and loaded.bos_id is not None else []

    def encoded(part: Item) -> tuple[list[int], tuple[list[int], ...]]:
        prefix, tails = _divide(loaded.encode, build(part, instruction), answers)
        if letters and len({tail[0] for tail in tails}) == len(tails):
            tails = tuple(tail[:1] for tail in tails)
        return head + prefix, tails

    prefix, tails = encoded(item)
    if not prefix:
        raise DataError(f"the prompt of item '{item.id}' gives no token")
    room = (loaded.window or len(prefix) + max(map(len, tails))) - max(map(len, tails)) + 1
    if room < 1 + len(head):
        why = f"{max(map(len, tails))} tokens, and the model has {loaded.window} positions"
        raise DataError(f"an answer of item '{item.id}' is longer than the model's window", why=why)
    if len(prefix) <= room:
        return Request(item=item, prefix=prefix, tails=tails)
    if item.context:
        ids = loaded.encode(item.context)
        keep = len(ids) - (len(prefix) - room)
        while keep > 1:
            first, last = loaded.decode(ids[: (keep + 1) // 2]), loaded.decode(ids[-(keep // 2) :])
            prefix, tails = encoded(dataclasses.replace(item, context=f"{first.rstrip()} ... {last.lstrip()}"))
            if len(prefix) <= room:
                return Request(item=item, prefix=prefix, tails=tails, cut="context")
            keep -= max(1, len(prefix) - room)
        prefix, tails = encoded(dataclasses.replace(item, context=""))
        if len(prefix) <= room:
            return Request(item=item, prefix=prefix, tails=tails, cut="context")
    return Request(item=item, prefix=head + prefix[len(head) - room :], tails=tails, cut="prompt")


def _divide(
    encode: Callable[[str], list[int]], prompt: str, answers: Sequence[str]
) -> tuple[list[int], tuple[list[int], ...]]:
    """The longest beginning that prompt and all full texts share, and what each text has after it.

    A tokenizer may merge the prompt's end with an answer; taking the shared part of all keeps the answers comparable.
    """
    whole = [encode(prompt + answer) for answer in answers]
    alone = encode(prompt)
    shared = len(alone)
    for ids in whole:
        same = next((i for i, (a, b) in enumerate(zip(alone, ids, strict=False)) if a != b), min(len(alone), len(ids)))
        shared = min(shared, same, len(ids) - 1)
    return alone[:shared], tuple(ids[shared:] for ids in whole)
