"""A run at a glance, from its files alone: its state, where it stands, what it lost time with. Decides what state the
files amount to, and reads no large file; hashes, and with them whether a stage would run again, are left to others.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from toolkit.errors import RunError, ToolkitError
from toolkit.recipe import Recipe, load
from toolkit.runs.lock import Holder, holder
from toolkit.runs.peek import json_object, json_or_nothing, last_rows, read_bytes
from toolkit.runs.text import finite, harmless, number, whole

_ENDED_BADLY = {"FAILED": "failed", "CANCELLED": "interrupted", "RUNNING": "interrupted"}
_SIGNS_OF_A_RUN = ("recipe.yaml", "jobs.json", "plan.json", "manifest.json")


class StepLike(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def stage(self) -> str: ...


Order = Callable[[Recipe], Sequence[StepLike]]


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """Times in seconds since 1970; `logs` are the sizes of the stage's logs when it began, None where not recorded."""

    job_id: str
    state: str
    started: float | None
    ended: float | None
    logs: Mapping[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class Stage:
    """`state` is done, running, failed, interrupted or waiting; `elapsed_s` that of the last attempt."""

    id: str
    stage: str
    state: str
    elapsed_s: float | None
    attempts: tuple[Attempt, ...]
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Overview:
    """`state` is done, running, failed, interrupted, not started or damaged (then `why` says what is).

    `at`, `of` and `unit` are how far the stage now is, or else the newest training; `loss` and `tokens_per_s` are the
    last training step's; `attempts` the most that any stage took; `left_s` what is left of the stage now.
    """

    run: str
    path: str
    recipe: str
    state: str
    why: str = ""
    stage: str = ""
    at: int | None = None
    of: int | None = None
    unit: str = ""
    loss: float | None = None
    tokens_per_s: float | None = None
    attempts: int = 0
    started: float
    left_s: float | None = None
    holder: Holder | None = None
    report: str | None = None
    stages: tuple[Stage, ...] = ()


def find_all(root: Path, order: Order) -> list[Overview]:
    """Every run below `root`, newest first. Raises `RunError` when the folder cannot be listed."""
    try:
        folders = [Path(entry.path) for entry in os.scandir(root) if not entry.name.startswith(".") and _is_run(entry)]
    except OSError as err:
        do = "give a folder of runs: --root FOLDER"
        raise RunError(f"cannot be read: {err.strerror}", where=root, do=do) from None
    sound: set[str] = set()
    found = [overview(path.resolve(), order, sound) for path in folders]
    return sorted(found, key=lambda o: (o.started, o.run), reverse=True)


def overview(path: Path, order: Order, sound: set[str] | None = None) -> Overview:
    """The run in folder `path`. Damage is a state here, never an error.

    `sound` collects the digests of recipes known to be whole, so that hundreds of runs need not parse each its own.
    """
    base = Overview(
        run=harmless(path.name),
        path=harmless(path, None),
        recipe=harmless(path.name.rsplit("-", 3)[0]),
        state="damaged",
        started=_began(path),
        report=harmless(path / "report.html", None) if (path / "report.html").is_file() else None,
    )
    try:
        return _read(path, base, order, set() if sound is None else sound)
    except ToolkitError as err:
        return replace(base, why=harmless(err, 300))
    except OSError as err:
        return replace(base, why=harmless(f"cannot be read: {err}", 300))


def _read(path: Path, base: Overview, order: Order, sound: set[str]) -> Overview:
    name, steps = _plan(path, order)
    base = replace(base, recipe=harmless(name))
    attempts = _attempts(path, [ident for ident, _ in steps])
    records = {ident: json_object(path / "stages" / ident / "done.json", optional=True) for ident, _ in steps}
    _check_recipe(path / "recipe.yaml", records.values(), sound)
    who = holder(path)
    now = _newest(attempts)
    if who is None and now and attempts[now][-1].state == "RUNNING":
        who = holder(path / "stages" / now)  # a launcher that was killed may have left its job running
    stages = tuple(
        _stage(ident, kind, attempts[ident], records[ident], running=who is not None and ident == now)
        for ident, kind in steps
    )
    state, current = _state(stages, now, who)
    where = next((s for s in stages if s.id == current), None)
    made = replace(
        base,
        state=state,
        stage=current,
        attempts=max((len(s.attempts) for s in stages), default=0),
        holder=who,
        stages=stages,
        why=_reason(path, where) if state == "failed" and where else "",
    )
    return _with_progress(path, made, where)


def _state(stages: Sequence[Stage], now: str, who: Holder | None) -> tuple[str, str]:
    """The run's state, and the stage that it stands at ('' when it is done)."""
    waiting = next((s.id for s in stages if s.state != "done"), "")
    if who is not None:
        return "running", next((s.id for s in stages if s.state == "running"), waiting)
    if not waiting:
        return "done", ""
    if not now:
        return ("interrupted" if any(s.state == "done" for s in stages) else "not started"), waiting
    last = next(s for s in stages if s.id == now)
    return (last.state, last.id) if last.state in ("failed", "interrupted") else ("interrupted", waiting)


def _stage(ident: str, kind: str, attempts: tuple[Attempt, ...], record: dict[str, Any] | None, running: bool) -> Stage:
    last = attempts[-1] if attempts else None
    state = "done" if record is not None else "waiting"
    if last is not None and (record is None or last.state == "RUNNING"):
        state = _ENDED_BADLY.get(last.state, "interrupted")
        if last.state == "RUNNING" and running:
            state = "running"
        elif last.state == "RUNNING" and record is not None:
            state = "done"  # it ended well after its launcher was gone
    elapsed = finite(record.get("elapsed_s")) if record is not None and state == "done" else None
    if elapsed is None and last is not None and last.started is not None:
        until = last.ended if last.ended is not None else time.time() if state == "running" else None
        elapsed = max(0.0, until - last.started) if until is not None else None
    result = record.get("result") if record is not None and state == "done" else None
    figures = {k: v for k, v in result.items() if not isinstance(v, (dict, list))} if isinstance(result, dict) else {}
    return Stage(
        id=ident,
        stage=kind,
        state=state,
        elapsed_s=elapsed,
        attempts=attempts,
        figures={harmless(key, 60): _figure(value) for key, value in list(figures.items())[:40]},
    )


def _with_progress(path: Path, made: Overview, where: Stage | None) -> Overview:
    trained = [s for s in made.stages if (path / "stages" / s.id / "metrics.jsonl").is_file()]
    training = where if where in trained else _last_begun(trained)
    rows = last_rows(path / "stages" / training.id / "metrics.jsonl") if training else []
    shown = where if where is not None and (where.state == "running" or not training) else training
    state = json_or_nothing(path / "stages" / shown.id / "progress.json") if shown else {}
    at, of, unit = whole(state.get("done")), whole(state.get("total")), harmless(state.get("unit") or "", 20)
    left = None
    if rows and shown is training:
        at, unit = rows[-1]["step"], "steps"
    if made.state == "running" and at and of and of >= at:
        took = [row["step_s"] for row in rows if row["step_s"] is not None] if shown is training else []
        left = sum(took) / len(took) * (of - at) if took else finite(state.get("left_s"))
    return replace(
        made,
        at=at,
        of=of,
        unit=unit,
        loss=rows[-1]["loss"] if rows else None,
        tokens_per_s=rows[-1]["tokens_per_s"] if rows else None,
        left_s=left,
    )


def _plan(path: Path, order: Order) -> tuple[str, list[tuple[str, str]]]:
    """(recipe's name, its stages as (id, kind)): as promised in plan.json, or worked out from the recipe without."""
    plan = json_or_nothing(path / "plan.json")
    rows = plan.get("stages")
    if isinstance(plan.get("recipe"), str) and isinstance(rows, list) and rows:
        steps = [(row.get("id"), row.get("stage")) for row in rows if isinstance(row, dict)]
        if len(steps) == len(rows) and all(isinstance(v, str) and _is_name(v) for step in steps for v in step):
            return plan["recipe"], steps
    recipe = _load(path / "recipe.yaml")
    return recipe.name, [(step.id, step.stage) for step in order(recipe)]


def _check_recipe(path: Path, records: Iterable[Mapping[str, Any] | None], sound: set[str]) -> None:
    """Raises `RunError` when the recipe is damaged. One that a finished stage has read as it is now is whole."""
    try:
        digest = hashlib.sha256(read_bytes(path)).hexdigest()
    except FileNotFoundError:
        digest = ""
    for record in records:
        inputs = record.get("inputs") if record else None
        if isinstance(inputs, dict):
            sound.add(str(inputs.get("recipe.yaml")))
    if digest not in sound:
        _load(path)
        sound.add(digest)


def _load(path: Path) -> Recipe:
    with contextlib.suppress(FileNotFoundError):  # which is told better below
        read_bytes(path)
    return load(path)


def _attempts(path: Path, known: Sequence[str]) -> dict[str, tuple[Attempt, ...]]:
    body = json_object(path / "jobs.json")
    rows = (body or {}).get("stages")
    whole_file = isinstance(rows, list) and all(
        isinstance(row, dict)
        and row.get("id") in known
        and isinstance(row.get("attempts"), list)
        and all(isinstance(attempt, dict) for attempt in row["attempts"])
        for row in rows
    )
    if not whole_file or not isinstance(rows, list):
        raise RunError("damaged: not a list of this run's stages and their attempts", where=path / "jobs.json")
    return {**dict.fromkeys(known, ()), **{row["id"]: tuple(map(_attempt, row["attempts"])) for row in rows}}


def _attempt(row: Mapping[str, Any]) -> Attempt:
    logs = row.get("logs")
    return Attempt(
        job_id=harmless(row.get("job_id") or "", 60),
        state=harmless(row.get("state") or "", 20),
        started=finite(row.get("started")),
        ended=finite(row.get("ended")),
        logs=logs if isinstance(logs, dict) else None,
    )


def _newest(attempts: Mapping[str, tuple[Attempt, ...]]) -> str:
    """The stage whose last attempt began last: a stage that had to run again is not the last of the recipe."""
    begun = [(tries[-1].started or 0.0, place, ident) for place, (ident, tries) in enumerate(attempts.items()) if tries]
    return max(begun)[2] if begun else ""


def _last_begun(stages: Sequence[Stage]) -> Stage | None:
    return max(stages, key=lambda s: (s.attempts[-1].started or 0.0) if s.attempts else 0.0, default=None)


def _reason(path: Path, where: Stage) -> str:
    """What the stage that failed said itself, if it left word."""
    for file in sorted((path / "stages" / where.id).glob("error*.json")):
        said = json_or_nothing(file)
        if said.get("what"):
            return harmless(": ".join(str(said[key]) for key in ("where", "what") if said.get(key)), 300)
    return ""


def _is_run(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir() and any(os.path.lexists(os.path.join(entry.path, name)) for name in _SIGNS_OF_A_RUN)


def _is_name(text: str) -> bool:
    return 0 < len(text) < 100 and text.replace("-", "").replace("_", "").isalnum()


def _began(path: Path) -> float:
    for file in (path / "recipe.yaml", path):
        try:
            return file.stat().st_mtime
        except OSError:
            continue
    return 0.0


def _figure(value: Any) -> Any:
    if isinstance(value, (bool, type(None))):
        return value
    if isinstance(value, (int, float)):
        return value if number(value) is not None else harmless(value, 40)
    return harmless(value, 60)
