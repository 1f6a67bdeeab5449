"""The payload's command: an environment of the host, or an image that sees what it needs and runs the same code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from toolkit.cluster.container import binds, check, payload
from toolkit.errors import PlanRefused, RecipeError
from toolkit.images import command as apptainer
from toolkit.recipe import Recipe, compose

WORDS = ["toolkit.stages", "/r", "corpus"]


def recipe(*overrides: str) -> Recipe:
    return compose("demo", ["cluster=slurm_dev", *overrides]).recipe


@pytest.fixture
def image(tmp_path: Path) -> Path:
    (tmp_path / "image").mkdir()
    return tmp_path / "image"


@pytest.fixture
def in_image(image: Path) -> list[str]:
    return ["container=apptainer", f"container.image='{image}'"]


def test_without_a_container_it_is_a_python_of_the_host(tmp_path: Path) -> None:
    assert payload(recipe(), tmp_path, WORDS) == ([sys.executable, "-m", *WORDS], {})
    assert payload(recipe("container.python=/env/bin/python"), tmp_path, WORDS)[0][0] == "/env/bin/python"


def test_in_an_image(tmp_path: Path, in_image: list[str], image: Path, repo_root: Path) -> None:
    (tmp_path / "run").mkdir()
    command, environment = payload(recipe(*in_image, "cluster.apptainer.options=[--no-privs]"), tmp_path / "run", WORDS)
    assert (
        Path(command[0]).name == "apptainer"
        and command[1] == "exec"
        and "--nv" not in command
        and "--env-file" not in command
    )
    assert command[-10:-7] == ["--no-privs", str(image), "/bin/sh"] and command[-5:] == ["python3", "-m", *WORDS]
    assert command[command.index("--pwd") + 1] == str(tmp_path / "run")
    bound = [command[i + 1] for i, word in enumerate(command) if word == "--bind"]
    assert str(tmp_path / "run") in bound
    assert f"{repo_root}/toolkit:/opt/toolkit-source/toolkit:ro" in bound
    assert f"{repo_root}/env/versions.yaml:/opt/toolkit-source/env/versions.yaml:ro" in bound
    assert not [name for name in environment if "PYTHONPATH" in name]  # the host's own Python keeps its own


def test_the_image_keeps_what_it_names_itself(tmp_path: Path, in_image: list[str]) -> None:
    """What runs first inside puts the toolkit before the image's own PYTHONPATH, and becomes the payload."""
    words = [*in_image, "container.python=/usr/bin/env"]
    command, _ = payload(recipe(*words), tmp_path, WORDS)
    inside = command[command.index("/bin/sh") : -3]
    for own, whole in (("/vendor/a:/vendor/b", "/opt/toolkit-source:/vendor/a:/vendor/b"), ("", "/opt/toolkit-source")):
        done = subprocess.run(inside[:-1], capture_output=True, text=True, env={"PYTHONPATH": own}, check=True)
        assert f"PYTHONPATH={whole}" in done.stdout.splitlines()


def test_gpus_and_fabric_values_reach_into_the_image(tmp_path: Path, in_image: list[str]) -> None:
    (tmp_path / "nccl.env").write_text("NCCL_DEBUG=INFO\n")
    command, _ = payload(recipe(*in_image, "cluster.device=gpu"), tmp_path, WORDS)
    assert "--nv" in command and command[command.index("--env-file") + 1] == str(tmp_path / "nccl.env")


def test_what_the_recipe_names_is_bound_once(
    tmp_path: Path, in_image: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, base, blobs = tmp_path / "run", tmp_path / "hub" / "snapshot", tmp_path / "hub" / "blobs"
    for folder in (run / "stages", base, blobs):
        folder.mkdir(parents=True)
    (blobs / "abc").write_text("x")
    (base / "model.safetensors").symlink_to("../blobs/abc")  # as the hub's cache has it
    monkeypatch.setenv("TMPDIR", "/scratch/7")
    words = [
        f"model.base='{base}'",
        f"inputs.corpus='{run}/stages'",
        "inputs.shards=/not/there",
        "cluster.apptainer.binds=[/x:/y]",
    ]
    bound = binds(recipe(*in_image, *words), run)
    assert bound[:3] == [str(run), str(base), str(blobs)] and bound[-1] == "/x:/y" and len(bound) == 7
    assert "/scratch/7" in binds(recipe(*in_image, "cluster.scratch='/scratch/$SLURM_JOB_ID'"), run)


@pytest.mark.parametrize("name", ["a:b", "a,b"])
def test_a_path_that_cannot_be_bound_is_refused(name: str, tmp_path: Path, in_image: list[str]) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(PlanRefused, match="cannot be shown to an image"):
        payload(recipe(*in_image), tmp_path / name, WORDS)
    with pytest.raises(PlanRefused, match="cannot be shown to an image"):
        check(recipe(*in_image, f"inputs.corpus='{tmp_path / name}'"))


def test_an_image_that_is_not_there_is_said_before_anything_is_submitted(tmp_path: Path) -> None:
    for words, told in (
        (
            ["container=apptainer", f"container.image={tmp_path}/no.sif"],
            f"container.image={tmp_path}/no.sif: the image is",
        ),
        (["container=apptainer", "container.image=null"], "container.image: no image is named"),
    ):
        with pytest.raises(PlanRefused) as caught:
            check(recipe(*words))
        assert told in str(caught.value) and "container=none" in str(caught.value)
    check(recipe("container.image=/not/there"))  # which no container uses


def test_the_command_runs_what_was_meant(tmp_path: Path, image: Path) -> None:
    """A stand-in for apptainer that shows its words: nothing of them passes a shell."""
    shown = tmp_path / "appt ainer"
    shown.write_text("#!/bin/sh\nprintf '%s\\0' \"$@\"\n")
    shown.chmod(0o755)
    words = ["container=apptainer", f"cluster.apptainer.command='{shown}'", f"container.image='{image}'"]
    command, environment = payload(recipe(*words, "cluster.apptainer.options=['--env','A=$(id);b c']"), tmp_path, WORDS)
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **environment})
    assert done.stdout.split("\0")[:-1] == command[1:] and "A=$(id);b c" in command


def test_rights_that_root_lacks_are_not_asked_for(
    tmp_path: Path, in_image: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for lacking, options, wanted in (
        ("root lacks some", "[]", ["--no-privs"]),
        ("root lacks some", "[--userns]", ["--userns"]),
        ("root lacks some", "[--no-privs]", ["--no-privs"]),
        ("", "[]", []),
    ):
        monkeypatch.setattr(apptainer, "lacking", lambda told=lacking: told)
        monkeypatch.setattr(apptainer.os, "geteuid", lambda: 0)
        words, _ = payload(recipe(*in_image, f"cluster.apptainer.options={options}"), tmp_path, WORDS)
        assert words[words.index("--pwd") + 2 : words.index("/bin/sh") - 1] == wanted


def test_the_copy_of_a_node_is_started_instead_of_the_image(tmp_path: Path, in_image: list[str], image: Path) -> None:
    words, _ = payload(recipe(*in_image), tmp_path, WORDS, image=Path("/local/cpu-0123.sif"))
    assert "/local/cpu-0123.sif" in words and str(image) not in words


@pytest.mark.parametrize("folder", ["local", "/local/../etc", "/a b", "/a:b", "/a,b", "/$HOME", "''", "'/x;id'"])
def test_a_folder_for_copies_that_is_none_is_refused(folder: str) -> None:
    quoted = folder if folder.startswith("'") else f"'{folder}'"
    with pytest.raises(RecipeError, match="local"):
        recipe(f"cluster.apptainer.local={quoted}")


def test_a_folder_for_copies_may_be_the_users_own() -> None:
    assert recipe("cluster.apptainer.local='/local/$USER/images'").cluster.apptainer.local == "/local/$USER/images"
