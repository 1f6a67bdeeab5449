"""What is found of watched trainings: runs, folders of checkpoints, names that are no names."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from toolkit.checkpoint import distcp
from toolkit.errors import RecipeError, RunError
from toolkit.recipe import compose
from toolkit.recipe.rules import check
from toolkit.recipe.schema import Night
from toolkit.runs import Run, create
from toolkit.stages import watched

ODD = ["a b", "$(touch X)", "`touch X`", "'quoted'", '"twice"', "ünï–漢字", "new\nline", "-rf", "x" * 200, "%j", "a;b"]


def checkpoint(models: dict[str, Path], path: Path) -> Path:
    return Path(shutil.copytree(models["good"], path))


def a_run(tmp_path: Path, models: dict[str, Path], *more: str) -> Run:
    """A pretraining in progress whose inputs were given from outside."""
    given = [f"runs='{tmp_path / 'runs'}'", "stages=[pretrain]", f"model.base='{models['hf']}'",
             f"inputs.shards='{tmp_path / 'shards'}'", "inputs.checkpoint=x", "model.base_vocab=343"]  # fmt: skip
    run = create(compose("demo", [*given, *more]).recipe, command=["x"], plan={})
    (run.stage("pretrain") / "checkpoints").mkdir(parents=True)
    return run


def test_a_run_says_what_its_checkpoints_are_exported_with(models: dict[str, Path], tmp_path: Path) -> None:
    run = a_run(tmp_path, models)
    for name in ("step=9", "step=19-last", "loss=1.2-step=29"):
        checkpoint(models, run.stage("pretrain") / "checkpoints" / name)
    for words in (str(run.path), str(tmp_path / "runs"), str(tmp_path / "runs" / "demo-*")):
        found, told = watched.find_all([words])
        assert [(one.step, one.bad) for one in found] == [(9, ""), (19, ""), (29, "")] and told == []
    due = watched.due(found[0], compose("nightly").recipe)
    assert (due.config, due.tokenizer) == (str(models["hf"]), str(tmp_path / "shards" / "tokenizer"))
    assert (due.vocab, due.step, Path(due.path).name) == (360, 9, "step=9") and due.series.startswith(run.id)


def test_what_is_half_written_says_so(models: dict[str, Path], tmp_path: Path) -> None:
    home = tmp_path / "train"
    for step in (9, 19, 29, 39):
        checkpoint(models, home / f"step={step}")
    (home / "step=19-unfinished").touch()
    (distcp.weights_folder(home / "step=29") / "common.pt").unlink()
    big = max((home / "step=39").rglob("*.distcp"), key=lambda path: path.stat().st_size)
    big.write_bytes(big.read_bytes()[:-100])
    (home / ".step=49").mkdir()
    (home / "step=59").write_text("a file")
    (home / "notes").mkdir()
    found, _ = watched.find_all([str(home)])
    assert [one.step for one in found] == [9, 19, 29, 39]
    assert [bool(one.bad) for one in found] == [False, True, True, True]
    assert "unfinished" in found[1].bad and "common.pt is missing" in found[2].bad and "bytes of" in found[3].bad


def test_of_two_at_one_step_the_whole_one_counts(models: dict[str, Path], tmp_path: Path) -> None:
    home = tmp_path / "train"
    checkpoint(models, home / "step=9"), checkpoint(models, home / "step=9-last")
    (one,), _ = watched.find_all([str(home)])
    assert one.path.name == "step=9-last" and one.name == "step=9"
    (home / "step=9-last-unfinished").touch()
    (one,), _ = watched.find_all([str(home)])
    assert one.path.name == "step=9" and one.bad == ""


@pytest.mark.parametrize("name", ODD)
def test_odd_names_become_harmless_series(models: dict[str, Path], tmp_path: Path, name: str) -> None:
    checkpoint(models, tmp_path / name / "step=9")
    (one,), told = watched.find_all([str(tmp_path / name)])
    assert told == [] and len(one.series) < 120
    recipe = compose(
        "nightly", ["cluster=local", "container=none", "model=llama_demo", "parallel=tp2_pp2", "train=demo"]
    )
    assert recipe.recipe.night == Night()
    import dataclasses

    due = watched.due(one, dataclasses.replace(recipe.recipe, model=dataclasses.replace(recipe.recipe.model, base="b")))
    night = dataclasses.replace(recipe.recipe.night, checkpoints=(due,))
    check(dataclasses.replace(recipe.recipe, night=night))


def test_two_folders_of_one_name_are_two_series(models: dict[str, Path], tmp_path: Path) -> None:
    for name in ("a", "b"):
        checkpoint(models, tmp_path / name / "train" / "step=9")
    found, _ = watched.find_all([str(tmp_path / "a" / "train"), f"{tmp_path}/*/train"])
    assert len({one.series for one in found}) == 2 == len(found)


def test_what_is_not_there(models: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="there is no folder"):
        watched.find_all([str(tmp_path / "gone")])
    assert watched.find_all([str(tmp_path / "gone*")]) == ([], [])
    (tmp_path / "file").write_text("")
    assert watched.find_all([str(tmp_path / "f*")]) == ([], [])
    checkpoint(models, tmp_path / "train" / "step=9")
    (one,), _ = watched.find_all([str(tmp_path / "train")])
    with pytest.raises(RecipeError, match="belongs to no run"):
        watched.due(one, compose("nightly").recipe)


def test_a_damaged_run_is_no_obstacle_for_the_others(models: dict[str, Path], tmp_path: Path) -> None:
    run = a_run(tmp_path, models)
    checkpoint(models, run.stage("pretrain") / "checkpoints" / "step=9")
    (run.path / "recipe.yaml").write_text("{")
    (one,), _ = watched.find_all([str(run.path)])
    with pytest.raises(RunError, match="damaged"):
        watched.due(one, compose("nightly").recipe)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("night.tries=0", "night.tries is 0"),
        ("night.most=-1", "night.most is -1"),
        ("night.gate.min_drop=1.5", "night.gate.min_drop=1.5"),
        ("night.gate.alpha=0", "night.gate.alpha=0.0"),
        ("night.gate.alpha=nan", "finite number"),
        ("night.hooks.mail=[nobody]", "'nobody' is no address"),
        ('night.hooks.mail=["-oQ/tmp@x"]', "is no address"),
        ('night.hooks.mail=["a@b, c@d"]', "is no address"),
        ("night.hooks.webhook_env='https://hooks.example.org/S3CRET'", "no name of an environment variable"),
        ("night.watch=runs", "must be a list"),
        ("night.histroy=x", "'night.history'"),
        ("stages=[night,report]", "stage night goes alone"),
        ("night=null", "stage night needs a 'night' section"),
    ],
)
def test_a_night_that_cannot_be_is_refused(words: str, said: str) -> None:
    with pytest.raises(RecipeError) as told:
        compose("nightly", [words])
    assert said in str(told.value) and "S3CRET" not in str(told.value)
