"""The page of scores: what it says is what the files say, whatever the files are."""

from __future__ import annotations

import json
import math
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.report import sample
from tests.report.scored import folder
from toolkit import cli
from toolkit.errors import DataError, RunError
from toolkit.recipe import compose
from toolkit.report import __main__ as verb
from toolkit.report import build as build_page
from toolkit.report import read, scores
from toolkit.report.calibration import confidence, reliability
from toolkit.report.paper import tables
from toolkit.runs import create
from toolkit.stages import report as stage
from toolkit.stages.context import Context

SEEDS = (1234, 432, 32)
HOSTILE = '<script>alert("x")</script>|`*\n# no heading\u202e'


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model and a better one; tests must not change them."""
    root = tmp_path_factory.mktemp("two")
    return folder(root / "a", "base", 0.45, seeds=SEEDS), folder(root / "b", "trained", 0.5, seeds=SEEDS)


def test_three_files_say_the_same(two: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert cli.run(verb.main, ["scores", *map(str, two), "-o", str(out)]) == 0
    assert capsys.readouterr().out.split() == [str(out / name) for name in ("scores.html", "scores.md", "report.json")]
    told, html, text = (
        json.loads((out / "report.json").read_text()), (out / "scores.html").read_text(),
        (out / "scores.md").read_text(),
    )  # fmt: skip
    assert told["notes"] == [] and len(told["scores"]) == 6
    for model, path in zip(("base", "trained"), two, strict=True):
        rows = [row for row in json.loads((path / "scores.json").read_text()) if "seeds" in row]
        assert len(rows) == 3
        for row in rows:
            (one,) = [o for o in told["scores"] if (o["model"], o["benchmark"]) == (model, row["benchmark"])]
            assert math.isclose(one["accuracy"], row["mean"]) and math.isclose(one["sd"], row["sd"])
            assert one["low"] < one["accuracy"] < one["high"] and one["invalid"] == 9 and one["seeds"] == list(SEEDS)
            shown = f"{100 * row['mean']:.1f} %"
            assert shown in html and shown in text and f"± {100 * row['sd']:.2g} over 3 seeds" in text
    (change,) = told["changes"]
    assert [row["n"] for row in change["rows"]] == [1871, 320, 240]
    for row in change["rows"]:
        assert f"wrong before, right now ({len(row['better'])})" in html
        assert html.count(f">{row['better'][0]['id']}<") == 1 and row["better"][0]["id"] in text.replace("\\", "")
    assert html.count("<svg") == 2 * (3 + 1 + 6) and "http-equiv" in html and "<script" not in html


def test_calibration_is_that_of_the_predictions(two: tuple[Path, Path], tmp_path: Path) -> None:
    scores.build(two[:1], tmp_path)
    told = json.loads((tmp_path / "report.json").read_text())["scores"]
    lines = [json.loads(line) for line in (two[0] / "predictions.jsonl").read_text().splitlines()]
    for one in told:
        bins: dict[int, list[tuple[float, bool]]] = {}
        for line in lines:
            if line["benchmark"] == one["benchmark"]:
                shares = [math.exp(value) for value in line["logprobs"]]
                sure = max(shares) / sum(shares)
                bins.setdefault(min(9, int(10 * sure)), []).append((sure, line["correct"]))
        n = sum(map(len, bins.values()))
        ece = sum(abs(sum(s - c for s, c in ones)) for ones in bins.values()) / n
        assert one["calibration"]["n"] == n and math.isclose(one["calibration"]["ece"], ece, abs_tol=1e-12)


@pytest.mark.parametrize(
    ("answers", "ece", "over"),
    [
        ([(0.75, True)] * 3 + [(0.75, False)], 0.0, 0.0),
        ([(0.95, False)] * 4, 0.95, 0.95),
        ([(0.25, True), (0.25, True), (0.95, False), (0.95, True)], (2 * 0.75 + 2 * 0.45) / 4, -0.15),
        ([(1.0, True), (0.0, False)], 0.0, 0.0),
    ],
)
def test_calibration_by_hand(answers: list[tuple[float, bool]], ece: float, over: float) -> None:
    found = reliability(answers)
    assert found is not None and math.isclose(found.ece, ece, abs_tol=1e-12)
    assert math.isclose(found.over, over, abs_tol=1e-12)


def test_confidence_needs_numbers() -> None:
    assert confidence([math.log(0.6), math.log(0.2)]) == pytest.approx(0.75)
    assert confidence([-1000.0, -1001.0]) == pytest.approx(1 / (1 + math.exp(-1)))
    assert confidence([0.0, -math.inf]) == 1.0
    for bad in ([], [0.5], [math.nan, 0.0], [-math.inf, -math.inf], [math.inf, 0.0]):
        assert confidence(bad) is None
    assert reliability([]) is None


def test_numbers_beyond_any_float_are_no_confidence() -> None:
    assert confidence([10**400, -1.0, -2.0]) is None


def test_subjects_that_the_figure_leaves_out_are_said(tmp_path: Path) -> None:
    groups = {f"subject {number}": {"accuracy": 0.5, "n": 4} for number in range(300)}
    row = {"model": "m", "benchmark": "b", "mode": "letter", "accuracy": 0.5, "n": 1200, "groups": groups}
    (tmp_path / "scores.json").write_text(json.dumps([row]))
    (tmp_path / "predictions.jsonl").write_text("")
    made = scores.build([tmp_path], tmp_path / "out")
    assert "The first 60 of 300 subjects" in made.html.read_text()
    assert len(json.loads(made.json.read_text())["scores"][0]["groups"]) == 300


def test_all_rows_of_the_papers_tables_are_there(two: tuple[Path, Path], tmp_path: Path) -> None:
    scores.build(two, tmp_path)
    html, text = (tmp_path / "scores.html").read_text(), (tmp_path / "scores.md").read_text()
    told = json.loads((tmp_path / "report.json").read_text())["paper"]
    assert [t["table"] for t in told] == [
        *("Table 4", "Table 5", "Table 5", "Table 5", "Table 6", "Table 13"),
        *("Table 12, by subject",) * 3,
        "Table 13, by subject",
    ]
    for table in (*tables()["tables"], *tables()["groups"]):
        for model in table["rows"]:
            assert f">{model}<" in html and f"| {model.replace('*', chr(92) + '*')} |" in text, model
    four = told[0]
    ours = [row for row in four["rows"] if row["ours"]]
    assert [row["name"] for row in ours] == ["base, letter, 3-shot, 3 seeds", "trained, letter, 3-shot, 3 seeds"]
    assert ours[0]["cells"][2] is None and ours[0]["cells"][-1] is None  # no MedMCQA, so no average
    assert four["rows"][4]["cells"][0] == [41.4, "± 0.24"] and four["rows"][4]["cells"][3] == [29.1, "± 0.90"]
    assert not any(row["ours"] for row in told[2]["rows"])  # letters are no chain of thought
    assert sum(row["ours"] for row in told[6]["rows"]) == 2  # subjects


def test_a_model_on_all_five_has_an_average(tmp_path: Path) -> None:
    path = folder(tmp_path / "m", "mine", 0.5)
    rows = json.loads((path / "scores.json").read_text())
    more = [sample.score("mine", name, name, "letter", 60, 100, 0.25, paper=paper, shots=3)
            for name, paper in (("medqa", "MedQA"), ("medmcqa", "MedMCQA"))]  # fmt: skip
    (path / "scores.json").write_text(json.dumps(rows + more))
    scores.build([path], tmp_path / "out")
    row = json.loads((tmp_path / "out/report.json").read_text())["paper"][0]["rows"][0]
    assert row["cells"][-1][0] == pytest.approx(sum(cell[0] for cell in row["cells"][:5]) / 5)


def test_hostile_words_stay_words(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", f"one{HOSTILE}", 0.4, hostile=HOSTILE)
    b = folder(tmp_path / "b<img src=x onerror=alert(1)>", f"one{HOSTILE}", 0.5, hostile=HOSTILE)
    changes, said = verb._changes([a, b])
    assert said == [] and len(changes) == 1
    scores.build([a, b], tmp_path / "out", changes=changes)
    html, text = (tmp_path / "out/scores.html").read_text(), (tmp_path / "out/scores.md").read_text()
    assert "<script" not in html and "<img" not in html and "&lt;script&gt;alert" in html and "\u202e" not in html
    assert "<script" not in text and "\n# no heading" not in text and "<img" not in text
    lines = [line for line in text.splitlines() if line.startswith("| one")]
    assert lines and all(len(re.findall(r"(?<!\\)\|", line)) == 10 for line in lines)  # no cell has been split


DAMAGE: dict[str, Callable[[Path], object]] = {
    "there is no such folder": lambda p: p.rename(p.with_name("gone")),
    "no scores.json here": lambda p: (p / "scores.json").unlink(),
    "is damaged": lambda p: (p / "scores.json").write_bytes((p / "scores.json").read_bytes()[:500]),
    "holds no list": lambda p: (p / "scores.json").write_text('{"model": "x"}'),
    "no scores in": lambda p: (p / "scores.json").write_text('[1, null, {"model": "x"}, {"seeds": [1]}]'),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_folder_that_cannot_be_read_is_said(what: str, tmp_path: Path) -> None:
    path = folder(tmp_path / "m", "mine", 0.5)
    DAMAGE[what](path)
    with pytest.raises(DataError, match=what) as told:
        scores.build([path], tmp_path / "out")
    assert str(path) in str(told.value) and not (tmp_path / "out").exists()


@pytest.mark.parametrize("raw", [b"", b"\xff\xfe[\x00]\x00", b"[" * 100_000, bytes(range(256))])
def test_bytes_that_are_no_scores(raw: bytes, tmp_path: Path) -> None:
    path = folder(tmp_path / "m", "mine", 0.5)
    (path / "scores.json").write_bytes(raw)
    with pytest.raises(DataError, match="damaged"):
        scores.build([path], tmp_path / "out")


def test_what_can_be_read_is_shown_and_the_rest_is_noted(tmp_path: Path) -> None:
    path = folder(tmp_path / "m", "mine", 0.5)
    rows = json.loads((path / "scores.json").read_text())
    rows[0] |= {"ci95": ["a", None], "groups": {"x": 3, "y": {"accuracy": math.nan, "n": 3}}, "notes": "one"}
    rows += [{"model": "mine"}, "text"]
    (path / "scores.json").write_text(json.dumps(rows))
    lines = (path / "predictions.jsonl").read_bytes().splitlines(keepends=True)
    odd = json.loads(lines[0]) | {"logprobs": [math.nan, 0.0, 0.0, 0.0]}
    (path / "predictions.jsonl").write_bytes(
        json.dumps(odd).encode() + b"\nnot json\n\xff\xfe\n[]\n" + b"".join(lines[1:]) + lines[5][:40]
    )
    made = scores.build([path], tmp_path / "out")
    assert len(made.notes) == 3 and "4 damaged lines" in made.notes[2]
    told = json.loads((tmp_path / "out/report.json").read_text())["scores"]
    assert told[0]["calibration"]["n"] == 1870 and told[0]["low"] < 0.5 < told[0]["high"]
    (path / "predictions.jsonl").unlink()
    made = scores.build([path], tmp_path / "out")
    assert any("no calibration" in note for note in made.notes)
    assert "Expected calibration" not in made.html.read_text()


def test_models_of_one_name_are_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = folder(tmp_path / "first", "mine", 0.4), folder(tmp_path / "second", "mine", 0.5)
    other = tmp_path / "other"
    other.mkdir()
    (other / "scores.json").write_text(json.dumps([sample.score("x", "own", "Own", "letter", 5, 10, 0.25)]))
    assert cli.run(verb.main, ["scores", *map(str, (a, b, other)), "-o", str(tmp_path / "out"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert any(note.startswith("not compared: ") for note in told["notes"])
    models = {one["model"] for one in json.loads(Path(told["json"]).read_text())["scores"]}
    assert models == {"mine", "mine (second)", "x"}
    with pytest.raises(DataError, match="twice"):
        scores.build([a, b, b], tmp_path / "out")


def test_a_place_that_cannot_be_written(two: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        scores.build(two, tmp_path / "file")
    (tmp_path / "out" / "scores.html").mkdir(parents=True)
    with pytest.raises(RunError, match="over a folder"):
        scores.build(two, tmp_path / "out")


def test_a_full_disk_leaves_nothing_half_written(two: tuple[Path, Path], tmp_path: Path) -> None:
    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    words = [sys.executable, "-B", "-m", "toolkit.report", "scores", str(two[0]), "-o", str(tmp_path / "out")]
    done = subprocess.run(words, capture_output=True, text=True, preexec_fn=limit, timeout=60)
    assert done.returncode == 1 and "larger than a limit allows" in done.stderr and "Traceback" not in done.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_the_page_of_a_run_links_it_and_counts_seeds_once(two: tuple[Path, Path], tmp_path: Path) -> None:
    given = ["model.base=x", f"runs={tmp_path}", "score.benchmarks=[pubmedqa]", "score.paths.pubmedqa=y"]
    run = create(compose("score", given).recipe, command=["x"], plan={})
    home = run.stage("score")
    home.mkdir(parents=True)
    pair = [json.loads((path / "scores.json").read_text()) for path in two]
    (home / "scores.json").write_text(json.dumps([*pair[0], *pair[1]]))
    (home / "predictions.jsonl").write_text("".join((path / "predictions.jsonl").read_text() for path in two))
    from toolkit.plan import steps

    context = Context(run=run, step=steps(run.recipe)[-1])
    context.folder.mkdir(parents=True)
    made = stage.run(context)
    html = (run.path / "report.html").read_text()
    assert 'href="scores.html"' in html and "9 not readable" in html and "over 3 seeds" in html
    assert "letter, 3-shot" in html and read.read(run.path).notes == ()
    page = (run.path / "scores.html").read_text()
    assert "From base to trained" in page and "wrong before, right now" in page
    assert made.outputs["report"].read_text() == html
    assert sorted(path.name for path in context.folder.iterdir()) == ["report.html", "scores"]
    (home / "scores.json").write_text("[]")  # then there is the run's page alone
    (run.path / "scores.html").unlink()
    assert stage.run(context).outputs["report"].is_file()
    assert 'href="scores.html"' not in build_page(run.path).read_text()
