from __future__ import annotations

import csv
import dataclasses
import json
from collections import Counter
from pathlib import Path

import pytest

from tests.scoring.conftest import write_rows
from toolkit.errors import DataError, UsageError
from toolkit.scoring import benchmarks
from toolkit.scoring.benchmarks import Benchmark, get, load, size_notes

EXAMS = {
    "medmcqa": 4183,
    "medqa": 1273,
    "medqa4": 1273,
    "mmlu_medical": 1871,
    "pubmedqa": 500,
    "truthfulqa_medical": 99,
}
NAMES = ["demo_cloze", "demo_letters_heldout", "demo_letters_trained", *EXAMS]
OWN = "title: T\nformat: jsonl\nfields: {question: q, answer: a}\n"
ROW = {"id": "a", "question": "Which?", "options": ["w", "x", "y", "z"], "answer": 2, "group": "g"}
CLOZE_ROW = {"id": "a", "prompt": "It is", "options": ["w", "x", "y", "z"], "answer": 0, "group": None}
MEDQA_ROW = {
    "question": "Which?",
    "answer": "x",
    "options": {"A": "w", "B": "x", "C": "y", "D": "z"},
    "answer_idx": "B",
}
MCQA_ROW = {"question": "Which?", "opa": "w", "opb": "x", "opc": "y", "opd": "z", "subject_name": "ENT"}


# --- the files of recipes/benchmark


def test_all_benchmarks_parse_and_their_counts_add_up():
    assert set(NAMES) <= set(benchmarks.names())
    for name in benchmarks.names():
        spec = get(name)
        assert spec.name == name and spec.title and spec.compatible_with
        for counts in (spec.groups, spec.gold_counts):
            assert not counts or sum(counts.values()) == spec.size
        assert not spec.gold_counts or set(spec.gold_counts) == set(spec.answers)


def test_exams_are_fully_described():
    for name, size in EXAMS.items():
        spec = get(name)
        assert (spec.size, spec.modes, spec.license != "") == (size, benchmarks.MODES, True)
        assert spec.instruction and "Reply" not in spec.instruction  # which the prompts add, by mode
        assert spec.gold_counts or spec.format != "jsonl" or "has not been counted" in spec.notes
        assert spec.hub is None or len(spec.hub.revision) == 40
    assert get("medqa").answers == tuple("ABCDE") and get("pubmedqa").answers == ("yes", "no", "maybe")
    assert get("mmlu_medical").demonstrate == "by_group" and "1,862" in get("mmlu_medical").notes
    trained = {name: get(name).train_size for name in EXAMS}
    assert trained["medqa"] == trained["medqa4"] == 10178 and trained["pubmedqa"] == 200000


def test_unknown_name_offers_the_nearest():
    with pytest.raises(UsageError, match="Did you mean 'medmcqa'"):
        get("medmqca")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title: T\nformat: jsonl\nanswrs: [A]\n", "unknown key 'answrs'.*Did you mean 'answers'"),
        ("title: T\nformat: jsonl\nanswers: [yes, no]\n", "answers must be a list.*between quotes"),
        ("title: T\nformat: jsonl\nsize: many\n", "size must be a whole number"),
        ("title: T\nformat: jsonl\nsize: true\n", "size must be a whole number"),
        ("title: 3\nformat: jsonl\n", "title must be text"),
        ("title: T\nformat: json\n", "format: 'json' is not known.*jsonl"),
        ("title: T\nformat: jsonl\nmode: letters\n", "Did you mean 'letter'"),
        ("title: T\nformat: jsonl\nfields: {qestion: q}\n", "Did you mean 'question'"),
        ("title: T\nformat: jsonl\nfields: {question: 3}\n", "fields must be a mapping"),
        ("title: T\n", "'format' is missing"),
        ("title: T\nformat: jsonl\nfields: {answer: a}\n", "where the question or prompt is"),
        ("title: T\nformat: json_by_id\nfields: {question: q}\n", "where the answer is"),
        ("- a\n", "must be a mapping"),
        ("title: [\n", "not valid YAML"),
        ("title: !!python/object/apply:os.system [exit 1]\nformat: jsonl\n", "not valid YAML"),
        ("", "empty"),
        (f"{OWN}modes: [letter, guess]\n", "modes: 'guess' is not known"),
        (f"{OWN}mode: cot\nmodes: [letter]\n", "mode: 'cot' is not one of its modes"),
        (f"{OWN}shots: -1\n", "shots must be at least 0"),
        (f"{OWN}demonstrate: grouped\n", "Did you mean"),
        (f"{OWN}answers: [A, A]\n", "all different"),
        (f"{OWN}answers: [A]\n", "two or more"),
        (f"{OWN}files: [../../secret.json]\n", "files: '../../secret.json' is not inside the benchmark's folder"),
        (f"{OWN}fold: /etc/passwd\n", "fold: '/etc/passwd' is not inside"),
        (f"{OWN}hub: a/b\n", "hub must be a mapping"),
        (f"{OWN}hub: {{path: a/b, revision: c}}\n", "the key 'hub.files' is missing"),
        (f"{OWN}hub: {{path: a/b, revision: 3, files: [c]}}\n", "hub.revision must be text"),
        (f"{OWN}hub: {{path: a/b, revision: c, files: [d], filez: [e]}}\n", "unknown key 'hub.filez'.*'files'"),
        (f"{OWN}hub: {{path: a/b, revision: c, files: [/d]}}\n", "hub.files: '/d' is not inside"),
        (f"{OWN}hub: {{path: a/b, revision: c, files: [d], gold: leter}}\n", "hub.gold: 'leter' is not known"),
        (f"{OWN}name: other\n", "unknown key 'name'"),
        (f"{OWN}3: x\n", "unknown key '3'"),
        (f"{OWN}__class__: x\n", "unknown key '__class__'"),
        (f"{OWN}title: &a [*a]\n", "not valid YAML|must be text"),
        ("title: T\nformat: jsonl\nfields: {question: {q: {r: s}}, answer: a}\n", "fields must be a mapping"),
        ("title: 'T\x00'\nformat: jsonl\n", "not valid YAML"),
    ],
)
def test_bad_benchmark_file(tmp_path: Path, text: str, message: str):
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        get(path)
    assert "own.yaml" in str(caught.value)


def test_yaml_that_names_itself_a_million_times_over(tmp_path: Path):
    lines = [f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 9)}]" for n in range(1, 30)]
    (tmp_path / "own.yaml").write_text("x0: &x0 [a]\n" + "\n".join(lines) + f"\n{OWN}")
    with pytest.raises(DataError, match="unknown key 'x0'"):
        get(tmp_path / "own.yaml")
    nested = "answers: &x0 [a]\n" + "\n".join(
        line.replace(f"x{n}: ", "answers: ", 1) for n, line in enumerate(lines, 1)
    )
    (tmp_path / "own.yaml").write_text(f"{OWN}{nested}")
    with pytest.raises(DataError, match="answers must be a list of texts"):
        get(tmp_path / "own.yaml")


def test_a_benchmark_can_be_a_file_of_the_users(tmp_path: Path):
    path = tmp_path / "own.yaml"
    rows = write_rows(tmp_path / "rows.jsonl", [{"q": "Is it?", "a": "No "}])
    text = f'title: Own\nformat: jsonl\npath: "{rows}"\nfields: {{question: q, answer: a}}\n'
    path.write_text(text + 'answers: ["yes", "no"]\ngold: word\n')
    (item,) = load(get(path))
    assert (item.id, item.gold, item.options, item.labels, item.listed) == (
        "own-00001",
        1,
        ("yes", "no"),
        ("yes", "no"),
        False,
    )


# --- each format


def test_project_rows(tmp_path: Path):
    (item,) = load(get("demo_letters_trained"), write_rows(tmp_path / "x.jsonl", [ROW]))
    assert (item.question, item.options, item.gold, item.group) == ("Which?", ("w", "x", "y", "z"), 2, "g")
    assert item.labels == ("A", "B", "C", "D")
    write_rows(tmp_path / "cloze.jsonl", [CLOZE_ROW])
    (item,) = load(get("demo_cloze"), tmp_path)  # a folder is searched for the benchmark's own file name
    assert (item.prompt, item.question, item.gold, item.group) == ("It is", "", 0, "")


def test_rows_may_be_a_json_array_or_have_a_byte_order_mark(tmp_path: Path):
    for text in (json.dumps([ROW]), "\ufeff" + json.dumps(ROW) + "\r\n\n"):
        (tmp_path / "x").write_text(text, encoding="utf-8")
        assert len(load(get("demo_letters_trained"), tmp_path / "x")) == 1


def test_line_separators_inside_text_do_not_end_a_row(tmp_path: Path):
    (tmp_path / "x").write_text(json.dumps(ROW | {"question": "a\u2028b\x85c"}, ensure_ascii=False), encoding="utf-8")
    assert load(get("demo_letters_trained"), tmp_path / "x")[0].question == "a\u2028b\x85c"


def test_medqa(tmp_path: Path):
    first, second = load(get("medqa4"), write_rows(tmp_path / "x", [MEDQA_ROW, MEDQA_ROW | {"answer_idx": "D"}]))
    assert first.options == ("w", "x", "y", "z") and (first.gold, second.gold) == (1, 3)
    assert first.id != second.id


@pytest.mark.parametrize(("cops", "golds"), [([1, 4, 2], [0, 3, 1]), ([0, 3, 2], [0, 3, 2])])
def test_medmcqa_counts_from_one_or_from_zero(tmp_path: Path, cops: list[int], golds: list[int]):
    rows = [MCQA_ROW | {"id": str(i), "cop": cop} for i, cop in enumerate(cops)]
    assert [item.gold for item in load(get("medmcqa"), write_rows(tmp_path / "x", rows))] == golds


@pytest.mark.parametrize(
    ("cops", "message"),
    [
        ([1, 2, 3], "cannot tell"),
        ([0, 4], "cannot tell"),
        ([-1, 0], "-1 marks rows"),
        ([1, 4, 5], "not among"),
        ([], "empty"),
    ],
)
def test_medmcqa_answers_that_cannot_be_told(tmp_path: Path, cops: list[int], message: str):
    rows = [MCQA_ROW | {"id": str(i), "cop": cop} for i, cop in enumerate(cops)]
    with pytest.raises(DataError, match=message):
        load(get("medmcqa"), write_rows(tmp_path / "x", rows))


def test_pubmedqa_and_its_test_fold(tmp_path: Path):
    row = {"QUESTION": "Does it?", "CONTEXTS": ["One.", "Two."], "final_decision": "maybe"}
    data = {"11": row, "12": row | {"final_decision": "yes"}, "13": row | {"final_decision": "no"}}
    (tmp_path / "ori_pqal.json").write_text(json.dumps(data))
    items = load(get("pubmedqa"), tmp_path / "ori_pqal.json")
    assert [(i.id, i.gold, i.context) for i in items] == [
        (k, g, "One.\nTwo.") for k, g in (("11", 2), ("12", 0), ("13", 1))
    ]
    (tmp_path / "test_ground_truth.json").write_text('{"12": "yes", "13": "no"}')
    assert [i.id for i in load(get("pubmedqa"), tmp_path)] == ["12", "13"]
    (tmp_path / "test_ground_truth.json").write_text('{"12": "yes", "99": "no"}')
    with pytest.raises(DataError, match="'99' first"):
        load(get("pubmedqa"), tmp_path)


def test_mmlu_folder(tmp_path: Path):
    with open(tmp_path / "virology_test.csv", "w", newline="") as handle:
        csv.writer(handle).writerows([['A "virus",\nor not', "w", "x", "y, z", "q", "C"]])
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "anatomy_test.csv").write_text("Which,1,2,3,4,a\n")
    anatomy, virology = load(get("mmlu_medical"), tmp_path)
    assert (anatomy.group, anatomy.gold, anatomy.id) == ("anatomy", 0, "anatomy-00001")
    assert (virology.question, virology.options[2], virology.gold) == ('A "virus",\nor not', "y, z", 2)
    (alone,) = load(get("mmlu_medical"), tmp_path / "virology_test.csv")
    assert alone == virology


# --- real files


def test_real_files(shared_data: Path):
    expected = {
        ("medqa4", "medqa/us_4_options_first150.jsonl"): {"A": 39, "B": 36, "C": 39, "D": 36},
        ("medmcqa", "medmcqa/dev_first150.json"): {"A": 57, "B": 41, "C": 28, "D": 24},
        ("pubmedqa", "pubmedqa/ori_pqal.json"): {"yes": 552, "no": 338, "maybe": 110},
    }
    for (name, path), counts in expected.items():
        items = load(get(name), shared_data / path)
        assert Counter(item.labels[item.gold] for item in items) == counts
        assert len(items) == sum(counts.values()) and all(item.question for item in items)
        (note,) = size_notes(get(name), items)
        assert str(len(items)) in note and str(get(name).size) in note
    items = load(get("mmlu_medical"), shared_data / "mmlu")
    assert Counter(item.group for item in items) == {"anatomy": 135, "college_medicine": 173}
    assert "clinical_knowledge 0 of 265" in size_notes(get("mmlu_medical"), items)[1]


def test_real_gold_letters_point_at_the_answer_text(shared_data: Path):
    path = shared_data / "medqa" / "us_4_options_first150.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for row, item in zip(rows, load(get("medqa4"), path), strict=True):
        assert item.options[item.gold] == row["answer"]


def test_size_notes_see_a_wrong_distribution_and_are_silent_on_a_true_one(tmp_path: Path):
    rows = [ROW | {"id": str(i), "answer": i % 2} for i in range(4)]
    spec = dataclasses.replace(get("demo_letters_trained"), size=4, groups={"g": 4}, gold_counts={"A": 2, "B": 2})
    items = load(spec, write_rows(tmp_path / "x", rows))
    assert size_notes(spec, items) == []
    (note,) = size_notes(dataclasses.replace(spec, gold_counts={"A": 1, "B": 3}), items)
    assert "distributed" in note


# --- bad files


def check(spec: str | Benchmark, path: Path, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load(get(spec) if isinstance(spec, str) else spec, path)
    assert path.name in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question": None}, "'question' must be text, not NoneType"),
        ({"question": "  "}, "'question' is empty"),
        ({"question": "\ud800"}, "half a character"),
        ({"group": "\ud800"}, "half a character"),
        ({"options": "wxyz"}, "options must be texts"),
        ({"options": ["w", "x", "y", 4]}, "options must be texts"),
        ({"options": ["w", "x", "y"]}, "3 options, where 'demo_letters_trained' has 4"),
        ({"options": {"A": "w", "C": "x", "D": "y", "E": "z"}}, "must be under A, B, C"),
        ({"answer": 4}, "4 is not among the options"),
        ({"answer": -1}, "not public"),
        ({"answer": True}, "True is not among"),
        ({"answer": "C"}, "'C' is not among"),
        ({"answer": 1.0}, "1.0 is not among"),
        ({"id": 1.5}, "'id' must be text, not float"),
    ],
)
def test_bad_row_names_its_line(tmp_path: Path, change: dict, message: str):
    path = write_rows(tmp_path / "rows.jsonl", [ROW, ROW | {"id": "b"} | change])
    check("demo_letters_trained", path, f"rows.jsonl:2: .*{message}" if "id" not in change else message)


@pytest.mark.parametrize("field", ["id", "question", "options", "answer"])
def test_missing_field(tmp_path: Path, field: str):
    row = {key: value for key, value in ROW.items() if key != field}
    check("demo_letters_trained", write_rows(tmp_path / "rows.jsonl", [row]), f":1: the field '{field}' is missing")


def test_duplicate_ids_name_both_rows(tmp_path: Path):
    path = write_rows(tmp_path / "rows.jsonl", [ROW, ROW | {"id": "b"}, ROW])
    check("demo_letters_trained", path, r"rows.jsonl:3: the id 'a' appears twice. First at .*rows.jsonl:1")
    path.write_text('{"7": {"QUESTION": "a", "QUESTION": "b"}}')
    check("pubmedqa", path, "the key 'QUESTION' appears twice")


@pytest.mark.parametrize("name", [*EXAMS, "demo_cloze"])
@pytest.mark.parametrize(
    "content", [b"", b" \n\n", b"\xff\xfe{\x00}\x00", b"ok\n\xe9t\xe9\n", b"[" * 100_000, b"<html>no</html>"]
)
def test_files_of_the_wrong_kind(tmp_path: Path, name: str, content: bytes):
    (tmp_path / "file.x").write_bytes(content)
    check(name, tmp_path / "file.x", ".")


def test_wrong_encoding_names_the_line(tmp_path: Path):
    (tmp_path / "x.jsonl").write_bytes(
        json.dumps(MEDQA_ROW).encode() + b"\n" + '{"question": "caf\xe9"}'.encode("latin-1")
    )
    check("medqa4", tmp_path / "x.jsonl", "x.jsonl:2: is not UTF-8")


def test_truncated_files(tmp_path: Path, shared_data: Path):
    for name, file in (
        ("medqa4", "medqa/us_4_options_first150.jsonl"),
        ("medmcqa", "medmcqa/dev_first150.json"),
        ("pubmedqa", "pubmedqa/ori_pqal.json"),
    ):
        raw = (shared_data / file).read_bytes()
        (tmp_path / "cut.json").write_bytes(raw[: len(raw) // 2])
        check(name, tmp_path / "cut.json", "not valid JSON.*cut short")
    (tmp_path / "anatomy_test.csv").write_text('One,1,2,3,4,A\n"Two, and no end,1,2,3,4,B\n')
    check("mmlu_medical", tmp_path / "anatomy_test.csv", "not valid CSV")
    (tmp_path / "anatomy_test.csv").write_text("One,1,2,3,4,A\nTwo,1,2\n")
    check("mmlu_medical", tmp_path / "anatomy_test.csv", "csv:2: .*3 cells, 6 expected")
    (tmp_path / "anatomy_test.csv").write_text("One,1,2,3,4,E\n")
    check("mmlu_medical", tmp_path / "anatomy_test.csv", "csv:1: the answer 'E' is not among the options")


def test_rows_that_are_no_objects(tmp_path: Path):
    check("medqa4", write_rows(tmp_path / "x", [MEDQA_ROW, [1]]), "x:2: a row must be a JSON object, not list")
    (tmp_path / "x").write_text('{"1": "yes"}')
    check("pubmedqa", tmp_path / "x", "must be a JSON object, not str")
    (tmp_path / "x").write_text('["yes"]')
    check("pubmedqa", tmp_path / "x", "not a list")


def test_missing_paths(tmp_path: Path):
    check("medqa4", tmp_path / "none.jsonl", "no such benchmark file")
    for name in ("medqa4", "pubmedqa", "mmlu_medical"):
        check(name, tmp_path, "no file of benchmark")
    with pytest.raises(DataError, match="does not say where"):
        load(get("medqa4"))
