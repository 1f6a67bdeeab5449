"""Two models on the same items and the gate between them: planted differences, and folders that are none."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.scoring.conftest import save_llama, write_rows
from toolkit import cli
from toolkit.errors import DataError, ToolkitError, UsageError
from toolkit.score import __main__ as verbs
from toolkit.scoring.compare import compare
from toolkit.scoring.gate import judge
from toolkit.stats import mcnemar_exact, smallest_detectable


def run(*argv: object) -> int:
    return cli.run(verbs.main, [str(a) for a in argv])


def rows(right: str, *, model: str = "base", benchmark: str = "exam", **fields: Any) -> list[dict]:
    """A prediction for each sign of `right`: 1 right, 0 wrong, - without an answer."""
    made = []
    for i, sign in enumerate(right):
        said = {"1": "A", "0": "B", "-": None}[sign]
        row = {
            "model": model,
            "benchmark": benchmark,
            "mode": "letter",
            "shots": 0,
            "seed": 0,
            "id": f"q{i}",
            "group": "g",
        }
        made.append(row | {"prediction": said, "gold": "A", "correct": sign == "1", "valid": sign != "-"} | fields)
    return made


def folder(path: Path, predictions: list[dict], sha: str | None = "same") -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in predictions))
    keys = dict.fromkeys((row["benchmark"], row["mode"], row.get("shots", 0)) for row in predictions)
    scores = [
        {"benchmark": b, "mode": m, "shots": s, "n": 1} | ({"benchmark_sha256": sha} if sha else {}) for b, m, s in keys
    ]
    (path / "scores.json").write_text(json.dumps(scores))
    return path


def test_what_changed_and_how_sure_that_is(tmp_path: Path) -> None:
    one, two = "1" * 60 + "0" * 40, "1" * 45 + "0" * 12 + "-" * 3 + "1" * 5 + "0" * 35
    found = compare(folder(tmp_path / "a", rows(one)), folder(tmp_path / "b", rows(two, model="new")))
    (row,) = found.rows
    assert (found.a, found.b, found.notes) == ("base", "new", ())
    assert (row.benchmark, row.mode, row.n, row.seeds) == ("exam", "letter", 100, (0,))
    assert (row.before, row.after, row.difference) == (0.6, 0.5, pytest.approx(-0.1))
    assert [item.id for item in row.worse] == [f"q{i}" for i in range(45, 60)]
    assert [item.id for item in row.better] == [f"q{i}" for i in range(60, 65)]
    assert row.p == mcnemar_exact(15, 5) == pytest.approx(0.0414, abs=5e-5) and row.p_worse == pytest.approx(row.p / 2)
    assert row.low < -0.1 < row.high and row.smallest == smallest_detectable(100, 0.2)
    assert (row.worse[0].before, row.worse[0].after, row.worse[-1].after) == ("A", "B", None)
    assert (row.invalid_before, row.invalid_after) == (0, 3)
    assert found.as_dict()["rows"][0]["worse"][0]["id"] == "q45"
    assert compare(tmp_path / "a" / "predictions.jsonl", tmp_path / "b").rows == found.rows


def test_the_same_twice_is_no_difference(tmp_path: Path) -> None:
    found = compare(folder(tmp_path / "a", rows("1101")), folder(tmp_path / "b", rows("1101")))
    (row,) = found.rows
    assert (row.difference, row.low, row.high, row.p, row.worse, row.better, row.smallest) == (0, 0, 0, 1, (), (), None)
    assert not judge(tmp_path / "a", tmp_path / "b").worse


def test_models_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    found = compare(folder(tmp_path / "a", rows("10")), folder(tmp_path / "b", rows("11")))
    assert (found.a, found.b) == (str(tmp_path / "a"), str(tmp_path / "b"))


def test_several_seeds_are_one_test_by_item(tmp_path: Path) -> None:
    """An item that three seeds got wrong is one item, not three."""
    before = [row for seed in (1, 2, 3) for row in rows("1111100000", seed=seed)]
    after = [row for seed in (1, 2, 3) for row in rows("1111" + ("0" if seed < 3 else "1") + "00000", seed=seed)]
    found = compare(folder(tmp_path / "a", before), folder(tmp_path / "b", after))
    (row,) = found.rows
    assert (row.n, row.seeds, len(row.worse)) == (10, (1, 2, 3), 1)
    assert row.difference == pytest.approx(-2 / 30) and row.p == 1
    assert row.worse[0].before == ["A"] * 3 and row.worse[0].after == ["B", "B", "A"]


def test_only_what_both_have_is_compared(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", rows("1010") + rows("11", benchmark="old") + rows("10", shots=5))
    b = folder(tmp_path / "b", rows("101") + rows("11", benchmark="new") + rows("10", shots=3))
    found = compare(a, b)
    assert [(row.benchmark, row.n) for row in found.rows] == [("exam", 3)]
    notes = " ".join(found.notes)
    assert "old letter" in notes and "new letter" in notes and "5-shot" in notes and "3-shot" in notes
    assert "3 answers in common, of 4 and 3" in notes


def test_other_prompts_are_told(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", rows("10", prompt_sha256="x"), sha=None)
    b = folder(tmp_path / "b", rows("10", prompt_sha256="y"), sha=None)
    assert "the prompts of 2 of 2 answers are not the same" in compare(a, b).notes[0]


@pytest.mark.parametrize(
    ("b", "said"),
    [
        (rows("10", benchmark="other"), "nothing was scored in the same way"),
        (rows("10", mode="cloze"), "nothing was scored in the same way"),
        (rows("10", shots=3), "nothing was scored in the same way"),
        ([row | {"id": f"x{row['id']}"} for row in rows("10")], "no item in common"),
        ([row | {"gold": "C"} for row in rows("10")], "right answer of item 'q0' is not the same"),
        (rows("10") + rows("10", model="second", benchmark="x"), "several models"),
        (rows("10") + rows("1"), "'q0' appears twice"),
        ([{key: value for key, value in row.items() if key != "gold"} for row in rows("1")], "'gold' is missing"),
        ([row | {"correct": "yes"} for row in rows("1")], "another type"),
        ([row | {"seed": 1.5} for row in rows("1")], "another type"),
    ],
)
def test_what_cannot_be_compared(tmp_path: Path, b: list[dict], said: str) -> None:
    with pytest.raises(ToolkitError) as raised:
        compare(folder(tmp_path / "a", rows("10")), folder(tmp_path / "b", b))
    assert said in str(raised.value)


def test_other_items_or_prompts_are_another_benchmark(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not the same benchmark"):
        compare(folder(tmp_path / "a", rows("10"), sha="one"), folder(tmp_path / "b", rows("10"), sha="two"))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("predictions.jsonl", None, "the folder has no predictions.jsonl"),
        ("predictions.jsonl", b"", "no predictions"),
        ("predictions.jsonl", b'{"model": "x", "bench', "is not a prediction"),
        ("predictions.jsonl", b"[1]\n", "is not a prediction"),
        ("predictions.jsonl", b"\xff\xfe\n", "is not a prediction"),
        ("scores.json", b"{", "no scores that can be read"),
        ("scores.json", b"[3]", "no scores that can be read"),
    ],
)
def test_damaged_folders(
    tmp_path: Path, name: str, content: bytes | None, said: str, capsys: pytest.CaptureFixture
) -> None:
    a, b = folder(tmp_path / "a", rows("10")), folder(tmp_path / "b", rows("10"))
    (b / name).unlink()
    if content is not None:
        (b / name).write_bytes(content)
    for verb in ("compare", "gate"):
        assert run(verb, a, b) == 1
        err = capsys.readouterr().err
        assert said in err and str(b) in err and "Traceback" not in err
    with pytest.raises(DataError, match="no such folder"):
        compare(a, tmp_path / "none")


def signs(rng: random.Random, share: float, n: int) -> str:
    return "".join("1" if rng.random() < share else "0" for _ in range(n))


def test_the_gate_sees_a_planted_drop_and_names_the_items(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    rng = random.Random(7)
    good = {name: signs(rng, 0.6, 400) for name in ("exam", "study", "other")}
    bad = good | {"study": "".join("0" if sign == "1" and rng.random() < 0.2 else sign for sign in good["study"])}
    a = folder(tmp_path / "a", [row for name, right in good.items() for row in rows(right, benchmark=name)])
    b = folder(tmp_path / "b", [row for name, right in bad.items() for row in rows(right, benchmark=name, model="new")])
    found = judge(a, b)
    assert found.worse and [row.benchmark for row in found.rows if row.worse] == ["study"]
    lost = [f"q{i}" for i in range(400) if good["study"][i] != bad["study"][i]]
    assert [item.id for item in found.items] == lost and {item.benchmark for item in found.items} == {"study"}
    assert run("gate", a, b) == 5
    printed = capsys.readouterr()
    assert "WORSE" in printed.out and f"study {lost[0]}  A -> B" in printed.out and "Holm over 3" in printed.out
    assert printed.err.startswith("error: new is worse than base: study letter") and "Traceback" not in printed.err
    assert run("gate", a, b, "--json") == 5
    assert [item["id"] for item in json.loads(capsys.readouterr().out)["items"]] == lost
    assert run("gate", b, a) == 0 and run("gate", a, b, "--min-drop", "0.5") == 0 and run("gate", a, a) == 0


def test_the_gate_needs_a_drop_and_a_test(tmp_path: Path) -> None:
    few = judge(folder(tmp_path / "a", rows("11110")), folder(tmp_path / "b", rows("11000")))
    assert not few.worse and few.rows[0].difference == pytest.approx(-0.4)  # two items prove nothing
    many = "1" * 5000 + "0" * 5000
    b = "0" * 40 + many[40:]
    small = judge(folder(tmp_path / "c", rows(many)), folder(tmp_path / "d", rows(b)))
    assert small.rows[0].p < 1e-9 and not small.worse  # sure, but 0.4 points
    assert judge(tmp_path / "c", tmp_path / "d", min_drop=0.004).worse  # a drop of the bound itself counts


def test_many_benchmarks_do_not_make_a_false_alarm(tmp_path: Path) -> None:
    """One of ten at p = 0.03 is what chance gives: alone it would be worse, among ten it is not."""
    same, before, after = "10" * 40, "1" * 11 + "0" * 69, "1" * 6 + "0" * 74
    names = [f"b{i}" for i in range(10)]
    a, b = (
        folder(tmp_path / key, [row for name in names for row in rows(right if name == "b3" else same, benchmark=name)])
        for key, right in (("a", before), ("b", after))
    )
    found = judge(a, b)
    assert found.rows[3].p == 1 / 32 and found.rows[3].p_adjusted == 10 / 32 and not found.worse
    alone = judge(folder(tmp_path / "c", rows(before)), folder(tmp_path / "d", rows(after)))
    assert alone.rows[0].p_adjusted == 1 / 32 and alone.worse


@pytest.mark.parametrize(
    ("bound", "value"), [("min_drop", -0.1), ("min_drop", 2), ("min_drop", float("nan")), ("alpha", 0), ("alpha", 1)]
)
def test_bounds_without_sense(tmp_path: Path, bound: str, value: float) -> None:
    a = folder(tmp_path / "a", rows("10"))
    with pytest.raises(UsageError, match=bound):
        judge(a, a, **{bound: value})


def test_compare_prints_the_changed_items(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    a, b = folder(tmp_path / "a", rows("1" * 30)), folder(tmp_path / "b", rows("0" * 12 + "-" + "1" * 17, model="new"))
    assert run("compare", a, b, "--show", 2) == 0
    out = capsys.readouterr().out
    assert "base -> new" in out and "100.0 % -> 56.7 %" in out and "-43.3 points" in out
    assert "13 items got wrong, 0 got right" in out and "exam q1  A -> B" in out and "11 more wrong now" in out
    assert "without an answer: 0 -> 1" in out
    assert run("compare", a, b, "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["rows"][0]["worse"]) == 13


def test_real_scores_of_two_models(
    llama: Path, tokenizer_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """What `score run` writes is what is compared: nothing between these lines is made up."""
    pytest.importorskip("transformers")
    other = save_llama(tmp_path / "other", tokenizer_folder, seed=5)
    options = ["cough", "tremor", "itching", "a dry mouth"]
    questions = [
        {"id": str(i), "question": f"What may drug {i} cause?", "options": options, "answer": i % 4} for i in range(24)
    ]
    path = write_rows(tmp_path / "rows.jsonl", questions)
    for name, model in (("a", llama), ("b", other)):
        argv = ("run", "--model", model, "--name", name, "--benchmark", "demo_letters_trained", "--path", path)
        assert run(*argv, "-o", tmp_path / name) == 0
    scores = [json.loads((tmp_path / name / "scores.json").read_text())[0] for name in "ab"]
    capsys.readouterr()
    assert run("compare", tmp_path / "a", tmp_path / "b", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    (row,) = shown["rows"]
    assert (shown["a"], shown["b"], row["n"]) == ("a", "b", 24)
    assert [row["before"], row["after"]] == [score["accuracy"] for score in scores]
    assert len(row["better"]) - len(row["worse"]) == scores[1]["correct"] - scores[0]["correct"]
    assert len(row["better"]) + len(row["worse"]) > 0
