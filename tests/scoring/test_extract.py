"""The reading of answers against a key written by hand, and against what must hold for any text."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.scoring import extract as reading
from toolkit.scoring import released
from toolkit.scoring.extract import Answer, extract, vote
from toolkit.scoring.plain import plain

KEY = Path(__file__).parent / "answers"
FILES = sorted(KEY.glob("*.jsonl"))
WORDS = ["yes", "no", "maybe"]


def rows(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def read(row: dict) -> Answer:
    labels = WORDS if row["options"] == WORDS else "ABCDEFGHIJ"[: len(row["options"])]
    return extract(row["text"], labels=labels, options=row["options"], question=row.get("question", ""))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_key(file: Path) -> None:
    wrong = [(row["text"], row["answer"], got) for row in rows(file) if (got := read(row)).label != row["answer"]]
    assert wrong == []


def test_the_key_is_large_and_varied() -> None:
    found = [row for file in FILES for row in rows(file)]
    assert len(found) >= 500 and len({(row["text"], str(row["options"])) for row in found}) == len(found)
    answers = Counter(row["answer"] for row in found)
    assert all(answers[label] >= 10 for label in ["A", "B", "C", "D", *WORDS]) and answers[None] >= 80
    assert all(row["answer"] is None or row.get("options") for row in found)


@pytest.mark.parametrize(
    "text",
    [
        "A. No\nB. No\nC. No\nD. Yes",  # may as well be options that begin with yes and no
        "A ❌\nB ❌\nC ❌\nD ✅",
        "The swelling beneath the eyes is best explained by an overload of salt.",  # in other words than the option's
        "The answer is (D). The answer is (D). The answer is (B).",  # who counts, or takes the last, guesses
        "The last one is correct.",
    ],
)
def test_what_a_person_might_read_and_we_do_not(text: str) -> None:
    """The exceptions that are known. They are invalid and counted as that, not read as another answer."""
    options = ["cough", "fever", "rash", "retention of sodium"]
    assert extract(text, labels="ABCD", options=options).label is None


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("Sure! Here is my answer:\n\n", ""),
        ("Assistant: ", ""),
        ("<think>It might be A or C. Hmm, B.</think>\n", ""),
        ("", "\n\nI hope this helps! Let me know if you have any other questions."),
        ("", "\n\n---"),
        ("", " (confidence: high)"),
        ("", "\n\nConfidence: 85%"),
        ("", "\n\nReferences:\n1. A textbook of medicine, 20th edition."),
        ("", "\n\nExplanation: This is well known."),
        ("", "\n\nDisclaimer: this is not medical advice; consult a doctor."),
    ],
)
def test_what_assistants_say_around_an_answer_changes_nothing(before: str, after: str) -> None:
    key = [row for file in FILES for row in rows(file) if row["answer"] and "<|" not in row["text"]][::3]
    framed = [row | {"text": before + row["text"] + after} for row in key if "INST]" not in row["text"]]
    framed = [row for row in framed if not after or "Question" not in row["text"]]
    assert len(framed) > 300
    assert [(row["text"], got) for row in framed if (got := read(row)).label != row["answer"]] == []


def test_known_misses_are_invalid_and_not_another_answer() -> None:
    """What a careful person reads in them is in `person`; one that is read now belongs in the key."""
    found = rows(KEY.parent / "answers_missed.jsonl")
    assert found and [(row["text"], got) for row in found if (got := read(row)).label is not None] == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("I cannot answer that.", "refusal"),
        ("The answer is B or C.", "two answers"),
        ("The answer is E.", "outside the options"),
        ("<think>so it is B", "cut short within the thought"),
        ("<think>B</think>", "nothing after the thought"),
        ("A. cough\nB. fever\nC. rash\nD. pain", "options only listed"),
        ("The patient has a fever. The next step is to", "cut short"),
        ("Nothing is known about it.", "none"),
    ],
)
def test_an_invalid_answer_says_why(text: str, why: str) -> None:
    assert extract(text, labels="ABCD", options=["cough", "fever", "rash", "pain"]) == Answer(label=None, why=why)


def test_without_options_letters_are_read_alone() -> None:
    assert extract("Therefore the answer is (B) fever.", labels="ABCD").label == "B"
    assert extract("It is fever.", labels="ABCD").label is None


def test_ten_options() -> None:
    options = [
        f"drug {name}" for name in ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    ]
    assert extract("The answer is (J).", labels="ABCDEFGHIJ", options=options).label == "J"
    assert extract("The answer is I. drug nine", labels="ABCDEFGHIJ", options=options).label == "I"
    assert extract("I think that it is hard.", labels="ABCDEFGHIJ", options=options).label is None


def test_words_under_letters_are_given_as_their_letters() -> None:
    for text, label in (("Yes.", "A"), ("The answer is no", "B"), ("C", "C"), ("B. no", "B"), ("maybe", "C")):
        assert extract(text, labels="ABC", options=WORDS).label == label


def answer(label: str | None) -> Answer:
    return Answer(label=label, why="" if label else "none")


@pytest.mark.parametrize(
    ("given", "label", "agreement", "invalid"),
    [
        ("BAB", "B", 2 / 3, 0),
        ("ABBA", "A", 0.5, 0),  # of equally many, the one that came first
        ("BAAB", "B", 0.5, 0),
        ("-C-", "C", 1 / 3, 2),  # invalid ones never win
        ("---", None, 0, 3),
        ("", None, 0, 0),
    ],
)
def test_vote(given: str, label: str | None, agreement: float, invalid: int) -> None:
    won = vote([answer(None if one == "-" else one) for one in given])
    assert (won.label, won.agreement, won.invalid) == (label, pytest.approx(agreement), invalid)
    assert won.why == ("" if label else "none")


PIECES = [
    "The answer is",
    "answer",
    "A",
    "B.",
    "(C)",
    "D)",
    "not",
    "or",
    "and",
    "\n",
    "\n\n",
    "Question:",
    "###",
    "<think>",
    "</think>",
]
PIECES += [
    "yes",
    "no",
    "maybe",
    "**",
    "$\\boxed{",
    "}",
    '{"answer": "',
    '"',
    "İ",
    "é",
    "Ｂ",
    "\u200b",
    "if",
    "wait",
    "correct",
    "option",
    "1.",
    "|",
]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=6), max_size=14).map(" ".join), st.booleans())
def test_any_text_gives_a_label_or_a_reason(text: str, words: bool) -> None:
    labels, options = (WORDS, WORDS) if words else (list("ABCD"), ["cough", "fever", "rash", "B cell pain"])
    got = extract(text, labels=labels, options=options)
    assert (got.label in labels and got.how and not got.why) or (got.label is None and got.why)
    assert extract(text, labels=labels, options=options) == got


@pytest.mark.parametrize(
    "piece", ["a", "(", "A) ", "answer is ", "\n", " ", "not ", "#", "0", "best ", "Question: ", "The answer is B. "]
)
def test_long_and_hostile_text_is_read_at_once(piece: str) -> None:
    """Nothing in the reading takes more than about linear time: a text that blows up would hang here for minutes."""
    options, filler = ["cough", "fever", "rash", "pain"], piece * (100_000 // len(piece))
    for end in ("I would say that it must be option (C).", "The answer is (C).", "end"):
        assert extract(f"{filler}\n{end}", labels="ABCD", options=options).label in (None, "A", "B", "C")


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("B", {}, "b"),
        ("(B) fever", {}, "b"),
        ("The answer is B", {}, "t"),  # top-token: the first character, whatever it belongs to
        ("The answer is (B). No, the answer is C.", {"cot": True}, "c"),
        ("No answer here", {"cot": True}, "n"),
        ("B\n\nQuestion: next", {"few_shot": True}, "b"),
        ("yesyes", {"words": True}, "yes"),
        ("Maybe.", {"words": True}, "maybe"),
        ("", {}, ""),
    ],
)
def test_released_extraction(text: str, options: dict, said: str) -> None:
    assert released.answer(text, **{"cot": False, **options}) == said


def test_released_vote_lets_unreadable_answers_win() -> None:
    assert released.vote(["n", "b", "n", "b"]) == "n" and "n" not in released.VALID and "maybe" not in released.VALID
    assert released.vote([]) == ""


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_short_cut_finds_what_the_whole_reading_finds(file: Path) -> None:
    """Texts that end with a plain statement are read from their end alone; the rest of the reading must agree."""
    taken = 0
    for row in rows(file):
        labels = tuple("ABCDEFGHIJ"[: len(row["options"])])
        space, (clean, why) = reading._space(labels, tuple(row["options"])), plain(row["text"])
        for text in (clean, f"{clean}\n\nSo, the correct answer is C.", f'{{"why": "{clean}", "answer": "B"}}'):
            ended = None if why else reading._ended(text, space)
            if ended is not None:
                taken += 1
                assert reading._found(text, space, row.get("question", ""))[0] == ended, text
    assert taken or file.stem == "words"
