"""Each benchmark from files of its own format and size: sizes, right answers, splits, the hub's form of the same."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from tests.scoring import original_files as made
from toolkit.errors import DataError, UsageError
from toolkit.scoring import benchmarks
from toolkit.scoring.benchmarks import get, load, size_notes


def gold_counts(items) -> dict[str, int]:
    return dict(Counter(item.labels[item.gold] for item in items))


def test_medqa_with_four_and_five_options(tmp_path: Path):
    made.medqa(tmp_path / "questions/US/4_options/phrases_no_exclude_test.jsonl", made.golds("medqa4"), 4)
    made.medqa(tmp_path / "questions/US/4_options/phrases_no_exclude_train.jsonl", ["A"] * 30, 4)
    made.medqa(tmp_path / "questions/US/test.jsonl", ["ABCDE"[i % 5] for i in range(1273)], 5)
    made.medqa(tmp_path / "questions/US/train.jsonl", ["E"] * 20, 5)
    four, five = load(get("medqa4"), tmp_path), load(get("medqa"), tmp_path)
    assert size_notes(get("medqa4"), four) == size_notes(get("medqa"), five) == []
    assert gold_counts(four) == {"A": 353, "B": 309, "C": 346, "D": 265}
    assert five[4].labels == tuple("ABCDE") and five[4].options[five[4].gold] == "drug 4 E"
    train = load(get("medqa"), tmp_path, split="train")
    assert len(train) == 20 and size_notes(get("medqa"), train, "train") == [
        "20 items, where the whole training split of MedQA, 5 options has 10178"
    ]
    assert len(load(get("medqa4"), tmp_path, split="demonstrations")) == 30  # the training split, for want of another
    beside = tmp_path / "questions/US/4_options/phrases_no_exclude_test.jsonl"
    assert len(load(get("medqa4"), beside, split="train")) == 30
    given = tmp_path / "questions/US/train.jsonl"
    assert [i.source_index for i in load(get("medqa"), beside, split="train", train_path=given)] == list(range(20))
    with pytest.raises(DataError, match="4 options, where 'medqa' has 5"):
        load(get("medqa"), beside)


def test_options_as_keys_and_values(tmp_path: Path):
    options = [{"key": key, "value": f"v{key}"} for key in "EDCBA"]
    row = {"question": "Q?", "answer": "vB", "options": options, "answer_idx": "B", "meta_info": "x"}
    (item,) = load(get("medqa"), made.lines(tmp_path / "x.jsonl", [row]))
    assert item.options == ("vA", "vB", "vC", "vD", "vE") and item.gold == 1


@pytest.mark.parametrize("first", [0, 1])
def test_medmcqa_from_one_and_from_zero(tmp_path: Path, first: int):
    rows = made.medmcqa_rows(made.golds("medmcqa"), first)
    where = made.lines(tmp_path / "dev.json", rows)
    if first == 0:
        where = made.parquet(tmp_path / "data/validation-00000-of-00001.parquet", rows).parent.parent
        (tmp_path / "dev.json").unlink()
    items = load(get("medmcqa"), where)
    assert size_notes(get("medmcqa"), items) == []
    assert gold_counts(items) == {"A": 1348, "B": 1085, "C": 925, "D": 825}
    assert items[0].explanation == "" and items[0].group == "Anatomy"


def explained(start: str, cop: int, n: int) -> list[dict]:
    rows = made.medmcqa_rows(["A"] * n, 0)
    return [row | {"cop": cop, "exp": f"{start} i.e., that one"} for row in rows]


def test_a_file_that_counts_in_two_ways_is_refused(tmp_path: Path):
    rows = explained("Ans. is 'b'", 0, 3) + explained("Ans. is 'b'", 4, 3)
    path = made.lines(tmp_path / "x.json", [row | {"id": str(i)} for i, row in enumerate(rows)])
    with pytest.raises(DataError) as caught:
        load(get("medmcqa"), path)
    assert "0 and one beyond the last option both occur" in str(caught.value) and "Mend the rows" in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "gold"),
    [
        (explained("Ans. is 'b'", 2, 5), 1),  # no 0 and no 4 in the piece: the explanations say how it counts
        (explained("Ans-c.", 2, 6), 2),
        (explained("Answer: (B)", 1, 5) + explained("Ans. is 'd'", 2, 1), 1),
        (explained("Ans. is 'b'", 2, 4), None),  # too few
        (explained("Ans. is 'b'", 2, 6) + explained("Ans. is 'c'", 2, 3), None),  # of two minds
        (explained("Answers by bacteria", 2, 9), None),
    ],
)
def test_a_piece_of_medmcqa_is_told_by_its_explanations(tmp_path: Path, rows: list[dict], gold: int | None):
    path = made.lines(tmp_path / "x.json", [row | {"id": str(i)} for i, row in enumerate(rows)])
    if gold is None:
        with pytest.raises(DataError, match="cannot tell whether answers count from 0 or from 1"):
            load(get("medmcqa"), path)
    else:
        assert load(get("medmcqa"), path)[0].gold == gold


def test_medmcqa_real_pieces_are_told_alike(shared_data: Path, tmp_path: Path):
    """Without the rows that decide by their number, the explanations of the real file still do."""
    rows = [json.loads(line) for line in (shared_data / "medmcqa/dev_first150.json").read_text().splitlines()]
    piece = [row for row in rows if row["cop"] != 4]
    shifted = [row | {"cop": row["cop"] - 1} for row in rows if row["cop"] != 1]
    golds = [item.gold for item in load(get("medmcqa"), made.lines(tmp_path / "a.json", piece))]
    assert golds == [row["cop"] - 1 for row in piece]
    golds = [item.gold for item in load(get("medmcqa"), made.lines(tmp_path / "b.json", shifted))]
    assert golds == [row["cop"] for row in shifted]


def test_pubmedqa_folds_and_the_hubs_form(tmp_path: Path):
    made.pubmedqa(tmp_path)
    spec = get("pubmedqa")
    items = load(spec, tmp_path)
    assert size_notes(spec, items) == [] and gold_counts(items) == {"yes": 276, "no": 169, "maybe": 55}
    assert items[0].explanation == "Because 0." and items[0].context == "We saw 0.\nIt was."
    shown = load(spec, tmp_path, split="demonstrations")
    assert len(shown) == 450 and not {i.id for i in shown} & {i.id for i in items}
    with pytest.raises(DataError, match="no train file of benchmark 'pubmedqa'.*pqaa_train_set.json.*--train"):
        load(spec, tmp_path, split="train")
    rows = [
        {
            "pubid": 7 + i,
            "question": f"Q{i}?",
            "context": {"contexts": ["a", "b"], "labels": ["x", "y"]},
            "long_answer": "L",
            "final_decision": w,
        }
        for i, w in enumerate(("yes", "no", "maybe"))
    ]
    path = made.parquet(tmp_path / "hub/pqa_labeled/train-00000-of-00001.parquet", rows)
    for place in (path, tmp_path / "hub"):
        found = load(spec, place)
        assert [(i.id, i.context, i.gold, i.explanation) for i in found] == [
            (str(7 + n), "a\nb", n, "L") for n in range(3)
        ]


def test_mmlu_nine_subjects_and_their_demonstrations(tmp_path: Path):
    made.mmlu(tmp_path, extra=["college_chemistry"])
    spec = get("mmlu_medical")
    items = load(spec, tmp_path)
    assert len(items) == 1871 and size_notes(spec, items) == []
    shown = load(spec, tmp_path, split="demonstrations")
    assert Counter(i.group for i in shown) == dict.fromkeys(spec.groups, 5)
    assert load(spec, tmp_path / "test", split="demonstrations") == shown  # folders side by side
    with pytest.raises(DataError, match="names no train files"):
        load(spec, tmp_path, split="train")


def test_mmlu_in_the_hubs_form(tmp_path: Path):
    rows = [
        {"question": f"Q{i}", "subject": "virology", "choices": ["w", "x", "y", "z"], "answer": i % 4} for i in range(6)
    ]
    made.parquet(tmp_path / "virology/test-00000-of-00001.parquet", rows)
    items = load(get("mmlu_medical"), tmp_path)
    assert [i.gold for i in items] == [0, 1, 2, 3, 0, 1] and {i.group for i in items} == {"virology"}
    assert load(get("mmlu_medical"), tmp_path / "virology/test-00000-of-00001.parquet") == items


# --- tables of other forms, and files that are none


def own(tmp_path: Path, text: str) -> benchmarks.Benchmark:
    (tmp_path / "own.yaml").write_text(text)
    return get(tmp_path / "own.yaml")


ROWS = (
    "title: Own\nformat: jsonl\nfields: {question: q, options: [a, b], answer: right}\ngold: index\nanswers: [A, B]\n"
)


def test_a_table_with_a_header_may_be_csv(tmp_path: Path):
    spec = own(tmp_path, ROWS)
    path = made.table(
        tmp_path / "x.csv", [["q", "a", "b", "right"], ["Is, it?", "1", "2", "1"], ["Or?", "3", "4", "0"]]
    )
    assert [(i.question, i.options, i.gold) for i in load(spec, path)] == [
        ("Is, it?", ("1", "2"), 1),
        ("Or?", ("3", "4"), 0),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('q,a,b,right\n"Is it?,1,2,1\n', "x.csv:2: is not valid CSV"),
        ("q,a,b,right\nIs it?,1\n", "x.csv:2: the row does not fit the header. 2 cells, where the header has 4"),
        ("q,a,a,right\nIs it?,1,2,1\n", "x.csv:1: the header names a column twice"),
        ("q,a,b\nIs it?,1,2\n", "x.csv:2: the field 'right' is missing"),
        ("q,a,b,right\nIs it?,1,2,2\n", "x.csv:2: the answer '2' is not among the options"),
        ("q,a,b,right\nIs it?,1,2,-1\n", "-1 marks rows whose answer is not public"),
        ("q,a,b,right\nIs it?,1,2,1.0\n", "'1.0' is not among"),
        ("q,a,b,right\n", "has no items"),
        ("", "empty"),
        ("q,a,b,right\nIs it?,1,2,1\n\x00,,,\n", "x.csv"),
    ],
)
def test_a_bad_csv_table(tmp_path: Path, content: str, message: str):
    spec = own(tmp_path, ROWS)
    (tmp_path / "x.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        load(spec, tmp_path / "x.csv")


@pytest.mark.parametrize("name", ["x.parquet", "x.bin"])
@pytest.mark.parametrize("content", ["", "text", "PAR1", "cut", "garbled", "folder"])
def test_a_parquet_file_that_is_none(tmp_path: Path, name: str, content: str):
    spec = own(tmp_path, ROWS)
    whole = made.parquet(tmp_path / "whole", [{"q": f"Is {i}?", "a": "1", "b": "2", "right": 1} for i in range(500)])
    assert len(load(spec, whole)) == 500
    raw = whole.read_bytes()
    path = tmp_path / name
    if content == "folder":
        path.mkdir()
    else:
        half = len(raw) // 2
        made_of = {
            "cut": raw[:half],
            "garbled": raw[:4] + bytes(b ^ 0x55 for b in raw[4:-8]) + raw[-8:],
            "PAR1": b"PAR1",
        }
        path.write_bytes(made_of.get(content, content.encode()))
    with pytest.raises(DataError, match=name):
        load(spec, path)


def test_a_parquet_file_of_other_columns_or_types(tmp_path: Path):
    spec = own(tmp_path, ROWS)
    with pytest.raises(DataError, match="row 1: the field 'q' is missing"):
        load(spec, made.parquet(tmp_path / "x.parquet", [{"text": "a"}]))
    with pytest.raises(DataError, match="row 1: the field 'q' must be text, not NoneType"):
        load(spec, made.parquet(tmp_path / "x.parquet", [{"q": None, "a": "1", "b": "2", "right": 1}]))
    with pytest.raises(DataError, match="row 1: the answer 7 is not among"):
        load(spec, made.parquet(tmp_path / "x.parquet", [{"q": "Is?", "a": "1", "b": "2", "right": 7}]))
    with pytest.raises(DataError, match="has no items"):
        load(spec, made.parquet(tmp_path / "x.parquet", [{"q": "Is?"}][:0] or [{}][:0]))


def test_without_pyarrow_the_message_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import sys

    from toolkit.errors import MissingPackage

    path = made.parquet(tmp_path / "x.parquet", [{"q": "Is?", "a": "1", "b": "2", "right": 1}])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingPackage, match="reading parquet needs pyarrow"):
        load(own(tmp_path, ROWS), path)


def test_unknown_split_and_a_train_path_that_is_not_there(tmp_path: Path):
    with pytest.raises(UsageError, match="unknown split 'trian'. Did you mean 'train'"):
        load(get("medqa"), tmp_path, split="trian")
    with pytest.raises(DataError, match="no such benchmark file"):
        load(get("medqa"), tmp_path, split="train", train_path=tmp_path / "none.jsonl")
