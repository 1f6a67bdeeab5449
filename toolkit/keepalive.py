"""Keeps a stage alive on Slurm: each start of its job is an attempt, recorded with its end, and a training that was
stopped, crashed or hung is queued again by the host until it is done or no attempt makes progress any more.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import toolkit
from toolkit import alike, checkpoint, files, nodes, pinned_image
from toolkit.cluster import attempts, container, excluded, slurm, srun
from toolkit.cluster.attempts import Attempt
from toolkit.cluster.ranks import run_ranks
from toolkit.cluster.srun import Asked, Ended, say
from toolkit.errors import CheckpointError, PreflightFailed, RunBusy, StageFailed, Stopped, ToolkitError
from toolkit.plan import Step
from toolkit.recipe.layout_rules import TRAINING_STAGES
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
    caller = dict(os.environ)  # what this job was given wins over what is found
    with srun.listening() as asked:
        finished, _ = is_done(run, step.id, inputs(run, step))
        if finished:
            say(f"stage {step.id} is done already")
            return 0
        ranks = _many if step.per_device else _one
        ended: list[Attempt] = []

        def start(run: Run, step: Step, words: Sequence[str]) -> int:
            code, attempt = _attempt(run, step, lambda: ranks(run, step, words, asked, caller), asked)
            ended.append(attempt)
            return code

        verdict = _verdict(run, step)
        code = _alone(run, step, start, asked)
        if step.stage == "preflight" and ended and _verdict(run, step) != verdict:
            _remember(run, step, ended[-1])
        if code == 0:
            return 0
        return _after(run, step, ended[-1], code) if step.stage in TRAINING_STAGES else code


def part(run: Run, step: Step, number: str) -> int:
    """Run one part of the stage in this job; the payload holds the part's own lock, and goes on where it stopped."""
    _find_toolkit()
    place = Context(run=run, step=step).part(parts.checked(step, number))
    words = ["toolkit.stages", str(run.path), step.id, "--part", number]
    command = _payload(run, words, dict(os.environ), _own_image(run))
    return run_ranks(command, processes=1, folder=place, threads=run.recipe.cluster.small.cpus)


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
    blamed = attempts.blame(folder, [fault for a in lost for fault in _failed_nodes(a)], alive.strikes)
    if step.stage in TRAINING_STAGES:
        blamed = attempts.exclude(folder, _known_unfit(run, set(hosts) - set(blamed.excluded)))
    now = Attempt(job_id=job, restart=restart, started=time.time(), hosts=hosts, step_from=at, logs=log_sizes(folder))
    attempts.write(folder, [*past, now])
    where = hosts[0] if len(hosts) == 1 else f"{len(hosts)} nodes, {hosts[0]} first"
    say(f"stage {step.id}, attempt {len(past) + 1}, job {job} on {where}, {_from(at)}")
    avoid = sorted(set(blamed.excluded) & set(hosts) - set(blamed.told))
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
    elif closed.state == "UNFIT":
        attempts.exclude(folder, ended.blame)
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


def _many(run: Run, step: Step, words: Sequence[str], asked: Asked, caller: Mapping[str, str]) -> Ended:
    """One task of a step for each process, over the job's nodes, once these have said that they are fit."""
    cluster, image = run.recipe.cluster, None
    pinned_image.check(run)
    if nodes.asked_of(run.recipe, step):
        hosts = slurm.hostnames(os.environ.get("SLURM_JOB_NODELIST", ""))
        answers = nodes.ask(run, step, hosts, asked)
        if asked:
            return Ended(state="STOPPED", code=Stopped.exit_code, why=" and ".join(asked.signals))
        seen = alike.merge(run, step, answers, caller, judged_later=step.stage == "preflight")
        if seen.unfit:
            why = "; ".join(f"{node}: {what}" for node, what in seen.unfit)
            # Where Slurm gives a node that it was told to keep away from, other nodes will not come either.
            fresh = {node for node, _ in seen.unfit} - set(attempts.read_nodes(run.stage(step.id)).told)
            return Ended(
                state="UNFIT" if fresh else "CRASHED", code=PreflightFailed.exit_code, why=why, blame=seen.unfit
            )
        image = seen.image
    return srun.run_tasks(
        _payload(run, words, caller, image),
        nodes=cluster.nodes,
        per_node=cluster.devices_per_node,
        cpus_per_task=cluster.cpus_per_device,
        folder=run.stage(step.id),
        alive=cluster.alive,
        asked=asked,
        apptainer=run.recipe.container.runtime == "apptainer",
    )


def _one(run: Run, step: Step, words: Sequence[str], asked: Asked, caller: Mapping[str, str]) -> Ended:
    """One process on the batch host."""
    code = run_ranks(
        _payload(run, words, caller, _own_image(run)),
        processes=1,
        folder=run.stage(step.id),
        threads=run.recipe.cluster.small.cpus,
    )
    if code == 0:
        return Ended(state="COMPLETED", code=0)
    return Ended(state="STOPPED" if asked else "CRASHED", code=code, why=f"exit code {code}")


def _payload(run: Run, words: Sequence[str], caller: Mapping[str, str], image: Path | None) -> list[str]:
    command, environment = container.payload(run.recipe, run.path, words, image=image)
    if run.recipe.container.runtime == "none":  # an image is given the file itself
        environment |= {name: value for name, value in alike.told(run.path).items() if name not in caller}
    os.environ.update(environment)
    return command


def _own_image(run: Run) -> Path | None:
    """What this host alone is to start, checked."""
    found = nodes.image(run)
    return Path(found) if found else None


def _known_unfit(run: Run, hosts: Iterable[str]) -> list[tuple[str, str]]:
    """Those that a preflight has found unfit since this job was submitted."""
    known = excluded.read(run.path.parent).get(run.recipe.cluster.name, {})
    return [(node, known[node].why) for node in sorted(hosts) if node in known]


def _verdict(run: Run, step: Step) -> int | None:
    """When a preflight last came to one; None before."""
    try:
        return (run.stage(step.id) / "preflight.json").stat().st_mtime_ns
    except OSError:
        return None


def _remember(run: Run, step: Step, last: Attempt) -> None:
    """Which nodes later jobs are to keep away from, and which no longer: the run itself does not depend on it."""
    told, name = json_or_nothing(run.stage(step.id) / "preflight.json"), run.recipe.cluster.name
    unfit = {str(node) for node in told.get("exclude") or () if str(node) in last.hosts}
    said = [f for f in told.get("faults") or () if isinstance(f, dict)]
    why = {node: "; ".join(str(f.get("what")) for f in said if f.get("node") == node) for node in unfit}
    try:
        excluded.note(run.path.parent, name, why, run.id)
        again = excluded.clear(run.path.parent, name, set(last.hosts) - unfit - {f.get("node") for f in said})
    except (ToolkitError, OSError) as err:
        say(f"which nodes are unfit could not be noted. {err}")
        return
    for node in sorted(unfit):
        say(f"later jobs keep away from {node}: {why[node]}")
    if again:
        say(f"fit again: {', '.join(again)}")


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
    _keep_away(job, run, folder)
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


def _keep_away(job: str, run: Run, folder: Path) -> None:
    """Tell Slurm of excluded nodes. It takes that for queued jobs only, so just after the requeue; and it forgets those
    that the job was submitted with.
    """
    away = attempts.excluded(run.path)
    if not away:
        return
    site = run.recipe.cluster
    given = [str(site.sbatch["exclude"])] if site.sbatch.get("exclude") else []
    for _ in range(10):
        try:
            slurm.exclude(job, {*away, *excluded.names(run.path.parent, site.name), *given})
        except slurm.SlurmError as err:
            why = str(err)
            time.sleep(0.3)
            continue
        attempts.note_told(folder, away)
        say(f"job {job} keeps away from {', '.join(away)}")
        return
    say(f"nodes {', '.join(away)} could not be excluded. {why}")


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
