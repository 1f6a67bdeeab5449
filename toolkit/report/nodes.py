"""The page's section on a preflight: a picture of who reaches whom how fast, nodes that were found unfit, and why.

Decides what of preflight.json is shown and how the picture is drawn; takes nothing in that file for granted.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from toolkit.report import words
from toolkit.report.charts import fit, opening, rule, sized
from toolkit.report.figures import NARROW, Figure
from toolkit.report.record import Record
from toolkit.report.values import number, text

WIDE = 960
_MOST_NODES = 64
_MOST_ROWS = 100
_NUMBERS = 34.0  # pixels of a cell that hold a number
_LEAST, _MOST = 0.10, 0.55  # opacity: numbers must be readable on it in every theme


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A test of two nodes, or of one alone; `share` of what is expected or of the best of its kind."""

    gb_s: float | None
    share: float
    slow: bool
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Matrix:
    nodes: tuple[str, ...]
    bad: frozenset[str]
    cells: Mapping[tuple[str, str], Cell]
    left_out: int = 0


def section(record: Record) -> dict[str, Any] | None:
    """None where the run has no preflight that has ended."""
    told = record.preflight
    if not told:
        return None
    faults, warnings = (_findings(told.get(name)) for name in ("faults", "warnings"))
    band, matrix = _dict(told.get("bandwidth")), read(told)
    return {
        "figure": figure(matrix, band) if matrix and matrix.cells else None,
        "verdict": words.preflight(told),
        "bad": bool(faults),
        "faults": faults[:_MOST_ROWS],
        "warnings": warnings[:_MOST_ROWS],
        "more": max(0, len(faults) - _MOST_ROWS) + max(0, len(warnings) - _MOST_ROWS),
        "all": _together(band),
    }


def _together(band: Mapping[str, Any]) -> str:
    every = band.get("all")
    if not isinstance(every, dict):
        return ""
    gb_s = number(every.get("gb_s"))
    if gb_s is None:
        return f"All fit nodes together came to nothing: {text(every.get('why') or 'no reason is told', 300)}."
    wanted = number(_dict(band.get("expected")).get("all_gb_s"))
    return f"All fit nodes together: {rate(gb_s)} GB/s{f', where {rate(wanted)} is expected' if wanted else ''}."


def read(told: Mapping[str, Any]) -> Matrix | None:
    """What was measured, by pairs of names in the order of `nodes`."""
    band = _dict(told.get("bandwidth"))
    names = list(dict.fromkeys(text(name, 60) for name in _strings(band.get("nodes"))))
    if not names:
        return None
    expected = _dict(band.get("expected"))
    bad = {text(name, 60) for name in _strings(told.get("exclude"))}
    bad |= {text(one.get("node"), 60) for one in _dicts(told.get("faults")) if isinstance(one.get("node"), str)}
    kept = sorted(names, key=lambda name: name not in bad)[:_MOST_NODES] if len(names) > _MOST_NODES else names
    nodes = tuple(name for name in names if name in kept)
    raw: dict[tuple[str, str], dict[str, Any]] = {}
    for one in _dicts(band.get("pairs")):
        a, b = text(one.get("a"), 60), text(one.get("b"), 60)
        if a in nodes and b in nodes and a != b:
            raw[a, b] = raw[b, a] = one
    alone = {(text(name, 60),) * 2: _dict(one) for name, one in _dict(band.get("alone")).items()}
    alone = {key: {**one, "slow": key[0] in bad and _poor(one, expected)} for key, one in alone.items()
             if key[0] in nodes}  # fmt: skip
    cells = {
        **_cells(raw, number(expected.get("pair_gb_s"))),
        **_cells(alone, number(expected.get("node_gb_s"))),
    }
    return Matrix(nodes=nodes, bad=frozenset(bad & set(nodes)), cells=cells, left_out=len(names) - len(nodes))


def _poor(one: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
    gb_s, wanted, share = number(one.get("gb_s")), number(expected.get("node_gb_s")), number(expected.get("fraction"))
    return gb_s is None or (wanted is not None and share is not None and gb_s < share * wanted)


def _cells(raw: Mapping[tuple[str, str], Mapping[str, Any]], expected: float | None) -> dict[tuple[str, str], Cell]:
    rates = {key: number(one.get("gb_s")) for key, one in raw.items()}
    most = expected or max((value for value in rates.values() if value), default=1.0)
    return {
        key: Cell(
            gb_s=rates[key],
            share=min(1.0, max(0.0, (rates[key] or 0.0) / most)),
            slow=one.get("slow") is True or rates[key] is None,
            why=text(one.get("why") or "", 200),
        )
        for key, one in raw.items()
    }


def figure(matrix: Matrix, band: Mapping[str, Any]) -> Figure:
    legend = (("cell", "as fast as expected"), ("cell poor", "too slow"), ("cell none", "nothing came of it"))
    wide, narrow = (_draw(matrix, css, width) for css, width in (("wide", WIDE), ("narrow", NARROW)))
    wanted = number(_dict(band.get("expected")).get("pair_gb_s"))
    expected = f" Of a pair {rate(wanted)} GB/s is expected." if wanted else ""
    more = f" {matrix.left_out} more nodes are in preflight.json." if matrix.left_out else ""
    untried = " Empty: not tried." if len(matrix.cells) < len(matrix.nodes) ** 2 else ""
    return Figure(
        title="Who reaches whom how fast",
        svg=wide + narrow,
        legend=legend,
        caption="Bus bandwidth of an all-reduce over each pair of nodes, in GB/s; on the diagonal over one node's "
        f"ranks alone.{untried}{expected}{more}",
    )


def _draw(matrix: Matrix, css: str, width: float) -> Markup:
    """Rows and columns in the same order, so that it is symmetric: a bad node is a cross, a bad link two squares."""
    names, count = matrix.nodes, len(matrix.nodes)
    labels = 118.0 if css == "wide" else 72.0
    top = 14.0 + min(labels, max(len(name) for name in names) * 5.2 + 10)
    side = min(64.0, (width - labels - 24.0) / count)
    height = top + side * count + 6
    size = min(13.0, max(7.0, side * 0.7))
    out = [opening(f"nodes-{css}", width, height, f"chart {css}", "Bus bandwidth between nodes", _told(matrix))]
    for place, name in enumerate(names):
        middle = top + side * (place + 0.5)
        mark = "node bad" if name in matrix.bad else "node"
        out.append(sized(labels - 8, middle + size * 0.35, mark, fit(name, labels - 10, size), "end", size))
        x = labels + side * (place + 0.5) + size * 0.3
        turned = Markup('<g transform="translate({:.1f} {:.1f}) rotate(-55)">{}</g>').format(
            x, top - 7, sized(0, 0, mark, fit(name, labels - 10, size), "start", size)
        )
        out.append(turned)
    for row, a in enumerate(names):
        for column, b in enumerate(names):
            out += _cell(matrix.cells.get((a, b)), labels + side * column, top + side * row, side, alone=a == b)
    return Markup("").join([*out, Markup("</svg>")])


def _cell(cell: Cell | None, x: float, y: float, side: float, *, alone: bool) -> list[Markup]:
    inner = max(1.0, side - 2)
    box = Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" rx="2" class="{}" fill-opacity="{:.2f}"/>')
    if cell is None:
        return [box.format(x + 1, y + 1, inner, inner, "cell untried", 0.0)]
    kind = "cell" + (" alone" if alone else "") + (" poor" if cell.slow else "")
    opacity = 0.35 if cell.slow else _LEAST + (_MOST - _LEAST) * cell.share**2
    out = [box.format(x + 1, y + 1, inner, inner, kind, opacity)]
    if cell.gb_s is None:
        edge = side * 0.3
        out += [
            rule(x + edge, y + edge, x + side - edge, y + side - edge, "cross"),
            rule(x + edge, y + side - edge, x + side - edge, y + edge, "cross"),
        ]
    elif side >= _NUMBERS:
        size = min(13.0, side / 3.4)
        out.append(sized(x + side / 2, y + side / 2 + 4, "cell-value", rate(cell.gb_s), "middle", size))
    return out


def _told(matrix: Matrix) -> str:
    """The picture in words, for those who do not see it."""
    pairs = [cell.gb_s for (a, b), cell in matrix.cells.items() if a < b and cell.gb_s is not None]
    least = min(pairs, default=None)
    told = f"{len(matrix.nodes)} nodes. "
    if least is not None:
        told += (
            f"Pairs reach {rate(least)} to {rate(max(pairs))} GB/s, {rate(statistics.median(pairs))} in the median. "
        )
    slow = sorted({tuple(sorted(pair)) for pair, cell in matrix.cells.items() if cell.slow and pair[0] != pair[1]})
    told += f"{len(slow)} pairs are too slow or came to nothing"
    return told + (f": {'; '.join(f'{a} and {b}' for a, b in slow[:8])}." if slow else ".")


def rate(gb_s: float) -> str:
    """Three digits of it, for a small cell."""
    return f"{gb_s:.{0 if gb_s >= 100 else 1 if gb_s >= 10 else 2}f}" if gb_s >= 0.1 else f"{gb_s:.2g}"


def _findings(value: Any) -> list[tuple[str, str]]:
    return [
        (text(one["node"], 60) if isinstance(one.get("node"), str) else "", text(one.get("what") or "", 400))
        for one in _dicts(value)
    ]


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _strings(value: Any) -> list[str]:
    return [one for one in value if isinstance(one, str) and one] if isinstance(value, list) else []
