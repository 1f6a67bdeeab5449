"""A container is started for real where there is an Apptainer; machines that forbid it are described by files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.containers.conftest import apptainer  # noqa: F401 - a fixture
from toolkit.doctor import apptainer as looked

SETTINGS = (
    "user/max_user_namespaces",
    "kernel/unprivileged_userns_clone",
    "kernel/apparmor_restrict_unprivileged_userns",
)


def described(root: Path, *values: str | None) -> Path:
    for name, value in zip(SETTINGS, values, strict=True):
        if value is not None:
            path = root / "proc/sys" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{value}\n")
    return root


@pytest.mark.parametrize(
    ("values", "state", "words"),
    [
        (("15000", "1", "0"), "ok", "at most 15000"),
        (("15000", None, None), "ok", "at most 15000"),
        ((None, None, None), "ok", "on"),
        (("0", "1", "0"), "fault", "user.max_user_namespaces=15000"),
        (("15000", "0", "0"), "fault", "kernel.unprivileged_userns_clone=1"),
        (("15000", "1", "1"), "warn", "AppArmor"),
    ],
)
def test_what_forbids_user_namespaces(tmp_path: Path, values: tuple[str | None, ...], state: str, words: str) -> None:
    found = looked.namespaces(described(tmp_path, *values))
    assert found.state == state and words in f"{found.found} {found.remedy}"


def test_a_real_container_is_started(apptainer: str, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setenv("MEDITRON_APPTAINER", apptainer)
    found = {finding.key: finding for finding in looked.look()}
    assert found["apptainer"].state == "ok" and "starts a container" in found["apptainer"].found
    assert found["apptainer"].detail["command"] == apptainer
    assert {"sif", "fakeroot"} <= set(found)


def command(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_one_that_starts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = '[ "$1" = version ] && { echo 1.4.5; exit 0; }; echo "FATAL: no user namespace" >&2; exit 255'
    monkeypatch.setenv("MEDITRON_APPTAINER", str(command(tmp_path / "apptainer", script)))
    found = {finding.key: finding for finding in looked.look()}
    assert found["apptainer"].state == "fault" and "no user namespace" in found["apptainer"].remedy
    assert "namespaces" in found


def test_one_that_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDITRON_APPTAINER", str(command(tmp_path / "apptainer", "echo 'bad libc' >&2; exit 127")))
    (found,) = looked.look()
    assert found.state == "fault" and "bad libc" in found.remedy


def test_none_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDITRON_APPTAINER", "no-such-apptainer")
    found = {finding.key: finding for finding in looked.look()}
    assert found["apptainer"].state == "absent" and "no-such-apptainer" in found["apptainer"].remedy


def test_an_ordinary_user_without_fuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    found = {finding.key: finding for finding in looked.look(described(tmp_path, "0", None, None))}
    if found["apptainer"].state == "absent":
        assert found["namespaces"].state == "fault"
    else:
        assert found["sif"].state == "warn" and "--unsquash" in found["sif"].remedy
