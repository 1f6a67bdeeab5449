"""A job's script as sbatch reads it, and giving it to sbatch: submitit's Slurm executor with a command of ours.

Decides how values are written so that sbatch and the shell take them as they are; what they are is `sbatch`'s.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from submitit import SlurmExecutor
from submitit.slurm.slurm import _make_sbatch_string

from toolkit import files
from toolkit.cluster import slurm
from toolkit.cluster.sbatch import Job, jobs
from toolkit.errors import RunError
from toolkit.plan import steps
from toolkit.recipe import Recipe, absolute

_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


def text(job: Job, after: Sequence[str] = ()) -> str:
    """The script of `job`, to start once the jobs with the ids `after` have ended well."""
    made = _make_sbatch_string(command=job.command, folder=job.run / "jobs", **_parameters(job, after))
    return "\n".join(line for line in made.split("\n") if job.signal or not line.startswith("#SBATCH --signal="))


def preview(recipe: Recipe) -> list[tuple[Job, str]]:
    """Every job of a new run of `recipe` with its script. What is known only then is named: the run's DATE-ID, and
    ID-STAGE for the id of a job.
    """
    recipe = absolute(recipe)
    path = Path(recipe.runs) / f"{recipe.name}-DATE-ID"
    planned = [job for step in steps(recipe) for job in jobs(recipe, step, path)]
    return [(job, text(job, [f"ID-{need}" for need in job.needs])) for job in planned]


def submit(job: Job, after: Sequence[str] = ()) -> str:
    """Give `job` to Slurm; returns its id. Its script stays in the run's `jobs` folder.

    Raises `SlurmAway`, `SlurmError` with Slurm's own words, `RunError` and `DiskFull`. A Ctrl-C meanwhile is answered
    when sbatch has: a job that was accepted is never lost sight of.
    """
    slurm.check_here("sbatch")
    slurm.check_here("srun")
    with undisturbed():
        return Executor(job, after).hand_in()


class Executor(SlurmExecutor):
    """One job's executor. Nothing is pickled: the script's command reads the run's folder."""

    def __init__(self, job: Job, after: Sequence[str]) -> None:
        super().__init__(folder=job.run / "jobs")
        self._job, self._after = job, after
        self.update_parameters(**_parameters(job, after))

    def hand_in(self) -> str:
        """Write the script and call sbatch; returns the job's id."""
        script = self._job.run / "jobs" / f"{self._job.key}.sbatch"
        try:
            files.write_text(script, self._make_submission_file_text(self._submitit_command_str, ""))
        except OSError as err:
            raise RunError(f"cannot be written: {err.strerror}", where=script) from None
        told = slurm.ask(*self._make_submission_command(script))
        return str(self._get_job_id_from_submission_command(told))

    @property
    def _submitit_command_str(self) -> str:
        return self._job.command

    def _make_submission_file_text(self, command: str, uid: str) -> str:
        return text(self._job, self._after)


def _parameters(job: Job, after: Sequence[str]) -> dict[str, Any]:
    """In submitit's words. What it has no word for, and paths, go to sbatch as they are."""
    literal = {"%": "%%"}
    output = str(job.output.parent).translate(str.maketrans(literal)) + f"/{job.output.name}"
    own: dict[str, Any] = {
        "chdir": str(job.run),
        "comment": job.run.name,  # whose job it is: ids come back
        "kill-on-invalid-dep": "yes",
        "output": output,
        "requeue": True,
    }
    if job.signal:
        own["signal"] = job.signal
    if job.exclude:
        given = [str(job.options["exclude"])] if job.options.get("exclude") else []  # maybe node[01,03]: left whole
        own["exclude"] = ",".join([*job.exclude, *given])
    if job.array:
        own["array"] = f"0-{job.array - 1}%{job.array_parallelism or job.array}"
    return {
        "job_name": job.name,
        "nodes": job.nodes,
        "ntasks_per_node": job.tasks,
        "cpus_per_task": job.cpus,
        "gpus_per_node": job.gpus,
        "mem": None if job.mem_gib is None else f"{job.mem_gib}G" if job.mem_gib else "0",
        "time": job.time_limit_min,
        "partition": job.partition,
        "account": job.account,
        "qos": job.qos,
        "exclusive": True if job.exclusive else None,
        "dependency": f"afterok:{':'.join(after)}" if after else None,
        "setup": list(job.setup),
        "wckey": None,
        "stderr_to_stdout": True,
        "use_srun": False,
        "additional_parameters": {**job.options, **own},
    }


@contextmanager
def undisturbed() -> Iterator[None]:
    """Signals that end a program wait until the block has ended; sbatch, a child, does not see them either."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
