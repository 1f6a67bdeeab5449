"""Runs as text for people: the table of many, the page of one. Decides columns and words, and reads nothing."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from toolkit.runs.overview import Overview, Stage
from toolkit.runs.text import span

_HEADS = ("run", "recipe", "state", "stage", "progress", "loss", "tokens/s", "tries", "age", "left")
_STYLES = {"running": "bold", "done": "green", "failed": "red", "damaged": "red", "interrupted": "yellow"}


def table(runs: Sequence[Overview]) -> None:
    """Print one line a run: a table that fits on a terminal, aligned columns elsewhere."""
    rows = [_row(run) for run in runs]
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        grid = Table(box=None, padding=(0, 2, 0, 0))
        for head in _HEADS:
            grid.add_column(head, overflow="fold", justify="right" if head in _HEADS[5:] else "left")
        for run, row in zip(runs, rows, strict=True):
            style = _STYLES.get(run.state, "")
            grid.add_row(*(Text(cell, style=style if cell == run.state else "") for cell in row))
        console = Console()
        console.print(grid)
        for run in runs:
            if run.why:
                console.print(Text(f"{run.run}: {run.why}", style="dim"))
        return
    widths = [max(map(len, column)) for column in zip(_HEADS, *rows, strict=True)]
    for run, row in zip([None, *runs], [_HEADS, *rows], strict=True):
        why = f"  {run.why}" if run is not None and run.why else ""
        print(("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + why).rstrip())


def page(run: Overview, *, title: str, layout: str, following: Sequence[str]) -> str:
    """Everything about one run; `following` are lines on what going on with it would do."""
    stage = f" at {run.stage}" if run.stage and run.state != "not started" else ""
    lines = [f"{run.run}  {run.state}{stage}", ""]
    about = {
        "why": run.why,
        "recipe": f"{run.recipe}: {title}" if title else run.recipe,
        "started": f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(run.started))} ({span(_age(run))} ago)",
        "layout": layout,
        "progress": _progress(run) + (f", {span(run.left_s)} left" if run.left_s is not None else ""),
        "last step": f"loss {_loss(run.loss)}, {_speed(run.tokens_per_s)} tokens/s" if run.loss is not None else "",
        "worked on by": f"process {run.holder.pid or '?'} on {run.holder.host or '?'}" if run.holder else "",
        "folder": run.path,
        "report": run.report or "",
    }
    lines += [f"{name:<13}{value}" for name, value in about.items() if value and value != "-"]
    if run.stages:
        lines += ["", "stages"]
        widths = [max(len(text) for text in column) for column in zip(*map(_stage, run.stages), strict=True)]
        for cells in map(_stage, run.stages):
            lines.append("  " + "  ".join(c.ljust(w) for c, w in zip(cells, widths, strict=True)).rstrip())
    if following:
        lines += ["", "going on with it", *(f"  {line}" for line in following)]
    return "\n".join(lines)


def _row(run: Overview) -> tuple[str, ...]:
    loss, speed = (_loss(run.loss), _speed(run.tokens_per_s)) if run.loss is not None else ("-", "-")
    tries = str(run.attempts) if run.attempts else "-"
    left = span(run.left_s)
    return (run.run, run.recipe, run.state, run.stage or "-", _progress(run), loss, speed, tries, span(_age(run)), left)


def _stage(stage: Stage) -> tuple[str, ...]:
    tries = len(stage.attempts)
    told = f"{tries} {'attempt' if tries == 1 else 'attempts'}" if tries else ""
    bad = [a.state.lower() for a in stage.attempts[:-1] if a.state != "COMPLETED"]
    before = f" ({', '.join(f'{bad.count(word)} {word}' for word in dict.fromkeys(bad))})" if bad else ""
    return stage.id, stage.state, span(stage.elapsed_s), told + before, _figures(stage.figures)


def _figures(figures: Mapping[str, Any]) -> str:
    shown = list(figures.items())[:5]
    return "  ".join(f"{name} {_figure(value)}" for name, value in shown)


def _figure(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _age(run: Overview) -> float:
    return max(0.0, time.time() - run.started)


def _progress(run: Overview) -> str:
    if run.at is None:
        return "-"
    return f"{run.at:,}{f'/{run.of:,}' if run.of else ''} {run.unit}".rstrip()


def _loss(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if math.isfinite(value) and abs(value) < 1e6 else f"{value:.4g}"


def _speed(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"
