"""A run's folder: made whole or not at all, found again by each of its names, free of the environment's secrets."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from toolkit.errors import RunError
from toolkit.recipe import Recipe, compose
from toolkit.runs import create, find
from toolkit.runs.manifest import _git, manifest


@pytest.fixture
def recipe(runs_root: Path) -> Recipe:
    return dataclasses.replace(compose("demo").recipe, runs=str(runs_root))


def test_a_run_is_made_and_found(recipe: Recipe, runs_root: Path) -> None:
    run = create(recipe, command=["python", "-m", "toolkit.launch", "recipe=demo"], plan={"recipe": "demo"})
    assert re.fullmatch(r"demo-\d{8}-\d{6}-[0-9a-f]{4}", run.id)
    assert sorted(p.name for p in run.path.iterdir()) == [
        *("jobs.json", "manifest.json", "plan.json", "recipe.yaml", "stages"),
    ]
    assert json.loads((run.path / "plan.json").read_text()) == {"recipe": "demo"}
    assert json.loads((run.path / "jobs.json").read_text()) == {"stages": []}
    for name in (str(run.path), run.id, "last"):
        assert find(name, runs_root) == run
    assert [p.name for p in runs_root.iterdir()] == [run.id]


def test_a_relative_path_finds_it_too(recipe: Recipe, runs_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = create(recipe, command=[], plan={})
    monkeypatch.chdir(runs_root.parent)
    assert find(f"runs/{run.id}").path == run.path.resolve()
    assert find("last").path == run.path.resolve()


def test_last_is_the_newest_launch_not_the_newest_touch(recipe: Recipe, runs_root: Path) -> None:
    old, new = (create(recipe, command=[], plan={}) for _ in range(2))
    os.utime(old.path / "recipe.yaml", (1, 1))
    (old.path / "lock").touch()  # going on with it changes the folder's own time
    os.utime(old.path)
    assert find("last", runs_root) == new


def test_two_launches_in_one_second_are_two_runs(recipe: Recipe, runs_root: Path) -> None:
    assert len({create(recipe, command=[], plan={}).id for _ in range(5)}) == 5


def test_unknown_runs(recipe: Recipe, runs_root: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run 'last'") as caught:
        find("last", tmp_path / "none")
    assert caught.value.do == "start one with recipe=NAME" and caught.value.exit_code == 1
    run = create(recipe, command=[], plan={})
    with pytest.raises(RunError) as caught:
        find(f"{run.id}x", runs_root)
    assert caught.value.do == f"did you mean '{run.id}'?"
    (runs_root / "no-run").mkdir()
    with pytest.raises(RunError, match="no run 'no-run'"):
        find("no-run", runs_root)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[1, 2", b"- a\n", b"name: demo\n", b"\x00"])
def test_a_damaged_recipe(recipe: Recipe, runs_root: Path, content: bytes) -> None:
    run = create(recipe, command=[], plan={})
    (run.path / "recipe.yaml").write_bytes(content)
    with pytest.raises(RunError, match="damaged recipe") as caught:
        find(run.id, runs_root)
    assert caught.value.where == str(run.path / "recipe.yaml") and caught.value.exit_code == 1


def test_a_folder_that_cannot_be_made(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for runs in ("file", "file/runs"):
        with pytest.raises(RunError, match="the run's folder cannot be made") as caught:
            create(dataclasses.replace(recipe, runs=str(tmp_path / runs)), command=[], plan={})
        assert "runs=FOLDER" in caught.value.do


def test_an_error_on_the_way_leaves_no_run(recipe: Recipe, runs_root: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        create(recipe, command=[], plan=Interrupts())  # type: ignore[arg-type]
    assert list(runs_root.iterdir()) == []


class Interrupts:
    """A plan whose writing is interrupted."""

    def __str__(self) -> str:
        raise KeyboardInterrupt


def test_nothing_of_the_environment_is_kept(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "xyz-of-the-environment")
    run = create(recipe, command=["a"], plan={})
    for path in run.path.rglob("*"):
        assert not path.is_file() or b"xyz-of-the-environment" not in path.read_bytes()


def test_the_manifest(repo_root: Path) -> None:
    made = manifest("demo-x", ["python", "recipe=demo"])
    assert made["run"] == "demo-x" and made["command"] == ["python", "recipe=demo"]
    assert {"git", "versions", "python", "host", "platform", "created", "data"} <= made.keys()
    assert re.match(r"\d\.\d", made["versions"]["hydra-core"]) and re.match(r"\d\.\d", made["versions"]["submitit"])
    assert json.loads(json.dumps(made)) == made


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git checkout with one commit, untouched by the machine's own settings."""
    if shutil.which("git") is None:
        pytest.skip("git is not here")
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, os.devnull)
    root = tmp_path / "checkout"
    root.mkdir()
    (root / "file.txt").write_text("one\n")
    git = ["git", "-C", str(root), "-c", "user.name=n", "-c", "user.email=e@example.org"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *words], check=True)
    return root


def test_git_clean_dirty_and_new_files(checkout: Path) -> None:
    clean = _git(checkout)
    assert re.fullmatch(r"[0-9a-f]{40}", clean["commit"])
    assert (clean["dirty"], clean["diff"], clean["untracked"]) == (False, "", [])
    (checkout / "new.txt").write_text("x")
    new = _git(checkout)
    assert (new["dirty"], new["diff"], new["untracked"]) == (True, "", ["new.txt"])
    (checkout / "file.txt").write_bytes(b"caf\xe9\n")  # no UTF-8
    dirty = _git(checkout)
    assert dirty["dirty"] and dirty["commit"] == clean["commit"]
    assert "-one" in dirty["diff"] and "+caf\ufffd" in dirty["diff"]


def test_no_checkout_no_git(tmp_path: Path, checkout: Path) -> None:
    assert _git(tmp_path) == {}
    (checkout / "below").mkdir()
    assert _git(checkout / "below") == {}  # a copy of the toolkit inside somebody else's repository
