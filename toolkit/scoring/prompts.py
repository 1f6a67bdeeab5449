"""The words around an item: what the model reads and what it should say next.

Decides the wording alone, the same for scoring and finetuning; leaves tokens to `encode`.
"""

from __future__ import annotations

from toolkit.errors import UsageError
from toolkit.scoring.items import Item

CUE = "Answer:"


def _assemble(item: Item, instruction: str, ending: str) -> str:
    parts = [instruction.strip(), f"Context: {item.context.strip()}" if item.context else "", ending]
    return "\n\n".join(part for part in parts if part)


def letter_prompt(item: Item, instruction: str = "") -> str:
    """Instruction, context, question and listed options, ending with "Answer:" and no space.

    Raises UsageError for an item that is the beginning of a sentence and asks nothing.
    """
    if not item.question:
        raise UsageError(f"item '{item.id}' has no question, so it has no answer letter", do="score it with mode cloze")
    lines = [f"Question: {item.question.strip()}"]
    if item.listed:
        lines += [f"{label}. {option.strip()}" for label, option in zip(item.labels, item.options, strict=True)]
    return _assemble(item, instruction, "\n".join([*lines, CUE]))


def letter_answer(item: Item) -> str:
    """The right answer as it follows `letter_prompt`, its leading space included: prompt + answer is the whole text."""
    return f" {item.labels[item.gold]}"


def cloze_prompt(item: Item, instruction: str = "") -> str:
    """The text that an option completes: the item's own beginning, or its question without the options."""
    ending = item.prompt.rstrip() if item.prompt else f"Question: {item.question.strip()}\n{CUE}"
    return _assemble(item, instruction, ending)


def cloze_answers(item: Item) -> tuple[str, ...]:
    """The options as they follow `cloze_prompt`, with their leading space."""
    return tuple(f" {option.strip()}" for option in item.options)
