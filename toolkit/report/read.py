"""A run folder as values: recipe, manifest, stages, curves and scores, whatever of them is there already.

Decides what a damaged or missing file means (a note, never a failure); leaves to the page how it reads.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from toolkit.energy import measured_w
from toolkit.errors import RunError
from toolkit.report.record import Curve, Record, Score, Stage
from toolkit.report.values import moment, number, text, whole
from toolkit.stats import wilson

FAILED = {"failed", "error", "cancelled", "canceled", "timeout", "node_fail", "out_of_memory", "killed", "interrupted"}
FAILED |= {"crashed", "hung", "lost"}  # as a job on Slurm says it
RUNNING = {"running", "stopped", "pending", "submitted", "queued", "requeued", "started", "preempted", "suspended"}
_BIGGEST_FILE = 64 << 20
_MOST_STAGES = 100


def read(run: str | Path) -> Record:
    """Read the run folder `run`. Raises `RunError` where there is no folder, or one that holds nothing of a run."""
    root = Path(run)
    if not root.is_dir():
        what = "is a file, not a run folder" if root.exists() else "there is no such run folder"
        raise RunError(what, where=root, do="name a folder under runs/")
    if not any((root / name).exists() for name in ("recipe.yaml", "manifest.json", "jobs.json", "stages")):
        raise RunError(
            "this folder is no run",
            where=root,
            why="it holds none of recipe.yaml, manifest.json, jobs.json and stages/",
            do="name a folder under runs/",
        )
    notes: list[str] = []
    recipe_text, recipe = _recipe(root, notes)
    manifest = _json(root, "manifest.json", dict, notes)
    named = manifest.get("run")
    return Record(
        root=root,
        run=text(named, 120) if isinstance(named, str) and named else text(root.resolve().name, 120),
        recipe=recipe,
        recipe_text=recipe_text,
        manifest=manifest,
        manifest_text=_text(root, "manifest.json", []) or "",
        plan=_json(root, "plan.json", dict, notes),
        stages=_stages(root, recipe, notes),
        pretrain=_curve(root, "stages/pretrain/metrics.jsonl", notes),
        finetune=_curve(root, "stages/finetune/metrics.jsonl", notes),
        scores=_scores(root, notes),
        preflight=_json(root, "stages/preflight/preflight.json", dict, notes),
        notes=tuple(notes),
    )


def _text(root: Path, name: str, notes: list[str]) -> str | None:
    path = root / name
    try:
        if not path.is_file():
            if path.exists():
                notes.append(f"{name} is not a file")
            return None
        if path.stat().st_size > _BIGGEST_FILE:
            notes.append(f"{name} is larger than {_BIGGEST_FILE >> 20} MiB and was left out")
            return None
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as err:
        notes.append(f"{name} could not be read: {err.strerror}")
        return None


def _json(root: Path, name: str, kind: type, notes: list[str]) -> Any:
    """The JSON value of type `kind` in a file, or an empty one with a note; absent files need no note."""
    body = _text(root, name, notes)
    if body is None:
        return kind()
    try:
        value = json.loads(body)
    except json.JSONDecodeError as err:
        notes.append(f"{name} is damaged (line {err.lineno}: {err.msg}) and was left out")
        return kind()
    except (RecursionError, ValueError):
        notes.append(f"{name} is damaged and was left out")
        return kind()
    if not isinstance(value, kind):
        notes.append(f"{name} does not hold a JSON {'object' if kind is dict else 'list'} and was left out")
        return kind()
    return value


def _recipe(root: Path, notes: list[str]) -> tuple[str, dict[str, Any]]:
    import yaml

    body = _text(root, "recipe.yaml", notes)
    if body is None:
        return "", {}
    try:
        value = yaml.safe_load(body)
    except (yaml.YAMLError, RecursionError, ValueError) as err:
        mark = getattr(err, "problem_mark", None)
        notes.append(f"recipe.yaml is damaged{f' (line {mark.line + 1})' if mark else ''}; its values are left out")
        return body, {}
    if not isinstance(value, dict):
        notes.append("recipe.yaml does not hold a mapping; its values are left out")
        return body, {}
    return body, value


def _object(value: Any) -> dict[str, Any]:
    return {str(key): item for key, item in value.items()} if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _stages(root: Path, recipe: dict[str, Any], notes: list[str]) -> tuple[Stage, ...]:
    """The recipe's stages in its order, then those that only jobs.json or the stages folder know.

    A kind may stand twice in a recipe (export after each training): each takes the next job or folder of its kind.
    """
    done = {name: _json(root, f"stages/{name}/done.json", dict, notes) for name in _finished(root)}
    jobs: dict[str, list[dict[str, Any]]] = {}
    known: dict[str, str] = {}
    for item in map(_object, _list(_json(root, "jobs.json", dict, notes).get("stages"))):
        if isinstance(item.get("id"), str):
            known[item["id"]] = str(item.get("stage") or item["id"])
            jobs[item["id"]] = [_object(attempt) for attempt in _list(item.get("attempts"))]
            if item.get("jobs"):  # on Slurm each job writes down its own attempts
                file = f"stages/{Path(item['id']).name}/attempts.json"
                kept = _json(root, file, dict, notes) if (root / file).is_file() else {}
                jobs[item["id"]] = [_object(attempt) for attempt in _list(kept.get("attempts"))]
    for name in sorted(done, key=lambda name: str(done[name].get("started") or "")):
        known.setdefault(name, str(done[name].get("stage") or name))
    order: dict[str, str] = {}
    for kind in (item for item in _list(recipe.get("stages")) if isinstance(item, str)):
        name = next((name for name, of in known.items() if kind in (of, name) and name not in order), None)
        order[name or _unused(kind, order)] = kind
    order.update({name: kind for name, kind in known.items() if name not in order})
    if len(order) > _MOST_STAGES:
        notes.append(f"{len(order) - _MOST_STAGES} of {len(order)} stages are not shown")
    return tuple(
        _stage(name, kind, jobs.get(name, []), done.get(name)) for name, kind in list(order.items())[:_MOST_STAGES]
    )


def _finished(root: Path) -> list[str]:
    folder = root / "stages"
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if (path / "done.json").is_file())[: 2 * _MOST_STAGES]


def _unused(kind: str, taken: dict[str, str]) -> str:
    return next(name for name in (kind, *(f"{kind} ({i})" for i in range(2, len(taken) + 3))) if name not in taken)


def _stage(name: str, kind: str, attempts: list[dict[str, Any]], done: dict[str, Any] | None) -> Stage:
    states = tuple(str(attempt.get("state") or "unknown").lower() for attempt in attempts)
    last = attempts[-1] if attempts else {}
    word = (states[-1].split() or [""])[0] if states else ""
    state = "failed" if word in FAILED else "running" if word in RUNNING else "waiting"
    state = state if done is None else "done"
    fields = done or {}
    started, ended = (moment(fields.get(key)) or moment(last.get(key)) for key in ("started", "ended"))
    elapsed = number(fields.get("elapsed_s"))
    if elapsed is None and started and ended:
        elapsed = (ended - started).total_seconds()
    return Stage(
        id=name,
        stage=kind,
        state=state,
        started=started,
        ended=ended,
        elapsed_s=elapsed,
        attempts=states,
        outputs={key: str(value) for key, value in _object(fields.get("outputs")).items()},
        result=_object(fields.get("result")),
    )


def _curve(root: Path, name: str, notes: list[str]) -> Curve:
    """Rows by step, the last one of a step wins; a damaged last line is a file being written and needs no note."""
    lines = (_text(root, name, notes) or "").split("\n")
    rows: dict[str, dict[int, float]] = {}
    steps: set[int] = set()
    resumed: list[int] = []
    events: list[tuple[int, str, dict[str, Any]]] = []
    damaged, last = 0, -1
    for index, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            step = whole(row.get("step"))
        except (ValueError, RecursionError, AttributeError):
            damaged += index < len(lines) - 1
            continue
        if step is None:
            damaged += 1
            continue
        if "event" in row:  # its details may be named like figures
            details = {key: value for key, value in row.items() if key not in ("step", "event")}
            events.append((step, text(row["event"], 40), details))
            continue
        if "loss" in row:
            if step <= last:
                resumed.append(step)
            last = step
            steps.add(step)
        for key, value in row.items():
            if key != "step" and (isinstance(value, (int, float)) and not isinstance(value, bool) or value is None):
                good = number(value)
                rows.setdefault(key, {})[step] = math.nan if good is None else good
    if damaged:
        notes.append(f"{name}: {damaged} damaged line{'s' if damaged > 1 else ''} left out")
    columns = {key: tuple(sorted(values.items())) for key, values in rows.items()}
    try:
        watts = measured_w((root / name).parent / "power")
    except OSError as err:
        notes.append(f"the power files beside {name} could not be read: {err.strerror}")
        watts = None
    return Curve(
        steps=tuple(sorted(steps)),
        columns=columns,
        resumed=tuple(sorted(set(resumed))),
        damaged=damaged,
        events=tuple(events),
        watts=watts,
    )


def _fraction(value: Any) -> float | None:
    value = number(value)
    return value if value is not None and 0 <= value <= 1 else None


def _scores(root: Path, notes: list[str]) -> tuple[Score, ...]:
    name = "stages/score/scores.json"
    found: dict[tuple[str, str, int, str], Score] = {}
    left_out = 0
    for row in map(_object, _json(root, name, list, notes)):
        score = _score(row)
        if score is None:
            left_out += 1
            continue
        key = (score.benchmark, score.mode, score.shots, score.model)
        if score.seeds == 1 or key not in found:
            found[key] = score
        else:  # the row of several seeds together says less of the rest, and comes last
            mean = {"accuracy": score.accuracy, "seeds": score.seeds, "sd": score.sd, "invalid": score.invalid}
            found[key] = replace(found[key], **mean, low=score.low, high=score.high, correct=None)
    if left_out:
        notes.append(
            f"{name}: {left_out} row{'s' if left_out > 1 else ''} without model, benchmark or accuracy left out"
        )
    return tuple(found.values())


def _score(row: dict[str, Any]) -> Score | None:
    model, benchmark = row.get("model"), row.get("benchmark")
    n, correct = whole(row.get("n")), whole(row.get("correct"))
    accuracy = _fraction(row.get("mean", row.get("accuracy")))
    if accuracy is None and n and correct is not None and correct <= n:
        accuracy = correct / n
    if not isinstance(model, str) or not isinstance(benchmark, str) or accuracy is None:
        return None
    bounds = [_fraction(value) for value in _list(row.get("ci95"))]
    if len(bounds) != 2 or None in bounds or not bounds[0] <= accuracy <= bounds[1]:
        bounds = list(wilson(accuracy * n, n)) if n else [None, None]
    groups = {}
    for name, value in _object(row.get("groups")).items():
        part = _fraction(_object(value).get("accuracy"))
        if part is not None:
            groups[name] = (part, whole(_object(value).get("n")))
    notes, seeds = row.get("notes"), _list(row.get("seeds"))
    return Score(
        model=model,
        benchmark=benchmark,
        title=str(row.get("title") or benchmark),
        mode=str(row.get("mode") or ""),
        accuracy=accuracy,
        correct=correct,
        n=n,
        chance=_fraction(row.get("chance")),
        low=bounds[0],
        high=bounds[1],
        groups=groups,
        paper=row["paper"] if isinstance(row.get("paper"), str) else None,
        notes=tuple(str(note) for note in (notes if isinstance(notes, list) else [notes] if notes else [])),
        shots=whole(row.get("shots")) or 0,
        seeds=max(1, len(seeds)),
        sd=number(row.get("sd")),
        invalid=whole(row.get("invalid")),
    )
