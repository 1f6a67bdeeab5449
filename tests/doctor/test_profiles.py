"""Which kind of place this is, and what it should have by the table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.doctor.conftest import Plant
from toolkit import pins
from toolkit.doctor.packages import KERNELS
from toolkit.doctor.profiles import CUDA, PROFILES, Place, place, wanted


def image(root: Path, labels: Any) -> Path:
    path = root / ".singularity.d" / "labels.json"
    path.parent.mkdir()
    path.write_text(labels if isinstance(labels, str) else json.dumps(labels))
    return root


@pytest.mark.parametrize("profile", PROFILES)
def test_an_image_says_what_it_is(tmp_path: Path, profile: str) -> None:
    found = place(root=image(tmp_path, {"meditron.profile": profile, "meditron.cuda": "yes"}), env={})
    assert (found.profile, found.image, found.without) == (profile, True, frozenset())


def test_an_image_says_what_it_is_without(tmp_path: Path) -> None:
    found = place(root=image(tmp_path, {"meditron.profile": "train", "meditron.cuda": "no"}), env={})
    assert found.without == {CUDA}


@pytest.mark.parametrize("labels", ["", "no json", "[1]", '{"meditron.profile": 7}', '{"meditron.profile": "none"}'])
def test_labels_that_say_nothing(tmp_path: Path, labels: str) -> None:
    found = place(root=image(tmp_path, labels), env={})
    assert found.image and found.profile in PROFILES


@pytest.mark.parametrize(
    ("packages", "profile"),
    [
        ({"torch": "2.13.0+cpu"}, "cpu"),
        ({"torch": "2.9.0a0+nv25.09"}, "train"),
        ({"torch": "2.8.0", "vllm": "0.11.0"}, "score"),
    ],
)
def test_outside_an_image_what_is_installed_decides(
    tmp_path: Path, plant: Plant, monkeypatch: pytest.MonkeyPatch, packages: dict[str, str], profile: str
) -> None:
    versions = {**dict.fromkeys(("torch", "vllm", "nemo-toolkit")), **packages}
    monkeypatch.setattr("toolkit.doctor.profiles.installed", versions.get)
    found = place(root=tmp_path, env={})
    assert (found.profile, found.image) == (profile, False)
    assert place(root=tmp_path, env={"APPTAINER_CONTAINER": "/x.sif"}).image


def test_without_torch_it_is_a_login_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.doctor.profiles.installed", lambda name: None)
    assert place(root=tmp_path, env={}).profile == "login"
    assert place("score", root=tmp_path, env={}).profile == "score"  # what is asked for goes first


def names(profile: str, *without: str) -> dict[str, Any]:
    where = Place(profile=profile, why="", image=True, without=frozenset(without))
    return {want.name: want for want in wanted(where, pins.table())}


def test_what_each_kind_should_have() -> None:
    table = pins.table()
    assert set(names("login")) == set(table.of("core"))
    cpu = names("cpu")
    assert set(cpu) >= set(table.of("core", "train", "score", "data", "dev"))
    assert cpu["torch"].version == table.torch_cpu and cpu["torch"].strict
    assert not cpu["transformer-engine"].needed and not cpu["wandb"].needed
    train = names("train")
    assert train["nemo-toolkit"].strict and train["nemo-toolkit"].needed
    assert train["transformer-engine"].needed and train["apex"].needed
    assert train["torch"].version == str(table.gpu_image["container"]["torch"]) and not train["torch"].strict
    assert "cuda" not in train  # no package


def test_what_is_left_out_without_cuda() -> None:
    train = names("train", CUDA)
    assert not any(train[name].needed for name in ("transformer-engine", "flash-attn", "apex"))
    assert train["nemo-toolkit"].needed and not train["torch"].strict
    assert names("score")["vllm"].needed and not names("score", CUDA)["vllm"].needed
    assert names("score", CUDA)["lm-eval"].needed


@pytest.mark.parametrize(
    ("profile", "lock"), [("cpu", "cpu.lock"), ("train-from-wheels", "wheels.lock"), ("score", "score.lock")]
)
def test_what_an_image_should_have_is_what_its_lock_installs(repo_root: Path, profile: str, lock: str) -> None:
    """Kernels' packages are built from source, and are in no lock."""
    lines = (repo_root / "env" / lock).read_text().splitlines()
    have = dict(line.split(" ")[0].split("==") for line in lines if "==" in line and not line.startswith("#"))
    have = {pins.canonical(name.partition("[")[0]): version for name, version in have.items()}
    wants = [want for want in names(profile).values() if want.needed and want.name not in KERNELS]
    assert len(wants) > 10
    for want in wants:
        assert want.name in have, want
        assert not want.version or pins.fits(have[want.name], want.version, leading=want.leading), want


def test_the_engine_comes_last(tmp_path: Path) -> None:
    assert [*names("cpu")][-4:] == ["torch", "transformers", "megatron-core", "nemo-toolkit"]
