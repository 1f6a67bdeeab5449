"""What a benchmark is: a small YAML file that says how to read, ask and judge it.

Decides what such a file may say and whether a set of items is whole; leaves the single row to `rows`.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolkit.errors import DataError, UsageError, nearest
from toolkit.scoring import readers, rows
from toolkit.scoring.items import LETTERS, Item

FOLDER = Path(__file__).resolve().parents[2] / "recipes" / "benchmark"
MODES = ("letter", "cloze")
_CHOICES = {
    "format": ("jsonl", "json_by_id", "csv_folder"),
    "gold": ("letter", "index", "number", "index_or_number", "word"),
    "mode": MODES,
    "cloze": ("mean", "sum"),
}
_FIELDS = ("id", "question", "prompt", "context", "options", "answer", "group")


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """How to read, ask and judge one benchmark.

    `format`: `jsonl` (rows, or one JSON array), `json_by_id` (one object) or `csv_folder` (a headerless file a group:
    question, options, letter). `files` are the names looked for when the path is a folder (`{group}` in a
    `csv_folder`); `fold` is a JSON file beside them whose keys are the ids of the split. `fields` maps item fields
    to the file's own names. `gold` says what the answer field holds: a letter, a 0-based index, a 1-based number,
    either of the two (told apart over the whole file) or the answer's word. `answers` is the answer space, letters or
    words. `size`, `groups` and `gold_counts` are the true counts of the whole split. `cloze` names the likelihood
    that decides: mean or sum over the option's tokens. `paper` is the column of the MEDITRON paper's tables.
    """

    name: str
    title: str
    format: str
    fields: Mapping[str, str | list[str]] = field(default_factory=dict)
    gold: str = "letter"
    answers: tuple[str, ...] = ("A", "B", "C", "D")
    path: str | None = None
    files: tuple[str, ...] = ()
    fold: str | None = None
    split: str = "test"
    size: int | None = None
    groups: Mapping[str, int] = field(default_factory=dict)
    gold_counts: Mapping[str, int] = field(default_factory=dict)
    instruction: str = ""
    compatible_with: str = ""
    mode: str = "letter"
    cloze: str = "mean"
    paper: str | None = None

    @property
    def listed(self) -> bool:
        """Whether answers are letters of listed options (else they are words, and nothing is listed)."""
        return self.answers == tuple(LETTERS[: len(self.answers)])


def names(folder: Path = FOLDER) -> list[str]:
    return sorted(path.stem for path in Path(folder).glob("*.yaml"))


def get(name: str | Path, folder: Path = FOLDER) -> Benchmark:
    """The benchmark of that name, or of that YAML file. Raises UsageError (no such one) or DataError (a bad file)."""
    path = Path(name) if str(name).endswith((".yaml", ".yml")) else Path(folder) / f"{name}.yaml"
    if not path.is_file():
        raise UsageError(f"no benchmark '{name}'", where=path.parent, do=nearest(path.stem, names(path.parent)))
    return parse(path)


def parse(path: Path) -> Benchmark:
    """Read one benchmark file. Raises DataError: not YAML, unknown key, wrong type, a choice that does not exist."""
    import yaml

    try:
        raw = yaml.safe_load(readers.read_text(path))
    except (yaml.YAMLError, RecursionError) as err:
        raise DataError("is not valid YAML", where=path, why=" ".join(str(err).split())) from None
    if not isinstance(raw, dict):
        raise DataError("a benchmark file must be a mapping", where=path)
    known = {f.name: f for f in dataclasses.fields(Benchmark) if f.name != "name"}
    for key in raw:
        if key not in known:
            raise DataError(f"unknown key '{key}'", where=path, do=nearest(str(key), known))
    for key in ("title", "format"):
        if key not in raw:
            raise DataError(f"the key '{key}' is missing", where=path)
    values = {key: _typed(path, key, value, str(known[key].type)) for key, value in raw.items()}
    for key, allowed in _CHOICES.items():
        if key in values and values[key] not in allowed:
            raise DataError(f"{key}: '{values[key]}' is not known", where=path, do=nearest(values[key], allowed))
    for key in values.get("fields", {}):
        if key not in _FIELDS:
            raise DataError(f"fields: unknown item field '{key}'", where=path, do=nearest(key, _FIELDS))
    if values["format"] != "csv_folder":  # whose columns are known by their order
        for wanted in (("question", "prompt"), ("answer",)):
            if not set(wanted) & set(values.get("fields", {})):
                raise DataError(f"fields does not say where the {' or '.join(wanted)} is", where=path)
    return Benchmark(name=path.stem, **values)


def _typed(path: Path, key: str, value: Any, kind: str) -> Any:
    """`value` as the annotation `kind` of the dataclass asks, or DataError; `yes` and `no` must be quoted in YAML."""
    if value is None and "None" in kind:
        return None
    text = isinstance(value, str)
    if kind.startswith("str") and text:
        return value.strip()
    if kind.startswith("int") and type(value) is int:
        return value
    if kind.startswith("tuple") and isinstance(value, list) and value and all(isinstance(v, str) for v in value):
        return tuple(value)
    if kind.startswith("Mapping") and isinstance(value, dict) and all(isinstance(k, str) for k in value):
        number = kind == "Mapping[str, int]"
        if all(type(v) is int if number else _is_field(v) for v in value.values()):
            return dict(value)
    wanted = {"str": "text", "int": "a whole number", "tup": "a list of texts", "Map": "a mapping"}[kind[:3]]
    hint = "put yes and no between quotes" if key in ("answers", "gold_counts") else ""
    raise DataError(f"{key} must be {wanted}, not {value!r}"[:200], where=path, do=hint)


def _is_field(value: Any) -> bool:
    return isinstance(value, str) or (
        isinstance(value, list) and value != [] and all(isinstance(v, str) for v in value)
    )


def load(spec: Benchmark, path: str | Path | None = None) -> list[Item]:
    """All items of `spec` at `path` (a file, or the folder that holds it; default: the benchmark's own path).

    Raises DataError, naming file and row, for a missing, empty, damaged or foreign file, a missing or mistyped field,
    an answer outside the options, and an id that two items share.
    """
    path = path if path is not None else spec.path
    if path is None:
        do = "give --path, or set path in the benchmark's file"
        raise DataError(f"benchmark '{spec.name}' does not say where its file is", do=do)
    path = Path(path)
    items, seen = [], {}
    for where, item in rows.READ[spec.format](spec, path):
        if item.id in seen:
            raise DataError(f"the id '{item.id}' appears twice", where=where, why=f"first at {seen[item.id]}")
        seen[item.id] = where
        items.append(item)
    if not items:
        raise DataError("the benchmark has no items", where=path)
    return items


def size_notes(spec: Benchmark, items: Sequence[Item]) -> list[str]:
    """Where the set differs from the whole benchmark: sentences for the result, none when the counts are true."""
    notes = []
    if spec.size is not None and len(items) != spec.size:
        notes.append(f"{len(items)} items, where the whole {spec.split} split of {spec.title} has {spec.size}")
    counts = Counter(item.group for item in items)
    off = [f"{name} {counts[name]} of {n}" for name, n in spec.groups.items() if counts[name] != n]
    if off:
        notes.append(f"groups that are not whole: {', '.join(off)}")
    if spec.gold_counts and len(items) == spec.size:
        gold = Counter(item.labels[item.gold] for item in items)
        if gold != Counter(spec.gold_counts):
            notes.append(f"right answers are distributed as {dict(sorted(gold.items()))}, not {dict(spec.gold_counts)}")
    return notes
