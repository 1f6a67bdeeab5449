"""What a stage's attempts amount to: progress, strikes, and files that survive damage."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest

from toolkit.cluster import attempts
from toolkit.cluster.attempts import Attempt


def made(step_from: int | None, step_to: int | None, state: str = "CRASHED") -> Attempt:
    return Attempt(
        job_id="7", restart=0, started=time.time(), hosts=("node01", "node02"), step_from=step_from, step_to=step_to,
        state=state, ended=time.time(),
    )  # fmt: skip


def test_what_is_written_is_read(tmp_path: Path) -> None:
    rows = [made(None, 10), dataclasses.replace(made(10, None), state="RUNNING", ended=None, logs={"log": 12})]
    attempts.write(tmp_path, rows)
    assert attempts.read(tmp_path) == rows


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"attempts": 3}', '{"attempts": [1, {"job_id": "1"}, {"hosts": null}]}', "\x00", "[" * 9999],
)
def test_a_damaged_record_is_no_obstacle(tmp_path: Path, text: str) -> None:
    (tmp_path / attempts.ATTEMPTS).write_text(text)
    (tmp_path / attempts.NODES).write_text(text)
    assert attempts.read(tmp_path) == []
    assert attempts.read_nodes(tmp_path) == attempts.Nodes()


@pytest.mark.parametrize(
    ("steps", "idle"),
    [
        ([], 0),
        ([(None, None)], 1),
        ([(None, 10)], 0),
        ([(None, None), (None, None)], 2),
        ([(None, None), (None, 10), (10, 10)], 1),
        ([(10, 10), (10, 10), (10, 11)], 0),
        ([(10, None)], 1),  # its checkpoint is gone: no progress
    ],
)
def test_only_the_newest_attempts_without_progress_count(steps: list, idle: int) -> None:
    assert attempts.idle_in_a_row([made(a, b) for a, b in steps]) == idle


def test_an_attempt_without_an_end_was_lost(tmp_path: Path) -> None:
    running = dataclasses.replace(made(10, None), state="RUNNING", ended=None)
    first, second = attempts.close_lost([made(None, 10), running], 20, 24)
    assert (first.state, second.state, second.step_to, second.idle) == ("CRASHED", "LOST", 20, False)
    assert second.ended is not None and second.reached == 24


def test_two_strikes_exclude_a_node_and_one_does_not(tmp_path: Path) -> None:
    run = tmp_path
    folder = run / "stages" / "pretrain"
    folder.mkdir(parents=True)
    assert attempts.blame(folder, [("node03", "down*"), ("node04", "down*")], 2).excluded == ()
    assert attempts.excluded(run) == ()
    after = attempts.blame(folder, [("node03", "rank 3: Killed")], 2)
    assert after.excluded == ("node03",) == attempts.excluded(run)
    assert after.strikes == {"node03": ("down*", "rank 3: Killed"), "node04": ("down*",)}
    attempts.note_told(folder, ["node03"])
    assert attempts.read_nodes(folder).told == ("node03",)
    other = run / "stages" / "finetune"
    other.mkdir()
    assert attempts.blame(other, [("node07", "x"), ("node07", "y")], 2).excluded == ("node07",)
    assert attempts.excluded(run) == ("node03", "node07")
