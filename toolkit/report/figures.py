"""The figures of a run: which lines and bars are drawn, at which sizes, with which captions. Drawing is `charts`.

Every figure is drawn twice, for a desktop and for a phone; the page shows the one that fits.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass

from markupsafe import Markup

from toolkit.report.charts import Bar, Line, bar_chart, line_chart, smooth
from toolkit.report.paper import Landmarks
from toolkit.report.record import MODELS, Curve, Score
from toolkit.report.values import count, percent, plain, science, text

NARROW = 358
_SMOOTH_FROM = 60
_SMOOTH_PARTS = 30
_FLAGS = ("skipped", "spike", "rollback")  # events on the loss, and their css classes


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A drawing with its title, its legend as (css class, words) and a caption that says in words what it shows."""

    title: str
    svg: Markup
    legend: tuple[tuple[str, str], ...] = ()
    caption: str = ""


def both(draw: Callable[..., Markup], uid: str, wide: int, **options: float) -> Markup:
    return draw(uid=f"{uid}-w", css="wide", width=wide, **options) + draw(uid=f"{uid}-n", css="narrow", width=NARROW)


def _span(curve: Curve) -> tuple[int, int]:
    steps = [point[0] for name in ("loss", "valid_loss", "lr") for point in curve.column(name)]
    return (min(steps), max(steps)) if steps else (0, 1)


def _lowest(lowest: tuple[int, float], last: tuple[int, float]) -> str:
    return " (its lowest)" if lowest == last else f", lowest {plain(lowest[1])} at step {lowest[0]:,}"


def loss(curve: Curve, uid: str, what: str) -> Figure | None:
    train, valid = curve.column("loss"), curve.column("valid_loss")
    real = curve.finite("loss")
    if not real and not curve.finite("valid_loss"):
        return None
    window = max(5, len(train) // _SMOOTH_PARTS)
    legend: list[tuple[str, str]] = []
    if len(train) >= _SMOOTH_FROM:
        lines = [Line(css="faint", points=train), Line(css="train", points=smooth(train, window))]
        legend += [("faint", "training, each step"), ("train", f"training, mean of {window} steps")]
    else:
        lines = [Line(css="train", points=train)]
        legend += [("train", "training")] if real else []
    if valid:
        lines.append(Line(css="valid", points=valid, dots=len(valid) <= 60))
        legend.append(("valid", "validation"))
    words = []
    if real:
        lowest = min(real, key=lambda point: point[1])
        words.append(
            f"Training loss {plain(real[0][1])} at step {real[0][0]:,}, {plain(real[-1][1])} at step {real[-1][0]:,}"
            f"{_lowest(lowest, real[-1])}."
        )
    ends = curve.finite("valid_loss")
    if ends:
        best = min(ends, key=lambda point: point[1])
        words.append(f"Validation loss {plain(ends[-1][1])} at step {ends[-1][0]:,}{_lowest(best, ends[-1])}.")
    gaps = len(train) - len(real)
    if gaps:
        words.append(
            f"{gaps:,} step{'s' if gaps > 1 else ''} had a loss that is not a finite number: a gap in the line."
        )
    if curve.resumed:
        at = ", ".join(f"{step:,}" for step in curve.resumed[:8]) + (", \u2026" if len(curve.resumed) > 8 else "")
        words.append(f"Resumed at step {at}; steps done twice count once, with the later values.")
        legend.append(("mark", "resumed"))
    flags = [(step, event) for step, event, _ in curve.events if event in _FLAGS][-200:]
    for flag in _FLAGS:
        times = sum(event == flag for _, event, _ in curve.events)
        if times:
            name = "skipped update" if flag == "skipped" else flag
            legend.append((f"flag {flag}", name))
            words.append(f"{times:,} {name}{'s' if times > 1 else ''}.")
    title, desc = f"Loss of {what}", " ".join(words)

    def draw(uid: str, css: str, width: int, height: int = 250) -> Markup:
        return line_chart(
            uid=uid, css=css, width=width, height=height, title=title, desc=desc, lines=lines, show=_ticker(lines),
            steps=_span(curve), marks=curve.resumed[:50], flags=flags,
        )  # fmt: skip

    return Figure(title=title, svg=both(draw, uid, 960, height=320), legend=tuple(legend), caption=desc)


def column(
    curve: Curve, name: str, uid: str, *, title: str, wide: int, unit: str = "", zero: bool = True
) -> Figure | None:
    """One column as a chart of its own, below the loss with the same steps."""
    points, real = curve.column(name), curve.finite(name)
    if not real:
        return None
    values = [value for _, value in real]
    show = science if name == "lr" else (count if name == "tokens_per_s" else plain)
    unit = f" {unit}" if unit else ""
    if name == "lr":
        top = max(real, key=lambda point: point[1])
        desc = f"Highest {show(top[1])} at step {top[0]:,}, {show(values[-1])} at the last step."
    else:
        desc = f"Median {show(statistics.median(values))}{unit}, from {show(min(values))} to {show(max(values))}."
    many = name != "lr" and len(points) >= _SMOOTH_FROM
    window = max(5, len(points) // _SMOOTH_PARTS)
    lines = [Line(css="plain", points=points)]
    if many:
        lines = [Line(css="faint", points=points), Line(css="plain", points=smooth(points, window))]
        desc += f" Strong line: mean of {window} steps."
    ticker = science if name == "lr" else _ticker(lines)

    def draw(uid: str, css: str, width: int, height: int = 170) -> Markup:
        return line_chart(
            uid=uid, css=css, width=width, height=height, title=title, desc=desc, lines=lines, show=ticker,
            steps=_span(curve), from_zero=zero, marks=curve.resumed[:50],
        )  # fmt: skip

    return Figure(title=title, svg=both(draw, uid, wide, height=180), caption=desc)


def _ticker(lines: list[Line]) -> Callable[[float], str]:
    """Axis labels with as many decimals as the range needs."""
    values = [value for line in lines for _, value in line.points if math.isfinite(value)]
    span = (max(values) - min(values) if values else 0) or max((abs(value) for value in values), default=1) or 1
    if max(map(abs, values), default=0) >= 1e5 or span < 1e-4:
        return lambda value: count(value) if abs(value) >= 1e5 else science(value) if value else "0"
    digits = 0 if span > 8 else 1 if span > 0.8 else 2 if span > 0.08 else 3 if span > 0.008 else 5
    return lambda value: f"{value:,.{digits}f}"


def scores(table: list[Score], marks: Landmarks | None, uid: str) -> Figure:
    """Bars of the run's models with their intervals, then the paper's under a heading for each table and mode."""
    bars = [
        Bar(
            label=score.model,
            css=score.model if score.model in MODELS else "other",
            value=score.accuracy,
            low=score.low,
            high=score.high,
            shown=percent(score.accuracy),
        )
        for score in table
    ]
    heading = ""
    for row in marks.published if marks else ():
        if heading != f"Paper, {row.table}: {row.mode}":
            heading = f"Paper, {row.table}: {row.mode}"
            bars.append(Bar(label=heading))
        css = "paper-new" if row.model.startswith("MEDITRON") else "paper-old"
        bars.append(Bar(label=row.model, css=css, value=row.accuracy, shown=percent(row.accuracy)))
    chance = next((score.chance for score in table if score.chance is not None), None)
    first = table[0]
    words = "; ".join(f"{text(score.model, 40)} {percent(score.accuracy)}" for score in table)
    desc = f"{words}." + (f" Chance is {percent(chance)}." if chance is not None else "")

    def draw(uid: str, css: str, width: int, labels: float = 116.0) -> Markup:
        return bar_chart(
            uid=uid, css=css, width=width, title=f"Accuracy on {text(first.title, 80)}", desc=desc, bars=bars,
            chance=chance, chance_label=f"chance {percent(chance)}", labels=labels,
        )  # fmt: skip

    caption = "Whiskers: 95 % interval." if any(score.low is not None for score in table) else ""
    return Figure(title=text(first.title, 120), svg=both(draw, uid, 500, labels=118.0), caption=caption)
