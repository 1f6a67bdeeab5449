"""What a word is, and that its number is its own wherever and whenever it is made."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.corpus import words


def same(first: str, second: str) -> bool:
    return np.array_equal(words.hashes(first), words.hashes(second))


def listed(text: str) -> list[str]:
    return [text[begin:end] for begin, end in words.spans(text).tolist()]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("The β-blocker, given twice.", "the\n\nΒ BLOCKER (given) twice!"),
        ("p<0.05", "P < 0.05"),
        ("10 µg/m²", "10 μg / m2"),  # the micro sign and the Greek letter
        ("“quoted” — text…", '"quoted" - text ...'),
        ("ＣＴ　ｓｃａｎ", "CT scan"),
    ],
)
def test_what_does_not_count(first, second):
    assert same(first, second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("<18 mg/dl", ">18 mg/dl"),
        ("≤5", "≥5"),
        ("5 %", "5"),
        ("0.5", "05"),
        ("alpha beta", "beta alpha"),
        ("tea", "eat"),
        ("α", "a"),
        ("IL-1β", "IL-1α"),
        ("a a", "a"),
        ("ab c", "a bc"),
    ],
)
def test_what_counts(first, second):
    assert not same(first, second)


def test_where_words_stand():
    assert listed("Größe ≤5 µg, 漢字!  <<x\n") == ["Größe", "≤", "5", "µg", "漢", "字", "<", "<", "x"]
    assert listed("") == listed(" \n.,;") == listed("😀 🎉") == [] and len(words.hashes("...")) == 0
    assert words.fold("GRÖẞE") == words.fold("größe") and words.fold("m²") == "m2"
    lone = "broken \ud800 text"
    assert listed(lone)[0] == "broken" and same("broken", lone[:6])


@settings(deadline=None, max_examples=150)
@given(st.text(max_size=200), st.text(alphabet="ab <>.é漢", max_size=60))
def test_numbers_and_places_are_of_the_same_words(first, second):
    text = first + " " + second
    assert len(words.hashes(text)) == len(words.spans(text))
    apart = [words.hashes(part) for part in (first, second)]
    assert np.array_equal(words.hashes(text), np.concatenate(apart))
    folded = [words.fold(word) for word in listed(text)]
    numbers = words.hashes(text).tolist()
    # One number a folded word, and one folded word a number.
    assert len(set(zip(folded, numbers, strict=True))) == len(set(folded)) == len(set(numbers))


def test_long_texts_are_worked_off_in_pieces_without_a_seam():
    line = "Fever of 39.2 °C, <3 days; ω-3 acids. "
    many = words.hashes(line * 30_000).reshape(30_000, -1)
    assert np.all(many == words.hashes(line))
    assert len(words.spans(line * 30_000)) == many.size
    assert len(words.hashes("x" * 3_000_000)) > 0  # no blank anywhere
    assert len(words.hashes(" " * 3_000_000)) == 0


def test_the_same_numbers_in_every_process():
    code = "from toolkit.corpus import words; print(words.hashes('Fièvre <39 β').tolist())"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.strip() == str(words.hashes("Fièvre <39 β").tolist())
    # Fingerprints stay on disk from one version to the next: these numbers must not change unnoticed.
    assert words.hashes("Fever <39").tolist() == NUMBERS


def test_runs():
    hashed = words.hashes("a b c a b c d")
    runs = words.runs(hashed, 3)
    assert len(runs) == 5 and runs[0] == runs[3] and len(set(runs.tolist())) == 4
    assert len(words.runs(hashed, 8)) == 0
    assert words.runs(words.hashes("c b a"), 3)[0] != runs[0]


NUMBERS = [11910671266517415114, 8038367802784143285, 12606326711040874462]
