"""Folders of scores as values: what each model reached on each benchmark, and how sure it was.

Decides what a damaged or missing file means (a note, never a failure, unless nothing is left); foreign values are taken
for what they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from toolkit.errors import DataError
from toolkit.report.calibration import Reliability, confidence, reliability
from toolkit.report.values import number, text, whole
from toolkit.stats import wilson

SCORES, PREDICTIONS = "scores.json", "predictions.jsonl"
_BIGGEST = 64 << 20  # of scores.json
_LINE = 8 << 20  # of a line of predictions

Key = tuple[str, str, str, int, bool]  # model, benchmark, mode, shots, paper-compatible


@dataclass(frozen=True, kw_only=True)
class Group:
    accuracy: float
    n: int | None
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class Reached:
    """A model on a benchmark in a mode. Over several seeds `accuracy` is their mean, `sd` their sample standard
    deviation, and the interval that of the mean on the items of one; fractions in [0, 1].
    """

    model: str
    benchmark: str
    title: str
    mode: str
    shots: int
    compat: bool
    accuracy: float
    low: float | None
    high: float | None
    correct: int | None
    n: int | None
    invalid: int | None
    chance: float | None
    macro: float | None
    seeds: tuple[int, ...]
    sd: float | None
    engine: str
    paper: str | None
    groups: dict[str, Group]
    notes: tuple[str, ...]
    calibration: Reliability | None = None

    @property
    def key(self) -> Key:
        return self.model, self.benchmark, self.mode, self.shots, self.compat


def read(folders: Sequence[str | Path]) -> tuple[list[Reached], list[str]]:
    """What the folders hold, in their order, and notes on what could not be read. A run's folder stands for its
    stages/score. Two folders with the same model's name are told apart by theirs.

    Raises `DataError` for a folder that is not there or has no scores.
    """
    found: list[Reached] = []
    notes: list[str] = []
    names = [_name(Path(folder)) for folder in folders]
    for folder, name in zip(map(Path, folders), names, strict=True):
        here, said = _folder(folder)
        taken = {one.key for one in found}
        if any(one.key in taken for one in here):
            here = [replace(one, model=f"{one.model} ({name})") for one in here]
            if any(one.key in taken for one in here):
                raise DataError("the same scores twice", where=folder, do="name each folder once")
        found += here
        notes += [f"{name}: {line}" for line in said]
    return found, notes


def place(folder: Path) -> Path:
    """The folder with the files: itself, or that of a run's stage score."""
    inner = folder / "stages" / "score"
    return inner if not (folder / SCORES).is_file() and (inner / SCORES).is_file() else folder


def _name(folder: Path) -> str:
    return text(folder.resolve().name or str(folder), 60)


def _folder(folder: Path) -> tuple[list[Reached], list[str]]:
    home, notes = place(folder), list[str]()
    path = home / SCORES
    if not path.is_file():
        what = "there is no such folder" if not folder.is_dir() else f"no {SCORES} here"
        raise DataError(what, where=folder, do="give folders that `score run` wrote, or runs with a stage score")
    try:
        if path.stat().st_size > _BIGGEST:
            raise DataError(f"{SCORES} is larger than {_BIGGEST >> 20} MiB", where=folder, do="is it one?")
        rows = json.loads(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise DataError(f"{SCORES} cannot be read: {err.strerror}", where=folder) from None
    except (ValueError, RecursionError) as err:
        raise DataError(f"{SCORES} is damaged", where=folder, why=str(err)[:200], do="score again") from None
    if not isinstance(rows, list):
        raise DataError(f"{SCORES} holds no list", where=folder, do="score again")
    by_key: dict[Key, list[Reached]] = {}
    means: dict[Key, dict[str, Any]] = {}
    for row in rows:
        if isinstance(row, dict) and "seeds" in row:
            if (key := _key(row)) is not None:
                means[key] = row
        elif (one := _reached(row)) is not None:
            by_key.setdefault(one.key, []).append(one)
        else:
            notes.append(f"a row of {SCORES} without model, benchmark or accuracy is left out")
    sure = _calibrations(home / PREDICTIONS, notes)
    made = [replace(_merged(ones, means.get(key)), calibration=sure.get(key)) for key, ones in by_key.items()]
    if not made:
        raise DataError(f"no scores in {SCORES}", where=folder, do="score again")
    return made, notes


def _merged(ones: Sequence[Reached], mean: dict[str, Any] | None) -> Reached:
    first = ones[0]
    if len(ones) == 1:
        return first
    accuracy = sum(one.accuracy for one in ones) / len(ones)
    invalid = [one.invalid for one in ones if one.invalid is not None]
    macros = [one.macro for one in ones if one.macro is not None]
    low, high = wilson(accuracy * first.n, first.n) if first.n else (None, None)  # as of one seed: items repeat
    return replace(
        first,
        accuracy=accuracy,
        seeds=tuple(seed for one in ones for seed in one.seeds),
        sd=number((mean or {}).get("sd")),
        low=low,
        high=high,
        correct=None,
        invalid=sum(invalid) if invalid else None,
        macro=sum(macros) / len(macros) if macros else None,
        groups=_mean_groups(ones),
        notes=tuple(dict.fromkeys(note for one in ones for note in one.notes)),
    )


def _mean_groups(ones: Sequence[Reached]) -> dict[str, Group]:
    shared = [name for name in ones[0].groups if all(name in one.groups for one in ones)]
    return {
        name: _group(sum(one.groups[name].accuracy for one in ones) / len(ones), ones[0].groups[name].n)
        for name in shared
    }


def _group(accuracy: float, n: int | None) -> Group:
    low, high = wilson(accuracy * n, n) if n else (None, None)
    return Group(accuracy=accuracy, n=n, low=low, high=high)


def _key(row: dict[str, Any]) -> Key | None:
    model, benchmark = row.get("model"), row.get("benchmark")
    if not isinstance(model, str) or not isinstance(benchmark, str):
        return None
    mode, shots = text(row.get("mode") or "", 20), whole(row.get("shots")) or 0
    return text(model, 80), text(benchmark, 80), mode, shots, row.get("compat") is True


def _fraction(value: Any) -> float | None:
    found = number(value)
    return found if found is not None and 0 <= found <= 1 else None


def _reached(row: Any) -> Reached | None:
    if not isinstance(row, dict) or (key := _key(row)) is None:
        return None
    accuracy, n = _fraction(row.get("accuracy")), whole(row.get("n"))
    if accuracy is None:
        return None
    ends = row.get("ci95")
    bounds = [_fraction(end) for end in ends] if isinstance(ends, list) and len(ends) == 2 else [None, None]
    if None in bounds:
        bounds = list(wilson(accuracy * n, n)) if n else [None, None]
    groups, parts = {}, row.get("groups")
    for name, part in parts.items() if isinstance(parts, dict) else ():
        share = _fraction(part.get("accuracy")) if isinstance(part, dict) else None
        if share is not None:
            groups[text(name, 80)] = _group(share, whole(part.get("n")))
    notes, seed = row.get("notes"), whole(row.get("seed"))
    model, benchmark, mode, shots, compat = key
    return Reached(
        model=model,
        benchmark=benchmark,
        title=text(row.get("title") or benchmark, 120),
        mode=mode,
        shots=shots,
        compat=compat,
        accuracy=accuracy,
        low=bounds[0],
        high=bounds[1],
        correct=whole(row.get("correct")),
        n=n,
        invalid=whole(row.get("invalid")),
        chance=_fraction(row.get("chance")),
        macro=_fraction(row.get("macro")),
        seeds=() if seed is None else (seed,),
        sd=None,
        engine=text(" ".join(str(row.get(k) or "") for k in ("engine", "engine_version")).strip(), 60),
        paper=row["paper"] if isinstance(row.get("paper"), str) else None,
        groups=groups,
        notes=tuple(text(note) for note in notes) if isinstance(notes, list) else (),
    )


def _calibrations(path: Path, notes: list[str]) -> dict[Key, Reliability]:
    """Of letters alone: their probabilities compete for one token. Those of cloze texts do not."""
    answers: dict[Key, list[tuple[float, bool]]] = {}
    damaged = 0
    try:
        for row in _rows(path):
            key = _key(row) if row is not None else None
            if row is None or key is None:
                damaged += 1
                continue
            values, right = row.get("logprobs"), row.get("correct")
            if row.get("mode") != "letter" or not isinstance(values, list) or not isinstance(right, bool):
                continue
            sure = confidence([value for value in values if isinstance(value, (int, float))])
            if sure is not None:
                answers.setdefault(key, []).append((sure, right))
    except OSError as err:
        notes.append(f"{PREDICTIONS} cannot be read ({err.strerror}): no calibration")
    if damaged:
        notes.append(f"{PREDICTIONS}: {damaged} damaged line{'s' if damaged > 1 else ''} left out")
    return {key: found for key, ones in answers.items() if (found := reliability(ones)) is not None}


def _rows(path: Path) -> Iterator[dict[str, Any] | None]:
    """Each line's object, None for a line that holds none."""
    with open(path, "rb") as lines:
        while line := lines.readline(_LINE):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            yield row if isinstance(row, dict) else None
