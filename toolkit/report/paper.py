"""The paper's numbers for a benchmark that it reports too, with table and mode. The numbers are in `paper.yaml`."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Published:
    """One accuracy as printed, a fraction; `spread` is the standard deviation over prompts where the table has one."""

    table: str
    mode: str
    model: str
    accuracy: float
    spread: float | None


@dataclass(frozen=True, kw_only=True)
class Landmarks:
    """What the paper says about one benchmark; `groups`: by key one value for each (table, mode, model) of `heads`."""

    column: str
    published: tuple[Published, ...]
    notes: tuple[str, ...]
    heads: tuple[tuple[str, str, str], ...]
    groups: dict[str, tuple[float | None, ...]]


OURS = ("Llama-2-7B", "MEDITRON-7B", "Llama-2-70B", "MEDITRON-70B")
"""What a run is compared with: the paper's own models, and what they began with."""


@functools.cache
def tables() -> dict[str, Any]:
    import yaml

    return yaml.safe_load(Path(__file__).with_name("paper.yaml").read_text(encoding="utf-8"))


def key(name: str) -> str:
    """A group's or column's name without case, spaces and punctuation."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def column_of(name: str | None) -> str | None:
    """The column of the tables that a benchmark's name means; None where there is none."""
    names = {key(alias): column for column, aliases in tables()["columns"].items() for alias in [column, *aliases]}
    return names.get(key(name)) if name else None


def landmarks(name: str | None) -> Landmarks | None:
    """The paper's numbers for the column `name` of its tables, or None where it has no such column."""
    if not name:
        return None
    data = tables()
    column = column_of(name)
    if column is None:
        return None
    published, notes = [], [data["notes"]["all"], data["notes"].get(column, "")]
    for table in data["tables"]:
        cells = {model: row[column] for model, row in table["rows"].items() if column in row and model in OURS}
        for model, cell in cells.items():
            value, spread = cell if isinstance(cell, list) else (cell, None)
            published.append(
                Published(
                    table=table["name"],
                    mode=table["mode"],
                    model=model,
                    accuracy=value / 100,
                    spread=None if spread is None else spread / 100,
                )
            )
        if cells and table.get("note"):
            notes.append(f"{table['name']}: {table['note']}")
    heads: list[tuple[str, str, str]] = []
    groups: dict[str, list[float | None]] = {}
    for table in data["groups"]:
        if table["column"] != column:
            continue
        if table.get("note"):
            notes.append(f"{table['name']}: {table['note']}")
        for model, cells in ((model, cells) for model, cells in table["rows"].items() if model in OURS):
            for name_, cell in zip(table["keys"], cells, strict=True):
                groups.setdefault(name_, [None] * len(heads)).append(cell / 100)
            heads.append((table["name"], table["short"], model))
    return Landmarks(
        column=column,
        published=tuple(published),
        notes=tuple(note for note in notes if note),
        heads=tuple(heads),
        groups={name_: tuple(cells) for name_, cells in groups.items()},
    )
