"""Progress on a terminal, in a log, and in the file that the launcher watches."""

from __future__ import annotations

import json
import os
import pty
import resource
import select
import subprocess
import sys
from pathlib import Path

import pytest

from toolkit import files
from toolkit import progress as module
from toolkit.errors import DiskFull
from toolkit.progress import ENV, Progress, progress

BRACKETS = """
from toolkit.progress import progress
with progress("reading [/x]", total=20, unit="docs") as p:
    for _ in range(20):
        p.advance(note="loss [/fig] [bib_ref] 1.5")
"""


def test_the_file_holds_the_latest_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sub" / "progress.json"
    monkeypatch.setenv(ENV, str(path))
    with progress("shards", total=5, unit="docs") as bar:
        bar.advance(2, note="loss 1.5")
        bar.advance()
    state = json.loads(path.read_text())
    assert state.pop("elapsed_s") >= 0 and state.pop("left_s") >= 0
    assert state == {"label": "shards", "done": 3, "total": 5, "unit": "docs", "note": "loss 1.5"}
    assert [p.name for p in path.parent.iterdir()] == ["progress.json"]


def test_the_file_is_written_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "progress.json"
    monkeypatch.setenv(ENV, str(path))
    monkeypatch.setattr(module, "_FILE_EVERY_S", 0.0)
    with progress("shards", total=5) as bar:
        for count in range(1, 4):
            bar.at(count)
            assert json.loads(path.read_text())["done"] == count


def test_no_file_without_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENV, raising=False)
    monkeypatch.chdir(tmp_path)
    with progress("x", total=1) as bar:
        bar.advance()
    assert list(tmp_path.iterdir()) == []


def test_plain_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(module, "_LINE_EVERY_S", 0.0)
    with progress("shards", total=4, unit="docs") as bar:
        bar.at(1)
        bar.at(4, note="loss 1.5")
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("progress shards 1/4 docs ") and "eta=" in first
    assert last.startswith("progress shards 4/4 docs ") and last.endswith("eta=0s loss 1.5")
    assert "\x1b" not in first + last


def test_a_total_that_is_not_known(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(module, "_LINE_EVERY_S", 0.0)
    with progress("reading") as bar:
        bar.advance(7)
    line = capsys.readouterr().err
    assert line.startswith("progress reading 7 items ") and "eta" not in line


def test_lines_are_rare(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("shards", total=1000) as bar:
        for _ in range(1000):
            bar.advance()
    assert capsys.readouterr().err == ""


def test_an_error_passes_and_leaves_the_last_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENV, str(tmp_path / "p.json"))
    with pytest.raises(KeyboardInterrupt), progress("x", total=9) as bar:
        bar.advance(4)
        raise KeyboardInterrupt
    assert json.loads((tmp_path / "p.json").read_text())["done"] == 4


def test_a_file_that_cannot_be_written_does_not_end_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(ENV, str(tmp_path / "file" / "progress.json"))
    with progress("x", total=1) as bar:
        bar.advance()
    assert bar.done == 1


def test_a_disk_without_room_does_not_end_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "progress.json"
    monkeypatch.setenv(ENV, str(path))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4, before[1]))  # no file may hold more than 4 bytes
    try:
        with pytest.raises(DiskFull):
            files.write_json(path, {"long": "enough"})
        with progress("x", total=1) as bar:
            bar.advance()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert bar.done == 1 and list(tmp_path.iterdir()) == []


def on_a_terminal(code: str, repo_root: Path) -> str:
    """What `code` shows on a terminal of its own."""
    leader, follower = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(repo_root), "TERM": "xterm", "COLUMNS": "100"}
    environment.pop(ENV, None)
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=follower, stdout=follower, stderr=follower, env=environment
    ) as process:
        os.close(follower)
        shown = b""
        while select.select([leader], [], [], 60)[0]:
            try:
                chunk = os.read(leader, 65536)
            except OSError:  # Linux's way to say that the other end is closed
                break
            shown += chunk
        assert process.wait(60) == 0, shown.decode(errors="replace")
    os.close(leader)
    return shown.decode(errors="replace")


def test_a_bar_on_a_terminal(repo_root: Path) -> None:
    """Texts in brackets are shown as they are: corpus tags look like rich's markup."""
    shown = on_a_terminal(BRACKETS, repo_root)
    assert "\x1b[" in shown and "100%" in shown
    assert "[/fig] [bib_ref]" in shown and "reading [/x]" in shown
    assert "progress reading" not in shown


def test_no_bar_where_a_file_is_watched(repo_root: Path, tmp_path: Path) -> None:
    code = f"import os; os.environ[{ENV!r}] = {str(tmp_path / 'p.json')!r}\n{BRACKETS}"
    assert on_a_terminal(code, repo_root) == ""
    assert json.loads((tmp_path / "p.json").read_text())["done"] == 20


def test_what_was_done_before_says_nothing_of_the_speed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "progress.json"
    monkeypatch.setenv(ENV, str(path))
    bar = Progress("pretrain", 400, "steps", begun=300)
    assert bar.left_s() is None, "nothing is known before the first step"
    bar._start -= 10
    bar.at(350)
    assert bar.left_s() == pytest.approx(10, rel=0.05)
    bar.close()
    assert json.loads(path.read_text())["left_s"] == pytest.approx(10, rel=0.05)
