"""Cancelling a run's jobs on Slurm, the whole chain in one call. Decides how that is said to the jobs themselves, so
that none of them queues itself again; a launcher at work is ended elsewhere.
"""

from __future__ import annotations

import getpass
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit import files
from toolkit.cluster import slurm
from toolkit.cluster.slurm import JobState, SlurmAway
from toolkit.errors import RunBusy
from toolkit.runs.ask import LIMIT_S
from toolkit.runs.jobs import CANCELLED, jobs_of
from toolkit.runs.lock import held


@dataclass(frozen=True, kw_only=True)
class CancelledJob:
    """A job that was queued or at work: Slurm's word for it before, and now ('' when it is gone)."""

    id: str
    stage: str
    before: str
    now: str


def cancel_jobs(run: Path, known: Sequence[str], *, grace_s: float) -> list[CancelledJob]:
    """Cancel every job of the run in folder `run` that is queued or at work, and wait until they are gone.

    Returns nothing when there is none. Raises `SlurmError` when Slurm cannot be asked or refuses, and nothing has
    changed then; `RunBusy` when a launch works on the run, or a job is still at work after `grace_s` seconds.
    """
    stages = {job.id: stage for stage, jobs in jobs_of(run, known).items() for job in jobs}
    before = _active(slurm.of_run(slurm.jobs(stages), run.name))
    if not before:
        return []
    with held(run):  # a launch would take the note for an old one
        _say_and_cancel(run, list(before))
    now = _wait(list(before), grace_s)
    still = [f"job {job} of stage {stages[job]} is {word}" for job, word in (now or {}).items() if word != "COMPLETING"]
    if now is None or still:
        raise RunBusy(
            f"its jobs were told to end, and are not gone after {grace_s:g} s", where=run,
            why=", ".join(still) or "Slurm has taken the order and does not answer since",
            do="look again: python -m toolkit.runs show RUN",
        )  # fmt: skip
    return [CancelledJob(id=job, stage=stages[job], before=word, now=now.get(job, "")) for job, word in before.items()]


def _say_and_cancel(run: Path, ids: Sequence[str]) -> None:
    """The note first: a job that is asked to stop looks for it. Without the cancelling it must not stay."""
    path = run / CANCELLED
    earlier = path.read_bytes() if path.is_file() else None
    try:
        files.write_json(path, {"by": _user(), "at": time.time()})
        slurm.cancel(ids)
    except BaseException:
        if earlier is None:
            path.unlink(missing_ok=True)
        else:
            files.write_text(path, earlier.decode("utf-8", errors="replace"))
        raise


def _wait(ids: Sequence[str], most_s: float) -> Mapping[str, str] | None:
    """What is still active at last; None when Slurm does not say."""
    deadline, pause, left = time.monotonic() + most_s, 0.1, None
    while True:
        try:
            left = _active(slurm.jobs(ids, limit_s=LIMIT_S))
        except SlurmAway:
            left = None
        if left == {} or time.monotonic() >= deadline:
            return left
        time.sleep(min(pause, max(0.0, deadline - time.monotonic())))
        pause = min(2 * pause, 2.0)


def _active(states: Mapping[str, JobState]) -> dict[str, str]:
    """Slurm's word by job that is not over; one for all tasks of an array."""
    found: dict[str, str] = {}
    for name, state in states.items():
        job = name.split("_")[0]
        if state.active and found.get(job) != "RUNNING":
            found[job] = state.state
    return found


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # nobody has this number
        return str(os.getuid())
