"""A run's stages as a chain of jobs on Slurm: which are submitted, what each waits for, and that it is all or nothing.

Decides what is left to do and what happens when a submission fails halfway; what a job asks for is the cluster's.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from toolkit import files
from toolkit.cluster import slurm
from toolkit.cluster.sbatch import Job, jobs
from toolkit.errors import RunBusy, ToolkitError
from toolkit.plan import Step, steps
from toolkit.runs import Run, held, is_done
from toolkit.runs.jobs import CANCELLED, jobs_of
from toolkit.stages.context import inputs
from toolkit.submit import job_rows

_GONE_S = 20.0  # a job that was cancelled while it started has KillWait (30 s by default) to end, most take one or two
_POLL_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """A job that Slurm has accepted, and the ids of those that it waits for."""

    job: Job
    id: str
    after: tuple[str, ...]


def left(run: Run) -> list[Step]:
    """The stages that are not done, or not any more, in order."""
    todo: list[Step] = []
    for step in steps(run.recipe):
        waits = any(other.id in step.needs for other in todo)
        if waits or not is_done(run, step.id, inputs(run, step))[0]:
            todo.append(step)
    return todo


def submit(run: Run) -> list[Submitted]:
    """Submit every stage of `run` that is not done; all or nothing. Empty when there is nothing left to do.

    Raises `RunBusy` while jobs of the run are queued or running, `SlurmAway`, and `SlurmError` with Slurm's words; then
    what had been submitted is cancelled and jobs.json is as it was.
    """
    with held(run.path):
        refuse_active(run)
        (run.path / CANCELLED).unlink(missing_ok=True)
        return hand_in(run, left(run), {})


def refuse_active(run: Run) -> None:
    """Raise `RunBusy` when Slurm still has jobs of this run, `SlurmAway` when it cannot say."""
    known = jobs_of(run.path, [step.id for step in steps(run.recipe)])
    ids = [job.id for made in known.values() for job in made]
    states = slurm.of_run(slurm.jobs(ids), run.path.name) if ids else {}
    active = {name.partition("_")[0] for name, state in states.items() if state.active}
    if active:
        named = ", ".join(sorted(active, key=int))
        raise RunBusy(
            f"{'jobs' if len(active) > 1 else 'job'} {named} of this run {'are' if len(active) > 1 else 'is'} still "
            "queued or running",
            where=run.path,
            do=f"wait, or end that first: python -m toolkit.runs cancel {run.path}",
        )


def hand_in(run: Run, todo: Sequence[Step], running: dict[str, str]) -> list[Submitted]:
    """Submit the jobs of `todo` in order, under the run's lock; `running` are ids of jobs that are there already, by
    stage, which what needs nothing else waits for.
    """
    from toolkit.cluster.submission import submit as give
    from toolkit.cluster.submission import undisturbed

    (run.path / "jobs").mkdir(exist_ok=True)
    before = job_rows(run)
    planned = [job for step in todo for job in jobs(run.recipe, step, run.path)]
    ids, made = dict(running), list[Submitted]()
    try:
        for job in planned:
            after = tuple(ids[need] for need in job.needs if need in ids) or tuple(running.values())
            with undisturbed():
                ids[job.key] = give(job, after)
                made.append(Submitted(job=job, id=ids[job.key], after=after))
                _note(run, made[-1])
    except BaseException as err:
        with undisturbed():
            kept = _take_back(run, made, before)
        if not isinstance(err, ToolkitError):
            print(kept or f"cancelled what had been submitted: {len(made)} jobs", file=sys.stderr)
            raise
        raise _told(err, planned, made, kept) from None
    return made


def discard(run: Run) -> None:
    """Remove a run that was made for jobs which were not accepted, unless one of them has left something there."""
    with contextlib.suppress(ToolkitError, OSError):
        if not any(row.get("jobs") for row in job_rows(run)) and not any((run.path / "stages").iterdir()):
            shutil.rmtree(run.path)


def _note(run: Run, one: Submitted) -> None:
    """At once after each: a launcher that is killed leaves no job that the run does not know of."""
    rows = job_rows(run)
    row = next((row for row in rows if row["id"] == one.job.step), None)
    if row is None:
        stage = next(step.stage for step in steps(run.recipe) if step.id == one.job.step)
        rows.append(row := {"id": one.job.step, "stage": stage, "attempts": []})
    entry = {
        "id": one.id,
        "part_of": one.job.step if one.job.array else None,
        "array": one.job.array,
        "submitted": time.time(),
    }
    row["jobs"] = [*(row.get("jobs") or []), entry]
    files.write_json(run.path / "jobs.json", {"stages": rows})


def _take_back(run: Run, made: Sequence[Submitted], before: list[dict[str, Any]]) -> str:
    """Cancel what was submitted; returns '' or why it could not be, with what to do."""
    ids = [one.id for one in made]
    try:
        _cancel(ids)
    except ToolkitError as err:
        return (
            f"jobs {', '.join(ids)} could not be cancelled ({err.why or err.what}); once Slurm answers: "
            f"python -m toolkit.runs cancel {run.path}"
        )
    with contextlib.suppress(ToolkitError, OSError):  # a full disk: then jobs.json names jobs that have ended
        files.write_json(run.path / "jobs.json", {"stages": before})
    with contextlib.suppress(ToolkitError):
        deadline = time.monotonic() + _GONE_S
        while time.monotonic() < deadline and any(state.active for state in slurm.jobs(ids).values()):
            time.sleep(_POLL_S)
    return ""


def _cancel(ids: Sequence[str]) -> None:
    for wait_s in _waits():
        try:
            slurm.cancel(ids)
            return
        except ToolkitError:
            if wait_s is None:
                raise
            time.sleep(wait_s)


def _waits() -> Iterator[float | None]:
    yield from (1.0, 3.0, None)


def _told(err: ToolkitError, planned: Sequence[Job], made: Sequence[Submitted], kept: str) -> ToolkitError:
    """The error with which job it was, and what became of those before it."""
    number = min(len(made) + 1, len(planned))
    if kept:
        after = kept
    elif len(made) == 1:
        after = f"the job submitted before it, {made[0].id}, has been cancelled"
    elif made:
        after = f"the {len(made)} jobs submitted before it, {', '.join(one.id for one in made)}, have been cancelled"
    else:
        after = "nothing has been submitted"
    return type(err)(
        f"{err.what}: job {number} of {len(planned)}, {planned[number - 1].key}",
        where=err.where,
        why=f"{err.why.rstrip('. ')}; {after}" if err.why else after,
        do=err.do or "mend that and launch again",
    )
