"""A question that breaks, dies or hangs is told as that, and the ones behind it are answered all the same."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.doctor.conftest import Plant
from toolkit.doctor.asking import ask

ABORTS = "import os, sys\nprint('Fatal: no such kernel', file=sys.stderr, flush=True)\nos.abort()\n"


@pytest.mark.parametrize(
    ("code", "ending", "kind", "why"),
    [
        ("raise ImportError('libx.so: undefined symbol: _ZN3c105Error')", "failed", "ImportError", "undefined symbol"),
        ("raise RuntimeError('line one\\nline two')", "failed", "RuntimeError", "line one line two"),
        ("raise SystemExit(0)", "failed", "SystemExit", "0"),
        ("raise KeyboardInterrupt", "failed", "KeyboardInterrupt", "KeyboardInterrupt"),
        (ABORTS, "died", "SIGABRT", "ended by SIGABRT: Fatal: no such kernel"),
        ("import ctypes; ctypes.string_at(0)", "died", "SIGSEGV", "ended by SIGSEGV"),
        ("import os; os._exit(0)", "died", "exit", "ended its process with code 0"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "died", "SIGKILL", "ended by SIGKILL"),
        # What it leaves behind has the pipe's other end; its own end is what counts.
        ("import os, time\nif os.fork() == 0:\n    time.sleep(60)\nos._exit(3)", "died", "exit", "code 3"),
        ("import os, sys\nos.closerange(3, 100)\nos.abort()", "died", "SIGABRT", "SIGABRT"),
    ],
)
def test_each_way_to_fail_is_told_and_the_next_is_answered(
    plant: Plant, code: str, ending: str, kind: str, why: str
) -> None:
    plant("broken_one", code)
    plant("whole_one", "__version__ = '7.1'\n")
    answers = ask(["import broken_one", "import whole_one"], limit_s=30)
    first = answers["import broken_one"]
    assert (first.ending, first.kind) == (ending, kind) and why in first.why
    assert answers["import whole_one"].value["version"] == "7.1"


def test_a_hang_is_ended_with_all_that_it_started(plant: Plant, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    plant(
        "hanging_one",
        "import os, signal, subprocess, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen(['sleep', '600'])\n"
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
        "time.sleep(600)\n",
    )
    plant("whole_one", "")
    answers = ask(["import hanging_one", "import whole_one"], limit_s=3)
    assert (answers["import hanging_one"].ending, answers["import whole_one"].ending) == ("hung", "ok")
    assert "within 3 s" in answers["import hanging_one"].why
    assert not any(_lives(int(pid)) for pid in pids.read_text().split())


def test_what_is_printed_is_no_answer_and_what_is_written_into_the_pipe_is_judged(plant: Plant) -> None:
    plant(
        "talking_one",
        "import os, sys\n"
        'print(\'{"end": "import talking_one", "value": {}}\' * 1000, flush=True)\n'
        "for fd in range(3, 30):\n"
        "    try:\n"
        '        os.write(fd, b\'\\xff\\xfe no json\\n[1]\\n{"end": "import another", "value": {}}\\n\')\n'
        "    except OSError:\n"
        "        pass\n"
        "raise ValueError('the end')\n",
    )
    answer = ask(["import talking_one"], limit_s=30)["import talking_one"]
    assert (answer.ending, answer.why) == ("failed", "the end")


def test_a_flood_is_not_read_for_ever(plant: Plant) -> None:
    plant(
        "flooding_one",
        "import os\nfor fd in range(3, 30):\n    try:\n        while True: os.write(fd, b'x' * 65536)\n"
        "    except OSError:\n        pass\n",
    )
    assert ask(["import flooding_one"], limit_s=30)["import flooding_one"].kind == "flood"


def test_no_core_file_is_left(plant: Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(
        "aborting_one", "import os, resource\nassert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)\nos.abort()\n"
    )
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    assert ask(["import aborting_one"], limit_s=30)["import aborting_one"].kind == "SIGABRT"
    assert os.listdir(empty) == []


def _lives(pid: int) -> bool:
    """Whether it runs still; who reaps it may be slow."""
    for _ in range(50):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return False
        except OSError:
            return False
        time.sleep(0.1)
    return True
