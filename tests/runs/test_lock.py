"""One process at a time; a dead one holds nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from toolkit.errors import RunBusy
from toolkit.runs import held

HOLDER = """
import subprocess, sys, time
from pathlib import Path
from toolkit.runs import held
with held(Path(sys.argv[1])):
    child = subprocess.Popen(["sleep", "60"])
    print(child.pid, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path, repo_root: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of tmp_path, with a child of its own."""
    environment = {**os.environ, "PYTHONPATH": str(repo_root)}
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        yield process
        process.kill()
        os.kill(child, signal.SIGKILL)


def test_a_second_process_is_told_who_holds_it(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    with pytest.raises(RunBusy) as caught, held(tmp_path):
        pytest.fail("two processes hold one run")
    assert f"pid {holder.pid} on " in caught.value.why and caught.value.where == str(tmp_path)
    assert caught.value.exit_code == 1


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    """Even while what it had started lives on."""
    holder.kill()
    holder.wait()
    with held(tmp_path):
        assert (tmp_path / "lock").read_text().startswith(f"pid {os.getpid()} on ")
    assert (tmp_path / "lock").read_text() == ""


def test_it_is_free_again_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), held(tmp_path):
        raise KeyboardInterrupt
    with held(tmp_path), pytest.raises(RunBusy), held(tmp_path):
        pass
    with held(tmp_path):
        pass
