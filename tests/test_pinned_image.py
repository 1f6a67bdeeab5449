"""The image that a run is bound to: recorded, compared, accepted anew. tests/slurm has real images in real jobs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from toolkit import pinned_image
from toolkit.errors import ImageError, PlanRefused, RunBusy, RunError
from toolkit.recipe import Recipe, compose
from toolkit.runs import Run, create, held


def sandbox(path: Path, inputs: str) -> Path:
    """A folder as `apptainer build --sandbox` leaves it, with the labels that tell what it was made from."""
    (path / ".singularity.d").mkdir(parents=True, exist_ok=True)
    (path / ".singularity.d" / "labels.json").write_text(json.dumps({"meditron.inputs": inputs}))
    return path


def recipe(root: Path, *words: str) -> Recipe:
    given = ["container=cpu", f"container.image={root / 'image'}", f"runs={root / 'runs'}", "stages=[corpus]"]
    return compose("demo", [*given, *words]).recipe


@pytest.fixture
def run(tmp_path: Path) -> Run:
    sandbox(tmp_path / "image", "a" * 64)
    made = recipe(tmp_path)
    return create(made, command=["pytest"], plan={}, image=pinned_image.of(made))


def manifest(run: Run) -> dict:
    return json.loads((run.path / "manifest.json").read_text(encoding="utf-8"))


def test_the_manifest_holds_what_the_image_is(run: Run, tmp_path: Path) -> None:
    known = manifest(run)["image"]
    assert (known["kind"], known["inputs"], known["path"]) == ("sandbox", "a" * 64, str(tmp_path / "image"))
    pinned_image.check(run)


def test_without_an_image_there_is_none_to_hold(tmp_path: Path) -> None:
    made = recipe(tmp_path, "container=none")
    assert pinned_image.of(made) is None
    bare = create(made, command=["pytest"], plan={})
    assert manifest(bare)["image"] is None
    pinned_image.check(bare)
    assert pinned_image.accept(bare) is False


def test_another_one_is_refused_and_the_way_on_is_named(run: Run, tmp_path: Path) -> None:
    sandbox(tmp_path / "image", "b" * 64)
    with pytest.raises(ImageError) as caught:
        pinned_image.check(run)
    told = str(caught.value)
    assert caught.value.exit_code == 3 and f"run={run.path} --new-image" in told and "another image" in told
    done = subprocess.run(
        [sys.executable, "-m", "toolkit.launch", f"run={run.path}"], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (3, "") and "--new-image" in done.stderr and "Traceback" not in done.stderr
    assert not any((run.path / "stages").iterdir()), "nothing has begun"


def test_accepting_keeps_what_was_before(run: Run, tmp_path: Path) -> None:
    assert pinned_image.accept(run) is False, "it is the same"
    for inputs in ("b" * 64, "c" * 64):
        sandbox(tmp_path / "image", inputs)
        assert pinned_image.accept(run) is True
        pinned_image.check(run)
    after = manifest(run)
    assert after["image"]["inputs"] == "c" * 64
    assert [one["inputs"][0] for one in after["earlier_images"]] == ["a", "b"]
    assert after["command"] == ["pytest"] and all(one["until"] for one in after["earlier_images"])


def test_nobody_changes_it_under_a_running_launch(run: Run, tmp_path: Path) -> None:
    sandbox(tmp_path / "image", "b" * 64)
    with held(run.path), pytest.raises(RunBusy):
        pinned_image.accept(run)
    assert manifest(run)["image"]["inputs"] == "a" * 64


def test_an_image_that_is_gone_is_said(run: Run, tmp_path: Path) -> None:
    (tmp_path / "image" / ".singularity.d" / "labels.json").unlink()
    (tmp_path / "image" / ".singularity.d").rmdir()
    with pytest.raises(ImageError, match="no sandbox"):
        pinned_image.check(run)
    (tmp_path / "image").rmdir()
    with pytest.raises(ImageError, match="not there"):
        pinned_image.check(run)
    with pytest.raises(PlanRefused, match="not there"):
        pinned_image.of(run.recipe)


def test_a_file_that_is_no_image_makes_no_run(tmp_path: Path) -> None:
    (tmp_path / "image").write_text("<html>404</html>")
    done = subprocess.run(
        [sys.executable, "-m", "toolkit.launch", "recipe=demo", "container=cpu", f"container.image={tmp_path}/image",
         f"runs={tmp_path / 'runs'}"], capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 3 and "no SIF" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("damage", ["", "{", "[]", "\x00"])
def test_a_damaged_manifest_is_said(run: Run, damage: str) -> None:
    (run.path / "manifest.json").write_text(damage)
    with pytest.raises(RunError, match="damaged"):
        pinned_image.check(run)


@pytest.mark.parametrize("image", [None, 3, "x", []])
def test_a_run_from_before_images_were_recorded_goes_on(run: Run, image: object) -> None:
    (run.path / "manifest.json").write_text(json.dumps({**manifest(run), "image": image}))
    pinned_image.check(run)
    assert pinned_image.accept(run) is True and manifest(run)["earlier_images"] == []


def test_a_new_image_goes_with_a_run(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "toolkit.launch", "recipe=demo", "--new-image"], capture_output=True, text=True
    )
    assert done.returncode == 2 and "--new-image goes with run=RUN" in done.stderr
