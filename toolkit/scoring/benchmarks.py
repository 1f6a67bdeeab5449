"""What a benchmark is: a small YAML file that says how to read, ask and judge it.

Decides what such a file may say and whether a set of items is whole; leaves the single row to `rows`.
"""

from __future__ import annotations

import dataclasses
import reprlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolkit.errors import DataError, UsageError, nearest
from toolkit.scoring import readers, rows, sources
from toolkit.scoring.items import LETTERS, Item
from toolkit.scoring.prompts import MODES

FOLDER = Path(__file__).resolve().parents[2] / "recipes" / "benchmark"
SPLITS = ("test", "train", "demonstrations")
_GOLD = ("letter", "index", "number", "index_or_number", "word")
_CHOICES = {
    "format": tuple(rows.READ),
    "gold": _GOLD,
    "mode": MODES,
    "modes": MODES,
    "cloze": ("mean", "sum"),
    "demonstrate": ("pooled", "by_group"),
}
_PLACES = ("files", "fold", "train", "demonstrations")
_FIELDS = ("id", "question", "prompt", "context", "options", "answer", "group", "explanation")


@dataclass(frozen=True, kw_only=True)
class Hub:
    """The same rows on huggingface.co or a mirror of it, fetched only when that is asked for.

    `path` is the data set's name, `revision` a commit, `config` and `split` its own names for what is read. `files`,
    `train` and `demonstrations` are paths in it (`{group}` for each group). `fields` and `gold` are how its files
    differ from the original ones; a file of that form is taken from the disk just as well.
    """

    path: str
    revision: str
    files: tuple[str, ...]
    config: str = ""
    split: str = "test"
    train: tuple[str, ...] = ()
    demonstrations: tuple[str, ...] = ()
    fields: Mapping[str, str | list[str]] = field(default_factory=dict)
    gold: str | None = None


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """How to read, ask and judge one benchmark.

    `format`: `jsonl` (rows: JSON lines, one JSON array, CSV with a header, or parquet), `json_by_id` (one object),
    `csv_folder` (a headerless file a group: question, options, letter) or `truthfulqa` (that benchmark's own CSV, or
    its multiple-choice rows). `files` are the names looked for when the path is a folder (`{group}` in a
    `csv_folder`); `fold` is a JSON file beside them whose keys are the ids of the split. `train` are the files of the
    training split, `demonstrations` those that demonstrations are drawn from where these are others; `train_size` is
    the training split's true size. `fields` maps item fields to the file's own names, `a.b` for b inside a. `gold`
    says what the answer field holds: a letter, a 0-based index, a 1-based number, either of the two (told apart over
    the whole file) or the answer's word. `answers` is the answer space, letters or words. `size`, `groups` and
    `gold_counts` are the true counts of the whole split. `cloze` names the likelihood that decides: mean or sum over
    the option's tokens. `mode` is the usual one of `modes`, `shots` the usual number of demonstrations, and
    `demonstrate` whether those come from all groups or from the question's own. `paper` is the column of the MEDITRON
    paper's tables.
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
    train: tuple[str, ...] = ()
    train_size: int | None = None
    demonstrations: tuple[str, ...] = ()
    demonstrate: str = "pooled"
    shots: int = 0
    instruction: str = ""
    compatible_with: str = ""
    license: str = ""
    notes: str = ""
    mode: str = "letter"
    modes: tuple[str, ...] = MODES
    cloze: str = "mean"
    paper: str | None = None
    hub: Hub | None = None

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
    values = _values(path, raw, Benchmark, "", ("title", "format"))
    if isinstance(raw.get("hub"), dict):
        values["hub"] = Hub(**_values(path, raw["hub"], Hub, "hub.", ("path", "revision", "files")))
    if values["format"] not in ("csv_folder", "truthfulqa"):  # whose columns are known
        for wanted in (("question", "prompt"), ("answer",)):
            if not set(wanted) & set(values.get("fields", {})):
                raise DataError(f"fields does not say where the {' or '.join(wanted)} is", where=path)
    spec = Benchmark(name=path.stem, **values)
    if "mode" not in values and spec.mode not in spec.modes:
        spec = dataclasses.replace(spec, mode=spec.modes[0])
    if spec.mode not in spec.modes:
        raise DataError(f"mode: '{spec.mode}' is not one of its modes", where=path, do=f"modes: {list(spec.modes)}")
    if spec.shots < 0:
        raise DataError(f"shots must be at least 0, not {spec.shots}", where=path)
    if len(set(spec.answers)) < max(2, len(spec.answers)):
        raise DataError(f"answers must be two or more, all different, not {list(spec.answers)}", where=path)
    return spec


def _values(path: Path, raw: Mapping[str, Any], kind: type, prefix: str, needed: Sequence[str]) -> dict[str, Any]:
    """What `raw` says of a `kind`, each of the type that it asks; `hub` is left to its own."""
    known = {f.name: f for f in dataclasses.fields(kind) if f.name != "name"}
    for key in raw:
        if key not in known:
            raise DataError(f"unknown key '{prefix}{key}'", where=path, do=nearest(str(key), known))
    for key in needed:
        if key not in raw:
            raise DataError(f"the key '{prefix}{key}' is missing", where=path)
    values = {}
    for key, value in raw.items():
        if key == "hub" and isinstance(value, dict):
            continue
        values[key] = _typed(path, prefix + key, value, str(known[key].type))
        for one in values[key] if isinstance(values[key], tuple) else (values[key],):
            if key in _CHOICES and one is not None and one not in _CHOICES[key]:
                raise DataError(f"{prefix}{key}: '{one}' is not known", where=path, do=nearest(one, _CHOICES[key]))
            if key in _PLACES and one and (Path(one).is_absolute() or ".." in Path(one).parts):
                raise DataError(f"{prefix}{key}: '{one}' is not inside the benchmark's folder", where=path)
    for key in values.get("fields", {}):
        if key not in _FIELDS:
            raise DataError(f"{prefix}fields: unknown item field '{key}'", where=path, do=nearest(key, _FIELDS))
    return values


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
    wanted = {"str": "text", "int": "a whole number", "tup": "a list of texts"}.get(kind[:3], "a mapping")
    hint = "put yes and no between quotes" if key in ("answers", "gold_counts") else ""
    # Not repr: a few lines of YAML that name each other have a text without end.
    raise DataError(f"{key} must be {wanted}, not {reprlib.repr(value)}"[:200], where=path, do=hint)


def _is_field(value: Any) -> bool:
    return isinstance(value, str) or (
        isinstance(value, list) and value != [] and all(isinstance(v, str) for v in value)
    )


def load(
    spec: Benchmark,
    path: str | Path | None = None,
    *,
    split: str = "test",
    train_path: str | Path | None = None,
    seed: int = 0,
    compat: bool = False,
) -> list[Item]:
    """All items of `spec` at `path` (a file, or the folder that holds it; default: the benchmark's own path).

    `split`: `test` (what is scored, whatever the benchmark calls it), `train`, or `demonstrations` (the training
    split where the benchmark has no others). These two are read at `train_path`, else from their own files in the
    folder `path` or beside the file `path`. `seed` draws the wrong options of benchmarks that have more than are
    asked (scores use 0, whatever their own seed, so that items stay the same); `compat` draws them, and leaves rows
    out, as the code released with the MEDITRON paper does.

    Raises UsageError for an unknown split and DataError, naming file and row, for a missing, empty, damaged or
    foreign file, a missing or mistyped field, an answer outside the options, and an id that two items share.
    """
    if split not in SPLITS:
        raise UsageError(f"unknown split '{split}'", do=nearest(split, SPLITS))
    place = path if path is not None else spec.path
    if split != "test" and train_path is not None:
        place = train_path
    if place is None:
        do = "give --path, or set path in the benchmark's file"
        raise DataError(f"benchmark '{spec.name}' does not say where its file is", do=do)
    place = Path(place)
    source = sources.find(spec, place, split=split, given=train_path is not None, seed=seed, compat=compat)
    items: list[Item] = []
    seen: dict[str, str] = {}
    for where, item in rows.READ[spec.format](source):
        if item.id in seen:
            raise DataError(f"the id '{item.id}' appears twice", where=where, why=f"first at {seen[item.id]}")
        seen[item.id] = where
        items.append(item)
    if not items:
        raise DataError("the benchmark has no items", where=place)
    return items


def size_notes(spec: Benchmark, items: Sequence[Item], split: str = "test") -> list[str]:
    """Where the set differs from the whole benchmark: sentences for the result, none when the counts are true."""
    notes = []
    size, name = (spec.size, spec.split) if split == "test" else (spec.train_size, "training")
    if split != "demonstrations" and size is not None and len(items) != size:
        notes.append(f"{len(items)} items, where the whole {name} split of {spec.title} has {size}")
    if split != "test":
        return notes
    counts = Counter(item.group for item in items)
    off = [f"{name} {counts[name]} of {n}" for name, n in spec.groups.items() if counts[name] != n]
    if off:
        notes.append(f"groups that are not whole: {', '.join(off)}")
    if spec.gold_counts and len(items) == spec.size:
        gold = Counter(item.labels[item.gold] for item in items)
        if gold != Counter(spec.gold_counts):
            notes.append(f"right answers are distributed as {dict(sorted(gold.items()))}, not {dict(spec.gold_counts)}")
    return notes
