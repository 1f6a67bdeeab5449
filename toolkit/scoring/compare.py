"""Two models on the same items: how far apart they are, how sure that is, and which items changed.

Decides what may be compared (the same benchmark, mode and shots, item by item) and by which tests; leaves whether a
difference is too much to `gate`.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit import files
from toolkit.errors import DataError, UsageError
from toolkit.scoring.output import PREDICTIONS, SCORES
from toolkit.stats import bootstrap_ci, mcnemar_exact, smallest_detectable

Key = tuple[str, str, int]  # benchmark, mode, shots


@dataclass(frozen=True, kw_only=True)
class Changed:
    """An item that one model has right and the other wrong. `before` and `after` are the answers, None if invalid.

    With several seeds they are each seed's, in the seeds' order.
    """

    benchmark: str
    mode: str
    shots: int
    id: str
    group: str
    gold: str
    before: Any
    after: Any


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One benchmark in one mode. Accuracies and `difference` (after less before) are in [0, 1], over `n` items.

    `low` and `high` bound the difference (95 %, paired bootstrap over items). `p` is McNemar's exact test, two-sided;
    with several seeds the same test on items whose mean over the seeds differs (a sign test). `smallest` is the
    difference that a test on these items shows with 80 % power at 5 %, None when no difference could.
    """

    benchmark: str
    mode: str
    shots: int
    seeds: tuple[int, ...]
    n: int
    before: float
    after: float
    difference: float
    low: float
    high: float
    p: float
    p_worse: float
    smallest: float | None
    invalid_before: int
    invalid_after: int
    worse: tuple[Changed, ...]
    better: tuple[Changed, ...]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """`a` and `b` are the models' names, or where these are the same what was compared; `notes` must be read with the
    numbers."""

    a: str
    b: str
    rows: tuple[Compared, ...]
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return json.loads(json.dumps(dataclasses.asdict(self)))


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    group: str
    gold: str
    prediction: str | None
    correct: bool
    valid: bool
    prompt: str


@dataclass(frozen=True, kw_only=True)
class _Results:
    model: str
    rows: Mapping[Key, Mapping[tuple[int, str], _Outcome]]
    hashes: Mapping[Key, set[str]]


def compare(a: str | Path, b: str | Path) -> Comparison:
    """What changed from `a` to `b`: folders with predictions.jsonl (and scores.json), or such a file of predictions.

    Raises DataError (missing, damaged, one id twice, two right answers for an item) and UsageError: nothing in
    common, several models in one folder, or a benchmark whose items or prompts are not the same.
    """
    one, two = _load(Path(a)), _load(Path(b))
    common = [key for key in one.rows if key in two.rows]
    notes = [
        f"only in {place}: {_name(key)}"
        for place, mine, other in ((a, one, two), (b, two, one))
        for key in mine.rows
        if key not in other.rows
    ]
    if not common:
        why = f"{_names(one)} against {_names(two)}"
        raise UsageError(
            "nothing was scored in the same way in both",
            where=f"{a}, {b}",
            why=why,
            do="score both with the same benchmark, mode and shots",
        )
    rows = []
    for key in common:
        hashes = one.hashes.get(key, set()), two.hashes.get(key, set())
        if all(hashes) and hashes[0].isdisjoint(hashes[1]):  # each seed may have its own
            why = "the items, the prompts or the benchmark's file changed between the two"
            raise UsageError(
                f"{_name(key)} is not the same benchmark in both",
                where=f"{a}, {b}",
                why=why,
                do="score one of them again",
            )
        rows.append(_compared(key, one.rows[key], two.rows[key], notes, b))
    models = (str(a), str(b)) if one.model == two.model else (one.model, two.model)
    return Comparison(a=models[0], b=models[1], rows=tuple(rows), notes=tuple(notes))


def _name(key: Key) -> str:
    return f"{key[0]} {key[1]}" + (f" {key[2]}-shot" if key[2] else "")


def _names(results: _Results) -> str:
    return ", ".join(_name(key) for key in results.rows)


def _compared(
    key: Key,
    one: Mapping[tuple[int, str], _Outcome],
    two: Mapping[tuple[int, str], _Outcome],
    notes: list[str],
    where: object,
) -> Compared:
    shared = [place for place in one if place in two]
    if not shared:
        raise UsageError(f"{_name(key)} has no item in common", where=where, do="score both on the same items")
    if len(shared) < max(len(one), len(two)):
        notes.append(f"{_name(key)}: {len(shared)} answers in common, of {len(one)} and {len(two)}")
    other = sum(bool(one[p].prompt and two[p].prompt) and one[p].prompt != two[p].prompt for p in shared)
    if other:
        notes.append(f"{_name(key)}: the prompts of {other} of {len(shared)} answers are not the same")
    by_item: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for place in shared:
        if one[place].gold != two[place].gold:
            why = f"{one[place].gold} in the one, {two[place].gold} in the other"
            raise DataError(
                f"{_name(key)}: the right answer of item '{place[1]}' is not the same", where=where, why=why
            )
        by_item[place[1]].append(place)
    before = {name: _mean([one[p].correct for p in places]) for name, places in by_item.items()}
    after = {name: _mean([two[p].correct for p in places]) for name, places in by_item.items()}
    differences = [after[name] - before[name] for name in by_item]
    worse = [name for name in by_item if after[name] < before[name]]
    better = [name for name in by_item if after[name] > before[name]]
    low, high = bootstrap_ci(differences)
    n = len(by_item)
    return Compared(
        benchmark=key[0],
        mode=key[1],
        shots=key[2],
        seeds=tuple(sorted({seed for seed, _ in shared})),
        n=n,
        before=_mean(list(before.values())),
        after=_mean(list(after.values())),
        difference=math.fsum(differences) / n,
        low=low,
        high=high,
        p=mcnemar_exact(len(worse), len(better)),
        p_worse=mcnemar_exact(len(worse), len(better), one_sided=True),
        smallest=smallest_detectable(n, (len(worse) + len(better)) / n),
        invalid_before=sum(not one[p].valid for p in shared),
        invalid_after=sum(not two[p].valid for p in shared),
        worse=tuple(_changed(key, by_item[name], one, two) for name in worse),
        better=tuple(_changed(key, by_item[name], one, two) for name in better),
    )


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _changed(
    key: Key,
    places: Sequence[tuple[int, str]],
    one: Mapping[tuple[int, str], _Outcome],
    two: Mapping[tuple[int, str], _Outcome],
) -> Changed:
    first = one[places[0]]
    before, after = ([side[p].prediction for p in sorted(places)] for side in (one, two))
    return Changed(
        benchmark=key[0],
        mode=key[1],
        shots=key[2],
        id=places[0][1],
        group=first.group,
        gold=first.gold,
        before=before[0] if len(before) == 1 else before,
        after=after[0] if len(after) == 1 else after,
    )


def _load(path: Path) -> _Results:
    file = path / PREDICTIONS if path.is_dir() else path
    rows: dict[Key, dict[tuple[int, str], _Outcome]] = {}
    models: dict[str, None] = {}
    try:
        with open(file, "rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    _take(line, f"{file}:{number}", rows, models)
    except FileNotFoundError:
        what = (
            f"the folder has no {PREDICTIONS}" if path.is_dir() else "no such folder of scores, or file of predictions"
        )
        raise DataError(what, where=path, do="give the folder that `score run` wrote") from None
    except OSError as err:
        raise DataError(f"cannot be read: {err.strerror or err}", where=file) from err
    if not rows:
        raise DataError("no predictions", where=file, do="score again")
    if len(models) > 1:
        raise UsageError(
            f"several models in one folder: {', '.join(models)}", where=path, do="compare folders of one model each"
        )
    return _Results(model=next(iter(models)) or path.name, rows=rows, hashes=_hashes(path))


def _take(line: bytes, where: str, rows: dict[Key, dict[tuple[int, str], _Outcome]], models: dict[str, None]) -> None:
    again = "the file may be damaged or cut short: score again"
    try:
        row = json.loads(line)
        key = (row["benchmark"], row.get("mode", ""), row.get("shots", 0))
        place = (row.get("seed", 0), str(row["id"]))
        prediction, correct = row.get("prediction"), row["correct"]
        valid = row.get("valid", prediction is not None)
        outcome = _Outcome(
            group=str(row.get("group", "")),
            gold=str(row["gold"]),
            prediction=None if prediction is None else str(prediction),
            correct=correct,
            valid=valid,
            prompt=str(row.get("prompt_sha256", "")),
        )
    except KeyError as err:
        raise DataError(f"the field {err} is missing", where=where, do=again) from None
    except (ValueError, TypeError, AttributeError, RecursionError) as err:
        raise DataError("is not a prediction", where=where, why=str(err)[:120], do=again) from None
    kinds = ((key[0], str), (key[1], str), (key[2], int), (place[0], int), (correct, bool), (valid, bool))
    if any(type(value) is not kind for value, kind in kinds):
        raise DataError("is not a prediction: a field has another type", where=where, do=again)
    known = rows.setdefault(key, {})
    if place in known:
        raise DataError(f"the item '{place[1]}' appears twice in {_name(key)}", where=where, do="score again")
    known[place] = outcome
    models[str(row.get("model", ""))] = None


def _hashes(path: Path) -> dict[Key, set[str]]:
    """The benchmark hashes that scores.json tells; none when there is no such file."""
    if not (path / SCORES).is_file():
        return {}
    found: dict[Key, set[str]] = defaultdict(set)
    try:
        for row in files.read_json(path / SCORES):
            if row.get("benchmark_sha256"):
                found[row["benchmark"], row.get("mode", ""), row.get("shots", 0)].add(row["benchmark_sha256"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as err:
        raise DataError(
            "no scores that can be read", where=path / SCORES, why=str(err)[:120], do="score again"
        ) from None
    return dict(found)
