"""A run at a glance, from its files and, where Slurm runs it, one question to Slurm: its state, where it stands, what
it lost time with. Reads no large file; hashes, and with them whether a stage would run again, are left to others.
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
from toolkit.recipe.layout_rules import TRAINING_STAGES
from toolkit.runs import states
from toolkit.runs.ask import Answer, Ask, ask, told
from toolkit.runs.jobs import Attempt, Job, Row, cancelled_at, nodes_of, read
from toolkit.runs.lock import Holder, holder
from toolkit.runs.peek import json_object, json_or_nothing, last_rows, read_bytes
from toolkit.runs.text import finite, harmless, number, whole

_SIGNS_OF_A_RUN = ("recipe.yaml", "jobs.json", "plan.json", "manifest.json")


class StepLike(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def stage(self) -> str: ...


Order = Callable[[Recipe], Sequence[StepLike]]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """`state` is done, running, failed, interrupted or waiting, on Slurm also queued, cancelled or lost; and `reason`.

    `elapsed_s` is that of the last attempt; `jobs` are all that Slurm was given, `strikes` what nodes have done wrong.
    """

    id: str
    stage: str
    state: str
    elapsed_s: float | None
    attempts: tuple[Attempt, ...]
    figures: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    jobs: tuple[Job, ...] = ()
    strikes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    excluded: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Overview:
    """`state` is done, running, failed, interrupted, not started or damaged, on Slurm also queued, cancelled or lost;
    `why` says more of it, `note` that Slurm did not answer.

    `at`, `of` and `unit` are how far the stage now is, or else the newest training; `loss` and `tokens_per_s` are the
    last training step's; `attempts` the most that any stage took; `left_s` what is left of the stage now, `limit_s`
    what is left of its job's time limit; `alive_s` is how long ago a stage that runs on Slurm last showed life.
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
    limit_s: float | None = None
    alive_s: float | None = None
    note: str = ""
    holder: Holder | None = None
    report: str | None = None
    stages: tuple[Stage, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Files:
    """What a run's files say, before anybody has been asked. `damaged` is a state that nothing else changes."""

    path: Path
    base: Overview
    steps: Sequence[tuple[str, str]] = ()
    rows: Mapping[str, Row] = field(default_factory=dict)
    records: Mapping[str, dict[str, Any] | None] = field(default_factory=dict)
    settled: Mapping[str, str] = field(default_factory=dict)

    @property
    def on_slurm(self) -> bool:
        return any(row.jobs for row in self.rows.values())

    @property
    def unsettled(self) -> list[str]:
        """Ids of the jobs that may still be at work, for all that the files say."""
        rows = [row for ident, row in self.rows.items() if not self.settled.get(ident)]
        return [job.id for row in rows for job in row.newest]


def find_all(root: Path, order: Order, asking: Ask = ask) -> list[Overview]:
    """Every run below `root`, newest first; Slurm is asked once. Raises `RunError` when the folder cannot be listed."""
    try:
        folders = [Path(entry.path) for entry in os.scandir(root) if not entry.name.startswith(".") and _is_run(entry)]
    except OSError as err:
        do = "give a folder of runs: --root FOLDER"
        raise RunError(f"cannot be read: {err.strerror}", where=root, do=do) from None
    sound: set[str] = set()
    found = [_files(path.resolve(), order, sound) for path in folders]
    answer = asking([job for files in found for job in files.unsettled])
    return sorted((_overview(files, answer) for files in found), key=lambda o: (o.started, o.run), reverse=True)


def overview(path: Path, order: Order, asking: Ask = ask) -> Overview:
    """The run in folder `path`. Damage is a state here, never an error, and so is a Slurm that does not answer."""
    files = _files(path, order, set())
    return _overview(files, asking(files.unsettled))


def _files(path: Path, order: Order, sound: set[str]) -> _Files:
    """`sound` collects the digests of recipes known to be whole, so that not each of hundreds of runs is parsed."""
    base = Overview(
        run=harmless(path.name),
        path=harmless(path, None),
        recipe=harmless(path.name.rsplit("-", 3)[0]),
        state="",
        started=_began(path),
        report=harmless(path / "report.html", None) if (path / "report.html").is_file() else None,
    )
    try:
        name, steps = _plan(path, order)
        base = replace(base, recipe=harmless(name))
        rows = read(path, [ident for ident, _ in steps])
        records = {ident: json_object(path / "stages" / ident / "done.json", optional=True) for ident, _ in steps}
        _check_recipe(path / "recipe.yaml", records.values(), sound)
    except ToolkitError as err:
        return _Files(path=path, base=replace(base, state="damaged", why=harmless(err, 300)))
    except OSError as err:
        return _Files(path=path, base=replace(base, state="damaged", why=harmless(f"cannot be read: {err}", 300)))
    settled = {
        ident: states.settled(rows[ident], records[ident], again=kind in TRAINING_STAGES) for ident, kind in steps
    }
    return _Files(path=path, base=base, steps=steps, rows=rows, records=records, settled=settled)


def _overview(files: _Files, answer: Answer) -> Overview:
    if files.base.state:
        return files.base
    try:
        return _on_slurm(files, answer) if files.on_slurm else _here(files)
    except ToolkitError as err:
        return replace(files.base, state="damaged", why=harmless(err, 300))
    except OSError as err:
        return replace(files.base, state="damaged", why=harmless(f"cannot be read: {err}", 300))


def _here(files: _Files) -> Overview:
    """A run whose launcher stays with it: the lock says whether anybody does."""
    path = files.path
    attempts = {ident: row.attempts for ident, row in files.rows.items()}
    who, now = holder(path), _newest(attempts)
    if who is None and now and attempts[now][-1].state == "RUNNING":
        who = holder(path / "stages" / now)  # a launcher that was killed may have left its job running
    stages = []
    for ident, kind in files.steps:
        record = files.records[ident]
        running = who is not None and ident == now
        state = states.local_stage(attempts[ident], record is not None, running=running)
        stages.append(_stage(ident, kind, files.rows[ident], record, state))
    state, current = states.local_run(stages, now, who is not None)
    return _made(files, stages, state, current, holder=who)


def _on_slurm(files: _Files, answer: Answer) -> Overview:
    """A run that jobs of Slurm work on, on hosts whose locks may not be seen from here."""
    path, answered = files.path, answer.states is not None
    cancelled, stages, broken = cancelled_at(path), [], False
    for ident, kind in files.steps:
        row, record, folder = files.rows[ident], files.records[ident], path / "stages" / ident
        state, reason = files.settled[ident], ""
        if not state and row.jobs:
            row = replace(row, jobs=tuple(told(job, answer, path.name) for job in row.jobs))
            state, reason = states.slurm_stage(
                row,
                record,
                answered=answered,
                cancelled=cancelled,
                error=_newer(folder.glob("error*.json"), row.submitted),
                begun=_newer((folder / "parts").glob("*/log"), row.submitted),
            )
        elif not state:
            state = "waiting"
        if state == "queued" and not answered and broken:
            state = "waiting"  # Slurm cancels what waits for one that failed
        broken = broken or state in ("failed", "cancelled", "lost")
        strikes, excluded = nodes_of(folder)
        made = _stage(ident, kind, row, record, state)
        stages.append(replace(made, reason=reason, jobs=row.jobs, strikes=strikes, excluded=excluded))
    # Where nobody had to be asked, the files have the last word as an answer has it.
    state, current = states.slurm_run(stages, answered=answered or not files.unsettled)
    made = _made(files, stages, state, current, holder=holder(path))
    where = next((s for s in stages if s.id == current), None)
    damage = next((row.damage for row in files.rows.values() if row.damage), "")
    made = replace(made, note=answer.note if files.unsettled else "", why=made.why or harmless(damage, 300))
    if where is None:
        return made
    why = made.why or (where.reason if state != "running" else "")
    if state == "failed" and not why and where.attempts:
        why = where.attempts[-1].why
    if state != "running":
        return replace(made, why=why)
    limits = [job.left_s for job in Row(jobs=where.jobs).newest if job.left_s is not None]
    return replace(made, why=why, limit_s=min(limits, default=None), alive_s=_alive(path / "stages" / where.id))


def _made(files: _Files, stages: Sequence[Stage], state: str, current: str, *, holder: Holder | None) -> Overview:
    where = next((s for s in stages if s.id == current), None)
    made = replace(
        files.base,
        state=state,
        stage=current,
        attempts=max((len(s.attempts) for s in stages), default=0),
        holder=holder,
        stages=tuple(stages),
        why=_reason(files.path, where) if state == "failed" and where else "",
    )
    return _with_progress(files.path, made, where)


def _stage(ident: str, kind: str, row: Row, record: dict[str, Any] | None, state: str) -> Stage:
    last = row.attempts[-1] if row.attempts else None
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
        attempts=row.attempts,
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
    if shown is not None and shown.state == "running" and at is None and (parts := _parts(path, shown)):
        (at, of), unit = parts, "parts"
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


def _parts(path: Path, stage: Stage) -> tuple[int, int] | None:
    """Of a stage that an array works on: how many parts are done, of how many."""
    sizes = [job.array for job in Row(jobs=stage.jobs).newest if job.array]
    if not sizes:
        return None
    return sum(1 for _ in (path / "stages" / stage.id / "parts").glob("*/done.json")), sizes[0]


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
        data = read_bytes(path)
        if data.strip() and not (b"\nruns:" in data and data.endswith(b"\n")):  # every other key has a default
            load(path)  # what else is wrong with it is told first
            raise RunError("damaged recipe: its end is missing", where=path, do="start a new run with recipe=NAME")
    return load(path)


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


def _newer(found: Iterable[Path], since: float | None) -> bool:
    """Whether one of these files was written since."""
    return any(_time(path) >= (since or 0.0) for path in found)


def _alive(folder: Path) -> float | None:
    """Seconds since a stage last wrote anything that shows it is alive."""
    seen = max(_time(folder / name) for name in ("heartbeat", "progress.json", "metrics.jsonl", "log"))
    return max(0.0, time.time() - seen) if seen else None


def _time(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _is_run(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir() and any(os.path.lexists(os.path.join(entry.path, name)) for name in _SIGNS_OF_A_RUN)


def _is_name(text: str) -> bool:
    return 0 < len(text) < 100 and text.replace("-", "").replace("_", "").isalnum()


def _began(path: Path) -> float:
    return _time(path / "recipe.yaml") or _time(path)


def _figure(value: Any) -> Any:
    if isinstance(value, (bool, type(None))):
        return value
    if isinstance(value, (int, float)):
        return value if number(value) is not None else harmless(value, 40)
    return harmless(value, 60)
