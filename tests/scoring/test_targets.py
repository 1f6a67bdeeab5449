"""From items to rows: where the answer begins, what is cut from long ones, what makes no row."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.scoring.conftest import make_items
from toolkit import tokenizer as tokenizers
from toolkit.scoring import Item, chat, prompts, targets


@pytest.fixture(scope="module")
def plain(tokenizer_folder: Path) -> targets.Way:
    return targets.Way(tokenizer=tokenizers.load(tokenizer_folder), seq_length=400)


@pytest.fixture(scope="module")
def chatty(tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> targets.Way:
    out = tmp_path_factory.mktemp("chatty") / "tokenizer"
    extended = tokenizers.extend(tokenizer_folder, out, chat.messages().new)
    (out / "chat_template.jinja").write_text(chat.MESSAGES)
    return targets.Way(tokenizer=extended, seq_length=400, chat=chat.of(out, tokenizer=extended))


def explained(n: int = 6) -> list[Item]:
    return [dataclasses.replace(item, explanation=f"It is so, {item.id}.") for item in make_items(n)]


def only_rows(items: list[Item], way: targets.Way, instruction: str = "") -> list[targets.Row]:
    made = list(targets.rows(items, way, instruction))
    assert all(isinstance(one, targets.Row) for one in made)
    return [one for one in made if isinstance(one, targets.Row)]


@pytest.mark.parametrize("target", ["letter", "cot"])
def test_a_plain_row_is_the_scorer_s_prompt_and_the_answer(plain: targets.Way, target: targets.Kind) -> None:
    """The scorer asks with the ids that the training had before the answer, and the answer is the one that it takes."""
    way = dataclasses.replace(plain, target=target)
    for item, row in zip(explained(), only_rows(explained(), way, "Choose."), strict=True):
        asked = prompts.build(item, mode=target, instruction="Choose.")
        assert row.ids[: row.answer] == tuple(plain.tokenizer.encode(asked.text))
        said = plain.tokenizer.decode(row.ids[row.answer : -1])
        letter = item.labels[item.gold]
        wanted = letter if target == "letter" else f"It is so, {item.id}.\n\nSo the answer is {letter}. ###"
        assert said == wanted and row.ids[-1] == plain.tokenizer.eos_id
        if target == "letter":
            forms = asked.answers[item.gold]
            assert tuple(plain.tokenizer.encode(asked.text + forms[0])) == row.ids[:-1]


@pytest.mark.parametrize("target", ["letter", "cot"])
def test_a_row_of_messages_begins_as_the_scorer_s_chat(chatty: targets.Way, target: targets.Kind) -> None:
    way = dataclasses.replace(chatty, target=target)
    assert way.chat is not None
    start, end = (chatty.tokenizer.id(name) for name in ("<|im_start|>", "<|im_end|>"))
    for item, row in zip(explained(), only_rows(explained(), way, "Choose."), strict=True):
        asked = prompts.build(item, mode=target, instruction="Choose.", chat=way.chat)
        ids = chat.encode(chatty.tokenizer, asked.text, way.chat.special)
        assert row.ids[: len(ids)] == tuple(ids)
        assert row.ids[row.answer] == start and ids[row.answer] == start, "the answer's message is what has the loss"
        assert [n for n in row.ids if n in (start, end)] == [start, end, start, end]


@pytest.mark.parametrize(
    ("ahead", "opening"), [("<think>\\n\\n</think>\\n\\n", "<think>\n\n</think>\n\n"), (" ", ""), ("", "")]
)
def test_a_letter_is_asked_for_where_the_training_had_it(
    chatty: targets.Way, tmp_path: Path, ahead: str, opening: str
) -> None:
    """Templates of models that think write an empty thought in front of an answer, but not when they ask for one."""
    template = chat.MESSAGES.replace("+ message['content']", "+ (m_ahead if loop.last else '') + message['content']")
    template = template.replace(
        "{%- for", f"{{%- set m_ahead = '{ahead}' if messages[-1]['role'] == 'assistant' else '' -%}}\n{{%- for"
    )
    out = tmp_path / "tokenizer"
    extended = tokenizers.extend(chatty.tokenizer.folder, out, ())
    (out / "chat_template.jinja").write_text(template)
    made = chat.of(out, tokenizer=extended)
    assert made is not None and made.opening == opening
    (item,) = make_items(1)
    before, said = targets.texts(item, targets.Way(tokenizer=extended, seq_length=400, chat=made))
    asked = prompts.build(item, chat=made, mode="letter")
    assert any((before + said).startswith(asked.text + form + "<|im_end|>") for form in asked.answers[item.gold])
    assert not prompts.build(item, chat=made, mode="cot").text.endswith(opening or "<think>"), "it may think"


def test_words_are_answers_too(plain: targets.Way) -> None:
    item = Item(id="p", question="Is it so?", context="It is.", options=("yes", "no", "maybe"), gold=2, listed=False)
    (row,) = only_rows([item], plain)
    assert plain.tokenizer.decode(row.ids[row.answer : -1]) == "maybe"


@pytest.mark.parametrize("way", ["plain", "chatty"])
def test_a_long_row_loses_context_then_question_and_never_its_answer(way: str, request: pytest.FixtureRequest) -> None:
    given: targets.Way = request.getfixturevalue(way)
    item = dataclasses.replace(
        explained(1)[0], context="In the beginning. " + "Much was said. " * 80 + "At the end.", question="Which one?"
    )
    narrow = dataclasses.replace(given, seq_length=280, target="cot")
    (row,) = only_rows([item], narrow)
    text = narrow.tokenizer.decode(row.ids[: row.answer])
    assert row.cut and len(row.ids) <= 281
    assert "In the beginning" in text and "At the end." in text and " ... " in text and "Which one?" in text
    assert (
        row.ids[row.answer :]
        == only_rows([item], dataclasses.replace(given, seq_length=9999, target="cot"))[0].ids[
            -(len(row.ids) - row.answer) :
        ]
    )
    long = dataclasses.replace(item, question="First of all, " + "he was told many things. " * 60 + "Which one?")
    (row,) = only_rows([long], narrow)
    text = narrow.tokenizer.decode(row.ids[: row.answer])
    assert row.cut and len(row.ids) <= 281 and "In the beginning" not in text and "First of all" not in text
    assert "Which one?\nA. " in text, "what asks, and every option, is whole"


def test_a_row_that_fits_exactly_is_not_cut(plain: targets.Way) -> None:
    (item,) = make_items(1)
    whole = only_rows([item], plain)[0]
    exact = dataclasses.replace(plain, seq_length=len(whole.ids) - 1)  # the last id is a label alone
    assert only_rows([item], exact) == [whole]
    assert only_rows([item], dataclasses.replace(plain, seq_length=len(whole.ids) - 2))[0].cut


def test_what_makes_no_row_says_why(plain: targets.Way) -> None:
    way = dataclasses.replace(plain, target="cot")
    known, unknown = explained(1)[0], dataclasses.replace(make_items(2)[1], explanation=" \n")
    endless = dataclasses.replace(known, id="long", explanation="It is so. " * 400)
    made = list(targets.rows([known, unknown, endless], way))
    assert isinstance(made[0], targets.Row)
    assert made[1:] == [
        targets.LeftOut(id="q1", why=targets.NO_EXPLANATION),
        targets.LeftOut(id="long", why=targets.TOO_LONG),
    ]
    options = dataclasses.replace(make_items(1)[0], options=("so " * 300, "b", "c", "d"))
    assert list(targets.rows([options], plain)) == [targets.LeftOut(id="q0", why=targets.TOO_LONG)]


def test_an_explanation_does_not_hold_what_ends_a_generated_answer() -> None:
    (item,) = make_items(1)
    messy = "### Why\n####\n\n\n\nQuestion: what then?\n\nContext: none. ##\n\nA Question: # 1"
    said = targets.answer(dataclasses.replace(item, explanation=messy), "cot")
    assert min(said.find(stop) for stop in prompts.STOP if stop in said) == len(said) - len(targets.TERMINATOR)
    kept = "## Why\n##\nQuestion: what then?\nContext: none. ##\n\nA Question: # 1"
    assert said == f"{kept}\n\nSo the answer is {item.labels[item.gold]}. ###"


def test_a_system_message_stands_in_front_in_the_folder_s_own_template(chatty: targets.Way, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    words = 'You are "careful" – \U0001f600.\nAlways {{ so }} %} \\n.'
    out = tmp_path / "tokenizer"
    extended = tokenizers.extend(chatty.tokenizer.folder, out, ())
    (out / "chat_template.jinja").write_text(chat.with_system(chat.MESSAGES, words))
    made = chat.of(out, tokenizer=extended)
    assert made is not None and made.stop == ("<|im_end|>",) and made.new == ()
    (row,) = only_rows(make_items(1), targets.Way(tokenizer=extended, seq_length=400, chat=made))
    text = extended.decode(row.ids, control=True)
    assert text.startswith(f"<|im_start|>system\n{words}<|im_end|>\n<|im_start|>question\n")
    hf = transformers.AutoTokenizer.from_pretrained(out)
    asked = [{"role": "user", "content": prompts.question(make_items(1)[0])}]
    assert hf.apply_chat_template(asked) == list(row.ids[: row.answer])
    own = [{"role": "system", "content": "No."}, *asked]
    assert hf.apply_chat_template(own, tokenize=False).count("<|im_start|>system") == 1
