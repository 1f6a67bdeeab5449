"""Which log a person means, and when what is followed is over: a stage's own, that of one of its parts, or what the job
around it said. Reading and following the bytes is left to `follow`.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from toolkit.errors import RunError, UsageError, nearest
from toolkit.recipe.layout_rules import TRAINING_STAGES
from toolkit.runs import follow
from toolkit.runs.ask import Answer, active, seldom, told
from toolkit.runs.jobs import Row, read
from toolkit.runs.overview import Order, Overview, Stage, overview
from toolkit.runs.peek import json_object
from toolkit.runs.states import settled
from toolkit.runs.text import harmless

_SURE_S = 6.0  # longer than an answer of Slurm is used again


def pick(run: Path, seen: Overview, known: Sequence[Stage], wanted: str | None) -> Stage:
    """The stage asked for, else the one that runs, waits or failed, else the last that has a log. Raises `UsageError`,
    or `RunError` when none has begun.
    """
    if wanted is not None:
        found = next((s for s in known if s.id == wanted), None)
        if found is None:
            names = [s.id for s in known]
            raise UsageError(
                f"this run has no stage '{harmless(wanted)}'", where=run,
                do=nearest(wanted, names) or f"its stages: {', '.join(names)}",
            )  # fmt: skip
        return found
    begun = [s for s in known if s.attempts or (run / "stages" / s.id / "log").exists()]
    if seen.stage and (seen.state in ("running", "failed", "lost") or (seen.state == "queued" and not begun)):
        return next(s for s in known if s.id == seen.stage)
    if not begun:
        raise RunError("no stage of this run has begun", where=run, do=f"start it: run={run}")
    return max(begun, key=lambda s: ((s.attempts[-1].started or 0.0) if s.attempts else 0.0, known.index(s)))


def of_part(run: Path, stage: Stage, number: int, *, coming: bool) -> follow.Part:
    """The log of part `number`, over all its attempts; one that is `coming` need not be there. Raises `UsageError`."""
    folder = run / "stages" / stage.id / "parts"
    path = folder / str(number) / "log"
    if not path.exists() and not coming:
        have = sorted(int(p.parent.name) for p in folder.glob("*/log") if p.parent.name.isdigit())
        gone = "the parts of a stage that is done are removed; what their jobs said is kept: --job"
        known = f"parts with a log: {', '.join(map(str, have[:20]))}{', ...' if len(have) > 20 else ''}"
        raise UsageError(f"no log of part {number}", where=folder, do=known if have else gone)
    return follow.Part(path=path, start=0, end=None, attempt=None)


def of_job(run: Path, stage: Stage, *, attempt: int | None, part: int | None, coming: bool) -> follow.Part:
    """What the job around the stage said; the newest that there is, or of that `attempt` or `part`. Raises `RunError`,
    and `UsageError` for an attempt that there is not.
    """
    if attempt is not None and not 1 <= attempt <= len(stage.attempts):
        have = f"its attempts: 1 to {len(stage.attempts)}" if stage.attempts else "it has none yet"
        raise UsageError(f"no attempt {attempt} of this stage", where=run / "stages" / stage.id, do=have)
    number = attempt or len(stage.attempts) or None
    folder = run / "jobs"
    if not stage.jobs:
        job = stage.attempts[number - 1].job_id if number else ""
        names = [f"{job}_0_log.err"] if re.fullmatch(r"[A-Za-z0-9_]+", job) else []
    elif attempt is not None:
        names = [f"{stage.id}-{stage.attempts[attempt - 1].job_id}.out"]
    elif part is not None:
        names = [f"{stage.id}-{job.id}_{part}.out" for job in reversed(stage.jobs) if job.array]
    else:
        names = []
        for one in reversed(stage.jobs):
            tasks = sorted(folder.glob(f"{stage.id}-{one.id}_*.out"), key=_time, reverse=True) if one.array else []
            names += [path.name for path in tasks] if one.array else [f"{stage.id}-{one.id}.out"]
    there = [folder / name for name in names if "/" not in name and (folder / name).is_file()]
    if not there and not (coming and names):
        raise RunError(
            f"the job of stage {stage.id} has left no output", where=folder,
            do="a job that sbatch was given by hand writes where its script says" if stage.jobs else "",
        )  # fmt: skip
    shown = attempt if stage.jobs else number
    return follow.Part(path=there[0] if there else folder / names[0], start=0, end=None, attempt=shown)


def until_over(
    run: Path, order: Order, stage: Stage, known: Sequence[str], *, part: int | None, job: bool
) -> Callable[[], bool]:
    """Tells whether what is followed is over. Asks Slurm now and then; while that is away, it says so once and goes on.

    A stage is over when it is done or has failed for good, or when no job of it is left; requeues and retries do not
    end it. A `job`'s own output is over when the job has gone.
    """
    if not stage.jobs:
        return lambda: _over_here(run, order, stage.id)
    asking, silent, gone = seldom(), [True], list[float]()

    def over() -> bool:
        """Not at the first look: between two attempts a job can be out of sight for a moment."""
        if not seems_over():
            gone.clear()
            return False
        gone.append(time.monotonic())
        return stage_is_settled() or gone[-1] - gone[0] > _SURE_S

    def stage_is_settled() -> bool:
        return (run / "stages" / stage.id / "done.json").exists()

    def seems_over() -> bool:
        folder = run / "stages" / stage.id
        try:
            row = read(run, known)[stage.id]
            final = settled(row, json_object(folder / "done.json", optional=True), again=stage.stage in TRAINING_STAGES)
        except RunError:
            return True
        if (final and not job) or (part is not None and (folder / "parts" / str(part) / "done.json").exists()):
            return True
        answer = asking(j.id for j in row.newest)
        if answer.note:
            if silent:
                print(f"{answer.note}; following on", file=sys.stderr, flush=True)
                silent.clear()
            return bool(final)
        return not _works(row, answer, part)

    return over


def _works(row: Row, answer: Answer, part: int | None) -> bool:
    if part is None:
        return any(active(told(job, answer)) for job in row.newest)
    tasks = [f"{job.id}_{part}" for job in row.newest if job.array]
    return any(name in tasks and state.active for name, state in (answer.states or {}).items())


def _over_here(run: Path, order: Order, ident: str) -> bool:
    """Whether nobody works on the run any more, or on another stage than this."""
    now = overview(run, order)
    if now.state != "running":
        return True
    return any(s.id == ident and s.state == "done" for s in now.stages) and now.stage != ident


def _time(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
