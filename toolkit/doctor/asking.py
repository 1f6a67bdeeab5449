"""Questions to processes of their own, which may break, die or hang without harm to the one that asks.

Decides how a question ends and how long it may take; the questions themselves are `questions`'.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

import toolkit

LIMIT_S = 300.0
_SAID = 4000  # bytes of a process's last words that are looked at
_MOST = 1 << 20  # bytes of answers that are read


@dataclass(frozen=True, kw_only=True)
class Answer:
    """`value` when it is ok, else `why` in a line: failed raised an error (`kind` is its type), died and hung did not
    live to.
    """

    ending: Literal["ok", "failed", "died", "hung"]
    value: Mapping[str, Any] = field(default_factory=dict)
    kind: str = ""
    why: str = ""

    @property
    def ok(self) -> bool:
        return self.ending == "ok"


def ask(
    questions: Sequence[str],
    *,
    limit_s: float = LIMIT_S,
    env: Mapping[str, str] | None = None,
    told: Callable[[str], None] = lambda question: None,
) -> dict[str, Answer]:
    """Answers by question, in order, each within `limit_s`. One process answers as many as it can; after one that did
    not end well the rest gets a new process, so that no question is answered beside what another has broken.
    """
    answers: dict[str, Answer] = {}
    while rest := [question for question in questions if question not in answers]:
        with _Process(rest, env or {}) as process:
            answers |= process.answers(rest, limit_s, told)
    return answers


class _Process:
    """A child that answers into a pipe; whatever else it prints goes into a file, for its last words."""

    def __init__(self, questions: Sequence[str], env: Mapping[str, str]) -> None:
        self._words: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self._pipe, theirs = os.pipe()
        os.set_blocking(self._pipe, False)
        try:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "toolkit.doctor.questions", str(theirs), *questions],
                stdin=subprocess.DEVNULL, stdout=self._words, stderr=self._words, pass_fds=[theirs],
                start_new_session=True, env=_environment(env),
            )  # fmt: skip
        finally:
            os.close(theirs)
        self._held, self._read = b"", 0

    def __enter__(self) -> _Process:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, signal.SIGKILL)  # and whatever it has started
        self._child.wait()
        os.close(self._pipe)
        self._words.close()

    def answers(self, questions: Sequence[str], limit_s: float, told: Callable[[str], None]) -> dict[str, Answer]:
        found: dict[str, Answer] = {}
        at, deadline = questions[0], time.monotonic() + limit_s
        told(at)
        while True:
            line = self._line(deadline)
            if line is None:
                break
            if "begin" in line and line["begin"] in questions:
                if line["begin"] != at:
                    at = line["begin"]
                    told(at)
                deadline = time.monotonic() + limit_s
            elif line.get("end") == at and at not in found:
                found[at] = _answer(line)
                if not found[at].ok or len(found) == len(questions):
                    return found
        if at in found:  # died between two questions: the next one is asked again, of a new process
            return found
        found[at] = self._unanswered(deadline, limit_s)
        return found

    def _line(self, deadline: float) -> dict[str, Any] | None:
        """The next line of the pipe; None when there will be none, or none in time."""
        with selectors.DefaultSelector() as ready:
            ready.register(self._pipe, selectors.EVENT_READ)
            while b"\n" not in self._held:
                left = deadline - time.monotonic()
                if left <= 0 or self._read > _MOST:
                    return None
                gone = self._child.poll() is not None
                # A process that has left others behind keeps the pipe open: its own end is the end.
                if not ready.select(0 if gone else min(left, 0.2)):
                    if gone:
                        return None
                    continue
                part = os.read(self._pipe, 65_536)
                if not part:
                    return None
                self._held += part
                self._read += len(part)
        text, _, self._held = self._held.partition(b"\n")
        try:
            line = json.loads(text)
        except ValueError:
            return {}
        return line if isinstance(line, dict) else {}

    def _unanswered(self, deadline: float, limit_s: float) -> Answer:
        if self._read > _MOST:
            return Answer(
                ending="died", kind="flood", why=f"wrote more than {_MOST >> 20} MiB where its answer belongs"
            )
        if time.monotonic() >= deadline:
            return Answer(ending="hung", why=f"no answer within {limit_s:g} s")
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(timeout=5)
        code = self._child.poll()
        if code is None:
            return Answer(ending="hung", why="it closed its pipe and did not end")
        why = f"ended by {_signal(-code)}" if code < 0 else f"ended its process with code {code}"
        words = self._last_words()
        return Answer(
            ending="died", kind=_signal(-code) if code < 0 else "exit", why=f"{why}: {words}" if words else why
        )

    def _last_words(self) -> str:
        size = self._words.seek(0, os.SEEK_END)
        self._words.seek(max(0, size - _SAID))
        lines = [line.strip() for line in self._words.read().decode("utf-8", errors="replace").splitlines()]
        lines = [line for line in lines if line]
        telling = [line for line in lines if line.startswith(("Fatal", "terminate", "what()", "RuntimeError"))]
        return (telling or lines or [""])[-1]


def _environment(env: Mapping[str, str]) -> dict[str, str]:
    """The caller's own, for it is what is being asked about; this toolkit comes last on its path."""
    root = str(Path(toolkit.__file__).resolve().parents[1])
    path = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "WANDB_MODE": "offline"}
    return {**os.environ, **offline, **env, "PYTHONPATH": os.pathsep.join([*path, root])}


def _answer(line: Mapping[str, Any]) -> Answer:
    if isinstance(line.get("value"), dict):
        return Answer(ending="ok", value=line["value"])
    return Answer(ending="failed", kind=str(line.get("kind", "")), why=str(line.get("why", "")))


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
