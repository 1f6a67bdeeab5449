"""The figures of scores on their own: bars by model and by subject, and whether confidence is deserved."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from toolkit.report.calibration import Reliability
from toolkit.report.charts import Bar, bar_chart, opening, rule, sized
from toolkit.report.figures import Figure, both
from toolkit.report.scores_read import Reached
from toolkit.report.values import percent, plain, text
from toolkit.stats import wilson

_COLOURS = ("base", "pretrained", "finetuned")
_MOST_GROUPS = 60
_HALF = 470


def by_model(ones: Sequence[Reached], colours: dict[str, str], uid: str) -> Figure:
    """All models on one benchmark, with their intervals."""
    bars = [
        Bar(label=_label(one, ones), css=colours[one.model], value=one.accuracy, low=one.low, high=one.high,
            shown=percent(one.accuracy))
        for one in ones
    ]  # fmt: skip
    chance = next((one.chance for one in ones if one.chance is not None), None)
    told = "; ".join(f"{one.model} {percent(one.accuracy)}" for one in ones)
    desc = f"{told}." + (f" Chance is {percent(chance)}." if chance is not None else "")
    caption = "Whiskers: 95 % interval." if any(one.low is not None for one in ones) else ""
    return _bars(ones[0].title, desc, caption, bars, chance, uid, labels=190.0)


def by_group(ones: Sequence[Reached], colours: dict[str, str], uid: str) -> Figure | None:
    """Accuracy by subject: a heading for each, a bar for each model. None where there are no subjects."""
    every = list(dict.fromkeys(name for one in ones for name in one.groups))
    names = every[:_MOST_GROUPS]
    if not names:
        return None
    bars: list[Bar] = []
    for name in names:
        there = [one for one in ones if name in one.groups]
        size = next((one.groups[name].n for one in there), None)
        label = name.replace("_", " ") + (f" ({size:,})" if size else "")
        if len(ones) > 1:
            bars.append(Bar(label=label))
        for one in there:
            group = one.groups[name]
            bars.append(
                Bar(label=_label(one, ones) if len(ones) > 1 else label, css=colours[one.model], value=group.accuracy,
                    low=group.low, high=group.high, shown=percent(group.accuracy))
            )  # fmt: skip
    chance = next((one.chance for one in ones if one.chance is not None), None)
    desc = (
        f"Accuracy of {len(ones)} model{'s' if len(ones) > 1 else ''} on {len(names)} subject{'s' * (len(names) > 1)}."
    )
    caption = "Whiskers: 95 % interval; subjects are small, so they are wide."
    if len(every) > len(names):
        caption += f" The first {len(names)} of {len(every):,} subjects; report.json has all."
    return _bars(f"{ones[0].title}, by subject", desc, caption, bars, chance, uid, labels=190.0)


def colours_of(ones: Sequence[Reached]) -> dict[str, str]:
    """A bar's class for each model: by its name where it is one of a run's, else in turn."""
    models = list(dict.fromkeys(one.model for one in ones))
    return {m: m if m in _COLOURS else _COLOURS[i % len(_COLOURS)] for i, m in enumerate(models)}


def calibration(found: Reliability, title: str, uid: str) -> Figure:
    """Accuracy over confidence with the line of those that deserve it, and how many items each bin has."""
    sure = "too sure" if found.over > 0 else "not sure enough"
    desc = (
        f"Expected calibration error {plain(found.ece)} over {found.n:,} questions; on average {sure} by "
        f"{100 * abs(found.over):.1f} points."
    )

    def draw(uid: str, css: str, width: int) -> Markup:
        return _reliability(found, uid, css, width, title, desc)

    return Figure(title=title, svg=both(draw, uid, _HALF), caption=desc)


def _bars(
    title: str, desc: str, caption: str, bars: list[Bar], chance: float | None, uid: str, labels: float
) -> Figure:
    def draw(uid: str, css: str, width: int, labels: float = 116.0) -> Markup:
        return bar_chart(
            uid=uid, css=css, width=width, title=f"Accuracy on {text(title, 80)}", desc=desc, bars=bars, chance=chance,
            chance_label=f"chance {percent(chance)}", labels=labels,
        )  # fmt: skip

    return Figure(title=title, svg=both(draw, uid, 960, labels=labels), caption=caption)


def _label(one: Reached, among: Sequence[Reached]) -> str:
    """The model, and what tells it apart from the same model's other rows."""
    same = [other for other in among if other.model == one.model]
    return one.model + ("" if len(same) == 1 else f", {how(one)}")


def how(one: Reached) -> str:
    """letter, 5-shot, as the paper's code"""
    return ", ".join(
        part
        for part in (
            one.mode,
            f"{one.shots}-shot" if one.shots else "",
            "as the paper's code" if one.compat else "",
            f"{len(one.seeds)} seeds" if len(one.seeds) > 1 else "",
        )
        if part
    )


def _reliability(found: Reliability, uid: str, css: str, width: int, title: str, desc: str) -> Markup:
    left, right, top, plot, gap, counts = 46.0, 26.0, 10.0, 220.0, 8.0, 46.0
    bottom = top + plot
    room = width - left - right
    out = [opening(uid, width, bottom + gap + counts + 38, f"chart {css}", title, desc)]

    def x(value: float) -> float:
        return left + value * room

    def y(value: float) -> float:
        return bottom - value * plot

    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        out.append(rule(left, y(tick), width - right, y(tick), "grid"))
        out.append(sized(left - 6, y(tick) + 4, "tick", f"{100 * tick:.0f} %", "end", 12))
        foot = bottom + gap + counts
        out.append(sized(x(tick), foot + 16, "tick", f"{100 * tick:.0f} %", "middle", 12))
    most = max(one.n for one in found.bins)
    for one in found.bins:
        wide = x(one.high) - x(one.low) - 3
        for css_, low, tall in (
            ("bar pretrained", y(one.accuracy), one.accuracy * plot),
            ("bar base", bottom + gap + counts - one.n / most * counts, one.n / most * counts),
        ):
            out.append(
                Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" class="{}"/>').format(
                    x(one.low) + 1.5, low, wide, max(1.0, tall), css_
                )
            )
        low_end, high_end = wilson(one.accuracy * one.n, one.n)
        out.append(rule(x(one.confidence), y(low_end), x(one.confidence), y(high_end), "whisker"))
    out.append(rule(x(0), y(0), x(1), y(1), "chance"))
    out.append(rule(left, bottom, width - right, bottom, "axis"))
    out.append(rule(left, bottom + gap + counts, width - right, bottom + gap + counts, "axis"))
    out.append(sized(left - 6, bottom + gap + 12, "tick", f"{most:,}", "end", 11))
    foot = bottom + gap + counts + 34
    out.append(sized(left + room / 2, foot, "axis-title", "confidence (below: how many questions)", "middle", 12))
    return Markup("").join([*out, Markup("</svg>")])
