"""From items to rows that a finetuning reads: token ids, and where in them the answer begins.

Decides what the right answer is as a text (a letter, or an explanation that ends in one), what is cut from a row that
is too long, and which items make no row; leaves the question's wording to `prompts` and the conversation's to `chat`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from toolkit.errors import DataError
from toolkit.scoring import chat as chats
from toolkit.scoring import prompts
from toolkit.scoring.items import Item

if TYPE_CHECKING:
    from toolkit import tokenizer as tokenizers

TERMINATOR = "###"  # behind an explained answer, as in the released code; generation can stop there

Kind = Literal["letter", "cot"]

NO_EXPLANATION, TOO_LONG = "no explanation", "answer and options alone are longer than the sequence"


@dataclass(frozen=True, kw_only=True)
class Row:
    """`ids` of the whole conversation; loss falls on those from `answer` on. `cut`: its question was shortened."""

    id: str
    ids: tuple[int, ...]
    answer: int
    cut: bool = False


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    id: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Way:
    """How items become rows. `seq_length` tokens go into the model at most; the last id is a label alone."""

    tokenizer: tokenizers.Tokenizer | tokenizers.JsonTokenizer
    seq_length: int
    target: Kind = "letter"
    chat: chats.Chat | None = None


def answer(item: Item, target: Kind) -> str:
    """The right answer as it is said: its letter, or the explanation and a last sentence that names the letter."""
    said = prompts.answer(item, target)
    return said if target == "letter" else f"{said} {TERMINATOR}"


def rows(items: Iterable[Item], way: Way, instruction: str = "") -> Iterator[Row | LeftOut]:
    """A row for each item, in order, or why it makes none. Raises as `prompts` and `chat` do."""
    for item in items:
        if way.target == "cot" and not item.explanation.strip():
            yield LeftOut(id=item.id, why=NO_EXPLANATION)
            continue
        yield _fitted(item, way, instruction)


def texts(item: Item, way: Way, instruction: str = "") -> tuple[str, str]:
    """(what comes before the answer, the answer with its loss), as texts."""
    asked = prompts.question(item, mode=way.target, instruction=instruction)
    said = answer(item, way.target)
    if way.chat is None:
        return asked, f" {said}"
    return way.chat.answer([("user", asked)], said)


def encoded(before: str, said: str, way: Way) -> tuple[list[int], int]:
    """Ids of both, and where the second begins. A tokenizer may merge their border; that token is the answer's."""
    special = () if way.chat is None else way.chat.special
    whole, alone = (chats.encode(way.tokenizer, text, special) for text in (before + said, before))
    same = next((n for n, (a, b) in enumerate(zip(alone, whole, strict=False)) if a != b), min(len(alone), len(whole)))
    return (whole if way.chat is not None else [*whole, way.tokenizer.eos_id]), same


def _fitted(item: Item, way: Way, instruction: str) -> Row | LeftOut:
    def made(part: Item) -> tuple[list[int], int]:
        return encoded(*texts(part, way, instruction), way)

    room = way.seq_length + 1
    ids, begin = made(item)
    if begin == len(ids):
        raise DataError(f"the answer of item '{item.id}' has no token")
    if len(ids) <= room:
        return Row(id=item.id, ids=tuple(ids), answer=begin)
    for shorter in (_context, _question):
        for part in shorter(item, len(ids) - room, way):
            ids, begin = made(part)
            if len(ids) <= room:
                return Row(id=item.id, ids=tuple(ids), answer=begin, cut=True)
            item = part
    return LeftOut(id=item.id, why=TOO_LONG)


def _context(item: Item, over: int, way: Way) -> Iterator[Item]:
    """Ever less of the middle of what is told before the question, at last none of it."""
    ids = way.tokenizer.encode(item.context) if item.context else []
    for keep in _fewer(len(ids), over):
        first, last = way.tokenizer.decode(ids[: (keep + 1) // 2]), way.tokenizer.decode(ids[len(ids) - keep // 2 :])
        yield dataclasses.replace(item, context=f"{first.rstrip()} ... {last.lstrip()}" if keep > 1 else "")


def _question(item: Item, over: int, way: Way) -> Iterator[Item]:
    """Ever less of the question's beginning: its end is what asks."""
    ids = way.tokenizer.encode(item.question)
    for keep in _fewer(len(ids), over):
        if keep:
            yield dataclasses.replace(item, question=way.tokenizer.decode(ids[len(ids) - keep :]).lstrip() or "...")


def _fewer(length: int, over: int) -> Iterator[int]:
    """How many tokens to keep: first as few less as are too many, then less and less, at last none."""
    step, keep = max(1, over), length
    while keep > 0:
        keep = max(0, keep - step)
        yield keep
        step = max(8, keep // 4)
