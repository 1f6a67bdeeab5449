"""Ranks as real processes: what they are given, and that none outlives a failure, a signal or its parent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from toolkit.cluster.ranks import run_ranks
from toolkit.errors import StageFailed
from toolkit.progress import ENV as PROGRESS
from toolkit.recipe.schema import Alive

PARENT = """
import json, sys
from pathlib import Path
from toolkit.cluster.ranks import run_ranks
sys.exit(run_ranks(json.loads(sys.argv[1]), processes=2, folder=Path(sys.argv[2])))
"""
# A rank with a child of its own (as a loader or a checkpoint writer is), which says its pids and stays.
STAYS = "echo $$ > {folder}/pid-$RANK; sleep 60 & echo $! > {folder}/child-$RANK; wait"


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def until(condition: Callable[[], bool], limit_s: float = 60) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def pids(folder: Path, count: int = 4) -> list[int]:
    """Of both ranks and both children, once all have written them."""
    read: list[int] = []

    def there() -> bool:
        read[:] = [int(text) for path in folder.glob("*-[0-9]") if path.is_file() and (text := path.read_text())]
        return len(read) == count

    until(there)
    return read


def test_the_ranks_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PROGRESS, "/elsewhere")
    monkeypatch.setenv("HERE_BEFORE", "kept")
    code = "import os, json; print(json.dumps(dict(os.environ)))"
    assert run_ranks(python(code), processes=3, folder=tmp_path / "stage", threads=2) == 0
    logs = [tmp_path / "stage" / name for name in ("log", "rank-1.log", "rank-2.log")]
    given = [json.loads(path.read_text()) for path in logs]
    for rank, env in enumerate(given):
        assert (env["RANK"], env["LOCAL_RANK"]) == (str(rank), str(rank))
        assert (env["WORLD_SIZE"], env["LOCAL_WORLD_SIZE"], env["NODE_RANK"]) == ("3", "3", "0")
        assert env["MASTER_ADDR"] == "127.0.0.1" and env["MASTER_PORT"] == given[0]["MASTER_PORT"]
        assert env["OMP_NUM_THREADS"] == "2" and env["HERE_BEFORE"] == "kept"
    assert 1024 <= int(given[0]["MASTER_PORT"]) < 65536
    # rank 0 alone tells how far the stage is
    assert [env.get(PROGRESS) for env in given] == [str(tmp_path / "stage" / "progress.json"), None, None]


def test_logs_hold_both_streams_and_every_attempt(tmp_path: Path) -> None:
    code = "import os, sys; print('out', os.environ['RANK']); print('err', file=sys.stderr)"
    for _ in range(2):
        assert run_ranks(python(code), processes=2, folder=tmp_path) == 0
    assert (tmp_path / "log").read_text().splitlines() == ["out 0", "err"] * 2
    assert (tmp_path / "rank-1.log").read_text().splitlines() == ["out 1", "err"] * 2


@pytest.mark.parametrize(
    ("end", "code"), [("exit 7", 7), ("kill -9 $$", 137), ("kill -TERM $$", 143), ("kill -SEGV $$", 139)]
)
def test_one_rank_fails_and_takes_the_others_along(tmp_path: Path, end: str, code: int) -> None:
    stays = STAYS.format(folder=tmp_path)
    wait = f"until [ -s {tmp_path}/child-0 ]; do sleep 0.05; done"
    script = f"if [ $RANK = 1 ]; then sleep 60 & echo $! > {tmp_path}/child-1; {wait}; {end}; else {stays}; fi"
    assert run_ranks(["bash", "-c", script], processes=2, folder=tmp_path) == code
    left = pids(tmp_path, 3)
    until(lambda: not any(alive(pid) for pid in left), 10)


def test_a_rank_deaf_to_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.cluster.ranks._GRACE_S", 0.3)
    wait = f"until [ -s {tmp_path}/child-0 ]; do sleep 0.05; done"
    script = f"if [ $RANK = 1 ]; then {wait}; exit 3; else trap '' TERM; {STAYS.format(folder=tmp_path)}; fi"
    assert run_ranks(["bash", "-c", script], processes=2, folder=tmp_path) == 3
    assert not any(alive(pid) for pid in pids(tmp_path, 2))


def test_ranks_without_a_sign_of_life_are_ended_with_their_stacks_in_the_logs(tmp_path: Path) -> None:
    """Rank 0 touches the heartbeat for a while and goes on; rank 1 hangs, then both are silent."""
    code = """
import faulthandler, os, pathlib, signal, time
faulthandler.register(signal.SIGQUIT, all_threads=True, chain=False)
for _ in range(4 if os.environ["RANK"] == "0" else 0):
    pathlib.Path("heartbeat").touch(); time.sleep(0.1)
def hangs_here(): time.sleep(60)
hangs_here()
"""
    command = ["env", "-C", str(tmp_path), *python(code)]
    alive_for = Alive(hang_s=0.8, start_s=30.0)
    with pytest.raises(StageFailed, match="no sign of life for 1 s") as told:
        run_ranks(command, processes=2, folder=tmp_path, alive=alive_for)
    assert "stacks" in told.value.why
    for name in ("log", "rank-1.log"):
        assert "in hangs_here" in (tmp_path / name).read_text()
    with pytest.raises(StageFailed, match="since it was started"):
        run_ranks(["sleep", "60"], processes=1, folder=tmp_path, alive=Alive(hang_s=30.0, start_s=0.5))


def test_handlers_are_given_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    assert run_ranks(["true"], processes=1, folder=tmp_path) == 0
    assert run_ranks(["false"], processes=1, folder=tmp_path) == 1
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    with pytest.raises(FileNotFoundError):
        run_ranks(["no-such-program-anywhere"], processes=2, folder=tmp_path)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_a_signal_to_the_parent_ends_all(tmp_path: Path, repo_root: Path, signum: int, code: int) -> None:
    """The kernel ends the ranks of a parent that was killed; grandchildren then need the other two."""
    command = [*python(PARENT), json.dumps(["bash", "-c", STAYS.format(folder=tmp_path)]), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(repo_root)}
    with subprocess.Popen(command, env=environment) as parent:
        started = pids(tmp_path)
        parent.send_signal(signum)
        assert parent.wait(30) == code
    ranks = [int(path.read_text()) for path in tmp_path.glob("pid-*")]
    try:
        until(lambda: not any(alive(pid) for pid in (ranks if signum == signal.SIGKILL else started)), 10)
    finally:
        for pid in started:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
