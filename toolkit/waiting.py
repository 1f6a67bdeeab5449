"""Staying until a chain of jobs has ended. Decides how long to be patient with a Slurm that does not answer, and what
end is a good one; touches no job.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence

from toolkit.chain import Submitted
from toolkit.cluster import slurm
from toolkit.cluster.slurm import JobState, SlurmAway
from toolkit.errors import StageFailed
from toolkit.plan import steps
from toolkit.runs import Run, done
from toolkit.submit import failure

_POLL_S = 3.0
_PATIENCE_S = 1800.0  # of a Slurm that is away all that time; jobs go on without it


def wait(run: Run, chain: Sequence[Submitted], *, poll_s: float = _POLL_S, patience_s: float = _PATIENCE_S) -> None:
    """Return when every stage of `run` is done. Raises what a stage left as its error, `StageFailed` for one that ended
    without, `SlurmAway` after `patience_s` seconds without an answer. Ctrl-C leaves the jobs alone.
    """
    told: dict[str, str] = {}
    since = None
    names = {one.id: one.job for one in chain}
    try:
        while names:
            try:
                states = slurm.jobs(names)
                since = None
            except SlurmAway as err:
                since = since or time.monotonic()
                if time.monotonic() - since > patience_s:
                    raise
                _say(told, "Slurm", f"away: {err.why}")
            else:
                _say(told, "Slurm", "")
                for ident, job in names.items():
                    _say(told, f"{ident} {job.key}", _summary(states, ident))
                if not any(state.active for state in states.values()):
                    break
            time.sleep(poll_s)
    except KeyboardInterrupt:
        print(f"the jobs go on; end them with python -m toolkit.runs cancel {run.path}", file=sys.stderr)
        raise
    for step in steps(run.recipe):
        if done(run, step.id) is None:
            folder = run.stage(step.id)
            if any(folder.glob("error*.json")):
                raise failure(run, step, folder, {"code": 1, "error": None})
            ended = next((told[f"{i} {job.key}"] for i, job in names.items() if job.key == step.id), "")
            raise StageFailed(
                f"stage {step.id} has not been done",
                where=folder,
                why=f"Slurm says of its job: {ended.lower()}" if ended else "",
                do=f"see python -m toolkit.runs logs {run.path} {step.id}, then go on with run={run.path}",
            )


def _summary(states: Mapping[str, JobState], ident: str) -> str:
    """`RUNNING`, or of an array `3 COMPLETED, 1 RUNNING`; what Slurm no longer knows has ended."""
    counts = Counter(state.state for name, state in states.items() if name.partition("_")[0] == ident)
    if counts.total() > 1:
        return ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    return next(iter(counts), "ended")


def _say(told: dict[str, str], who: str, what: str) -> None:
    """A line for each change, on stderr: stdout is for the answer."""
    if told.get(who, "") != what:
        told[who] = what
        print(f"{time.strftime('%H:%M:%S')} {who:<24} {what or 'answers again'}", file=sys.stderr, flush=True)
