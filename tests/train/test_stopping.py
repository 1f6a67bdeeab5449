"""What the signals of a training process mean: real processes, real signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from toolkit.train import heartbeat

# What a rank is: it says "ready", is sent signals, and tells what it made of them when a line comes in.
RANK = """
import multiprocessing as mp, os, sys, time
from toolkit.train import stopping

def helper(pipe):
    pipe.send(os.getpid())
    time.sleep(60)

if __name__ == "__main__":
    stopping.install()
    kind = sys.argv[1]
    if kind != "alone":
        ours, theirs = mp.get_context(kind).Pipe()
        child = mp.get_context(kind).Process(target=helper, args=(theirs,), daemon=True)
        if kind == "spawn":
            with stopping.unheard():
                child.start()
        else:
            child.start()
        ours.recv()
    print("ready", stopping.asked(), flush=True)
    sys.stdin.readline()
    print("asked", stopping.asked(), flush=True)
    if kind != "alone":
        print("helper", child.is_alive(), flush=True)
        if kind == "spawn":
            child.kill()  # it hears no other
        else:
            child.terminate()
        child.join(10)
        print("ended", child.exitcode, flush=True)
"""


@pytest.fixture
def rank(tmp_path: Path, repo_root: Path):
    """`rank(kind)` starts one in a process group of its own, SIGUSR2 ignored at first as under the launcher."""
    (tmp_path / "rank.py").write_text(RANK)
    started: list[subprocess.Popen[str]] = []

    def start(kind: str = "alone") -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(tmp_path / "rank.py"), kind],
            env={**os.environ, "PYTHONPATH": str(repo_root)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGUSR2, signal.SIG_IGN),
        )
        started.append(process)
        assert process.stdout is not None and process.stdout.readline() == "ready False\n"
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize(
    "names", [["SIGUSR2"], ["SIGTERM"], ["SIGTERM", "SIGUSR2", "SIGUSR2", "SIGTERM"], ["SIGUSR2", "SIGTERM"] * 20]
)
def test_asked_once_or_often_it_only_takes_note(rank, names: list[str]) -> None:
    process = rank()
    for name in names:
        os.kill(process.pid, signal.Signals[name])
    out, err = process.communicate("go\n", timeout=30)
    assert (out, err, process.returncode) == ("asked True\n", "", 0)


def test_not_asked(rank) -> None:
    assert rank().communicate("go\n", timeout=30)[0] == "asked False\n"


def test_it_shows_its_stacks_and_lives_on(rank) -> None:
    process = rank()
    for _ in range(2):
        os.kill(process.pid, signal.SIGQUIT)
        time.sleep(0.2)  # two at once are one
    out, err = process.communicate("go\n", timeout=30)
    assert (out, process.returncode) == ("asked False\n", 0)
    assert err.count("most recent call first") == 2 and "rank.py" in err


@pytest.mark.parametrize("kind", ["fork", "spawn"])
def test_a_signal_to_all_leaves_its_helpers_at_work(rank, kind: str) -> None:
    """They end when the rank itself says so: a forked one by SIGTERM, as the readers of PyTorch are ended."""
    process = rank(kind)
    for name in ("SIGTERM", "SIGUSR2", "SIGTERM"):
        os.killpg(process.pid, signal.Signals[name])
        time.sleep(0.1)
    out, err = process.communicate("go\n", timeout=30)
    ended = {"fork": 0, "spawn": -signal.SIGKILL}[kind]
    assert out == f"asked True\nhelper True\nended {ended}\n", err


def test_the_heartbeat_moves_and_never_fails(tmp_path: Path) -> None:
    heartbeat.beat(tmp_path)
    path = tmp_path / heartbeat.NAME
    os.utime(path, (1, 1))
    heartbeat.beat(tmp_path)
    assert path.stat().st_mtime > 1 and path.stat().st_size == 0
    heartbeat.beat(tmp_path / "gone")  # a disk that is full or away
    assert not (tmp_path / "gone").exists()
