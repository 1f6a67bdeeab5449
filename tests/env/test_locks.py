"""The locks, the table of pins and pyproject.toml say the same."""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

EXTRAS = ("train", "score", "data", "dev", "wandb", "mlflow")


@pytest.fixture(scope="module")
def lock(repo_root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("env_lock", repo_root / "env" / "lock.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def env_copy(repo_root: Path, tmp_path: Path) -> Path:
    for name in ("versions.yaml", "host.lock", "cpu.lock", "gpu.lock", "wheels.lock", "score.lock"):
        shutil.copy(repo_root / "env" / name, tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def project(repo_root: Path) -> dict:
    return tomllib.loads((repo_root / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_locks_agree_with_the_table(lock: ModuleType) -> None:
    assert lock.problems() == []


@pytest.mark.parametrize(
    ("name", "find", "put", "said"),
    [
        ("cpu.lock", r"(?m)^submitit==.*$", "submitit==1.0.0", "submitit is 1.0.0"),
        ("cpu.lock", r"(?m)^torch==.*$", "torch==2.13.0", "torch is 2.13.0"),
        ("host.lock", r"(?m)^rich==", "rch==", "rich is None"),
        ("cpu.lock", r"\Z", "transformer_engine==2.9\n", "transformer-engine must never"),
        ("host.lock", r"\Z", "apex==0.9.10.dev0\n", "apex must never"),
        ("gpu.lock", r"\Z", "flash-attn==2.8.3\n", "flash-attn must never"),
        ("cpu.lock", r"\Z", "ray==2.60.0\n", "ray is left out"),
        ("cpu.lock", r"\Z", "--extra-index-url https://example.org/simple\n", "names an index"),
        ("cpu.lock", r"\Z", "torch @ file:///wheels/torch.whl\n", "names an index"),
        ("versions.yaml", r"\nleave_out:\n", "\nleave_out:\n  pulp: unused\n", "another versions.yaml"),
        ("versions.yaml", r"version: 2\.3\.0", "version: 2.2.0", "omegaconf is 2.3.0, versions.yaml says 2.2.0"),
    ],
)
def test_a_disagreement_is_named(lock: ModuleType, env_copy: Path, name: str, find: str, put: str, said: str) -> None:
    assert lock.problems(env_copy) == []
    path = env_copy / name
    changed, times = re.subn(find, put, path.read_text(encoding="utf-8"), count=1)
    assert times == 1
    path.write_text(changed, encoding="utf-8")
    assert any(said in line for line in lock.problems(env_copy)), lock.problems(env_copy)


def test_a_missing_lock_is_named(lock: ModuleType, env_copy: Path) -> None:
    (env_copy / "gpu.lock").unlink()
    assert lock.problems(env_copy) == ["gpu.lock: missing; run `make lock`"]


def test_host_lock_is_light_and_hashed(lock: ModuleType, repo_root: Path) -> None:
    text = (repo_root / "env" / "host.lock").read_text(encoding="utf-8")
    packages = lock.parse_lock(text)
    assert not {"torch", "numpy", "pandas", "transformers", "nemo-toolkit", "megatron-core"} & set(packages)
    for line in re.sub(r" \\\n\s*", " ", text).splitlines():
        assert line.startswith("#") or "--hash=sha256:" in line


def test_pyproject_lists_what_the_table_lists(lock: ModuleType, project: dict) -> None:
    table = lock.read_table()
    listed = {"core": project["dependencies"], **project["optional-dependencies"]}
    assert set(listed) == {"core", *EXTRAS}
    for group, lines in listed.items():
        wanted = lock.pins(table, [group], cpu=False)
        ranges = {lock.canonical(r.name): r.specifier for r in map(Requirement, lines)}
        assert set(ranges) == set(wanted), f"{group}: pyproject.toml and versions.yaml differ"
        outside = {name: version for name, version in wanted.items() if not ranges[name].contains(version)}
        assert not outside, f"{group}: pins outside pyproject's ranges"


def test_pyproject_lists_no_trap(lock: ModuleType, project: dict) -> None:
    lines = [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]
    assert not {lock.canonical(Requirement(line).name) for line in lines} & set(lock.NEVER)
    extra = project["optional-dependencies"]["train"]
    assert "nemo-toolkit==2.6.0" in extra and "megatron-core==0.15.0" in extra


def test_every_group_in_the_table_is_known(lock: ModuleType) -> None:
    groups = {group for pin in lock.read_table()["packages"].values() for group in pin["groups"]}
    assert groups == {"core", "gpu-image", *EXTRAS}
