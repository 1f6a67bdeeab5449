"""Runs Apptainer: its lines go to the log, condensed to the screen, and a stop ends all of it.

Decides what of the output is shown and how a build is ended; leaves what the output means to `failure`.
"""

from __future__ import annotations

import collections
import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from toolkit import files
from toolkit.errors import ImageError
from toolkit.progress import Progress, progress

_KEPT = 400  # lines for the message of a failure
_GRACE_S = 20.0  # for Apptainer to remove its own temporary folders
# Ends what is left of a build whose parent was killed: it reads an end of file where there should be a word.
_GUARD = """read -r word && exit 0
kill -s INT -- "-$1"; sleep 10; kill -s KILL -- "-$1"
"""
_STEPS = (
    (re.compile(r"INFO:\s+(Fetching OCI image|Extracting local image|Extracting OCI image|Copying |Creating SIF file|"
                r"Creating sandbox directory|Build complete)"), None),
    (re.compile(r"INFO:\s+Running (\w+) scriptlet"), "%{}"),
    (re.compile(r"INFO:\s+Running testscript"), "%test"),
    (re.compile(r"^STEP (.{1,80})"), "{}"),
    (re.compile(r"^I: (Retrieving|Validating|Extracting|Installing core|Unpacking|Configuring)"), "debootstrap: {}"),
)  # fmt: skip
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")  # --nocolor does not reach all of Apptainer
_PASSWORD = re.compile(r"//[^/\s:@]+:[^/\s@]+@")


class Run:
    """What a program said: its exit `code`, its last `lines`, and the last `step` it began."""

    def __init__(self) -> None:
        self.code, self.step, self.lines = 0, "", collections.deque[str](maxlen=_KEPT)


def run(
    words: Sequence[str],
    *,
    label: str,
    log: IO[str],
    cwd: Path,
    env: Mapping[str, str],
    pass_fds: Sequence[int] = (),
    quiet: bool = False,
) -> Run:
    """Run `words` to its end; every line of it goes to `log`. Raises `ImageError` when it cannot be started, `DiskFull`
    when the log cannot be written. On Ctrl-C or any error all that it started is ended before the error goes on.
    """
    log.write("$ " + _PASSWORD.sub("//****@", shlex.join(words)) + "\n")
    try:
        child = subprocess.Popen(
            words, cwd=cwd, env=dict(env), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, encoding="utf-8", errors="replace", start_new_session=True, pass_fds=tuple(pass_fds),
        )  # fmt: skip
    except OSError as err:
        raise ImageError("Apptainer does not start", where=words[0], why=os.strerror(err.errno or 0)) from err
    done, began = Run(), time.monotonic()
    guard = subprocess.Popen(
        ["sh", "-c", _GUARD, "sh", str(child.pid)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        with files.disk_errors(Path(log.name)), progress(label, unit="lines") as bar:
            assert child.stdout is not None
            for line in child.stdout:
                line = _PASSWORD.sub("//****@", _COLOUR.sub("", line).rstrip("\n").rpartition("\r")[2])
                log.write(line + "\n")
                done.lines.append(line)
                _show(done, line, label, bar, began, quiet)
            log.flush()
        done.code = child.wait()
        return done
    finally:
        if child.poll() is None:
            _end(child)
        if child.stdout is not None:
            child.stdout.close()
        with contextlib.suppress(OSError):
            guard.communicate("done\n")


def _show(done: Run, line: str, label: str, bar: Progress, began: float, quiet: bool) -> None:
    for pattern, form in _STEPS:
        if match := pattern.search(line):
            step = (form or "{}").format(match[1].strip())
            if step != done.step:
                done.step = step
                if not quiet:
                    print(f"{label}: {step} ({time.monotonic() - began:.0f} s)", file=sys.stderr, flush=True)
            break
    bar.advance(note=f"{done.step}: {_short(line)}" if done.step else _short(line))


def _short(line: str) -> str:
    text = "".join(c if c.isprintable() else " " for c in line).strip()
    return text[:80]


def _end(child: subprocess.Popen[str]) -> None:
    """An interrupt first: Apptainer then removes what it has unpacked. Then whatever is left of the session."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_GRACE_S)
            break
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)  # a %post that ignores the interrupt outlives its parent
