"""The paper's tables, all of their rows, with those of the models at hand above them where the way of asking fits.

Decides which row may stand in which table; the numbers are in `paper.yaml`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from toolkit.report.paper import column_of, key, tables
from toolkit.report.scores_figures import how
from toolkit.report.scores_read import Reached

AVERAGE = "Avg"


@dataclass(frozen=True, kw_only=True)
class Row:
    """`cells`: (value in per cent, what stands behind it: a standard deviation or an interval) or None, by column."""

    name: str
    ours: bool
    cells: tuple[tuple[float, str] | None, ...]


@dataclass(frozen=True, kw_only=True)
class Table:
    name: str
    mode: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def has_ours(self) -> bool:
        return any(row.ours for row in self.rows)

    def as_dict(self) -> dict[str, Any]:
        return {
            "table": self.name,
            "mode": self.mode,
            "note": self.note,
            "columns": list(self.columns),
            "rows": [{"name": row.name, "ours": row.ours, "cells": [list(cell) if cell else None for cell in row.cells]}
                     for row in self.rows],
        }  # fmt: skip


def beside(ones: Sequence[Reached]) -> list[Table]:
    """Tables 4, 5, 6 and 13 by benchmark, then 12 and 13 by subject; none where no benchmark is one of the paper's."""
    placed = [(one, column) for one in ones if (column := column_of(one.paper)) is not None]
    if not placed:
        return []
    by_way: dict[tuple[str, str], dict[str, Reached]] = {}
    for one, column in placed:
        by_way.setdefault((one.model, how(one)), {}).setdefault(column, one)
    return [*(_whole(table, by_way) for table in tables()["tables"]), *(_groups(g, placed) for g in tables()["groups"])]


def notes(ones: Sequence[Reached]) -> list[str]:
    """What keeps the two from being the same measurement."""
    columns = dict.fromkeys(column for one in ones if (column := column_of(one.paper)) is not None)
    told = tables()["notes"]
    return [told["all"], *(told[column] for column in columns if column in told)] if columns else []


def _whole(table: dict[str, Any], by_way: dict[tuple[str, str], dict[str, Reached]]) -> Table:
    columns = tuple(dict.fromkeys(column for row in table["rows"].values() for column in row))
    asked = [column for column in columns if column != AVERAGE]
    rows = []
    for (model, way), found in by_way.items():
        fit = {c: one for c, one in found.items() if c in asked and one.mode == table["fits"]}
        if not fit:
            continue
        cells: dict[str, tuple[float, str]] = {c: (100 * one.accuracy, _spread(one)) for c, one in fit.items()}
        if AVERAGE in columns and len(fit) == len(asked):
            cells[AVERAGE] = (sum(cells[c][0] for c in asked) / len(asked), "")
        rows.append(Row(name=f"{model}, {way}", ours=True, cells=tuple(cells.get(column) for column in columns)))
    for model, printed in table["rows"].items():
        shown = tuple(_printed(printed.get(column)) for column in columns)
        rows.append(Row(name=model, ours=False, cells=shown))
    return Table(name=table["name"], mode=table["mode"], note=table.get("note", ""), columns=columns, rows=tuple(rows))


def _groups(table: dict[str, Any], placed: Sequence[tuple[Reached, str]]) -> Table:
    rows = []
    for one, column in placed:
        parts = {key(name): group for name, group in one.groups.items()}
        if column != table["column"] or one.mode != table["fits"] or not set(parts) & set(table["keys"]):
            continue
        cells = tuple((100 * parts[name].accuracy, "") if name in parts else None for name in table["keys"])
        rows.append(Row(name=f"{one.model}, {how(one)}", ours=True, cells=cells))
    for model, printed in table["rows"].items():
        rows.append(Row(name=model, ours=False, cells=tuple((value, "") for value in printed)))
    columns = tuple(name.replace("_", " ") for name in table["keys"])
    return Table(
        name=f"{table['name']}, by subject", mode=table["mode"], note=table.get("note", ""), columns=columns,
        rows=tuple(rows),
    )  # fmt: skip


def _spread(one: Reached) -> str:
    if one.sd is not None:
        return f"\u00b1 {100 * one.sd:.2g}"
    return f"{100 * one.low:.1f} to {100 * one.high:.1f}" if one.low is not None and one.high is not None else ""


def _printed(cell: Any) -> tuple[float, str] | None:
    if cell is None:
        return None
    if not isinstance(cell, list):
        return cell, ""
    return cell[0], f"\u00b1 {cell[1]:.{2 if cell[1] < 10 else 1}f}"  # as it is printed
