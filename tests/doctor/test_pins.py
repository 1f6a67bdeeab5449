"""The table of pins as values, and when a found version is the wanted one."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from toolkit import pins
from toolkit.errors import ToolkitError


def test_the_projects_own_table(repo_root: Path) -> None:
    table = pins.table()
    raw = yaml.safe_load((repo_root / "env" / "versions.yaml").read_text())
    assert table.packages["nemo-toolkit"].version == raw["packages"]["nemo-toolkit"]["version"]
    assert table.of("train", cpu=True)["torch"] == raw["torch_cpu"]["version"] != table.of("train")["torch"]
    assert set(table.of("core")) == {
        pins.canonical(name) for name, pin in raw["packages"].items() if "core" in pin["groups"]
    }
    assert table.packages["ruamel-yaml"].name == "ruamel-yaml"  # however the table spells it


@pytest.mark.parametrize(
    ("found", "wanted", "leading", "fit"),
    [
        ("2.13.0+cpu", "2.13.0+cpu", False, True),
        ("2.13.0", "2.13.0+cpu", False, False),
        ("2.13.0+cu130", "2.13.0", False, True),  # whose build it is, the table leaves open
        ("2.3", "2.3.0", False, True),
        ("2024.12.0", "2024.12", False, True),
        ("2024.02.1", "2024.2.1", False, True),
        ("2.9.1", "2.9", False, False),
        ("2.9.1", "2.9", True, True),
        ("2.90", "2.9", True, False),
        ("2.9.0a0+50eac811a6.nv25.09", "2.9.0a0", True, True),
        ("13.0", "13.0.1", True, True),
        ("12.9", "13.0.1", True, False),
        ("4.0", "as shipped; from source at a commit", False, True),
        ("", "1.0", True, False),
    ],
)
def test_versions_fit(found: str, wanted: str, leading: bool, fit: bool) -> None:
    assert pins.fits(found, wanted, leading=leading) is fit


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (None, "No such file"),
        (b"", "no table"),
        (b"- a\n- b\n", "no table"),
        (b"packages: {torch: ", "while parsing"),
        (b"\xff\xfe\x00", "codec can't decode"),
        (b"python: {host: [], cpu: x}\npackages: {a: 1}\n", "'a' has no version and groups"),
        (b"python: {host: [], cpu: x}\npackages: {'a b': {version: 1, groups: []}}\n", "no package's name"),
        (b"packages: {}\n", "torch_cpu"),
        (b"packages: !!python/object/apply:os.system ['true']\n", "could not determine a constructor"),
        (b"[" * 3000, "maximum recursion"),
    ],
)
def test_a_table_that_is_none(tmp_path: Path, data: bytes | None, why: str) -> None:
    path = tmp_path / "versions.yaml"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(ToolkitError) as err:
        pins.table(path)
    assert str(path) in str(err.value) and why in err.value.why, err.value
