"""What sbatch is asked for, for each stage of a run: nodes, tasks, GPUs, limits, and the command that the job runs.

Decides what a site's profile amounts to for a training and for a job of one process; the text that sbatch reads, and
giving it to sbatch, is `submission`'s, the order of jobs the chain's.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import toolkit
from toolkit.cluster import excluded
from toolkit.cluster.attempts import excluded as excluded_by
from toolkit.errors import PlanRefused
from toolkit.plan import Step
from toolkit.recipe import Recipe
from toolkit.recipe.layout_rules import TRAINING_STAGES
from toolkit.recipe.site import SIGNAL

_ROOT = Path(toolkit.__file__).resolve().parents[1]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One job as sbatch is to get it. `key` names it within its run; `needs` are keys of jobs that must end well first.

    `array` is the number of tasks, None for a job that is no array; `gpus` is per node, with Slurm's name of their
    type, such as a100:8; times are minutes, `options` what else sbatch is told, by its own names.
    """

    key: str
    step: str
    name: str
    run: Path
    needs: tuple[str, ...]
    command: str
    setup: tuple[str, ...] = ()
    array: int | None = None
    array_parallelism: int | None = None
    nodes: int = 1
    tasks: int = 1  # per node
    cpus: int | None = None  # per task
    gpus: str | None = None
    mem_gib: int | None = None  # per node; 0 is all of it
    time_limit_min: int | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    exclusive: bool = False
    signal: str | None = None
    exclude: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def output(self) -> Path:
        """Where the job's own output goes, with sbatch's own signs for ids."""
        return self.run / "jobs" / f"{self.step}-{'%A_%a' if self.array else '%j'}.out"


def jobs(recipe: Recipe, step: Step, run: Path) -> tuple[Job, ...]:
    """The jobs of a stage in the order of submission: its parts as an array where it has some, then the stage itself.

    `run` is the run's folder, absolute. Raises `PlanRefused` for a folder that sbatch cannot be told of.
    """
    _check_path("the run's folder", run)
    if ":" in str(_ROOT):
        raise PlanRefused("the toolkit's own folder has ':' in its name", where=_ROOT, why="PYTHONPATH cannot name it")
    if step.per_device:
        return (_many(recipe, step, run),)
    whole = _small(recipe, step, run)
    if step.parts < 2:
        return (whole,)
    parts = _small(recipe, step, run, array=step.parts)
    return parts, _small(recipe, step, run, after=parts.key)


def command(run: Path, stage: str, *, array: bool = False) -> str:
    """The last line of a job's script, the same in every script: it becomes the in-job entry."""
    words = [sys.executable, "-m", "toolkit.job", str(run), stage]
    return "exec " + " ".join(map(shlex.quote, words)) + (' --part "$SLURM_ARRAY_TASK_ID"' if array else "")


def _many(recipe: Recipe, step: Step, run: Path) -> Job:
    site = recipe.cluster
    return Job(
        key=step.id,
        needs=step.needs,
        command=command(run, step.id),
        nodes=site.nodes,
        tasks=site.devices_per_node,
        cpus=site.cpus_per_device,
        gpus=_gpus(recipe, site.devices_per_node),
        mem_gib=site.mem_gib,
        time_limit_min=site.time_limit_min,
        partition=site.partition,
        exclusive=site.exclusive,
        signal=f"B:{SIGNAL}@{site.alive.signal_before_s}" if step.stage in TRAINING_STAGES else None,
        options=site.sbatch,
        **_common(recipe, step, run),
    )


def _small(recipe: Recipe, step: Step, run: Path, *, array: int | None = None, after: str | None = None) -> Job:
    site, small = recipe.cluster, recipe.cluster.small
    return Job(
        key=f"{step.id}-parts" if array else step.id,
        needs=(after,) if after else step.needs,
        command=command(run, step.id, array=array is not None),
        array=array,
        array_parallelism=min(array, small.array_parallelism) if array else None,
        cpus=small.cpus,
        gpus=_gpus(recipe, small.devices) if step.stage in ("score", "night") else None,
        mem_gib=small.mem_gib,
        time_limit_min=small.time_limit_min or site.time_limit_min,
        partition=small.partition or site.partition,
        options=site.sbatch if small.sbatch is None else small.sbatch,
        **_common(recipe, step, run),
    )


def _common(recipe: Recipe, step: Step, run: Path) -> dict[str, Any]:
    site = recipe.cluster
    return {
        "step": step.id,
        "name": f"{recipe.name}-{step.id}",
        "run": run,
        "account": site.account,
        "qos": site.qos,
        "setup": _setup(site.modules, site.scratch),
        # Nodes that this run has reason to keep away from, and those that a preflight has found unfit.
        "exclude": tuple(sorted({*excluded_by(run), *excluded.names(run.parent, site.name)})),
    }


def _setup(modules: Sequence[str], scratch: str | None) -> tuple[str, ...]:
    """Lines before the command. What of a profile stands in them has passed the recipe's rules; it is no code."""
    lines = [f"export PYTHONPATH={shlex.quote(str(_ROOT))}${{PYTHONPATH:+:$PYTHONPATH}}"]
    if modules:
        lines.append("type module >/dev/null 2>&1 || . /etc/profile")
        lines += [f"module load {name} || exit 1" for name in modules]
    if scratch:
        lines += [f'export TMPDIR="{scratch}"', 'mkdir -p "$TMPDIR" || exit 1']
    return tuple(lines)


def _gpus(recipe: Recipe, count: int) -> str | None:
    site = recipe.cluster
    if site.device != "gpu" or site.gres == "none" or not count:
        return None
    return f"{site.gres}:{count}" if site.gres else str(count)


def _check_path(what: str, path: Path) -> None:
    """Raise `PlanRefused` where sbatch would not take the name as it is: quoting it helps with everything else."""
    if re.search(r"[\x00-\x1f\x7f\\]", os.fspath(path)) or not os.fspath(path).isprintable():
        raise PlanRefused(
            f"{what} has a name that sbatch cannot be given",
            where=ascii(os.fspath(path)),
            why="it holds a backslash or a character that does not print",
            do="choose another folder with runs=FOLDER",
        )
