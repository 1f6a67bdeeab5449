"""Progress of long work: a bar on a terminal, plain lines elsewhere, and a file that another process can watch.

`TOOLKIT_PROGRESS` names that file; it holds the latest state as JSON and is replaced atomically.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from toolkit import files
from toolkit.errors import DiskFull

ENV = "TOOLKIT_PROGRESS"
_LINE_EVERY_S = 10.0
_FILE_EVERY_S = 0.5


class Progress:
    """Counts `done` of `total` `unit`s; `note` is a short free text such as the latest loss.

    `begun` were done before, by work that was interrupted: they say nothing of the speed.
    """

    def __init__(self, label: str, total: int | None, unit: str, begun: int = 0) -> None:
        self.label, self.total, self.unit, self.done, self.note = label, total, unit, begun, ""
        self._begun = begun
        self._start = time.monotonic()
        self._last_line = self._last_file = self._start
        self._file = Path(os.environ[ENV]) if os.environ.get(ENV) else None
        self._bar = None
        if sys.stderr.isatty() and self._file is None:
            from rich.console import Console
            from rich.markup import escape
            from rich.progress import Progress as RichProgress

            self._escape = escape  # a note may hold [brackets], which are no markup
            self._bar = RichProgress(console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(escape(label), total=total)
            self._bar.start()

    def advance(self, amount: int = 1, note: str = "") -> None:
        self.at(self.done + amount, note)

    def skip(self, amount: int) -> None:
        """`amount` was done before, as it turns out: it says nothing of the speed."""
        self._begun += amount
        self.at(self.done + amount)

    def at(self, done: int, note: str = "") -> None:
        self.done, self.note = done, note or self.note
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._task, completed=done, description=self._escape(f"{self.label} {self.note}"))
        elif now - self._last_line >= _LINE_EVERY_S:
            self._last_line = now
            print(self.line(), file=sys.stderr, flush=True)
        if self._file is not None and now - self._last_file >= _FILE_EVERY_S:
            self._last_file = now
            self.write()

    def rate(self) -> float:
        """Units a second since this process began."""
        elapsed = time.monotonic() - self._start
        return (self.done - self._begun) / elapsed if elapsed > 0 else 0.0

    def left_s(self) -> float | None:
        rate = self.rate()
        return (self.total - self.done) / rate if self.total and rate > 0 else None

    def line(self) -> str:
        rate, seconds = self.rate(), self.left_s()
        of = f"/{self.total}" if self.total else ""
        left = f" eta={seconds:.0f}s" if seconds is not None else ""
        note = f" {self.note}" if self.note else ""
        return f"progress {self.label} {self.done}{of} {self.unit} {rate:.1f}/s{left}{note}"

    def write(self) -> None:
        """Replace the file that others watch. A disk that is full or gone must not end the work for that."""
        if self._file is not None:
            state = {"label": self.label, "done": self.done, "total": self.total, "unit": self.unit, "note": self.note}
            seconds = self.left_s()
            state["left_s"] = None if seconds is None else round(seconds, 1)
            with contextlib.suppress(OSError, DiskFull):
                files.write_json(self._file, {**state, "elapsed_s": round(time.monotonic() - self._start, 2)})

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
        self.write()


@contextlib.contextmanager
def progress(label: str, total: int | None = None, unit: str = "items") -> Iterator[Progress]:
    """`with progress("shards", total=n, unit="docs") as p: p.advance()`."""
    bar = Progress(label, total, unit)
    try:
        yield bar
    finally:
        bar.close()
