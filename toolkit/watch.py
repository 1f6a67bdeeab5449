"""What a person sees while stages run: a live table on a terminal, plain greppable lines elsewhere. Reads progress
files only.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from toolkit.plan import Step

_LINE_EVERY_S = 10.0
_MARK = {"waits": " ", "runs": ">", "done": "+", "skipped": "="}


class Watch:
    """Follows one stage at a time. On a terminal it redraws a table; `quiet` keeps stdout free (for --json)."""

    def __init__(self, planned: Sequence[Step], *, quiet: bool = False) -> None:
        self._rows = {step.id: ("waits", "") for step in planned}
        self._out = sys.stderr if quiet else sys.stdout
        self._folder: Path | None = None
        self._ident, self._since, self._last = "", 0.0, 0.0
        self._live: Any = None
        if self._out.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(file=self._out), auto_refresh=False)

    def __enter__(self) -> Watch:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._redraw()
            self._live.stop()

    def skipped(self, ident: str) -> None:
        self._set(ident, "skipped", "already done")

    def started(self, ident: str, folder: Path, why: str) -> None:
        self._ident, self._folder, self._since = ident, folder, time.monotonic()
        self._last = self._since
        self._set(ident, "runs", f"again: {why}" if why else "")

    def finished(self, ident: str, record: Mapping[str, Any]) -> None:
        figures = {k: v for k, v in (record["result"] or {}).items() if isinstance(v, (int, float, str))}
        told = "  ".join(f"{name} {_figure(value)}" for name, value in list(figures.items())[:5])
        self._set(ident, "done", f"{record['elapsed_s']:.1f} s  {told}")

    def tick(self) -> None:
        now = time.monotonic()
        if self._live is not None:
            self._rows[self._ident] = ("runs", self._progress())
            self._redraw()
        elif now - self._last >= _LINE_EVERY_S:
            self._last = now
            self._line("runs", self._ident, self._progress())

    def _set(self, ident: str, state: str, text: str) -> None:
        self._rows[ident] = (state, text)
        if self._live is not None:
            self._redraw()
        else:
            self._line(state, ident, text)

    def _line(self, state: str, ident: str, text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {state:<7} {ident:<16} {text}".rstrip(), file=self._out, flush=True)

    def _progress(self) -> str:
        elapsed = f"{time.monotonic() - self._since:.0f} s"
        try:
            state = json.loads((self._folder / "progress.json").read_text()) if self._folder else None
        except (OSError, ValueError):
            state = None
        if not state:
            return f"{elapsed}  starting"
        of = f"/{state['total']:,}" if state["total"] else ""
        left = f"  {state['left_s']:.0f} s left" if state.get("left_s") is not None else ""
        return f"{elapsed}  {state['label']} {state['done']:,}{of} {state['unit']}{left}  {state['note']}"

    def _redraw(self) -> None:
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        for ident, (state, text) in self._rows.items():
            style = {"waits": "dim", "runs": "bold", "done": "green", "skipped": "dim green"}[state]
            table.add_row(Text(_MARK[state]), Text(ident, style=style), Text(text))
        self._live.update(table, refresh=True)


def _figure(value: float | int | str) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else value
