"""A site's factor, learned from its own runs and used by the plan; and the verbs `validate` and `calibrate`."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from toolkit import cli
from toolkit.errors import RecipeError, RunError, UsageError
from toolkit.plan import calibrate, measurements, setup, speed
from toolkit.plan.__main__ import main
from toolkit.plan.calibrated import PARAMS
from toolkit.recipe import compose, save

Make = Callable[..., Path]


@pytest.fixture
def run(tmp_path: Path) -> Make:
    """The folder of a run whose steps took `factor` of what is foretold, but for the first ones of each attempt."""

    def make(name: str, factor: float, *words: str, steps: int = 60, recipe: str = "pretrain_70b") -> Path:
        composed = compose(recipe, ["stages=[pretrain]", *words]).recipe
        folder = tmp_path / name
        (folder / "stages" / "pretrain").mkdir(parents=True)
        save(composed, folder / "recipe.yaml")
        usual = speed.step(setup.of(composed)).seconds * factor if composed.cluster.device == "gpu" else 1.0
        rows: list[dict[str, object]] = []
        for step in range(1, steps + 1):
            cold = step in (1, 2, 3, 31, 32, 33)
            rows.append({"step": step, "loss": 2.0, "step_s": usual * (5 if cold else 1 + (step % 5 - 2) / 100)})
            if step == 30:  # another attempt, which begins at step 31 of the next lines
                rows.append({"step": 30, "valid_loss": 2.0})
                rows.append({"step": 29, "event": "straggler", "step_s": 1e5})
                rows.append({"step": 25, "loss": 2.0, "step_s": usual * 5})
        lines = [json.dumps(row) for row in rows]
        lines[7:7] = [
            "",
            "{",
            '{"step": 8, "step_s": "NaN"}',
            '{"step": 8, "step_s": -1}',
            '{"step": true, "step_s": 1e4}',
        ]
        (folder / "stages" / "pretrain" / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 61, "st']))
        return folder

    return make


def test_the_factor_of_two_runs(run: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [run("one", 1.10), run("two", 1.21, "train.micro_batch=1")]
    out = tmp_path / "site.yaml"
    assert cli.run(main, ["calibrate", *map(str, runs), "--out", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["factor"] == pytest.approx(1.1537, abs=0.005)
    assert [one["steps"] for one in found["trainings"]] == [54, 54]
    assert found["low"] < 1.10 / 1.1537 < 1.21 / 1.1537 < found["high"]
    assert yaml.safe_load(out.read_text()) == found

    recipe = compose("pretrain_70b", [f"cluster.calibration={out}"]).recipe
    params = calibrate.params(recipe)
    made = setup.of(recipe)
    assert speed.step(made, params).seconds == pytest.approx(found["factor"] * speed.step(made).seconds)
    assert calibrate.params(compose("pretrain_70b", []).recipe) is PARAMS
    assert cli.run(main, ["calibrate", *map(str, runs)]) == 0
    assert "1.15" in capsys.readouterr().out


def test_a_full_disk_leaves_the_older_file(run: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = run("one", 1.1), tmp_path / "site.yaml"
    out.write_text("older")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, limits[1]))
    try:
        code = cli.run(main, ["calibrate", str(folder), "--out", str(out)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert code == 1 and "site.yaml" in capsys.readouterr().err
    assert out.read_text() == "older" and sorted(p.name for p in tmp_path.iterdir()) == ["one", "site.yaml"]


def test_one_run_is_not_taken_for_certain(run: Make) -> None:
    found = calibrate.calibrate([run("one", 0.9, "train.attention=flash")])
    assert found.factor == pytest.approx(0.9, rel=0.01)
    assert found.low <= 1 / 1.05 and found.high >= 1.05


@pytest.mark.parametrize(
    ("factor", "words", "kwargs", "said"),
    [
        (1.0, (), {"steps": 12}, "no training with 10 steady steps"),
        (30.0, (), {}, "another machine"),
        (1.0, (), {"recipe": "demo"}, "cluster.device=cpu"),
    ],
)
def test_runs_that_say_nothing(run: Make, factor: float, words: tuple[str, ...], kwargs: dict, said: str) -> None:
    with pytest.raises(RunError, match=said):
        calibrate.calibrate([run("one", factor, *words, **kwargs)])


def test_runs_that_are_none(run: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RunError, match="no resolved recipe"):
        calibrate.calibrate([tmp_path])
    empty = run("empty", 1.0)
    (empty / "stages" / "pretrain" / "metrics.jsonl").write_bytes(b"\xff\xfe\n\x00")
    with pytest.raises(RunError, match="no training"):
        calibrate.calibrate([empty])
    (empty / "stages" / "pretrain" / "metrics.jsonl").unlink()
    assert cli.run(main, ["calibrate", str(empty), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"] == "RunError"
    (empty / "recipe.yaml").write_text("name: cut")
    with pytest.raises(RunError, match="damaged recipe"):
        calibrate.calibrate([empty])


def test_two_kinds_of_gpu(run: Make) -> None:
    runs = [run("a", 1.0), run("h", 1.0, "cluster=h100_ib")]
    with pytest.raises(UsageError, match="A100-80GB SXM, H100-80GB SXM"):
        calibrate.calibrate(runs)


def test_calibrations_that_are_refused(run: Make, tmp_path: Path) -> None:
    good = calibrate.calibrate([run("one", 1.1)]).as_dict()
    path = tmp_path / "site.yaml"
    recipe = compose("pretrain_70b", [f"cluster.calibration={path}"]).recipe
    with pytest.raises(RecipeError, match="cannot be read"):
        calibrate.params(recipe)
    cases: list[tuple[object, str]] = [
        ("", "no calibration"),
        ("- 1", "no calibration"),
        ("a: [", "not YAML"),
        ("!!python/object/apply:os.system [true]", "not YAML"),
        (yaml.safe_dump({**good, "format": 2}), "format 1"),
        (yaml.safe_dump({**good, "model": "older"}), "other parameters"),
        (yaml.safe_dump({**good, "factor": "1.1"}), "factor='1.1'"),
        (yaml.safe_dump({**good, "factor": float("nan")}), "factor=nan"),
        (yaml.safe_dump({**good, "low": 1.5}), "damaged"),
        (yaml.safe_dump({**good, "gpu": "H100-80GB SXM"}), "learned on H100"),
        (b"\xff\xfe\x00", "not YAML"),
    ]
    for text, said in cases:
        path.write_bytes(text if isinstance(text, bytes) else str(text).encode())
        with pytest.raises(RecipeError, match=said):
            calibrate.params(recipe)


def test_validate_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(main, ["validate", str(measurements.OURS), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["rows"]) == 77
    means = found["summary"]["all"]
    assert means["timed"] == 75 and means["mean_error"] < 0.06 and means["inside"] >= 0.9
    assert (means["out_of_memory"], means["refused"], means["false_alarms"]) == (2, 2, 0)
    assert found["summary"]["S4"]["rank_correlation"] >= 0.85
    meditron = next(row for row in found["rows"] if row["id"] == "MEDITRON-70B")
    assert meditron["tokens_per_s_gpu"]["predicted"] == pytest.approx(314, rel=0.05)
    assert cli.run(main, ["validate"]) == 0
    table = capsys.readouterr().out
    assert "MEDITRON-70B" in table and "out of memory: 2 of 2 refused" in table

    lines = measurements.OURS.read_text().splitlines()
    bad = tmp_path / "bad.csv"
    bad.write_text("\n".join([*lines[:3], lines[3].replace("2048", "-2048")]))
    assert cli.run(main, ["validate", str(bad)]) == 1
    assert f"{bad}:4: seq='-2048'" in capsys.readouterr().err

    bad.write_text("\n".join([*lines[:3], lines[3].replace("2048", "-2048"), lines[4]]))
    assert cli.run(main, ["validate", str(bad)]) == 1
    said = capsys.readouterr()
    assert "SC21T1-18B" in said.out and said.err.count("\n") == 1, "the other lines are judged all the same"
    assert cli.run(main, ["validate", str(bad), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [row["line"] for row in found["rows"]] == [2, 3, 5]
    assert [one["where"] for one in found["unsound"]] == [f"{bad}:4"]
