from __future__ import annotations

import pytest

from toolkit.errors import UsageError
from toolkit.scoring import Item, cloze_prompt, letter_answer, letter_prompt

EXAM = Item(id="1", question="Which nerve? ", options=("Ulnar", " Median ", "Radial"), gold=1)
STUDY = Item(
    id="2", question="Does it work?", context="A\nB", options=("yes", "no", "maybe"), gold=2, listed=False, group="g"
)
START = Item(id="3", prompt="The dose of Brolax is ", options=("ten mg", "six mg"), gold=0)


def test_letter_prompt_lists_the_options_and_ends_with_the_cue():
    assert letter_prompt(EXAM) == "Question: Which nerve?\nA. Ulnar\nB. Median\nC. Radial\nAnswer:"
    assert letter_prompt(EXAM, "Choose one.\n").startswith("Choose one.\n\nQuestion: ")
    assert letter_prompt(EXAM) + letter_answer(EXAM) == letter_prompt(EXAM) + " B"


def test_word_answers_are_not_listed_and_context_comes_first():
    assert letter_prompt(STUDY, "Say it.") == "Say it.\n\nContext: A\nB\n\nQuestion: Does it work?\nAnswer:"
    assert letter_answer(STUDY) == " maybe"


def test_cloze_prompt_is_the_beginning_or_the_question_without_options():
    assert cloze_prompt(START) == "The dose of Brolax is"
    assert cloze_prompt(EXAM) == "Question: Which nerve?\nAnswer:"


def test_a_sentence_beginning_has_no_letter():
    with pytest.raises(UsageError, match="no question"):
        letter_prompt(START)
