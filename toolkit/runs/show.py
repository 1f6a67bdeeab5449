"""Runs as text for people: the table of many, the page of one. Decides columns and words, and reads nothing."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from toolkit.runs.jobs import Attempt, Row
from toolkit.runs.overview import Overview, Stage
from toolkit.runs.text import span

_HEADS = ("run", "recipe", "state", "stage", "progress", "loss", "tokens/s", "tries", "age", "left")
_STYLES = {
    **{"running": "bold", "done": "green", "failed": "red", "damaged": "red", "lost": "red"},
    **{"interrupted": "yellow", "cancelled": "yellow", "queued": "cyan"},
}
_SIGNALS = {"SIGUSR2": "in time", "SIGTERM": "by SIGTERM", "SIGUSR2 and SIGTERM": "by SIGUSR2 and SIGTERM"}
_MOST_HOSTS = 4


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
    else:
        widths = [max(map(len, column)) for column in zip(_HEADS, *rows, strict=True)]
        for run, row in zip([None, *runs], [_HEADS, *rows], strict=True):
            why = f"  {run.why}" if run is not None and run.why else ""
            print(("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + why).rstrip())
    for note in dict.fromkeys(run.note for run in runs if run.note):
        print(note)


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
        "time limit": f"{span(run.limit_s)} left of the job's" if run.limit_s is not None else "",
        "last sign": f"{span(run.alive_s)} ago" if run.alive_s is not None else "",
        "worked on by": f"process {run.holder.pid or '?'} on {run.holder.host or '?'}" if run.holder else "",
        "folder": run.path,
        "report": run.report or "",
        "note": run.note,
    }
    lines += [f"{name:<13}{value}" for name, value in about.items() if value and value != "-"]
    if run.stages:
        lines += ["", "stages"]
        widths = [max(len(text) for text in column) for column in zip(*map(_stage, run.stages), strict=True)]
        for cells in map(_stage, run.stages):
            lines.append("  " + "  ".join(c.ljust(w) for c, w in zip(cells, widths, strict=True)).rstrip())
    for stage in run.stages:
        lines += _attempts(stage)
    if any(stage.jobs for stage in run.stages):
        lines += ["", "jobs", *_jobs(run.stages)]
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
    state = f"{stage.state} ({stage.reason})" if stage.reason and len(stage.reason) <= 40 else stage.state
    return stage.id, state, span(stage.elapsed_s), told + before, _figures(stage.figures)


def _attempts(stage: Stage) -> list[str]:
    """How each kind of attempt ended, and what nodes did wrong: for a stage on Slurm that took more than one."""
    lines = []
    ended = [
        f"{a.state.lower() or 'unknown'}{_why(a)}" for a in stage.attempts if a.state not in ("COMPLETED", "RUNNING")
    ]
    if stage.jobs and ended:
        told = ", ".join(f"{ended.count(how)} {how}" for how in dict.fromkeys(ended))
        tries = len(stage.attempts)
        lines += ["", f"{stage.id}: {tries} {'attempt' if tries == 1 else 'attempts'} ({told})"]
    for node, reasons in stage.strikes.items():
        out = ", excluded" if node in stage.excluded else ""
        strikes = f"{len(reasons)} {'strike' if len(reasons) == 1 else 'strikes'}"
        lines.append(f"{stage.id}: node {node}{out}: {strikes} ({'; '.join(reasons)})")
    if rest := [node for node in stage.excluded if node not in stage.strikes]:
        lines.append(f"{stage.id}: excluded: {', '.join(rest)}")
    return lines


def _why(attempt: Attempt) -> str:
    if attempt.state == "STOPPED" and attempt.why in _SIGNALS:
        return f" {_SIGNALS[attempt.why]}"
    if not attempt.why:
        return ""
    return f" {attempt.why}" if attempt.why.split()[0] in ("at", "by", "for", "after", "before") else f": {attempt.why}"


def _jobs(stages: Sequence[Stage]) -> list[str]:
    """Of each stage, the jobs submitted last: ids, what Slurm says of them, and where the last attempt is."""
    rows = []
    for stage in stages:
        row = Row(attempts=stage.attempts, jobs=stage.jobs)
        for job in row.newest:
            said = " ".join(filter(None, (job.state, job.reason)))
            if job.tasks:
                said = ", ".join(f"{count} {word}" for word, count in job.tasks.items())
            last = row.last if row.last is not None and row.last.job_id == job.id else None
            hosts = last.hosts if last is not None and last.state == "RUNNING" else ()
            more = f" and {len(hosts) - _MOST_HOSTS} more" if len(hosts) > _MOST_HOSTS else ""
            nodes = job.nodes or ", ".join(hosts[:_MOST_HOSTS]) + more
            restarts = f"{job.restarts} {'restart' if job.restarts == 1 else 'restarts'}" if job.restarts else ""
            size = f" (array of {job.array})" if job.array else ""
            limit = f"{span(job.left_s)} left" if job.left_s is not None and job.state == "RUNNING" else ""
            rows.append((stage.id, f"{job.id}{size}", said or "-", f"on {nodes}" if nodes else "", restarts, limit))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  " + "  ".join(c.ljust(w) for c, w in zip(cells, widths, strict=True)).rstrip() for cells in rows]


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
