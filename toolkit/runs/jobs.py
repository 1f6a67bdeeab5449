"""What the files say of a run's attempts: jobs.json as whoever submitted wrote it, attempts.json as the jobs themselves
did. Decides what is damage; what state the attempts amount to is left to others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolkit.errors import RunError
from toolkit.runs.peek import json_object, json_or_nothing
from toolkit.runs.text import finite, harmless, whole

CANCELLED = "cancelled.json"


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """Times in seconds since 1970; `logs` are the sizes of the stage's logs when it began, None where not recorded.

    `restart` counts the requeues of its job, `step_from` and `step_to` are training steps: before it, and after.
    """

    job_id: str
    state: str
    started: float | None
    ended: float | None
    logs: Mapping[str, Any] | None
    restart: int | None = None
    why: str = ""
    hosts: tuple[str, ...] = ()
    step_from: int | None = None
    step_to: int | None = None


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job of Slurm for a stage, `array` its number of tasks. From `state` on: as Slurm says, '' where it does not.

    `tasks` counts an array's tasks by Slurm's word for them; `left_s` is left of the job's time limit.
    """

    id: str
    array: int | None = None
    submitted: float | None = None
    state: str = ""
    reason: str = ""
    restarts: int | None = None
    left_s: int | None = None
    nodes: str = ""
    tasks: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A stage's attempts, and its jobs where Slurm runs it; newest last. `damage` says why there are no attempts."""

    attempts: tuple[Attempt, ...] = ()
    jobs: tuple[Job, ...] = ()
    damage: str = ""

    @property
    def newest(self) -> tuple[Job, ...]:
        """The jobs of the last submission: one, or an array and the job that finishes what it began."""
        pair = self.jobs[-2:]
        return pair if len(pair) == 2 and pair[0].array and not pair[1].array else pair[-1:]

    @property
    def submitted(self) -> float | None:
        return next((job.submitted for job in self.newest), None)

    @property
    def last(self) -> Attempt | None:
        """The last attempt, if it is one of the jobs submitted last."""
        last = self.attempts[-1] if self.attempts else None
        return last if last is not None and any(last.job_id == job.id for job in self.newest) else None


def read(path: Path, known: Sequence[str]) -> dict[str, Row]:
    """By stage, in the order of `known`, the rows of the run in folder `path`. Raises `RunError` for damage."""
    body = json_object(path / "jobs.json")
    rows = (body or {}).get("stages")
    whole_file = isinstance(rows, list) and all(
        isinstance(row, dict)
        and row.get("id") in known
        and _is_list_of_objects(row.get("attempts"))
        and (row.get("jobs") is None or (_is_list_of_objects(row["jobs"]) and all(_has_id(job) for job in row["jobs"])))
        for row in rows
    )
    if not whole_file or not isinstance(rows, list):
        raise RunError("damaged: not a list of this run's stages and their attempts", where=path / "jobs.json")
    return {**dict.fromkeys(known, Row()), **{row["id"]: _row(path, row) for row in rows}}


def jobs_of(path: Path, known: Sequence[str]) -> dict[str, tuple[Job, ...]]:
    """Every job of Slurm that the run has had, by stage. Raises `RunError`."""
    return {ident: row.jobs for ident, row in read(path, known).items() if row.jobs}


def cancelled_at(path: Path) -> float | None:
    """When the run in folder `path` was cancelled; None when it was not, or has been gone on with since."""
    if not (path / CANCELLED).is_file():
        return None
    return finite(json_or_nothing(path / CANCELLED).get("at")) or 0.0


def nodes_of(folder: Path) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    """What each node has done wrong in a stage's attempts, and those that the stage keeps away from."""
    body = json_or_nothing(folder / "nodes.json")
    strikes, excluded = body.get("strikes"), body.get("excluded")
    told = strikes if isinstance(strikes, dict) else {}
    return {harmless(node, 60): _texts(why) for node, why in list(told.items())[:200]}, _texts(excluded)


def _row(path: Path, row: Mapping[str, Any]) -> Row:
    jobs = tuple(
        Job(id=job["id"], array=whole(job.get("array")) or None, submitted=finite(job.get("submitted")))
        for job in row.get("jobs") or ()
    )
    attempts, damage = row["attempts"], ""
    if jobs:
        place = path / "stages" / row["id"] / "attempts.json"
        try:
            told = json_object(place, optional=True)
            attempts = attempts if told is None else told.get("attempts")
            if not _is_list_of_objects(attempts):
                raise RunError("damaged: not a list of attempts", where=place)
        except RunError as err:  # the job itself goes on without what it cannot read there
            attempts, damage = [], str(err)
    return Row(attempts=tuple(map(_attempt, attempts)), jobs=jobs, damage=damage)


def _attempt(row: Mapping[str, Any]) -> Attempt:
    logs = row.get("logs")
    return Attempt(
        job_id=harmless(row.get("job_id") or "", 60),
        state=harmless(row.get("state") or "", 20),
        started=finite(row.get("started")),
        ended=finite(row.get("ended")),
        logs=logs if isinstance(logs, dict) else None,
        restart=whole(row.get("restart")),
        why=harmless(row.get("why") or "", 300),
        hosts=_texts(row.get("hosts")),
        step_from=whole(row.get("step_from")),
        step_to=whole(row.get("step_to")),
    )


def _texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [value] if value else []
    return tuple(harmless(item, 200) for item in value[:2000]) if isinstance(value, list) else ()


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _has_id(job: Mapping[str, Any]) -> bool:
    return isinstance(job.get("id"), str) and re.fullmatch(r"[0-9]{1,12}", job["id"]) is not None
