"""Static charts as SVG text: lines over steps, and horizontal bars with intervals. Knows shapes, nothing of runs.

Colours are CSS classes of the page, so that one drawing serves light, dark and print; every foreign text is escaped.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from toolkit.report.values import text as clean

Point = tuple[int, float]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One series; `css` is faint, train, valid or plain; `dots` marks every point (for few of them)."""

    css: str
    points: Sequence[Point]
    dots: bool = False


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One bar; values are fractions of 1. A bar without value is a heading."""

    label: str
    css: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    shown: str = ""


def ticks(low: float, high: float, about: int) -> list[float]:
    """About `about` round values (1, 2 or 5 times a power of ten) between `low` and `high`."""
    if not high > low:
        return [low]
    rough = (high - low) / max(1, about)
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((m * power for m in (1, 2, 5, 10)), key=lambda step: abs(math.log(step / rough)))
    first = math.ceil(low / step - 1e-9)
    return [step * i for i in range(first, math.floor(high / step + 1e-9) + 1)]


def thin(points: Sequence[Point], columns: int) -> list[Point]:
    """At most two points (lowest and highest) for each of `columns` equal parts of the steps: no spike is lost."""
    if len(points) <= 2 * columns:
        return list(points)
    first, last = points[0][0], points[-1][0]
    buckets: dict[int, list[Point]] = {}
    for point in points:
        buckets.setdefault(int((point[0] - first) / (last - first) * (columns - 1e-6)), []).append(point)
    out: list[Point] = []
    for bucket in buckets.values():
        real = [point for point in bucket if math.isfinite(point[1])]
        if real:
            out += sorted({min(real, key=lambda p: p[1]), max(real, key=lambda p: p[1])})
        else:
            out.append(bucket[0])
    return out


def smooth(points: Sequence[Point], window: int) -> list[Point]:
    """Mean over `window` neighbouring steps, centred; gaps (not finite) are left out of it."""
    total, number, sums = 0.0, 0, [(0.0, 0)]
    for _, value in points:
        if math.isfinite(value):
            total, number = total + value, number + 1
        sums.append((total, number))
    out = []
    for index, (step, _) in enumerate(points):
        low, high = max(0, index - window // 2), min(len(points), index + window // 2 + 1)
        number = sums[high][1] - sums[low][1]
        out.append((step, (sums[high][0] - sums[low][0]) / number if number else math.nan))
    return out


def fit(label: str, width: float, size: float) -> str:
    """`label` cut with an ellipsis to about `width` pixels of a `size` pixel font (wide scripts count double)."""
    label = " ".join(clean(label).split())
    used = 0.0
    for index, char in enumerate(label):
        wide = unicodedata.east_asian_width(char) in "WF"
        used += size * (1.05 if wide else 0.0 if unicodedata.combining(char) else 0.62)
        if used > width and index < len(label) - 1:
            return label[: max(1, index - 1)] + "\u2026"
    return label


def wrap(label: str, width: float, size: float, most: int = 3) -> list[str]:
    """`label` in at most `most` lines of about `width` pixels; what does not fit ends with an ellipsis."""
    lines = [""]
    for word in clean(label).split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and len(longer) * size * 0.56 > width and len(lines) < most:
            lines.append(word)
        else:
            lines[-1] = longer
    return [fit(line, width + size, size) for line in lines]


def _head_height(lines: Sequence[str]) -> float:
    return 16.0 * len(lines) + 14


def opening(uid: str, width: float, height: float, css: str, title: str, desc: str) -> Markup:
    return Markup(
        '<svg id="{0}" class="{1}" viewBox="0 0 {2:.0f} {3:.0f}" width="{2:.0f}" height="{3:.0f}" role="img" '
        'aria-labelledby="{0}-t {0}-d"><title id="{0}-t">{4}</title><desc id="{0}-d">{5}</desc>'
    ).format(uid, css, width, height, clean(title), clean(desc, 2000))


def _text(x: float, y: float, css: str, label: str, anchor: str = "start") -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" class="{}" text-anchor="{}">{}</text>').format(x, y, css, anchor, label)


def rule(x1: float, y1: float, x2: float, y2: float, css: str) -> Markup:
    return Markup('<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" class="{}"/>').format(x1, y1, x2, y2, css)


def sized(x: float, y: float, css: str, label: str, anchor: str, size: float) -> Markup:
    """Text in a size of its own, where the room decides about it."""
    return Markup(
        '<text x="{:.1f}" y="{:.1f}" class="{}" text-anchor="{}" style="font-size: {:.1f}px">{}</text>'
    ).format(x, y, css, anchor, size, label)


def line_chart(
    *,
    uid: str,
    css: str,
    width: float,
    height: float,
    title: str,
    desc: str,
    lines: Sequence[Line],
    show: Callable[[float], str],
    steps: tuple[int, int] | None = None,
    from_zero: bool = False,
    marks: Sequence[int] = (),
    flags: Sequence[tuple[int, str]] = (),
    x_title: str = "step",
) -> Markup:
    """Lines over steps. `steps` fixes the horizontal range, so that charts below each other align. `marks` are upright
    lines; `flags` (step, css class) such with a knob on top.
    """
    left, right, top, bottom = 58.0, 16.0, 12.0, 40.0 if x_title else 24.0
    values = [v for line in lines for _, v in line.points if math.isfinite(v)]
    first, last = steps or (
        min((s for line in lines for s, _ in line.points), default=0),
        max((s for line in lines for s, _ in line.points), default=1),
    )
    last = max(last, first + 1)
    low, high = min(values, default=0.0), max(values, default=1.0)
    low = min(low, 0.0) if from_zero else low
    if high - low < 1e-12 + 1e-9 * abs(high):
        low, high = low - (abs(low) * 0.1 or 1), high + (abs(high) * 0.1 or 1)
        low = max(low, 0.0) if from_zero else low
    margin = (high - low) * 0.06
    low, high = (low if from_zero and low >= 0 else low - margin), high + margin
    plot_w, plot_h = width - left - right, height - top - bottom

    def x(step: float) -> float:
        return left + (step - first) / (last - first) * plot_w

    def y(value: float) -> float:
        return top + (high - value) / (high - low) * plot_h

    out = [opening(uid, width, height, f"chart {css}", title, desc)]
    for tick in ticks(low, high, max(3, int(plot_h / 48))):
        out += [
            rule(left, y(tick), width - right, y(tick), "grid"),
            _text(left - 8, y(tick) + 4, "tick", show(tick), "end"),
        ]
    for tick in ticks(first, last, max(4, int(plot_w / 90))):
        if tick == int(tick):
            out += [rule(x(tick), top + plot_h, x(tick), top + plot_h + 5, "axis")]
            out += [_text(x(tick), top + plot_h + 18, "tick", f"{int(tick):,}", "middle")]
    out.append(rule(left, top + plot_h, width - right, top + plot_h, "axis"))
    if x_title:
        out.append(_text(left + plot_w / 2, height - 5, "axis-title", x_title, "middle"))
    out += [rule(x(step), top, x(step), top + plot_h, "mark") for step in marks if first <= step <= last]
    for line in lines:
        out += _path(line, x, y, int(plot_w))
    for step, flag in flags:
        if first <= step <= last:
            out.append(rule(x(step), top, x(step), top + plot_h, f"flag {flag}"))
            out.append(Markup('<circle cx="{:.1f}" cy="{:.1f}" r="4" class="knob {}"/>').format(x(step), top, flag))
    return Markup("").join([*out, Markup("</svg>")])


def _path(line: Line, x: Callable[[float], float], y: Callable[[float], float], columns: int) -> list[Markup]:
    """The pieces of a line between gaps; a piece of one point would be invisible as a line and becomes a dot."""
    out: list[Markup] = []
    piece: list[Point] = []
    for point in [*thin(line.points, columns), (0, math.nan)]:
        if math.isfinite(point[1]):
            piece.append(point)
            continue
        if len(piece) > 1:
            path = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in piece)
            out.append(Markup('<polyline points="{}" class="line {}"/>').format(path, line.css))
        for step, value in piece if line.dots or len(piece) == 1 else ():
            out.append(
                Markup('<circle cx="{:.1f}" cy="{:.1f}" r="3.2" class="dot {}"/>').format(x(step), y(value), line.css)
            )
        piece = []
    return out


def bar_chart(
    *,
    uid: str,
    css: str,
    width: float,
    title: str,
    desc: str,
    bars: Sequence[Bar],
    chance: float | None = None,
    chance_label: str = "",
    labels: float = 130.0,
) -> Markup:
    """Horizontal bars from 0 to 100 %, whiskers for intervals, a dashed line for chance. `labels` pixels for names."""
    row, top, bottom, right = 30.0, 26.0 if chance is not None else 8.0, 26.0, 62.0
    heads = {bar.label: wrap(bar.label, width, 12.5) for bar in bars if bar.value is None}
    plot_h = sum(row if bar.value is not None else _head_height(heads[bar.label]) for bar in bars)
    height = top + plot_h + bottom
    plot_w = width - labels - right

    def x(value: float) -> float:
        return labels + value * plot_w

    out = [opening(uid, width, height, f"chart {css}", title, desc)]
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        out += [rule(x(tick), top, x(tick), top + plot_h, "grid")]
        out += [_text(x(tick), top + plot_h + 18, "tick", f"{tick:.0%}".replace("%", " %"), "middle")]
    y, over = top, []
    for bar in bars:
        if bar.value is None:
            rows = heads[bar.label]
            out.append(
                Markup('<rect x="0" y="{:.1f}" width="{}" height="{:.1f}" class="behind"/>').format(
                    y + 4, width, 16 * len(rows) + 6
                )
            )
            out += [_text(0, y + 20 + 16 * index, "bar-head", part) for index, part in enumerate(rows)]
            y += _head_height(rows)
            continue
        over.append(rule(labels, y, labels, y + row, "axis"))
        if chance is not None:
            over.append(rule(x(chance), y, x(chance), y + row, "chance"))
        middle = y + row / 2
        out.append(_text(labels - 10, middle + 4.5, "bar-label", fit(bar.label, labels - 12, 13), "end"))
        out.append(
            Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" rx="2" class="bar {}"/>').format(
                labels, y + 6, max(1.0, bar.value * plot_w), row - 12, bar.css
            )
        )
        if bar.low is not None and bar.high is not None:
            out += [rule(x(bar.low), middle, x(bar.high), middle, "whisker")]
            out += [rule(x(end), middle - 4, x(end), middle + 4, "whisker") for end in (bar.low, bar.high)]
        out.append(_text(width, middle + 4.5, "bar-value", bar.shown, "end"))
        y += row
    out += over
    if chance is not None:
        anchor = "start" if chance < 0.25 else "end" if chance > 0.75 else "middle"
        out += [_text(x(chance), top - 10, "chance-label", fit(chance_label, 160, 12), anchor)]
    return Markup("").join([*out, Markup("</svg>")])
