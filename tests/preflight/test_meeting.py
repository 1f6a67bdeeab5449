"""Ranks as real processes that meet over a real socket, and what is found when one of them is wrong."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
import time
from pathlib import Path

import pytest

from toolkit import preflight
from toolkit.cluster.ranks import run_ranks

WORKER = Path(__file__).with_name("worker.py")
slow = pytest.mark.slow
LONG_S, SHORT_S = 60.0, 2.0  # a limit that nobody should reach, and one that must pass before a rank is missed


@pytest.fixture(autouse=True)
def source(repo_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(repo_root))
    for name in ("SLURMD_NODENAME", "SLURM_JOB_ID", "SLURM_JOB_NODELIST", "SLURM_NODELIST"):
        monkeypatch.delenv(name, raising=False)


def met(folder: Path, *changes: str, limit_s: float = LONG_S, processes: int = 4) -> tuple[int, list[str]]:
    """The step's exit code, and the faults that rank 0 found."""
    command = [sys.executable, str(WORKER), str(folder), str(limit_s), *changes]
    code = run_ranks(command, processes=processes, folder=folder)
    found = folder / "found.json"
    return code, json.loads(found.read_text()) if found.exists() else []


def test_all_well(tmp_path: Path) -> None:
    assert met(tmp_path) == (0, [])
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines[1].split()[:2] == [socket.gethostname(), "0-3"] and lines[-1] == "every rank is where it should be"
    assert not (tmp_path / "unheard").exists()


def test_one_rank_alone(tmp_path: Path) -> None:
    assert met(tmp_path, processes=1) == (0, [])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("2=gone", "rank 2 of 4 never reported"),
        pytest.param("3=gone", "rank 3 of 4 never reported", marks=slow),
        pytest.param(
            "1=master:127.0.0.1:1",
            "rank 1 of 4 never reported: 127.0.0.1:1 cannot be reached: Connection refused",
            marks=slow,
        ),
        pytest.param(
            "1=master:no.such.host.invalid:9",
            "rank 1 of 4 never reported: no.such.host.invalid:9 cannot be reached: ",
            marks=slow,
        ),
    ],
)
def test_a_rank_that_is_missing_is_named(tmp_path: Path, change: str, said: str) -> None:
    code, found = met(tmp_path, change, limit_s=SHORT_S)
    assert code == 4 and len(found) == 1
    assert found[0].startswith(f"{socket.gethostname()}: {said}")


@slow
def test_an_address_that_is_not_rank_0s(tmp_path: Path) -> None:
    """All can reach it, for a program is there, but it is not this job's rank 0."""
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer() -> None:
            while True:
                try:
                    connection, _ = other.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

        threading.Thread(target=answer, daemon=True).start()
        address = f"master:127.0.0.1:{other.getsockname()[1]}"
        code, found = met(tmp_path, f"1={address}", limit_s=SHORT_S)
    assert code == 4 and len(found) == 1 and "rank 1 of 4 never reported" in found[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("1=version:9.9", "rank 1: toolkit version 9.9, where rank 0 has "),
        pytest.param("0=version:9.9", "ranks 1-3: toolkit version ", marks=slow),
        ("2=local:7", "local ranks 0, 1, 3, 7, where 0 to 3 were asked for"),
        pytest.param("2=local:1", "local ranks 0, 1, 1, 3, where 0 to 3 were asked for", marks=slow),
        ("3=clock:-9", "clock 9.0 s behind rank 0's"),
        pytest.param("2=rank:17", "rank 17 is none of 0 to 3", marks=slow),
        ("3=rank:-1", "rank -1 is none of 0 to 3"),
    ],
)
def test_a_rank_that_is_wrong_is_named(tmp_path: Path, change: str, said: str) -> None:
    code, found = met(tmp_path, change)
    assert code == 4 and any(said in fault for fault in found), found


def test_two_with_the_same_rank(tmp_path: Path) -> None:
    code, found = met(tmp_path, "3=rank:2")
    assert code == 4 and len(found) == 2
    assert "rank 3 of 4 never reported" in found[0] and "rank 2 reported 2 times: from" in found[1]


@slow
def test_two_with_rank_0(tmp_path: Path) -> None:
    code, _ = met(tmp_path, "2=rank:0", limit_s=SHORT_S)
    said = "".join(path.read_text() for path in [tmp_path / "log", tmp_path / "rank-2.log"])
    assert code == 3 and "is there a second rank 0?" in said


@slow
def test_a_node_that_does_not_see_the_folder(tmp_path: Path) -> None:
    code, found = met(tmp_path, "1=elsewhere", limit_s=2 * SHORT_S)
    assert code == 4 and len(found) == 1
    assert found[0].endswith("rank 1: what rank 0 writes into the run's folder is not seen there")


@slow
def test_what_an_earlier_attempt_noted_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "unheard").mkdir()
    old = {"rank": 2, "node": "node99", "job": "77.0", "why": "an old reason"}
    (tmp_path / "unheard" / "2-node99-1.json").write_text(json.dumps(old))
    (tmp_path / "unheard" / "3-damaged.json").write_text('{"rank": ')
    code, found = met(tmp_path, "2=gone", limit_s=SHORT_S)
    assert code == 4 and found == [f"{socket.gethostname()}: rank 2 of 4 never reported"]


def test_strangers_at_the_port_change_nothing(tmp_path: Path) -> None:
    """Garbage, an endless line, JSON that is no report, and a connection that says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    own = preflight.Facts(rank=0, local_rank=0, node_rank=0, world=2, node="a", master=f"127.0.0.1:{port}")
    result: list[object] = []
    first = threading.Thread(target=lambda: result.append(preflight.meet(own, folder=tmp_path, limit_s=LONG_S)))
    first.start()
    greeting = b'"meditron preflight"\n' * 3
    guests = []
    lies = [
        b"", b"\x00\xff\n", b"GET / HTTP/1.1\r\n\r\n", b"[" * 50_000 + b"\n", b"x" * 300_000, greeting + b"[1, 2]\n",
        greeting + b'{"rank": "one"}\n', greeting + b'{"rank": 1, "local_rank": true}\n', greeting + b"NaN\n",
    ]  # fmt: skip
    for lie in lies:
        deadline = time.monotonic() + LONG_S
        while True:
            try:
                guests.append(socket.create_connection(("127.0.0.1", port), timeout=5))
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        with contextlib.suppress(OSError):  # thrown out already
            guests[-1].sendall(lie)
    other = preflight.Facts(rank=1, local_rank=1, node_rank=0, world=2, node="a", master=own.master)
    assert preflight.meet(other, folder=tmp_path, limit_s=LONG_S) == (None, "")
    first.join(LONG_S)
    for guest in guests:
        guest.close()
    heard, why = result[0]  # type: ignore[misc]
    assert why == "" and [f.rank for f in heard.told] == [0, 1] and all(f.sees_folder for f in heard.told)
