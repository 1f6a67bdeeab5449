"""The pages of the nights: one for each watched training, with its scores over the steps and what got worse, and one
that names them all. Takes plain values; which checkpoint is worse has been decided before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote

from toolkit import files
from toolkit.report import rendering
from toolkit.report.charts import Line, line_chart
from toolkit.report.figures import Figure, both
from toolkit.report.values import clock, number, percent, text, whole

_DASH = "\u2013"
_FEW = 120  # checkpoints, items or rows that a page shows of one kind
_NOTES = 12
_CSS = {"good": "done", "first": "done", "worse": "failed"}

_SHOWN = ("benchmark", "id", "gold", "before", "after", "question")

Key = tuple[str, str, str]


def page(folder: Path, history: Mapping[str, Any]) -> Path:
    """Write `page.html` and `trend.json` of one training into its folder of the history; returns the page.

    Raises `RunError`, `DiskFull`.
    """
    files.write_json(folder / "trend.json", history)
    ones = sorted(_dicts(history.get("checkpoints")), key=lambda one: whole(one.get("step")) or 0)
    keys = list(dict.fromkeys(key for one in ones for key in _scores(one)))
    worse = [one for one in ones if _verdict(one).get("worse") is True]
    good, newest = whole(history.get("good")), ones[-1] if ones else {}
    state = text(_verdict(newest).get("state") or "not judged", 20)
    body = rendering.render(
        "trend.html.j2",
        kind="Nightly scores",
        title=text(history.get("series"), 140),
        when=_when(newest.get("at")),
        badge={"code": _CSS.get(state, ""), "words": state},
        verdict=_headline(ones, keys, good),
        doubts=[f"Last good checkpoint: step {good:,}." if good is not None else "There is no good checkpoint yet."],
        notes=_notes(ones),
        worse=[_worse(one) for one in reversed(worse[-_FEW:])],
        figures=[_figure(ones, key, f"trend{place}") for place, key in enumerate(keys)],
        columns=[_label(key) for key in keys],
        rows=[_row(one, keys) for one in reversed(ones[-_FEW:])],
        tried=[
            {"step": f"{whole(row.get('step')) or 0:,}", "tries": whole(row.get("tries")), "why": text(row.get("why"))}
            for row in _dicts(history.get("tried"))[:_FEW]
        ],
    )
    return rendering.write(folder / "page.html", body)


def index(folder: Path, histories: Sequence[Mapping[str, Any]]) -> Path:
    """Write `index.html`, which links the pages of all trainings; returns it. Raises as `page`."""
    rows, worse = [], 0
    for history in histories:
        ones = sorted(_dicts(history.get("checkpoints")), key=lambda one: whole(one.get("step")) or 0)
        newest, good = ones[-1] if ones else {}, whole(history.get("good"))
        state = text(_verdict(newest).get("state") or "not judged", 20)
        worse += state == "worse"
        rows.append(
            {
                "series": text(history.get("series"), 140),
                "link": f"series/{quote(str(history.get('series')))}/page.html",
                "scored": len(ones),
                "good": _DASH if good is None else f"{good:,}",
                "newest": f"step {whole(newest.get('step')):,}: {state}" if ones else _DASH,
                "css": _CSS.get(state, "waiting"),
            }
        )
    all_of_them = f"{len(rows)} training{'' if len(rows) == 1 else 's'}"
    said = f"{worse} of {all_of_them} got worse" if worse else f"{all_of_them}, none worse"
    body = rendering.render(
        "trends.html.j2", kind="Nightly scores", title="Watched trainings", when="", badge=None, verdict=said,
        doubts=(), notes=(), rows=rows,
    )  # fmt: skip
    return rendering.write(folder / "index.html", body)


def _headline(ones: Sequence[Mapping[str, Any]], keys: Sequence[Key], good: int | None) -> str:
    if not ones:
        return "Nothing has been scored yet"
    newest = ones[-1]
    step = f"Step {whole(newest.get('step')) or 0:,}"
    verdict = _verdict(newest)
    if verdict.get("worse") is True:
        rows = [_gate_row(row) for row in _dicts(verdict.get("rows"))]
        told = ", ".join(f"{row['benchmark']} {row['before']} \u2192 {row['after']}" for row in rows if row["worse"])
        return f"{step} is worse: {told}".replace(" %", "\u00a0%")
    told = ", ".join(f"{text(key[0], 40)} {percent(_scores(newest)[key][0])}" for key in keys if key in _scores(newest))
    return f"{step}: {told}".replace(" %", "\u00a0%")


def _figure(ones: Sequence[Mapping[str, Any]], key: Key, uid: str) -> Figure:
    points, low, high, flags = [], [], [], []
    chance = None
    for one in ones:
        step, found = whole(one.get("step")), _scores(one).get(key)
        if step is None or found is None:
            continue
        points.append((step, found[0]))
        if found[1] is not None and found[2] is not None:
            low.append((step, found[1]))
            high.append((step, found[2]))
        chance = found[3] if found[3] is not None else chance
        if any(_gate_row(row)["worse"] and _key(row) == key for row in _dicts(_verdict(one).get("rows"))):
            flags.append((step, "spike"))
    lines = [Line(css="faint", points=low), Line(css="faint", points=high), Line(css="train", points=points, dots=True)]
    legend = [("train", "accuracy"), ("faint", "95 % interval")]
    words = [f"{percent(points[0][1])} at step {points[0][0]:,}, {percent(points[-1][1])} at step {points[-1][0]:,}."]
    if chance is not None:
        words.append(f"Chance is {percent(chance)}.")
    if flags:
        legend.append(("flag spike", "worse"))
        words.append(f"Worse at step {', '.join(f'{step:,}' for step, _ in flags[:20])}.")
    title, desc = f"Accuracy on {_label(key)}", " ".join(words)

    def draw(uid: str, css: str, width: int, height: int = 220) -> Any:
        return line_chart(
            uid=uid, css=css, width=width, height=height, title=title, desc=desc, lines=lines,
            show=lambda value: f"{100 * value:.0f} %", flags=flags,
        )  # fmt: skip

    return Figure(title=title, svg=both(draw, uid, 960, height=260), legend=tuple(legend), caption=desc)


def _row(one: Mapping[str, Any], keys: Sequence[Key]) -> dict[str, Any]:
    scores, cells = _scores(one), []
    for key in keys:
        found = scores.get(key)
        interval = ""
        if found and found[1] is not None and found[2] is not None:
            interval = f"{100 * found[1]:.1f} to {100 * found[2]:.1f}"
        cells.append((percent(found[0]) if found else _DASH, interval))
    state = text(_verdict(one).get("state") or "not judged", 20)
    return {
        "step": f"{whole(one.get('step')) or 0:,}",
        "state": state,
        "css": _CSS.get(state, "waiting"),
        "cells": cells,
        "at": _when(one.get("at")),
        "night": text(one.get("night"), 80),
    }


def _worse(one: Mapping[str, Any]) -> dict[str, Any]:
    verdict = _verdict(one)
    items = _dicts(verdict.get("items"))
    return {
        "step": f"{whole(one.get('step')) or 0:,}",
        "reference": text(verdict.get("reference"), 60).removeprefix("step="),
        "rows": [_gate_row(row) for row in _dicts(verdict.get("rows"))],
        "items": [{name: text(item.get(name), 600) for name in _SHOWN} for item in items[:_FEW]],
        "more": max(0, len(items) - _FEW) + (whole(verdict.get("more_items")) or 0),
    }


def _notes(ones: Sequence[Mapping[str, Any]]) -> list[str]:
    """What must be read with the verdicts, the newest first."""
    found = []
    for one in reversed(ones[-_FEW:]):
        said = _verdict(one).get("notes")
        words = [text(note) for note in said] if isinstance(said, list) else []
        found += [f"Step {whole(one.get('step')) or 0:,}: {note}" for note in words]
    return found[:_NOTES]


def _gate_row(row: Mapping[str, Any]) -> dict[str, Any]:
    gap, p = number(row.get("difference")), number(row.get("p_adjusted"))
    return {
        "benchmark": text(row.get("benchmark"), 60),
        "mode": text(row.get("mode"), 20),
        "n": f"{whole(row.get('n')) or 0:,}",
        "before": percent(number(row.get("before"))),
        "after": percent(number(row.get("after"))),
        "difference": _DASH if gap is None else f"{100 * gap:+.1f} points".replace("-", "\u2212"),
        "p": _DASH if p is None else f"{p:.2g}",
        "worse": row.get("worse") is True,
    }


def _scores(one: Mapping[str, Any]) -> dict[Key, tuple[float, float | None, float | None, float | None]]:
    """By benchmark, mode and shots: accuracy, both ends of its interval, chance. The mean over seeds where there is
    one.
    """
    found: dict[Key, tuple[bool, tuple[float, float | None, float | None, float | None]]] = {}
    for row in _dicts(one.get("scores")):
        accuracy, ends = number(row.get("mean", row.get("accuracy"))), row.get("ci95")
        bounds = [number(end) for end in ends] if isinstance(ends, list) and len(ends) == 2 else [None, None]
        if accuracy is None:
            continue
        whole_row, key = "seeds" in row, _key(row)
        if key not in found or (whole_row and not found[key][0]):
            found[key] = (whole_row, (accuracy, bounds[0], bounds[1], number(row.get("chance"))))
    return {key: value for key, (_, value) in found.items()}


def _key(row: Mapping[str, Any]) -> Key:
    return text(row.get("benchmark"), 60), text(row.get("mode"), 20), text(row.get("shots") or 0, 10)


def _label(key: Key) -> str:
    return f"{key[0]}, {key[1]}" + (f", {key[2]}-shot" if key[2] not in ("", "0") else "")


def _verdict(one: Mapping[str, Any]) -> Mapping[str, Any]:
    found = one.get("verdict")
    return found if isinstance(found, dict) else {}


def _when(at: Any) -> str:
    seconds = number(at)
    return clock(datetime.fromtimestamp(seconds, timezone.utc)) if seconds and 0 < seconds < 4e9 else ""


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
