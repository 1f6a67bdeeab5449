"""What state a stage is in, and a run: from its attempts, what they left, and what Slurm says of its jobs. Decides in
words; reads nothing and asks nobody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from toolkit.runs.ask import active
from toolkit.runs.jobs import Attempt, Job, Row
from toolkit.runs.text import finite

_ENDED_BADLY = {"FAILED": "failed", "CANCELLED": "interrupted", "RUNNING": "interrupted"}
_FINAL = {"FAILED": "failed", "CANCELLED": "cancelled"}
_QUEUED_AGAIN = ("STOPPED", "CRASHED", "HUNG", "LOST", "ROLLED_BACK", "UNFIT")
_IN_THE_QUEUE = ("PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD")
_NEVER = "DependencyNeverSatisfied"  # Slurm will cancel it in a moment


class StageLike(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def attempts(self) -> Sequence[Attempt]: ...


def local_stage(attempts: Sequence[Attempt], done: bool, *, running: bool) -> str:
    """The state of a stage whose launcher is followed: whether it is `running` is told by who holds the lock."""
    last = attempts[-1] if attempts else None
    if last is None or (done and last.state != "RUNNING"):
        return "done" if done else "waiting"
    if last.state == "RUNNING" and running:
        return "running"
    # With a record it ended well after its launcher was gone.
    return "done" if last.state == "RUNNING" and done else _ENDED_BADLY.get(last.state, "interrupted")


def local_run(stages: Sequence[StageLike], now: str, held: bool) -> tuple[str, str]:
    """The run's state, and the stage that it stands at ('' when it is done). `now` is the stage begun last."""
    waiting = next((s.id for s in stages if s.state != "done"), "")
    if held:
        return "running", next((s.id for s in stages if s.state == "running"), waiting)
    if not waiting:
        return "done", ""
    if not now:
        return ("interrupted" if any(s.state == "done" for s in stages) else "not started"), waiting
    last = next(s for s in stages if s.id == now)
    return (last.state, last.id) if last.state in ("failed", "interrupted") else ("interrupted", waiting)


def settled(row: Row, record: Mapping[str, Any] | None, *, again: bool) -> str:
    """The state of a stage on Slurm that the files settle, '' when Slurm has to be asked. `again`: whether its job is
    queued again after a crash, as that of a training is.
    """
    last, ended = row.last, finite((record or {}).get("ended"))
    if record is not None:
        since = row.submitted
        if since is None or ended is None or ended >= since or (last is not None and last.state == "COMPLETED"):
            return "done"
    if last is None:
        return ""
    return "failed" if last.state == "CRASHED" and not again else _FINAL.get(last.state, "")


def slurm_stage(
    row: Row, record: Mapping[str, Any] | None, *, answered: bool, cancelled: float | None, error: bool, begun: bool
) -> tuple[str, str]:
    """The state of a stage on Slurm that is not settled, and the reason for it.

    `row.jobs` carry what Slurm said if it `answered`; `error` and `begun` are whether the jobs submitted last have left
    an error, or a sign that one of the array's parts began.
    """
    last, jobs = row.last, row.newest
    ended, cancelled_since = [job for job in jobs if job.state and not active(job)], _since(cancelled, row)
    names = " and ".join(job.id for job in jobs)
    if live := [job for job in jobs if active(job) and job.reason != _NEVER]:
        return _live(live, last)
    if record is not None and answered:
        return "done", ""  # of the jobs before; whether it still holds is for those to say who hash
    if bad := [job for job in ended if job.state not in ("COMPLETED", "CANCELLED", "PREEMPTED")]:
        return "failed", f"its job {bad[0].id} ended as {bad[0].state}"
    if error:
        return "failed", ""
    if cancelled_since:
        return "cancelled", ""
    if any(job.state in ("CANCELLED", "PREEMPTED") for job in ended):
        return ("cancelled", f"job {names} was cancelled") if last or begun else ("waiting", "")
    if any(job.reason == _NEVER for job in jobs):
        return "waiting", ""
    if ended and len(ended) == len(jobs):
        return "failed", f"its job {names} ended as COMPLETED without what the stage should leave"
    return _forgotten(row, last, names, begun) if answered else _files_alone(last, begun)


def slurm_run(stages: Sequence[StageLike], *, answered: bool) -> tuple[str, str]:
    """The run's state, and the stage that it stands at ('' when it is done)."""
    by = {word: [s for s in stages if s.state == word] for word in ("running", "queued", "failed", "lost", "cancelled")}
    if by["running"]:
        return "running", _latest(by["running"]).id
    # What waits for a stage that failed goes in a moment; from the files alone nobody sees whether it has gone.
    goes_on = answered and any(s.reason != "Dependency" for s in by["queued"])
    for word in ("queued", "failed", "lost", "cancelled") if goes_on else ("failed", "lost", "cancelled", "queued"):
        if by[word]:
            first = next((s for s in by[word] if s.reason != "Dependency"), by[word][0])
            return word, first.id if word == "queued" else _latest(by[word]).id
    waiting = next((s.id for s in stages if s.state != "done"), "")
    if not waiting:
        return "done", ""
    begun = any(s.state != "waiting" or s.attempts for s in stages)
    return ("interrupted" if begun else "not started"), waiting


def _live(live: Sequence[Job], last: Attempt | None) -> tuple[str, str]:
    moving = [job for job in live if job.state not in _IN_THE_QUEUE]
    ending = bool(moving) and all(job.state == "COMPLETING" for job in moving)
    if ending and last is not None and last.state in _QUEUED_AGAIN:
        return "queued", "its last attempt is about to end"
    if moving:
        return "running", moving[0].state if moving[0].state != "RUNNING" else ""
    first = next((job for job in live if job.reason != "Dependency"), live[0])
    return "queued", first.reason or first.state


def _forgotten(row: Row, last: Attempt | None, names: str, begun: bool) -> tuple[str, str]:
    """Slurm answers and does not know the jobs: what the last attempt said must do."""
    if last is None and begun:
        return "interrupted", f"Slurm knows its job {names} no longer"
    if last is None:
        return ("interrupted" if row.attempts else "waiting"), ""
    if last.state in ("RUNNING", "LOST"):
        return "lost", f"its job {names} is gone and left no word"
    return "interrupted", f"Slurm knows its job {names} no longer"


def _files_alone(last: Attempt | None, begun: bool) -> tuple[str, str]:
    if last is None:
        return ("running" if begun else "queued"), ""
    if last.state == "RUNNING":
        return "running", ""
    return ("queued", "") if last.state in _QUEUED_AGAIN else ("interrupted", "")


def _since(cancelled: float | None, row: Row) -> bool:
    return cancelled is not None and (row.submitted is None or cancelled >= row.submitted)


def _latest(stages: Sequence[StageLike]) -> StageLike:
    return max(stages, key=lambda s: (s.attempts[-1].started or 0.0) if s.attempts else 0.0)
