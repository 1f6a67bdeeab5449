"""A log's lines: those of one attempt, the last few, and those that are still to come."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.errors import RunError, UsageError
from toolkit.runs.follow import Part, follow, log_sizes, part, read, start_of_last


def everything(path: Path) -> Part:
    return Part(path=path, start=0, end=None, attempt=None)


def lines_of(folder: Path, logs: list[dict[str, int] | None], attempt: int | None, rank: int = 0) -> list[str]:
    return list(read(part(folder, logs, rank=rank, attempt=attempt)))


def test_each_attempt_has_its_part_of_every_ranks_log(tmp_path: Path) -> None:
    logs: list[dict[str, int] | None] = []
    for attempt in (1, 2, 3):
        logs.append(log_sizes(tmp_path))
        for name in ("log", "rank-1.log", *(["rank-2.log"] if attempt > 1 else [])):  # a wider second attempt
            with open(tmp_path / name, "a") as log:
                log.write(f"attempt {attempt} of {name}\n" * attempt)
    assert logs[0] == {} and logs[1] == {"log": 17, "rank-1.log": 24}
    for attempt in (1, 2, 3):
        assert lines_of(tmp_path, logs, attempt) == [f"attempt {attempt} of log"] * attempt
        assert lines_of(tmp_path, logs, attempt, rank=1) == [f"attempt {attempt} of rank-1.log"] * attempt
    assert lines_of(tmp_path, logs, 1, rank=2) == []
    assert lines_of(tmp_path, logs, 2, rank=2) == ["attempt 2 of rank-2.log"] * 2
    assert lines_of(tmp_path, logs, None) == ["attempt 3 of log"] * 3
    assert part(tmp_path, logs).attempt == 3


def test_attempts_and_ranks_that_there_are_not(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("x\n")
    (tmp_path / "rank-2.log").write_text("x\n")
    (tmp_path / "rank-x.log").write_text("x\n")
    for attempt, have in ((0, "1 to 2"), (3, "1 to 2")):
        with pytest.raises(UsageError, match=f"no attempt {attempt}") as caught:
            part(tmp_path, [{}, {}], attempt=attempt)
        assert have in caught.value.do and caught.value.exit_code == 2
    with pytest.raises(UsageError, match="no log of rank 1") as caught:
        part(tmp_path, [{}], rank=1)
    assert caught.value.do == "ranks with a log: 0, 2"


@pytest.mark.parametrize("unknown", [None, {"log": "7"}, {"log": -1}, {"log": True}])
def test_a_record_without_sizes(tmp_path: Path, unknown: dict[str, int] | None) -> None:
    (tmp_path / "log").write_text("one\ntwo\n")
    logs = [None, unknown]
    assert lines_of(tmp_path, logs, None) == ["one", "two"]  # all attempts rather than nothing
    for attempt in (1, 2):
        with pytest.raises(RunError, match=f"where attempt {attempt} begins"):
            part(tmp_path, logs, attempt=attempt)
    assert lines_of(tmp_path, [None], 1) == ["one", "two"]


def test_sizes_beyond_the_file_are_an_empty_part(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("one\n")
    assert lines_of(tmp_path, [{"log": 900}], 1) == [] and lines_of(tmp_path, [{"log": 900}, {"log": 3}], 1) == []


@given(st.binary(max_size=400), st.integers(0, 12))
def test_the_last_lines_are_the_end_of_all(tmp_path_factory: pytest.TempPathFactory, data: bytes, last: int) -> None:
    data = data.replace(b"\r", b" ").replace(b"\x1b", b" ")  # which end or remove lines of their own
    path = tmp_path_factory.mktemp("log") / "log"
    path.write_bytes(data)
    whole = list(read(everything(path)))
    assert list(read(everything(path), last=last)) == (whole[-last:] if last else [])
    assert all(line.replace("\t", "").isprintable() or set(line) & set("\u00a0\u200c\u200d") for line in whole)
    assert len(whole) == len(data.split(b"\n")) - (data == b"" or data.endswith(b"\n"))


def test_long_logs_are_read_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("".join(f"{n} caf\u00e9 {'x' * (n % 97)}\r\n" for n in range(30_000)) + "end without newline")
    found = list(read(everything(path)))
    assert len(found) == 30_001 and found[-1] == "end without newline"
    assert all(line.split()[:2] == [str(n), "caf\u00e9"] for n, line in enumerate(found[:-1]))
    assert list(read(everything(path), last=20_000)) == found[-20_000:]
    path.write_bytes(b"x" * 300_000)
    assert "".join(read(everything(path))) == "x" * 300_000


def test_a_log_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="No such file"):
        list(read(everything(tmp_path / "log")))
    os.mkfifo(tmp_path / "pipe")
    for odd in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(RunError, match="cannot be read: not a file"):
            list(read(everything(odd)))
        with pytest.raises(RunError, match="cannot be read: not a file"):
            list(follow(odd, 0, lambda: True))


class Writer:
    """Writes the pieces one by one, each only when the lines before it have been seen."""

    def __init__(self, path: Path, *pieces: bytes) -> None:
        self.path, self.pieces = path, list(pieces)

    def over(self) -> bool:
        if not self.pieces:
            return True
        with open(self.path, "ab") as log:
            log.write(self.pieces.pop(0))
        return not self.pieces


def test_what_comes_is_followed_to_the_end(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "log", b"one\ntw", b"o\n\xc3", b"\xa9\n", b"10%\r20%\rend")
    assert list(follow(tmp_path / "log", 0, writer.over, poll_s=0)) == ["one", "two", "\u00e9", "10%", "20%", "end"]


def test_following_begins_where_it_is_told(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("first\nsecond\nthird\n")
    assert list(follow(path, start_of_last(path, 0, 1), lambda: True)) == ["third"]
    assert list(follow(path, start_of_last(path, 6, 9), lambda: True)) == ["second", "third"]
    assert start_of_last(tmp_path / "none", 5, 3) == 5 and start_of_last(path, 6, None) == 6


def test_a_log_that_is_not_there_yet_or_never(tmp_path: Path) -> None:
    asked = iter([False, False, True])
    assert list(follow(tmp_path / "log", 0, lambda: next(asked), poll_s=0)) == []
    late = threading.Timer(0.05, lambda: (tmp_path / "log").write_text("late\n"))
    late.start()
    found = follow(tmp_path / "log", 0, lambda: not late.is_alive(), poll_s=0.01)
    assert list(found) == ["late"]


@pytest.mark.parametrize("replaced", [True, False])
def test_a_log_that_was_cut_or_replaced_is_read_anew(tmp_path: Path, replaced: bool) -> None:
    path = tmp_path / "log"
    path.write_text("a long first line\nbegun")
    turns = iter(range(9))

    def over() -> bool:
        turn = next(turns)
        if turn == 1 and replaced:
            (tmp_path / "new").write_text("a new log, as long as the one before\n")
            os.replace(tmp_path / "new", path)
        elif turn == 1:
            path.write_text("a new log\n")
        return turn == 2

    found = list(follow(path, 0, over, poll_s=0))
    assert found[:2] == ["a long first line", "begun"] and found[2].startswith("a new log") and len(found) == 3
