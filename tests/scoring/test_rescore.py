"""Stored generations judged without a model: forms of lines, votes, counts, and files that are not as they must be."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scoring.conftest import write_rows
from toolkit import cli
from toolkit.errors import DataError
from toolkit.score import __main__ as verbs
from toolkit.scoring import benchmarks
from toolkit.scoring.benchmarks import Benchmark
from toolkit.scoring.rescore import rescore

SPEC = Benchmark(name="exam", title="Exam", format="jsonl", size=4)
WORDS = Benchmark(name="study", title="Study", format="jsonl", answers=("yes", "no", "maybe"), gold="word")
OPTIONS = ["cough", "tremor", "itching", "a dry mouth"]
ROWS = [
    {
        "id": "a",
        "question": "What?",
        "options": dict(zip("ABCD", OPTIONS, strict=True)),
        "gold": "B",
        "generations": ["The answer is (B)."],
    },
    {"id": "b", "options": OPTIONS, "gold": 2, "generations": ["A", "It is C.", "The answer is itching."]},
    {"id": "c", "options": OPTIONS, "gold": "a dry mouth", "generations": ["A or B", "I cannot answer."]},
    {"id": 4, "options": OPTIONS, "gold": "A", "generations": ["**D**"]},
]


def run(*argv: object) -> int:
    return cli.run(verbs.main, [str(a) for a in argv])


def test_counts_and_each_items_answers(tmp_path: Path) -> None:
    found = rescore(write_rows(tmp_path / "g.jsonl", ROWS), SPEC, items_out=tmp_path / "items.jsonl")
    assert (found.n, found.correct, found.invalid, found.accuracy) == (4, 2, 1, 0.5)
    assert (found.generations, found.invalid_generations) == (7, 2)
    assert found.reasons == {"two answers": 1, "refusal": 1} and found.notes == ()
    assert found.predicted == {"B": 1, "C": 1, "D": 1, "invalid": 1} and found.gold == {"A": 1, "B": 1, "C": 1, "D": 1}
    assert found.agreement == pytest.approx((1 + 2 / 3 + 0 + 1) / 4)
    assert found.ci95[0] < 0.5 < found.ci95[1] and found.bootstrap95 == (0, 1)
    items = [json.loads(line) for line in (tmp_path / "items.jsonl").read_text().splitlines()]
    assert [(i["id"], i["answer"], i["gold"], i["correct"]) for i in items] == [
        ("a", "B", "B", True), ("b", "C", "C", True), ("c", None, "D", False), ("4", "D", "A", False),
    ]  # fmt: skip
    assert items[1]["answers"] == ["A", "C", "C"] and items[1]["agreement"] == pytest.approx(2 / 3, abs=1e-6)
    assert items[2]["why"] in ("two answers", "refusal") and not items[2]["valid"]


def test_words_and_a_set_that_is_not_whole(tmp_path: Path) -> None:
    rows = [
        {"id": 1, "gold": "yes", "generations": ["Yes, it does."]},
        {"id": 2, "options": ["yes", "no", "maybe"], "gold": "maybe", "generations": ["The answer is maybe."]},
        {"id": 3, "options": {"A": "yes", "B": "no", "C": "maybe"}, "gold": "no", "generations": ["B", "no"]},
        {"id": 4, "gold": 1, "generations": "no"},
        {"id": 5, "options": {"Yes": "yes", "No": "no", "Maybe": "maybe"}, "gold": "Yes", "generations": "Yes."},
    ]
    found = rescore(write_rows(tmp_path / "g.jsonl", rows), WORDS, items_out=tmp_path / "items.jsonl")
    assert (found.n, found.correct, found.invalid) == (5, 5, 0)
    items = [json.loads(line) for line in (tmp_path / "items.jsonl").read_text().splitlines()]
    assert [(i["answer"], i.get("text")) for i in items[2::2]] == [("B", "no"), ("yes", None)]
    compat = rescore(tmp_path / "g.jsonl", WORDS, paper_compat=True)
    assert compat.extraction == "released" and compat.correct < found.correct and compat.invalid >= 1
    assert "maybe" in compat.notes[-1]
    short = rescore(
        tmp_path / "g.jsonl", Benchmark(name="study", title="Study", format="jsonl", answers=WORDS.answers, size=500)
    )
    assert short.notes == ("5 items, where the whole test split of Study has 500",)


@pytest.mark.parametrize(
    "options",
    [
        [{"key": letter, "value": text} for letter, text in zip("ABCD", OPTIONS, strict=True)],
        [{"label": letter, "text": text} for letter, text in zip("abcd", OPTIONS, strict=True)],
        [{"text": text} for text in OPTIONS],
        {"label": list("ABCD"), "text": OPTIONS},
        dict(zip(["opa", "opb", "opc", "opd"], OPTIONS, strict=True)),
        {f"Option {letter}": text for letter, text in zip("ABCD", OPTIONS, strict=True)},
        dict(zip("1234", OPTIONS, strict=True)),
    ],
)
def test_options_as_files_have_them(tmp_path: Path, options: object) -> None:
    texts = ["C", "itching", "C. itching", "Option 3"]
    rows = [{"id": i, "options": options, "gold": "C", "generations": [text]} for i, text in enumerate(texts)]
    assert rescore(write_rows(tmp_path / "g.jsonl", rows), SPEC).correct == 4


@pytest.mark.parametrize("gold", ["c", "(C)", "C.", "C)", "C. itching", "Itching ", 2, 2.0, "2", ["C"]])
def test_right_answers_as_files_have_them(tmp_path: Path, gold: object) -> None:
    rows = [{"id": 1, "options": OPTIONS, "gold": gold, "generations": ["C"]}]
    assert rescore(write_rows(tmp_path / "g.jsonl", rows), SPEC).correct == 1


def test_numbered_options_have_the_right_answers_number(tmp_path: Path) -> None:
    options = dict(zip("1234", OPTIONS, strict=True))
    rows = [{"id": i, "options": options, "gold": gold, "generations": ["3"]} for i, gold in enumerate([3, "3"])]
    assert rescore(write_rows(tmp_path / "g.jsonl", rows), SPEC).correct == 2


def test_a_text_that_is_missing_is_an_empty_one(tmp_path: Path) -> None:
    rows = [{"id": 1, "options": OPTIONS, "gold": "C", "generations": ["C", None]}]
    found = rescore(write_rows(tmp_path / "g.jsonl", rows), SPEC)
    assert (found.correct, found.generations, found.reasons) == (1, 2, {"empty": 1})


def test_some_of_the_words_are_words_too(tmp_path: Path) -> None:
    rows = [{"id": 1, "options": ["yes", "no"], "gold": "yes", "generations": ["Yes.", "(A)"]}]
    found = rescore(write_rows(tmp_path / "g.jsonl", rows), WORDS)
    assert (found.correct, found.predicted, found.invalid_generations) == (1, {"yes": 1}, 0)


def test_packed_files_byte_order_marks_and_blank_lines_are_taken(tmp_path: Path) -> None:
    plain = write_rows(tmp_path / "g.jsonl", ROWS)
    packed, marked = tmp_path / "g.jsonl.gz", tmp_path / "marked.jsonl"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    marked.write_bytes(b"\xef\xbb\xbf" + plain.read_bytes().replace(b"\n", b"\r\n\n"))
    assert rescore(packed, SPEC) == rescore(plain, SPEC) == rescore(marked, SPEC)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"gold": "E"}, "'E' is not among the options"),
        ({"gold": 4}, "count from 0"),
        ({"gold": -1}, "-1 is not among"),
        ({"gold": None}, "None is not among"),
        ({"gold": True}, "True is not among"),
        ({"gold": "headache"}, "not among the options"),
        ({"options": ["one"]}, "an item needs 2"),
        ({"options": []}, "an item needs 2"),
        ({"options": "ABCD"}, "must be texts"),
        ({"options": {"A": "x", "C": "y"}}, "under A, B, C"),
        ({"options": [["a"], "b"]}, "must be texts"),
        ({"generations": [1]}, "list of texts"),
        ({"generations": None}, "list of texts"),
        ({"generations": {"text": "A"}}, "list of texts"),
        ({"id": None}, "id must be text"),
        ({"id": ["a"]}, "id must be text"),
        ({"question": 3}, "question must be text"),
        ({"id": "a"}, "appears twice. First on line 1"),
    ],
)
def test_a_bad_row_is_named_by_its_line(tmp_path: Path, change: dict, said: str) -> None:
    file = write_rows(tmp_path / "g.jsonl", [ROWS[0], ROWS[1] | change])
    with pytest.raises(DataError) as raised:
        rescore(file, SPEC, items_out=tmp_path / "items.jsonl")
    assert f"{file}:2" in str(raised.value) and said in str(raised.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["g.jsonl"]


@pytest.mark.parametrize("name", ["id", "gold", "generations"])
def test_a_missing_field_is_named(tmp_path: Path, name: str) -> None:
    row = {key: value for key, value in ROWS[1].items() if key != name} | (
        {"generation": ["A"]} if name == "generations" else {}
    )
    with pytest.raises(DataError, match=f"the field '{name}' is missing") as raised:
        rescore(write_rows(tmp_path / "g.jsonl", [row]), SPEC)
    assert name != "generations" or "Did you mean 'generation'" in str(raised.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no generations"),
        (b"\n \n", "no generations"),
        (b'{"id": 1, "gold"', ":1: is not valid JSON"),
        (b"[1]\n", "must be a JSON object, not list"),
        (b'{"id": "\xff"}\n', "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b"\x1f\x8b\x08broken", "compressed file is damaged"),
        (gzip.compress(b'{"id": 1}\n' * 1000, mtime=0)[:40], "compressed file is damaged"),
        (b"PAR1\x00\x00\x15\x04", "is not"),
        (None, "no such file"),
    ],
)
def test_a_file_that_is_none(tmp_path: Path, content: bytes | None, said: str) -> None:
    file = tmp_path / "g.jsonl"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DataError) as raised:
        rescore(file, SPEC)
    assert said in str(raised.value) and str(file) in str(raised.value)
    with pytest.raises(DataError, match="is a folder"):
        rescore(tmp_path, SPEC)


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    """The system refuses to let the file of answers grow beyond a kilobyte, as a full disk would."""
    file = write_rows(tmp_path / "g.jsonl", [ROWS[1] | {"id": i} for i in range(2000)])
    verb = f"{sys.executable} -m toolkit.score rescore {file} --benchmark medqa4 --items {tmp_path}/items.jsonl"
    done = subprocess.run(["bash", "-c", f"ulimit -f 1; {verb}"], capture_output=True, text=True)
    assert done.returncode == 1 and "larger than a limit allows" in done.stderr and "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["g.jsonl"]


def test_the_verb_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = write_rows(tmp_path / "g.jsonl", ROWS)
    assert run("rescore", file, "--benchmark", "medqa4", "--items", tmp_path / "items.jsonl", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert {key: shown[key] for key in ("n", "correct", "invalid", "accuracy")} == {
        "n": 4,
        "correct": 2,
        "invalid": 1,
        "accuracy": 0.5,
    }
    assert shown["notes"] == [
        f"4 items, where the whole test split of MedQA, 4 options has {benchmarks.get('medqa4').size}"
    ]
    assert len((tmp_path / "items.jsonl").read_text().splitlines()) == 4
    assert run("rescore", file, "--benchmark", "medqa4") == 0
    out = capsys.readouterr().out
    assert "n=4  correct=2  invalid=1  accuracy=50.0 %" in out and "invalid: two answers: 1" in out
    assert run("rescore", file, "--benchmark", "medqa9") == 2
    assert run("rescore", tmp_path / "none.jsonl", "--benchmark", "medqa4") == 1
    assert "Traceback" not in capsys.readouterr().err


def test_items_of_two_models_can_be_compared(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for name, rows in (("one", ROWS), ("two", [ROWS[0] | {"generations": ["The answer is A."]}, *ROWS[1:]])):
        rescore(write_rows(tmp_path / f"{name}.jsonl", rows), SPEC, items_out=tmp_path / f"{name}-items.jsonl")
    assert run("compare", tmp_path / "one-items.jsonl", tmp_path / "two-items.jsonl") == 0
    assert "exam a  B -> A  (right: B)" in capsys.readouterr().out
