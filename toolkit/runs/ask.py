"""One question to Slurm about all jobs of interest, and what to say when it does not answer. Decides how long a look
at runs may wait for it; what follows from a job's state is left to others.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from toolkit.cluster import slurm
from toolkit.cluster.slurm import JobState, SlurmError
from toolkit.runs.jobs import Job
from toolkit.runs.text import harmless

LIMIT_S = 8.0  # an answer takes a fraction of it; a controller that is down is noticed after 18 s only
_EVERY_S = 5.0
_EVERY_AWAY_S = 30.0
# Of an array's tasks, and of an array and its finishing job, the first of these that there is speaks for all.
_TELLING = ("RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "PENDING")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What Slurm knows, by job id; `states` is None when it was not asked, or, with a `note`, cannot be."""

    states: Mapping[str, JobState] | None = None
    note: str = ""


Ask = Callable[[Iterable[str]], Answer]


def ask(ids: Iterable[str]) -> Answer:
    """Ask once about all of `ids`; with none, nobody is asked."""
    wanted = list(ids)
    if not wanted:
        return Answer()
    try:
        return Answer(states=slurm.jobs(wanted, limit_s=LIMIT_S))
    except SlurmError as err:
        return Answer(note=f"Slurm cannot be asked: {harmless(err.why or err.what, 200)}; from the files alone")


def seldom(asking: Ask = ask, *, every_s: float = _EVERY_S, away_s: float = _EVERY_AWAY_S) -> Ask:
    """`asking`, for those who want to know again and again: answers a few seconds old are given once more."""
    last: list[tuple[float, frozenset[str], Answer]] = []

    def asked(ids: Iterable[str]) -> Answer:
        wanted = frozenset(ids)
        if last:
            when, about, answer = last[0]
            if wanted == about and time.monotonic() - when < (away_s if answer.note else every_s):
                return answer
        answer = asking(wanted)
        last[:] = [(time.monotonic(), wanted, answer)]
        return answer

    return asked


def told(job: Job, answer: Answer, run: str | None = None) -> Job:
    """The job with what Slurm says of it; an array with what it says of its tasks together. With the name of its `run`,
    another's job that was given the same id is not taken for it.
    """
    if answer.states is None:
        return job
    states = answer.states if run is None else slurm.of_run(answer.states, run)
    found = [state for name, state in states.items() if name == job.id or name.startswith(f"{job.id}_")]
    if not found:
        return job
    speaks = min(found, key=lambda s: (not s.active, _TELLING.index(s.state) if s.state in _TELLING else -1, s.id))
    bad = [s for s in found if not s.active and s.state not in ("COMPLETED", "CANCELLED")]
    if not speaks.active and bad:
        speaks = bad[0]
    left = [s.left_s for s in found if s.left_s is not None and s.state == "RUNNING"]
    return replace(
        job,
        state=harmless(speaks.state, 30),
        reason=harmless(speaks.reason, 60),
        restarts=max(s.restarts for s in found),
        left_s=min(left) if left else None,
        nodes=harmless(",".join(dict.fromkeys(s.nodes for s in found if s.nodes and s.state == "RUNNING")), 300),
        tasks=dict(Counter(harmless(s.state, 30) for s in found)) if job.array else {},
    )


def active(job: Job) -> bool:
    """Whether Slurm has the job waiting, running or about to end."""
    return JobState(id=job.id, state=job.state).active
