"""Scores on their own as a page, as Markdown and as JSON: `build(folders, out)`. The three say the same.

Decides what is shown of scores that no run holds together; scores nothing and compares nothing itself.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from toolkit import files
from toolkit.report import rendering
from toolkit.report.beside import Table, beside, notes
from toolkit.report.paper import tables
from toolkit.report.scores_read import Reached, read
from toolkit.report.values import number, percent, plain, text, whole

_DASH = "\u2013"
_ITEMS = 200


@dataclasses.dataclass(frozen=True, kw_only=True)
class Built:
    """The three files, and what could not be read."""

    html: Path
    markdown: Path
    json: Path
    notes: tuple[str, ...]


def build(folders: Sequence[str | Path], out: str | Path, *, changes: Sequence[Mapping[str, Any]] = ()) -> Built:
    """Write `scores.html`, `scores.md` and `report.json` into the folder `out`, of the folders that `score run` wrote.

    `changes` are comparisons of two of them, as `scoring.compare` gives them as dict. Raises `DataError`, `RunError`,
    `DiskFull`.
    """
    ones, said = read(folders)
    out, beside_paper = Path(out), beside(ones)
    told = [_change(one) for one in changes]
    html = rendering.write(out / "scores.html", _html(ones, beside_paper, told, said))
    markdown = rendering.write(out / "scores.md", _markdown(ones, beside_paper, told, said))
    value = {
        "scores": [_plain(one) for one in ones],
        "paper": [table.as_dict() for table in beside_paper],
        "changes": list(changes),
        "notes": said,
    }
    files.write_json(out / "report.json", value)
    return Built(html=html, markdown=markdown, json=out / "report.json", notes=tuple(said))


def _plain(one: Reached) -> dict[str, Any]:
    value = dataclasses.asdict(one)
    return {**value, "seeds": list(one.seeds), "notes": list(one.notes)}


def _html(ones: Sequence[Reached], paper: Sequence[Table], changes: Sequence[Any], said: Sequence[str]) -> str:
    from toolkit.report import scores_figures as figures

    colours = figures.colours_of(ones)
    benchmarks = [
        {
            "title": some[0].title,
            "bars": figures.by_model(some, colours, f"bench{place}"),
            "groups": figures.by_group(some, colours, f"group{place}"),
            "calibrations": [
                figures.calibration(one.calibration, f"{one.model}, {figures.how(one)}", f"cal{place}-{number_}")
                for number_, one in enumerate(some)
                if one.calibration is not None
            ],
            "rows": [_row(one) for one in some],
            "notes": list(dict.fromkeys(note for one in some for note in one.notes))[:30],
        }
        for place, some in enumerate(_by_benchmark(ones))
    ]
    return rendering.render(
        "scores.html.j2",
        kind="Scores",
        title=", ".join(dict.fromkeys(one.model for one in ones))[:200],
        when="",
        badge=None,
        verdict=_headline(ones),
        doubts=_doubts(ones),
        notes=said,
        benchmarks=benchmarks,
        paper=[_shown(table) for table in paper],
        paper_notes=notes(ones),
        source={"title": tables()["title"], "url": tables()["url"]},
        changes=changes,
    )


def _by_benchmark(ones: Sequence[Reached]) -> list[list[Reached]]:
    found: dict[str, list[Reached]] = {}
    for one in ones:
        found.setdefault(one.benchmark, []).append(one)
    return list(found.values())


def _headline(ones: Sequence[Reached]) -> str:
    models, benchmarks = ({getattr(one, name) for one in ones} for name in ("model", "benchmark"))
    if len(models) == 1 and len(ones) <= 4:
        return ", ".join(f"{one.title} {percent(one.accuracy)}" for one in ones).replace(" %", "\u00a0%")
    many = [
        f"{len(models)} model{'s' * (len(models) > 1)}",
        f"{len(benchmarks)} benchmark{'s' * (len(benchmarks) > 1)}",
    ]
    return " on ".join(many)


def _doubts(ones: Sequence[Reached]) -> list[str]:
    invalid = [one for one in ones if one.invalid]
    if not invalid:
        return []
    told = ", ".join(f"{one.model} on {one.benchmark} {one.invalid:,}" for one in invalid[:8])
    return [f"Answers that could not be read count as wrong: {told}{', and more' if len(invalid) > 8 else ''}."]


def _row(one: Reached) -> dict[str, str]:
    from toolkit.report.scores_figures import how

    sure = one.calibration
    return {
        "model": one.model,
        "how": how(one),
        "engine": one.engine,
        "accuracy": percent(one.accuracy),
        "sd": f"\u00b1 {100 * one.sd:.2g} over {len(one.seeds)} seeds" if one.sd is not None else "",
        "interval": _DASH if one.low is None or one.high is None else f"{100 * one.low:.1f} to {100 * one.high:.1f} %",
        "correct": f"{one.correct:,} / {one.n:,}" if None not in (one.correct, one.n)
        else _DASH if one.n is None else f"{one.n:,} questions",
        "invalid": _DASH if one.invalid is None else f"{one.invalid:,}",
        "macro": percent(one.macro),
        "chance": percent(one.chance),
        "ece": _DASH if sure is None else plain(sure.ece),
    }  # fmt: skip


def _shown(table: Table) -> dict[str, Any]:
    rows = [
        {"name": row.name, "ours": row.ours,
         "cells": [(f"{cell[0]:.1f}", cell[1]) if cell else (_DASH, "") for cell in row.cells]}
        for row in table.rows
    ]  # fmt: skip
    return {"name": table.name, "mode": table.mode, "note": table.note, "columns": table.columns, "rows": rows,
            "ours": table.has_ours}  # fmt: skip


def _change(found: Mapping[str, Any]) -> dict[str, Any]:
    rows = []
    for row in found.get("rows") or ():
        low, high, p, smallest = (number(row.get(name)) for name in ("low", "high", "p", "smallest"))
        gap = number(row.get("difference"))
        shots = whole(row.get("shots"))
        rows.append(
            {
                "benchmark": text(row.get("benchmark"), 80),
                "mode": text(row.get("mode"), 20) + (f", {shots}-shot" if shots else ""),
                "n": f"{whole(row.get('n')) or 0:,}",
                "before": percent(number(row.get("before"))),
                "after": percent(number(row.get("after"))),
                "difference": _DASH if gap is None else _points(gap),
                "interval": _DASH if low is None or high is None else f"{_points(low)} to {_points(high)}",
                "p": _DASH if p is None else f"{p:.2g}",
                "smallest": _DASH if smallest is None else f"{100 * smallest:.1f} points",
                "lists": [
                    {"css": css, "words": words, "rows": items[:_ITEMS], "all": len(items)}
                    for css, words, items in (
                        ("failed", "right before, wrong now", _items(row.get("worse"))),
                        ("done", "wrong before, right now", _items(row.get("better"))),
                    )
                    if items
                ],
            }
        )
    said = [text(note) for note in found.get("notes") or ()]
    return {"a": text(found.get("a"), 80), "b": text(found.get("b"), 80), "rows": rows, "notes": said}


def _items(found: Any) -> list[dict[str, str]]:
    names = ("id", "group", "gold", "before", "after")
    rows = [item for item in found if isinstance(item, dict)] if isinstance(found, (list, tuple)) else []
    return [{name: _DASH if item.get(name) is None else text(item.get(name), 160) for name in names} for item in rows]


def _points(value: float) -> str:
    return f"{100 * value:+.1f}".replace("-", "\u2212")


def _markdown(ones: Sequence[Reached], paper: Sequence[Table], changes: Sequence[Any], said: Sequence[str]) -> str:
    lines = [f"# {_md(_headline(ones))}", "", *(f"{_md(line)}\n" for line in (*_doubts(ones), *said))]
    lines += ["Research only, not for clinical use.", "", "## Scores", ""]
    head = ("Model", "Benchmark", "How", "Accuracy", "95 % interval", "Correct", "Invalid", "Chance", "ECE")
    names = ("how", "accuracy", "interval", "correct", "invalid", "chance", "ece")
    body = []
    for one in ones:
        row = _row(one)
        row["accuracy"] = f"{row['accuracy']} {row['sd']}".strip()
        body.append((one.model, one.title, *(row[name] for name in names)))
    lines += [*_table(head, body), ""]
    lines += [f"- {_md(one.title)}: {_md(note)}" for one in ones for note in one.notes]
    if paper:
        lines += ["", "## Beside the paper", "", f"[{tables()['title']}]({tables()['url']}), in per cent.", ""]
        lines += [f"- {_md(note)}" for note in notes(ones)]
        for table in paper:
            lines += ["", f"### {_md(table.name)}: {_md(table.mode)}", ""]
            cells = [
                (f"**{_md(row.name)}**" if row.ours else _md(row.name),
                 *(f"{cell[0]:.1f} {_md(cell[1])}".strip() if cell else _DASH for cell in row.cells))
                for row in table.rows
            ]  # fmt: skip
            lines += [
                *_table(("Model", *table.columns), cells, raw=True),
                "",
                *([_md(table.note)] if table.note else []),
            ]
    for change in changes:
        lines += ["", f"## From {_md(change['a'])} to {_md(change['b'])}", ""]
        names = ("benchmark", "mode", "n", "before", "after", "difference", "interval", "p", "smallest")
        head = ("Benchmark", "Mode", "Questions", "Before", "After", "Points", "95 % interval", "p", "Could have seen")
        lines += _table(head, [[row[name] for name in names] for row in change["rows"]])
        for row in change["rows"]:
            for one in row["lists"]:
                ids = ", ".join(_md(item["id"]) for item in one["rows"])
                lines += ["", f"{_md(row['benchmark'])}, {one['words']} ({one['all']}): {ids}"]
        lines += [f"- {_md(note)}" for note in change["notes"]]
    return "\n".join(lines).rstrip() + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, raw: bool = False) -> list[str]:
    show = (lambda cell: cell) if raw else _md
    marks = "|".join([" --- ", *(" ---: " for _ in head[1:])])
    body = [f"| {' | '.join(show(cell) for cell in row)} |" for row in rows]
    return [f"| {' | '.join(_md(cell) for cell in head)} |", f"|{marks}|", *body]


def _md(value: object) -> str:
    """Foreign text that stays text in Markdown: no table, no tag, no link, no emphasis."""
    line = " ".join(text(value).split())
    return re.sub(r"([\\`*_\[\]|#])", r"\\\1", line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))
