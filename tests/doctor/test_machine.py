"""Folders that cannot be written, disks that are full, and a machine without shared memory."""

from __future__ import annotations

import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from toolkit import pins
from toolkit.doctor import machine
from toolkit.doctor.profiles import Place


def test_a_folder_that_is_not_there_yet_is_judged_by_the_one_above(tmp_path: Path) -> None:
    found = machine.folder(tmp_path / "a" / "b", "runs", "runs")
    assert found.state in ("ok", "warn") and "GiB free" in found.found
    assert list(tmp_path.iterdir()) == [], "nothing is made"


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = machine.folder(tmp_path / "file" / "runs", "runs", "runs")
    assert found.state == "fault" and "Not a directory" in found.remedy


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], capture_output=True).returncode:
        pytest.skip("may not mount a small tmpfs here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_disk_without_room(small_disk: Path) -> None:
    found = machine.folder(small_disk, "runs", "runs")
    assert found.state == "fault" and "is full" in found.remedy
    with pytest.raises(OSError), open(small_disk / "filling", "wb", buffering=0) as handle:
        while True:
            handle.write(b"x" * 65_536)
    found = machine.folder(small_disk, "runs", "runs")
    assert found.state == "fault" and "No space left" in found.remedy


def test_shared_memory(small_disk: Path) -> None:
    assert machine.shared_memory(small_disk).state == "warn" and "1 MiB" in machine.shared_memory(small_disk).remedy
    assert machine.shared_memory(small_disk / "none").state == "warn"


def test_memory_that_may_be_locked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64 << 10, 64 << 10))
    assert machine.memlock().state == "warn" and machine.memlock().found == "64 KiB"
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert machine.memlock().state == "ok"


def test_the_python(monkeypatch: pytest.MonkeyPatch) -> None:
    table = pins.table()
    monkeypatch.setattr("platform.python_version", lambda: "3.9.2")
    states = {p: machine.python(Place(profile=p, why="", image=False), table).state for p in ("login", "cpu", "train")}
    assert states == {"login": "warn", "cpu": "fault", "train": "ok"}
