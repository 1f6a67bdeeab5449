"""What a person sees while stages run: on a terminal a table that is redrawn, elsewhere lines that can be searched."""

from __future__ import annotations

import json
import os
import pty
from pathlib import Path

import pytest

from toolkit.plan import steps
from toolkit.recipe import compose
from toolkit.watch import Watch

RECORD = {"elapsed_s": 3.21, "result": {"documents": 3680, "loss": 0.58123, "removed": {"licence": 1}}}


def progress(folder: Path) -> None:
    state = {"label": "pretrain", "done": 100, "total": 400, "unit": "steps", "note": "loss 1.2", "left_s": 150.0}
    (folder / "progress.json").write_text(json.dumps(state))


def follow(folder: Path, *, quiet: bool = False) -> None:
    planned = steps(compose("demo").recipe)
    with Watch(planned, quiet=quiet) as watch:
        watch.skipped("corpus")
        watch.started("pretrain", folder, "not finished")
        watch._last = 0  # as if the last line were long ago
        progress(folder)
        watch.tick()
        watch.finished("pretrain", RECORD)


def test_lines_where_there_is_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    follow(tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(maxsplit=1)[1].split()[:2] for line in lines] == [
        ["skipped", "corpus"],
        ["runs", "pretrain"],
        ["runs", "pretrain"],
        ["done", "pretrain"],
    ]
    assert "pretrain 100/400 steps  150 s left  loss 1.2" in lines[2]
    assert "3.2 s  documents 3,680  loss 0.5812" in lines[3]


def test_quiet_keeps_stdout_for_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    follow(tmp_path, quiet=True)
    told = capsys.readouterr()
    assert told.out == "" and "pretrain" in told.err


def test_a_table_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr("sys.stdout", terminal)
        follow(tmp_path)
    monkeypatch.undo()
    told = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other end is closed and everything is read
            break
        if not part:
            break
        told += part
    os.close(ours)
    text = told.decode()
    assert "100/400 steps" in text and "already done" in text
    for step in steps(compose("demo").recipe):
        assert step.id in text, "every stage has its row, those that wait too"


def test_a_progress_file_cut_short_is_no_reason_to_stop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Watch(steps(compose("demo").recipe)) as watch:
        watch.started("pretrain", tmp_path, "")
        (tmp_path / "progress.json").write_text('{"label": "pre')
        watch._last = 0
        watch.tick()
    assert "starting" in capsys.readouterr().out
