"""What is said of a checkpoint that could not be written, by what torch and Megatron raise then."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from toolkit.errors import CheckpointError, DiskFull
from toolkit.train import whole


class CheckpointException(BaseException):
    """As torch's: no Exception, a word for the part of the work, and {rank: (exception, traceback)}."""

    def __init__(self, part: str, failures: dict[int, tuple[BaseException, None]]) -> None:
        super().__init__(part, failures)
        self.failures = failures


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
MASKED = RuntimeError("Worker failure: [enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598")


def chained(cause: BaseException) -> RuntimeError:
    err = RuntimeError("a worker failed")
    err.__cause__ = cause
    return err


@pytest.fixture
def checkpoints(tmp_path: Path) -> Path:
    """One that is whole, one that is marked as unfinished, one that was given up before it was marked."""
    for name in ("step=1", "step=3", "step=5"):
        (tmp_path / name / "weights").mkdir(parents=True)
    for name in ("step=1", "step=3"):
        (tmp_path / name / "weights" / ".metadata").write_text("x")
    (tmp_path / "step=3-unfinished").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("err", "free", "expected"),
    [
        (FULL, 0, DiskFull),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), 10**12, DiskFull),
        (chained(FULL), 10**12, DiskFull),
        (CheckpointException("write", {3: (chained(FULL), None)}), 10**12, DiskFull),
        (RuntimeError(f"Worker failure: {FULL}"), 10**12, DiskFull),
        (MASKED, 0, DiskFull),
        (CheckpointException("write", {}), 0, DiskFull),
        (MASKED, 10**12, CheckpointError),
        (CheckpointException("write", {0: (MASKED, None)}), 10**12, CheckpointError),
        (CheckpointException("write", {}), 10**12, CheckpointError),
        (CheckpointException("read", {}), 0, None),
        (ValueError("something else"), 0, None),
        (KeyboardInterrupt(), 0, None),
    ],
)
def test_a_full_disk_is_told_from_another_fault_and_from_none(
    err: BaseException, free: int, expected: type | None, checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.train.whole.shutil.disk_usage", lambda _: SimpleNamespace(free=free))
    told = whole.could_not_save(err, checkpoints, clean=True)
    assert type(told) is (expected or type(None))
    left = {path.name for path in checkpoints.iterdir()}
    assert left == ({"step=1"} if expected is DiskFull else {"step=1", "step=3", "step=5", "step=3-unfinished"})
    if expected is CheckpointError:
        assert ("inline_container" in told.why) or told.why == "another rank says why"


def test_only_the_first_rank_removes(checkpoints: Path) -> None:
    assert isinstance(whole.could_not_save(FULL, checkpoints, clean=False), DiskFull)
    assert len(list(checkpoints.iterdir())) == 4


def test_ranks_that_only_hear_of_a_failure_leave_it_to_the_one_that_knows() -> None:
    assert not whole.knows_why(CheckpointException("write", {}))
    assert whole.knows_why(CheckpointException("write", {0: (FULL, None)})) and whole.knows_why(FULL)


@pytest.mark.parametrize(
    ("name", "steps"), [("step=9", 10), ("step=9.ckpt", 10), ("step=9-last", 10), ("step=0", 1), ("other", 0), ("9", 0)]
)
def test_steps_in_a_name(name: str, steps: int) -> None:
    assert whole.steps_in(Path(name)) == steps
