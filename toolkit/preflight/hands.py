"""What a rank does when rank 0 gives an order: measures through a process of its own, or counts its NICs' errors.

Decides which orders there are and how long one may take; trusts an order to be no more than numbers and an address.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

from toolkit.preflight.facts import Facts

WORKER = (sys.executable, "-m", "toolkit.preflight.worker")
PERF = "all_reduce_perf"
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:%-]{0,254}|::[A-Za-z0-9.:%]{0,60}")
_KEY = re.compile(r"[A-Za-z0-9._-]{1,100}")
_LONGEST_S = 86_400.0
_MOST_TEXT = 24_000
# Of a scheduler or MPI, for which a program that was built with MPI would look out.
_NOT_OURS = re.compile(r"(PMI|PMIX|OMPI|SLURM|MPI|HYDRA)_?.*|RANK|LOCAL_RANK|WORLD_SIZE|MASTER_(ADDR|PORT)")


class Hands:
    """Answers orders one after the other. `counters` tells what a node's NICs have counted, {port: {name: count}}."""

    def __init__(
        self,
        own: Facts,
        *,
        gpu: bool,
        counters: Callable[[], Mapping[str, Any]] | None = None,
        command: Sequence[str] = WORKER,
    ) -> None:
        self._own, self._gpu, self._counters, self._command = own, gpu, counters, list(command)
        self._worker: _Worker | None = None

    def __call__(self, order: Any) -> dict[str, Any]:
        """The answer, `{"error": why}` where the order could not be carried out. Raises nothing."""
        try:
            return self._obey(order)
        except (TypeError, ValueError, KeyError, OSError) as err:
            return {"error": f"an order that cannot be carried out: {err}"[:500]}

    def close(self) -> None:
        if self._worker is not None:
            self._worker.kill()
            self._worker = None

    def _obey(self, order: Any) -> dict[str, Any]:
        kind, limit_s = order["do"], float(order["limit_s"])
        if not 0 < limit_s <= _LONGEST_S:
            raise ValueError(f"limit_s={limit_s}")
        if kind == "start":
            return {**self._hello(limit_s), "perf": self._gpu and _has_perf(self._own)}
        if kind == "open":
            return self._ask({"do": "open", "limit_s": limit_s}, limit_s)
        if kind == "perf":
            return _perf(_whole(order["gpus"], 1, 64), _whole(order["end_mib"], 8, 1 << 20), limit_s)
        if kind == "run":
            return self._ask(self._run(order, limit_s), limit_s)
        if kind == "counters":
            return {"counters": dict(self._counters()) if self._counters else {}}
        raise ValueError(f"do={kind!r}"[:60])

    def _run(self, order: dict[str, Any], limit_s: float) -> dict[str, Any]:
        host, port = order["store"]
        if not _HOST.fullmatch(host) or not _KEY.fullmatch(order["key"]):
            raise ValueError("an address or a key that is none")
        world = _whole(order["world"], 1, 1 << 20)
        return {
            "do": "run",
            "store": [host, _whole(port, 1, 65_535)],
            "key": order["key"],
            "rank": _whole(order["rank"], 0, world - 1),
            "world": world,
            "size_bytes": _whole(order["size_bytes"], 64, 1 << 36),
            "limit_s": limit_s,
            "gpu": self._gpu,
            "local_rank": self._own.local_rank,
        }

    def _hello(self, limit_s: float) -> dict[str, Any]:
        return self._ask({"do": "hello", "gpu": self._gpu, "local_rank": self._own.local_rank}, limit_s)

    def _ask(self, order: dict[str, Any], limit_s: float) -> dict[str, Any]:
        """A worker that gives no answer in time is ended; the next `start` makes a new one."""
        if self._worker is None:
            if order["do"] != "hello":
                return {"error": "there is no measuring process"}
            self._worker = _Worker(self._command)
        answer = self._worker.ask(order, limit_s)
        if "error" in answer:  # a group that broke apart may leave threads and sockets behind
            said = self._worker.last_words()
            self.close()
            said = "\n".join(line for line in said.splitlines() if not line.startswith("frame #"))  # of C++
            print(f"preflight, rank {self._own.rank}: {answer['error']}\n{said[-2000:]}".rstrip(), flush=True)
        return answer


class _Worker:
    """The process; lines to it and from it."""

    def __init__(self, command: Sequence[str]) -> None:
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            list(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, bufsize=0,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
        )  # fmt: skip
        self._rest = b""

    def ask(self, order: dict[str, Any], limit_s: float) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            answer = json.loads(self._line(limit_s))
        except TimeoutError:
            return {"error": f"no answer within {limit_s:g} s"}
        except (OSError, ValueError, EOFError, RecursionError):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(1)
            code = self._process.returncode
            how = "broke off" if code is None else f"died of signal {-code}" if code < 0 else f"ended with {code}"
            said = self.last_words().splitlines()
            return {"error": f"the measuring process {how}{': ' + said[-1][:300] if said else ''}"}
        if not isinstance(answer, dict):
            return {"error": "the measuring process gave no answer of this kind"}
        if isinstance(answer.get("table"), str):
            answer["table"] = answer["table"][:_MOST_TEXT]
        return answer

    def _line(self, limit_s: float) -> bytes:
        assert self._process.stdout is not None
        deadline, pipe = time.monotonic() + limit_s, self._process.stdout.fileno()
        while b"\n" not in self._rest:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([pipe], [], [], left)[0]:
                raise TimeoutError
            some = os.read(pipe, 1 << 16)
            if not some:
                raise EOFError
            self._rest += some
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def last_words(self) -> str:
        """The end of what it wrote to stderr, such as NCCL's warnings."""
        try:
            size = self._errors.seek(0, os.SEEK_END)
            self._errors.seek(max(0, size - 4000))
            return self._errors.read().decode("utf-8", errors="replace").strip()
        except (OSError, ValueError):
            return ""

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def _has_perf(own: Facts) -> bool:
    """Whether nccl-tests are there and one process sees all of the node's GPUs."""
    seen = None if own.visible is None else len([word for word in own.visible.split(",") if word.strip()])
    return shutil.which(PERF) is not None and (seen is None or seen > 1)


def _perf(gpus: int, end_mib: int, limit_s: float) -> dict[str, Any]:
    command = [PERF, "-b", "8M", "-e", f"{end_mib}M", "-f", "2", "-g", str(gpus)]
    env = {name: value for name, value in os.environ.items() if not _NOT_OURS.fullmatch(name)}
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=limit_s,
            env=env,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"{PERF} was not done within {limit_s:g} s"}
    said = done.stdout.decode("utf-8", errors="replace")
    if done.returncode:
        print(said[-4000:], flush=True)
    return {"table": said[-_MOST_TEXT:], "code": done.returncode}


def _whole(value: Any, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{str(value)[:40]} is no number from {low} to {high}")
    return value
