"""The words around an item: what the model reads and what it should say next.

Decides the wording alone, the same for scoring and finetuning; leaves tokens to `encode`, the draw of demonstrations
to `demonstrations`, and what a finetuning's answer carries besides to `targets`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolkit.errors import DataError, UsageError, nearest
from toolkit.scoring.items import Item

if TYPE_CHECKING:
    from toolkit.scoring.chat import Chat

MODES = ("letter", "cloze", "cot", "sc_cot")
CUE, REASONING = "Answer:", "Reasoning:"
STOP = ("###", "\n\nQuestion:", "\n\nContext:")
"""Where a generated answer ends: the terminator of finetuned models, or a next question that a base model makes up."""

COMPAT_CUES = {"letter": "The answer is:", "cot": "Let us reason step by step."}


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What a model reads, `shared` + `own`, and what may follow it.

    `shared` holds the instruction and the demonstrations: the same for every item that has the same demonstrations.
    `answers[i]` are the surface forms of answer i, the usual one first; a cloze answer has one form. Modes that
    generate have no answers, and end at one of `stop`. `turns`: it is a conversation, which has to begin as `shared`.
    """

    shared: str
    own: str
    answers: tuple[tuple[str, ...], ...] = ()
    stop: tuple[str, ...] = ()
    turns: bool = False

    @property
    def text(self) -> str:
        return self.shared + self.own


def build(
    item: Item,
    *,
    mode: str,
    instruction: str = "",
    demonstrations: Sequence[Item] = (),
    compat: bool = False,
    chat: Chat | None = None,
) -> Prompt:
    """`item` as `mode` asks it, behind `demonstrations` with their answers.

    `instruction` says what kind of question it is; how to reply is added here, by mode. `compat` builds the prompt as
    the code released with the MEDITRON paper does (its structure, not its words; cloze is not in it). With `chat`
    every demonstration is a turn and its answer the next; without, all is one text. A caller whose window is too
    small calls again with fewer demonstrations. Raises UsageError (an unknown mode, an item without a question that
    is to be asked for a letter) and DataError (a cloze option without text, a demonstration of reasoning without an
    explanation).
    """
    if mode not in MODES:
        raise UsageError(f"unknown mode '{mode}'", do=nearest(mode, MODES))
    style = "cot" if mode == "sc_cot" else mode
    compat = compat and style != "cloze"  # which that code does not have
    head = _head(item, style, instruction)
    stop = STOP if style == "cot" else ()
    if chat is not None:
        texts = [(_block(d, style, compat), answer(d, mode)) for d in demonstrations]
        asked = [*(text for text, _ in texts), _block(item, style, compat)]
        asked[0] = _join(head, asked[0], compat)
        turns = [turn for i, (_, said) in enumerate(texts) for turn in (("user", asked[i]), ("assistant", said))]
        shared, own = chat.divided([*turns, ("user", asked[-1])], at_once=style != "cot")
        forms = _forms(item, style, bare=True)
        return Prompt(shared=shared, own=own, answers=forms, stop=(*stop, *chat.stop), turns=True)
    between = "\n\n"
    shared = between.join(f"{_block(d, style, compat)} {answer(d, mode)}" for d in demonstrations)
    shared = _join(head, shared + between if shared else "", compat)
    own = _block(item, style, compat)
    bare = compat and not demonstrations  # without demonstrations, the released prompt goes on with a new line
    return Prompt(shared=shared, own=own + "\n" * bare, answers=_forms(item, style, bare=bare), stop=stop)


def question(item: Item, *, mode: str = "letter", instruction: str = "", compat: bool = False) -> str:
    """The text that asks `item`, without demonstrations: what a finetuning's answer follows. Raises as `build`."""
    return build(item, mode=mode, instruction=instruction, compat=compat).text


def answer(item: Item, mode: str) -> str:
    """The right answer as a demonstration or a finetuning says it, without the blank before it. Raises DataError."""
    if mode == "cloze":
        return _option(item, item.options[item.gold])
    label = item.labels[item.gold]
    if mode == "letter":
        return label
    if not item.explanation.strip():
        raise DataError(f"item '{item.id}' has no explanation, so it cannot show reasoning", do="leave it out")
    return f"{_without_stop(item.explanation.strip())}\n\n{conclusion(label)}"


def _without_stop(text: str) -> str:
    """`text` without any of `STOP`: whoever learned to write one there would be stopped before the answer is said."""
    return re.sub(r"\n+(?=\n(?:Question|Context):)", "", re.sub("#{3,}", "##", text))


def conclusion(label: str) -> str:
    """The last sentence of an answer with reasoning."""
    return f"So the answer is {label}."


def replies(item: Item, mode: str) -> str:
    """How to reply to `item`: the sentence that follows the instruction."""
    what = "the letter of the right option" if item.listed else f"{', '.join(item.labels[:-1])} or {item.labels[-1]}"
    if mode == "letter":
        return f"Reply with {what}."
    if mode == "cloze":
        return ""
    return f'Reason first, then end with the sentence "{conclusion("X")}", where X is {what}.'


def _head(item: Item, style: str, instruction: str) -> str:
    """Reasoning is always asked for; else no instruction means none."""
    instruction = instruction.strip()
    reply = replies(item, style) if instruction or style == "cot" else ""
    return " ".join(part for part in (instruction, reply) if part)


def _join(head: str, rest: str, compat: bool) -> str:
    if not head:
        return rest
    return f"{head}\n{rest}" if compat else f"{head}\n\n{rest}"


def _block(item: Item, style: str, compat: bool) -> str:
    """Context, question and options of one item, with the cue that its answer follows."""
    if style == "cloze":
        ending = item.prompt.rstrip() if item.prompt else f"Question: {item.question.strip()}\n{CUE}"
        return _with_context(item, ending)
    if not item.question:
        raise UsageError(f"item '{item.id}' has no question, so it has no answer letter", do="score it with mode cloze")
    if compat:
        return f"{_compat_question(item)}\n{COMPAT_CUES[style]}"
    lines = [f"Question: {item.question.strip()}"]
    if item.listed:
        lines += [f"{label}. {option.strip()}" for label, option in zip(item.labels, item.options, strict=True)]
    return _with_context(item, "\n".join([*lines, REASONING if style == "cot" else CUE]))


def _with_context(item: Item, ending: str) -> str:
    return f"Context: {item.context.strip()}\n\n{ending}" if item.context.strip() else ending


def _compat_question(item: Item) -> str:
    """Options are announced and listed after a blank line; a question mark is put where no sentence ends. Questions
    about a study are its abstract and the question, without a word around them.
    """
    if not item.listed:
        return "\n".join(part for part in (item.context, item.question) if part)
    mark = "" if item.question.endswith(("?", ".")) else "?"
    options = [f"{label}. {option}" for label, option in zip(item.labels, item.options, strict=True)]
    return "\n".join([f"Question: {item.question}{mark}", "", "Options:", *options])


def _option(item: Item, text: str) -> str:
    if not text.strip():
        raise DataError(f"item '{item.id}' has an option without text", do="score it with mode letter")
    return text.strip()


def _forms(item: Item, style: str, *, bare: bool) -> tuple[tuple[str, ...], ...]:
    """What may stand for each answer as the next thing said; `bare`: the usual form has no blank before it.

    Letters are capitals alone: a small "a" after the cue may begin a sentence. Words come with a capital as well.
    """
    if style == "cot":
        return ()
    blanks = ("", " ") if bare else (" ", "")
    if style == "cloze":
        return tuple((blanks[0] + _option(item, option),) for option in item.options)
    cases = [(label,) if item.listed else tuple(dict.fromkeys((label, label.capitalize()))) for label in item.labels]
    return tuple(tuple(blank + text for blank in blanks for text in texts) for texts in cases)
