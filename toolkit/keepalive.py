"""Keeps a stage alive on Slurm: each start of its job is an attempt, recorded with its end, and a training that was
stopped, crashed or hung is queued again by the host until it is done or no attempt makes progress any more.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import toolkit
from toolkit import checkpoint, files
from toolkit.cluster import attempts, container, slurm, srun
from toolkit.cluster.attempts import Attempt
from toolkit.cluster.ranks import run_ranks
from toolkit.cluster.srun import Asked, Ended, say
from toolkit.errors import CheckpointError, RunBusy, StageFailed, Stopped, ToolkitError
from toolkit.plan import Step
from toolkit.recipe.rules import TRAINING_STAGES
from toolkit.runs import Run, is_done
from toolkit.runs.follow import log_sizes
from toolkit.runs.jobs import CANCELLED
from toolkit.runs.peek import json_or_nothing, last_rows
from toolkit.stages import parts
from toolkit.stages.context import Context, inputs
from toolkit.stages.entry import enter

_BUSY_S = 90.0  # an attempt that Slurm has ended may hold the lock until its node has cleaned up
_ASK_SLURM_AGAIN_S = 10.0
_ANSWER_S = 20.0
_TO_BE_ENDED_S = 120.0


def whole(run: Run, step: Step) -> int:
    """Run the stage in this job; returns 0 when it is done, else the code that the job ends with."""
    _find_toolkit()
    with srun.listening() as asked:
        finished, _ = is_done(run, step.id, inputs(run, step))
        if finished:
            say(f"stage {step.id} is done already")
            return 0
        ranks = _many if step.per_device else _one
        ended: list[Attempt] = []

        def start(run: Run, step: Step, words: Sequence[str]) -> int:
            code, attempt = _attempt(run, step, lambda: ranks(run, step, words, asked), asked)
            ended.append(attempt)
            return code

        code = _alone(run, step, start, asked)
        if code == 0:
            return 0
        return _after(run, step, ended[-1], code) if step.stage in TRAINING_STAGES else code


def part(run: Run, step: Step, number: str) -> int:
    """Run one part of the stage in this job; the payload holds the part's own lock, and goes on where it stopped."""
    _find_toolkit()
    place = Context(run=run, step=step).part(parts.checked(step, number))
    words = ["toolkit.stages", str(run.path), step.id, "--part", number]
    return run_ranks(_payload(run, words), processes=1, folder=place, threads=run.recipe.cluster.small.cpus)


def _alone(run: Run, step: Step, start: Callable[[Run, Step, Sequence[str]], int], asked: Asked) -> int:
    """`enter`, with patience for what is left of the attempt before."""
    again = int(os.environ.get("SLURM_RESTART_COUNT") or 0) > 0
    deadline = time.monotonic() + (_BUSY_S if again else 0.0)
    while True:
        try:
            return enter(run, step, start)
        except RunBusy as err:
            if time.monotonic() >= deadline or asked:
                raise
            say(f"{err} Trying again")
            time.sleep(2.0)


def _attempt(run: Run, step: Step, ranks: Callable[[], Ended], asked: Asked) -> tuple[int, Attempt]:
    """One attempt, recorded from its beginning to its end; alone in the stage's folder."""
    folder, alive = run.stage(step.id), run.recipe.cluster.alive
    job, restart = os.environ["SLURM_JOB_ID"], int(os.environ.get("SLURM_RESTART_COUNT") or 0)
    hosts = slurm.hostnames(os.environ.get("SLURM_JOB_NODELIST", ""))
    at = newest(folder)
    before = attempts.read(folder)
    past = attempts.close_lost(before, at, reached(folder))
    lost = [a for a in before if a.state == "RUNNING"]
    nodes = attempts.blame(folder, [fault for a in lost for fault in _failed_nodes(a)], alive.strikes)
    now = Attempt(job_id=job, restart=restart, started=time.time(), hosts=hosts, step_from=at, logs=log_sizes(folder))
    attempts.write(folder, [*past, now])
    where = hosts[0] if len(hosts) == 1 else f"{len(hosts)} nodes, {hosts[0]} first"
    say(f"stage {step.id}, attempt {len(past) + 1}, job {job} on {where}, {_from(at)}")
    avoid = sorted(set(nodes.excluded) & set(hosts) - set(nodes.told))
    if avoid:
        ended = Ended(state="STOPPED", code=Stopped.exit_code, why=f"{', '.join(avoid)} had failed before")
    elif asked:
        ended = Ended(state="STOPPED", code=Stopped.exit_code, why="asked to stop before it began")
    else:
        try:
            ended = ranks()
        except ToolkitError as err:  # before a rank was there, such as an image that is gone
            refused = dataclasses.replace(now, state="FAILED", why=err.what, ended=time.time(), step_to=at)
            attempts.write(folder, [*past, refused])
            raise
    if ended.state == "COMPLETED" and not (folder / "done.json").is_file():  # srun says 0 when a node is taken away
        ended = Ended(state="CRASHED", code=1, why="the ranks ended without done.json")
    code = 0 if ended.state == "COMPLETED" else (ended.code or 1)
    closed = _closed(run, step, now, ended, asked)
    if closed.state in ("CRASHED", "HUNG"):
        attempts.blame(folder, ended.blame, alive.strikes)
    if closed.state == "FAILED" and isinstance(own := (_error(folder) or {}).get("exit_code"), int):
        code = own  # that of a rank which was taken down for it may be higher
    attempts.write(folder, [*past, closed])
    say(f"attempt {len(past) + 1} of {step.id}: {closed.state}{f', {closed.why}' if closed.why else ''}, {_at(closed)}")
    return code, closed


def _error(folder: Path) -> dict[str, Any] | None:
    """What a rank has left for the user to mend."""
    return next((e for p in sorted(folder.glob("error*.json")) if (e := json_or_nothing(p)).get("what")), None)


def _closed(run: Run, step: Step, now: Attempt, ended: Ended, asked: Asked) -> Attempt:
    folder, state, why = run.stage(step.id), ended.state, ended.why
    told = _error(folder)
    if state == "CRASHED" and told is not None:
        state, why = "FAILED", str(told["what"])
    elif state in ("STOPPED", "CRASHED") and asked and not ended.blame:
        state, why = "STOPPED", " and ".join(asked.signals)
    if state not in ("COMPLETED", "FAILED") and (run.path / CANCELLED).exists():
        state = "CANCELLED"
    return dataclasses.replace(
        now, state=state, why=why, ended=time.time(), step_to=newest(folder), reached=reached(folder)
    )


def _many(run: Run, step: Step, words: Sequence[str], asked: Asked) -> Ended:
    """One task of a step for each process, over the job's nodes."""
    cluster = run.recipe.cluster
    return srun.run_tasks(
        _payload(run, words),
        nodes=cluster.nodes,
        per_node=cluster.devices_per_node,
        cpus_per_task=cluster.cpus_per_device,
        folder=run.stage(step.id),
        alive=cluster.alive,
        asked=asked,
        apptainer=run.recipe.container.runtime == "apptainer",
    )


def _one(run: Run, step: Step, words: Sequence[str], asked: Asked) -> Ended:
    """One process on the batch host."""
    code = run_ranks(
        _payload(run, words),
        processes=1,
        folder=run.stage(step.id),
        threads=run.recipe.cluster.small.cpus,
    )
    if code == 0:
        return Ended(state="COMPLETED", code=0)
    return Ended(state="STOPPED" if asked else "CRASHED", code=code, why=f"exit code {code}")


def _payload(run: Run, words: Sequence[str]) -> list[str]:
    command, environment = container.payload(run.recipe, run.path, words)
    os.environ.update(environment)
    return command


def _after(run: Run, step: Step, last: Attempt, code: int) -> int:
    """Queue the job again, or say why not."""
    folder, alive, job = run.stage(step.id), run.recipe.cluster.alive, os.environ["SLURM_JOB_ID"]
    if last.state in ("FAILED", "CANCELLED"):
        return code
    idle = attempts.idle_in_a_row([a for a in attempts.read(folder) if a.job_id == job])  # a retry is a new job
    if idle >= alive.idle_attempts:
        error = StageFailed(
            f"{idle} attempts in a row made no progress",
            where=folder / "log",
            why=f"the last: {last.state}, {last.why}",
            do=f"mend the cause, then go on: python -m toolkit.runs retry {run.path}",
        )
        files.write_json(folder / "error.json", error.as_dict())
        raise error
    if not _queue_again(job):
        return code
    _keep_away(job, run.path, folder)
    deadline = time.monotonic() + _TO_BE_ENDED_S
    while time.monotonic() < deadline:  # Slurm ends this attempt of the job
        time.sleep(1.0)
    return code


def _queue_again(job: str) -> bool:
    """`scontrol requeue`, as soon as Slurm answers; False when Slurm itself has ended this attempt already."""
    told = ""
    while True:
        try:
            known = slurm.jobs([job], limit_s=_ANSWER_S).get(job)
            if known is None or known.state != "RUNNING":
                say(f"Slurm has ended this attempt itself ({known.state if known else 'unknown'})")
                return False
            slurm.requeue(job)
            say(f"job {job} is queued again")
            return True
        except slurm.SlurmAway as err:
            if str(err) != told:
                told = str(err)
                say(f"{told} What is done is saved; asking again every {_ASK_SLURM_AGAIN_S:g} s")
            time.sleep(_ASK_SLURM_AGAIN_S)


def _keep_away(job: str, run: Path, folder: Path) -> None:
    """Tell Slurm of excluded nodes. It takes that for queued jobs only, so just after the requeue."""
    nodes = attempts.excluded(run)
    if not nodes:
        return
    for _ in range(10):
        try:
            slurm.exclude(job, nodes)
        except slurm.SlurmError as err:
            why = str(err)
            time.sleep(0.3)
            continue
        attempts.note_told(folder, nodes)
        say(f"job {job} keeps away from {', '.join(nodes)}")
        return
    say(f"nodes {', '.join(nodes)} could not be excluded. {why}")


def _failed_nodes(lost: Attempt) -> list[tuple[str, str]]:
    """Nodes of an attempt that was cut off which Slurm holds to be unfit now."""
    try:
        return [
            (node, f"{word} after attempt of {_when(lost.started)}")
            for node, word in slurm.bad_nodes(lost.hosts).items()
        ]
    except slurm.SlurmError as err:
        say(f"which node failed cannot be told. {err}")
        return []


def newest(folder: Path) -> int | None:
    """Steps trained in the newest whole checkpoint of a training's folder; None before there is one."""
    try:
        step = checkpoint.step_of(checkpoint.latest(folder / "checkpoints"))
    except CheckpointError:
        return None
    return None if step is None else step + 1


def reached(folder: Path) -> int | None:
    """The last step that a training has written to its metrics; None before there is one."""
    rows = last_rows(folder / "metrics.jsonl")
    return rows[-1]["step"] if rows else None


def _find_toolkit() -> None:
    """What this process starts must find the same source tree, installed or not."""
    root = str(Path(toolkit.__file__).resolve().parents[1])
    known = os.environ.get("PYTHONPATH", "")
    if root not in known.split(os.pathsep):
        os.environ["PYTHONPATH"] = os.pathsep.join(p for p in (root, known) if p)


def _from(step: int | None) -> str:
    return "from the beginning" if step is None else f"from step {step}"


def _at(attempt: Attempt) -> str:
    return "no checkpoint" if attempt.step_to is None else f"checkpoint at step {attempt.step_to}"


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
