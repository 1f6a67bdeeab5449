"""`python -m toolkit.launch --in-job STAGE`: a job that somebody submitted by hand becomes the first of a run's chain.

Decides which run the job works on and whether it fits the stage; the stage itself is run by what the script calls next.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from toolkit import chain, files, pinned_image
from toolkit.cluster.executor import check
from toolkit.cluster.sbatch import Job, jobs
from toolkit.errors import PlanRefused, RecipeError, RunError, UsageError, nearest
from toolkit.plan import Step, missing_inputs, steps
from toolkit.plan.promise import Promise, promise, refuse
from toolkit.plan.show import plan_values
from toolkit.recipe import Recipe, absolute, compose, load
from toolkit.recipe.rules import check as check_rules
from toolkit.runs import Run, create, done, find, held
from toolkit.runs.jobs import CANCELLED
from toolkit.stages.given import check_shards
from toolkit.submit import job_rows


def begin(
    stage: str,
    *,
    recipe: str | None,
    run: str | None,
    overrides: Sequence[str],
    only: bool,
    command: Sequence[str],
    new_image: bool = False,
    force: bool = False,
) -> Run:
    """The run that this job works on, with what follows `stage` submitted to start after this job.

    A new run of `recipe` from `stage` on, or the one given; a job that Slurm has started again goes on with the run it
    made. Raises `UsageError` outside a job, `PlanRefused` for a job of another size or, unless forced, what cannot
    work, and what the chain raises: then nothing has been submitted.
    """
    job = os.environ.get("SLURM_JOB_ID", "")
    if not job.isdigit():
        raise UsageError("--in-job is for scripts that sbatch runs", do="submit one: sbatch slurm/NAME.sh")
    if run is not None:
        found = find(run)
        if recipe is not None and recipe != found.recipe.name:
            what = f"this is a run of recipe {found.recipe.name}, not of {recipe}"
            raise UsageError(what, where=found.path, do="give it to the script of that recipe, or leave run= out")
        step = _step(found.recipe, stage, found.path)
        _check_size(found.recipe, step, found.path)
        if new_image:
            pinned_image.accept(found)
        pinned_image.check(found)
        return _enter(found, step, job, only)
    cut = _from(compose(str(recipe), overrides).recipe, stage, only)
    step = steps(cut)[0]
    made = _made_by_this_job(cut, job)
    if made is not None:
        return _enter(made, _step(made.recipe, step.id, made.path), job, only)
    missing = missing_inputs(cut)
    if missing:
        named = "; ".join(f"{key} ({why})" for key, why in missing)
        raise RecipeError(f"not stated: {named}", where=cut.name, do="give each as KEY=VALUE after the script's name")
    check(cut)
    _check_size(cut, step, Path(absolute(cut).runs))
    found = _promise(cut, force)
    check_shards(cut)
    image = pinned_image.of(cut)
    fresh = create(cut, command=command, plan=plan_values(cut, missing, found), ident=f"j{job}", image=image)
    try:
        return _enter(fresh, step, job, only)
    except BaseException:
        chain.discard(fresh)
        raise


def _promise(recipe: Recipe, force: bool) -> Promise | None:
    """What is promised of the recipe; nobody is asked in a job. Raises `PlanRefused`."""
    try:
        found = promise(recipe)
    except RecipeError as err:
        if not force:
            raise
        print(f"warning: no promise: {err}", file=sys.stderr, flush=True)
        return None
    if not force:
        refuse(recipe, found)
    return found


def _from(recipe: Recipe, stage: str, only: bool) -> Recipe:
    """The recipe's stages from the first `stage` on, and this one alone with `only`."""
    order = steps(recipe)
    start = next((i for i, step in enumerate(order) if stage in (step.id, step.stage)), None)
    if start is None:
        names = [step.id for step in order]
        raise RecipeError(f"recipe {recipe.name} has no stage '{stage}'", where="stages", do=nearest(stage, names))
    kept = recipe.stages[start : start + 1] if only else recipe.stages[start:]
    cut = dataclasses.replace(recipe, stages=kept)
    check_rules(cut, where=recipe.name)
    return cut


def _step(recipe: Recipe, stage: str, where: Path) -> Step:
    order = steps(recipe)
    step = next((step for step in order if stage in (step.id, step.stage)), None)
    if step is None:
        raise UsageError(f"this run has no stage '{stage}'", where=where, do=nearest(stage, [s.id for s in order]))
    return step


def _made_by_this_job(recipe: Recipe, job: str) -> Run | None:
    """The run that this job made before Slurm started it again. Ids come back after years: the newest counts."""
    if os.environ.get("SLURM_RESTART_COUNT", "0") in ("", "0"):
        return None
    root = Path(absolute(recipe).runs)
    named = [path for path in root.glob("*") if path.name.startswith(f"{recipe.name}-")]
    whole = [path for path in named if path.name.endswith(f"-j{job}") and (path / "recipe.yaml").is_file()]
    if not whole:
        return None
    newest = max(whole, key=lambda path: (path / "recipe.yaml").stat().st_mtime_ns)
    return Run(path=newest.resolve(), recipe=load(newest / "recipe.yaml"))


def _check_size(recipe: Recipe, step: Step, root: Path) -> None:
    """Raise `PlanRefused` unless this job has the nodes, tasks and GPUs that the training's layout takes."""
    wanted = jobs(recipe, step, root)[-1]
    if not step.per_device:
        return
    nodes, tasks, gpus = _granted(os.environ)
    asked = int(wanted.gpus.rpartition(":")[2]) if wanted.gpus else None
    lacks = asked is not None and gpus is not None and gpus < asked
    if (nodes, tasks) == (wanted.nodes, wanted.tasks) and not lacks:
        return
    told = f"{nodes} x {tasks if tasks is not None else '?'} tasks" + (f" with {gpus} GPUs a node" if lacks else "")
    raise PlanRefused(
        f"stage {step.id} takes {wanted.nodes} nodes x {wanted.tasks} tasks, and this job has {told}",
        where=recipe.name,
        do=f"submit with: sbatch {' '.join(size_options(wanted))} ..., or change cluster.* and parallel.* to fit",
    )


def size_options(job: Job) -> list[str]:
    """The options of sbatch that give a job of this size."""
    made = [f"--nodes={job.nodes}", f"--ntasks-per-node={job.tasks}"]
    return [*made, f"--gpus-per-node={job.gpus}"] if job.gpus else made


def _granted(told: Mapping[str, str]) -> tuple[int, int | None, int | None]:
    """(nodes, tasks a node, GPUs on this node) of the job that this is, None for what Slurm does not say."""
    nodes = _count(told.get("SLURM_JOB_NUM_NODES")) or 1
    tasks = _count(told.get("SLURM_NTASKS_PER_NODE"))
    if tasks is None and (total := _count(told.get("SLURM_NTASKS"))) is not None and total % nodes == 0:
        tasks = total // nodes
    return nodes, tasks, _count(told.get("SLURM_GPUS_ON_NODE"))


def _count(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None


def _enter(run: Run, step: Step, job: str, only: bool) -> Run:
    """Note this job for `step` and submit what follows, once: a job that is started again finds that done."""
    with held(run.path):
        undone = [need for need in step.needs if done(run, need) is None]
        if undone:
            raise RunError(
                f"stage {step.id} needs what is not done yet: {', '.join(undone)}",
                where=run.path,
                do=f"submit all that is left: python -m toolkit.launch run={run.path}",
            )
        rows = job_rows(run)
        row = next((row for row in rows if row["id"] == step.id), None)
        if row is not None and any(entry["id"] == job for entry in row.get("jobs") or []):
            return run
        chain.refuse_active(run)
        (run.path / CANCELLED).unlink(missing_ok=True)
        if row is None:
            rows.append(row := {"id": step.id, "stage": step.stage, "attempts": []})
        entry = {"id": job, "part_of": None, "array": None, "submitted": time.time()}
        row["jobs"] = [*(row.get("jobs") or []), entry]
        files.write_json(run.path / "jobs.json", {"stages": rows})
        _show_output(run, step, job)
        try:
            ids = [s.id for s in steps(run.recipe)]
            following = [] if only else [s for s in chain.left(run) if ids.index(s.id) > ids.index(step.id)]
            for one in chain.hand_in(run, following, {step.id: job}):
                print(f"job {one.id} {one.job.name} after {', '.join(one.after)}", file=sys.stderr)
        except BaseException:
            _forget(run, job)
            raise
    return run


def _show_output(run: Run, step: Step, job: str) -> None:
    """A name in the run's folder for what this job prints: its script has put it where it liked."""
    with contextlib.suppress(OSError):
        output = Path(os.readlink("/proc/self/fd/2"))
        if output.is_file():
            (run.path / "jobs").mkdir(exist_ok=True)
            (run.path / "jobs" / f"{step.id}-{job}.out").symlink_to(output)


def _forget(run: Run, job: str) -> None:
    """This job fails before it began; jobs that could not be cancelled stay known."""
    rows = job_rows(run)
    for row in rows:
        row["jobs"] = [entry for entry in row.get("jobs") or [] if entry["id"] != job]
    files.write_json(run.path / "jobs.json", {"stages": [row for row in rows if row["jobs"] or row["attempts"]]})
