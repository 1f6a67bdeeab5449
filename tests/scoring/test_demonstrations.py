"""The draw of demonstrations, and the released code's ways."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.scoring import original_files as made
from tests.scoring.conftest import make_items
from toolkit.errors import DataError, UsageError
from toolkit.scoring import demonstrations, paper_compat, prompts
from toolkit.scoring.benchmarks import get, load, size_notes
from toolkit.scoring.demonstrations import by_group, draw

POOLED = get("medqa4")
POOL = [
    dataclasses.replace(item, id=f"p{n}", question=f"{item.question} ({n})") for n, item in enumerate(make_items(40))
]


@settings(deadline=None)
@given(seed=st.integers(0, 2**31), shots=st.integers(1, 10), compat=st.booleans())
def test_more_shots_begin_with_the_fewer_and_none_comes_twice(seed: int, shots: int, compat: bool):
    more = draw(POOLED, POOL, shots=shots, seed=seed, compat=compat)
    assert len({item.id for item in more}) == shots
    assert more[:-1] == draw(POOLED, POOL, shots=shots - 1, seed=seed, compat=compat)
    assert more == draw(POOLED, list(POOL), shots=shots, seed=seed, compat=compat)


def test_the_papers_seeds_draw_different_ones():
    assert demonstrations.SEEDS == (1234, 432, 32)
    assert len({draw(POOLED, POOL, shots=5, seed=seed) for seed in demonstrations.SEEDS}) == 3


def test_the_draw_is_the_same_in_every_process():
    """Not of the hash seed; and a draw that changed would make old scores incomparable."""
    code = "from tests.scoring.test_demonstrations import *; "
    code += "print(*[i.id for i in draw(POOLED, POOL, shots=5, seed=1234)])"
    run = {"env": {"PYTHONHASHSEED": "1"}, "cwd": Path(__file__).parents[2], "capture_output": True, "text": True}
    done = subprocess.run([sys.executable, "-c", code], **run)
    assert done.stdout.split() == DRAWN, done.stderr
    assert [i.id for i in draw(POOLED, POOL, shots=5, seed=1234)] == DRAWN


DRAWN = ["p9", "p18", "p13", "p32", "p16"]


def test_the_released_order():
    assert paper_compat.order(10, 1234) == RELEASED


@pytest.mark.slow  # for what it imports
def test_the_released_order_is_that_of_datasets():
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_dict({"n": list(range(450))})
    for seed in demonstrations.SEEDS:
        assert rows.shuffle(seed=seed)["n"][:5] == paper_compat.order(450, seed)[:5]


RELEASED = [8, 9, 5, 0, 2, 6, 4, 7, 1, 3]


def test_what_is_scored_is_never_shown():
    items = [
        dataclasses.replace(item, id=f"s{n}", question=item.question.upper() + "  ") for n, item in enumerate(POOL[:35])
    ]
    for compat in (False, True):
        shown = by_group(POOLED, items, POOL, shots=5, seed=3, compat=compat)
        assert {d.id for found in shown.values() for d in found} == {f"p{n}" for n in range(35, 40)}
    with pytest.raises(DataError, match="6 are asked for, and the pool has 5"):
        by_group(POOLED, items, POOL, shots=6, seed=3)


def test_a_question_that_the_pool_has_twice_is_shown_once():
    twice = [dataclasses.replace(item, id=f"again {item.id}") for item in POOL[:3]]
    shown = by_group(POOLED, make_items(4, seed=9), [*POOL[:3], *twice], shots=3, seed=5)
    assert {d.id for found in shown.values() for d in found} == {"p0", "p1", "p2"}


def test_each_group_shows_its_own_where_the_benchmark_says_so():
    spec = get("mmlu_medical")
    items = [dataclasses.replace(item, question=f"New: {item.question}") for item in make_items(6)]
    shown = by_group(spec, items, POOL, shots=2, seed=1)
    assert set(shown) == {item.group for item in items} == {"common", "rare"}
    assert all({d.group for d in found} == {group} and len(found) == 2 for group, found in shown.items())
    pooled = by_group(spec, items, POOL, shots=2, seed=1, compat=True)
    assert len(set(pooled.values())) == 1
    lone = [item for item in POOL if item.group == "common"]
    with pytest.raises(DataError, match="too few questions to demonstrate 'mmlu_medical' with in 'rare'. 2 are asked"):
        by_group(spec, items, lone, shots=2, seed=1)
    assert set(by_group(spec, items, [], shots=0, seed=1).values()) == {()}


def test_reasoning_is_shown_by_those_that_have_an_explanation():
    pool = [dataclasses.replace(item, explanation="So." if n % 10 == 0 else " ") for n, item in enumerate(POOL)]
    assert all(d.explanation == "So." for d in draw(POOLED, pool, shots=4, seed=1, mode="sc_cot"))
    with pytest.raises(DataError, match="5 are asked for, and the pool has 4 with an explanation of 40"):
        draw(POOLED, pool, shots=5, seed=1, mode="cot")
    with pytest.raises(UsageError, match="at least 0"):
        draw(POOLED, POOL, shots=-1, seed=1)


# --- the paper's ways


def test_every_choice_says_what_differs():
    names = [choice.name for choice in paper_compat.CHOICES]
    assert len(set(names)) == len(names) and len(names) >= 10
    assert all(choice.released and choice.ours and choice.released != choice.ours for choice in paper_compat.CHOICES)


def test_mmlu_as_the_paper_read_it(tmp_path: Path):
    made.mmlu(tmp_path, extra=["high_school_chemistry", "college_chemistry"])
    spec = paper_compat.apply(get("mmlu_medical"))
    items = load(spec, tmp_path, compat=True)
    assert len(items) == spec.size == 1862 and size_notes(spec, items) == []
    assert not any(item.source_index == 0 for item in items)
    pool = demonstrations.pool(spec, tmp_path, compat=True)
    assert [item.group for item in pool[::4]] == list(
        paper_compat.MMLU
    )  # four of each of eleven, in the released order
    assert len(set(by_group(spec, items, pool, shots=5, seed=32, compat=True).values())) == 1


def test_medqa4_speaks_of_five_options_in_the_papers_way_alone():
    assert "A to E" in paper_compat.apply(get("medqa4")).instruction and "A to D" in get("medqa4").instruction
    assert paper_compat.apply(get("medmcqa")).instruction == get("medmcqa").instruction


def test_tokens_to_write_and_where_to_stop():
    assert [paper_compat.max_tokens(mode, 1, shots) for mode, shots in (("letter", 0), ("letter", 5), ("cot", 5))] == [
        1,
        9,
        1024,
    ]
    assert paper_compat.STOPS == ("###",) and prompts.STOP[0] == "###"
