"""Whether a site can be submitted to, and jobs on this machine: started through submitit, waited for, ended."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from toolkit.errors import StageFailed
from toolkit.recipe import Recipe

_POLL_S = 0.2
_ASK_AGAIN_S = 0.5
_YEAR_MIN = 525_600


class LocalExecutor:
    """submitit's local executor: each stage is a process of its own on this machine."""

    def __init__(self, folder: Path) -> None:
        import submitit

        self._executor = submitit.LocalExecutor(folder=folder)
        self._executor.update_parameters(timeout_min=_YEAR_MIN)

    def submit(self, entry: Callable[..., Any], *args: str) -> Any:
        """Start `entry(*args)` as a job; only its name travels, so it must be importable.

        A terminal sends Ctrl-C to this process and to the job's alike. The job is to hear of it from here alone, since
        submitit's controller would kill the entry before it has ended its ranks.
        """
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            return self._executor.submit(entry, *args)
        finally:
            signal.signal(signal.SIGINT, before)


def check(recipe: Recipe) -> None:
    """Raise an error when the recipe's cluster cannot be submitted to from here: `SlurmAway` without Slurm's commands,
    `PlanRefused` without the image.
    """
    from toolkit.cluster import container, slurm  # a dry run needs neither

    if recipe.cluster.executor == "slurm":
        slurm.check_here("sbatch")
    container.check(recipe)


def wait(job: Any, tick: Callable[[], None]) -> dict[str, Any]:
    """Wait for a job, calling `tick` now and then; returns what its entry returned. Ctrl-C ends the job, then passes
    on.
    """
    try:
        while not job.done(force_check=True):
            tick()
            time.sleep(_POLL_S)
    except BaseException:
        end(job)
        raise
    error = job.exception()
    if error is None:
        answer: dict[str, Any] = job.result()
        return answer
    told = [line.strip() for line in str(error).splitlines() if "Error" in line]
    raise StageFailed("the job ended without an answer", where=job.paths.stderr, why=told[-1] if told else "")


def end(job: Any) -> None:
    """End a local job: its entry ends the ranks. Asked again and again, for submitit ignores SIGTERM until they run."""
    process = getattr(job, "_process", None)
    while process is not None and process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_ASK_AGAIN_S)
