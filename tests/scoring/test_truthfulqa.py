from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from tests.scoring import original_files as made
from toolkit.errors import DataError
from toolkit.scoring import demonstrations
from toolkit.scoring.benchmarks import get, load, size_notes

SPEC = get("truthfulqa_medical")


def test_the_99_medical_questions_of_817(tmp_path: Path):
    made.truthfulqa(tmp_path / "data" / "TruthfulQA.csv")
    items = load(SPEC, tmp_path)
    assert size_notes(SPEC, items) == [] and len(items) == 99
    assert Counter(i.group for i in items) == {"Health": 55, "Nutrition": 16, "Psychology": 19, "Science": 9}
    assert Counter(len(i.options) for i in items) == {4: 90, 3: 9}  # nine questions have but two wrong answers
    rows = {row["Question"]: row for row in made.truthfulqa_rows()}
    for item in items:
        row = rows[item.question]
        assert item.options[item.gold] == row["Best Answer"]
        assert set(item.options) - {row["Best Answer"]} <= set(row["wrong"])
        assert len(set(item.options)) == len(item.options)
    assert len(Counter(i.gold for i in items)) == 4  # the right one is not always in one place


def test_the_draw_is_the_seeds_and_no_other_rows(tmp_path: Path):
    path = made.truthfulqa(tmp_path / "TruthfulQA.csv")
    again = [load(SPEC, path, seed=seed) for seed in (7, 7, 8)]
    assert again[0] == again[1] != again[2]
    lines = path.read_text().splitlines()
    (tmp_path / "piece.csv").write_text("\n".join(lines[:400]))
    piece = {i.id: i for i in load(SPEC, tmp_path / "piece.csv", seed=7)}
    whole = {i.id: i for i in again[0]}
    assert piece and all(whole[key] == item for key, item in piece.items())


def test_with_replacement_as_the_paper_every_question_has_four_options(tmp_path: Path):
    items = load(SPEC, made.truthfulqa(tmp_path / "TruthfulQA.csv"), compat=True)
    assert {len(i.options) for i in items} == {4}
    assert sum(len(set(i.options)) < 4 for i in items) > 9  # not only where there are too few
    assert all(i.options.count(i.options[i.gold]) == 1 for i in items)


def test_demonstrations_are_of_the_other_categories(tmp_path: Path):
    path = made.truthfulqa(tmp_path / "TruthfulQA.csv")
    items, pool = load(SPEC, path), demonstrations.pool(SPEC, path)
    assert len(pool) == 718 and size_notes(SPEC, load(SPEC, path, split="train"), "train") == []
    assert {i.group for i in pool}.isdisjoint(SPEC.groups) and {i.id for i in pool}.isdisjoint(i.id for i in items)
    shown = demonstrations.by_group(SPEC, items, pool, shots=1, seed=1)
    assert set(shown) == set(SPEC.groups) and len(set(shown.values())) == 1


def test_multiple_choice_rows_with_the_categories_beside(tmp_path: Path):
    rows = made.truthfulqa_rows()
    targets = [{"choices": [r["Best Answer"], *r["wrong"]], "labels": [1] + [0] * len(r["wrong"])} for r in rows]
    csv_items = load(SPEC, made.truthfulqa(tmp_path / "csv" / "TruthfulQA.csv"))
    # the hub's form: two files
    both = [{"question": r["Question"], "mc1_targets": t} for r, t in zip(rows, targets, strict=True)]
    hub = made.parquet(tmp_path / "hub/multiple_choice/validation-00000-of-00001.parquet", both)
    with pytest.raises(DataError, match="cannot tell the questions' categories.*TruthfulQA.csv"):
        load(SPEC, hub)
    generation = tmp_path / "hub/generation/validation-00000-of-00001.parquet"
    made.parquet(generation, [{"category": r["Category"], "question": r["Question"]} for r in rows])
    assert load(SPEC, tmp_path / "hub") == csv_items
    # the repository's: an object of answers
    as_objects = [
        {"question": r["Question"], "mc1_targets": dict(zip(t["choices"], t["labels"], strict=True))}
        for r, t in zip(rows, targets, strict=True)
    ]
    (tmp_path / "csv" / "mc_task.json").write_text(json.dumps(as_objects))
    assert load(SPEC, tmp_path / "csv" / "mc_task.json") == csv_items
    (tmp_path / "csv" / "TruthfulQA.csv").write_text("Category,Question\nHealth,Another?\n")
    with pytest.raises(DataError, match="has no category in the file beside it"):
        load(SPEC, tmp_path / "csv" / "mc_task.json")


def test_the_hubs_generation_rows_are_enough(tmp_path: Path):
    rows = [
        {
            "category": r["Category"],
            "question": r["Question"],
            "best_answer": r["Best Answer"],
            "incorrect_answers": r["wrong"],
        }
        for r in made.truthfulqa_rows()
    ]
    path = made.parquet(tmp_path / "generation/validation-00000-of-00001.parquet", rows)
    assert load(SPEC, tmp_path) == load(SPEC, path) == load(SPEC, made.truthfulqa(tmp_path / "TruthfulQA.csv"))


GOOD = {"Category": "Health", "Question": "Is <b>it</b>?", "Best Answer": "no", "Incorrect Answers": "yes; maybe"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Best Answer": ""}, "'Best Answer' must be text"),
        ({"Question": " "}, "'Question' must be text"),
        ({"Category": ""}, "'Category' must be text"),
        ({"Incorrect Answers": " ; ;"}, "no wrong answer"),
        ({"Incorrect Answers": "no"}, "no wrong answer"),
        ({"mc1_targets": {"choices": ["a"], "labels": [1, 0]}}, "no answers that can be read"),
        ({"mc1_targets": {"choices": ["a", "b"], "labels": [1, 2]}}, "no answers that can be read"),
        ({"mc1_targets": {"choices": ["a", "b"], "labels": [1, 1]}}, "2 right answers"),
        ({"mc1_targets": {"a": 0, "b": 0}}, "0 right answers"),
        ({"mc1_targets": ["a"]}, "no answers that can be read"),
        ({"mc1_targets": {"a": True, "b": 0}}, "no answers that can be read"),
        ({"Question": "\ud800"}, "half a character"),
    ],
)
def test_a_bad_row_names_itself(tmp_path: Path, change: dict, message: str):
    (tmp_path / "x.json").write_text(json.dumps([GOOD, GOOD | change]))
    with pytest.raises(DataError, match=f"x.json row 2: .*{message}"):
        load(SPEC, tmp_path / "x.json")
    (tmp_path / "x.json").write_text(json.dumps([GOOD]))
    (item,) = load(SPEC, tmp_path / "x.json")
    assert item.question == "Is <b>it</b>?" and sorted(item.options) == ["maybe", "no", "yes"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"Category,Question,Best Answer\nHealth,Is it?,no\n", "no answers that can be read"),
        (b"Category,Question,Best Answer,Incorrect Answers\nHealth,Is it?,no\n", "csv:2: the row does not fit"),
        (b'Category,Question,Best Answer,Incorrect Answers\nHealth,"Is it?,no,yes\n', "not valid CSV"),
        (b"Category,Question,Best Answer,Incorrect Answers\n", "no items"),
        (b"Category,Question,Best Answer,Incorrect Answers\nLaw,Is it?,no,yes\n", "no items"),
        (b"Category,Question,Best Answer,Incorrect Answers\nHealth,Is it\xe9?,no,yes\n", "csv:2: is not UTF-8"),
    ],
)
def test_a_bad_file(tmp_path: Path, content: bytes, message: str):
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        load(SPEC, tmp_path / "x.csv")
