"""The in-job entry: runs on the host, reads the run folder, starts the stage's payload. The same for every executor."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from toolkit import files
from toolkit.cluster import container
from toolkit.cluster.ranks import run_ranks
from toolkit.errors import RolledBack, ToolkitError
from toolkit.plan import Step, steps
from toolkit.recipe.layout_rules import TRAINING_STAGES
from toolkit.runs import Run, find, held
from toolkit.stages.context import inputs

_KEPT = ("lock", "log", "attempts.json", "nodes.json", "nodes", "parts")  # parts know themselves what they read

# Starts the payload's processes and waits for them; returns 0, or the code of the first that failed.
Start = Callable[[Run, Step, Sequence[str]], int]


def run_stage(run: str, ident: str) -> dict[str, Any]:
    """Run one stage of the run in folder `run` in processes of this machine; returns {"code": exit code, "error": what
    stopped it before it began, or None}.
    """
    try:
        found = find(run)
        step = next(s for s in steps(found.recipe) if s.id == ident)
        return {"code": enter(found, step, on_this_host), "error": None}
    except ToolkitError as err:
        return {"code": err.exit_code, "error": err.as_dict()}


def enter(run: Run, step: Step, start: Start) -> int:
    """Start a stage's payload with `start`, alone in the stage's folder, and again when a training was rolled back.

    Raises `RunBusy`; returns the payload's last exit code.
    """
    folder = run.stage(step.id)
    folder.mkdir(parents=True, exist_ok=True)
    with held(folder):  # a launcher that was killed may have left its job running
        files.remove_parts(folder)
        _set_aside_what_other_inputs_made(run, step)
        while True:
            for stale in [folder / "done.json", *folder.glob("error*.json")]:
                stale.unlink(missing_ok=True)
            code = start(run, step, ["toolkit.stages", str(run.path), step.id])
            if code != RolledBack.exit_code:  # the training itself says how often it may be started again for that
                break
            with open(folder / "log", "a", encoding="utf-8") as log:
                log.write("rolled back: started again from the newest checkpoint\n")
        if code != 0:  # rank 0 may have ended well and recorded it before another failed
            (folder / "done.json").unlink(missing_ok=True)
        return code


def on_this_host(run: Run, step: Step, words: Sequence[str]) -> int:
    """`python -m WORDS` in as many processes of this host as the step has, in the recipe's image where it has one."""
    command, environment = container.payload(run.recipe, run.path, words)
    os.environ.update(environment)  # this process is the job, and starts nothing else
    return run_ranks(
        command,
        processes=step.processes,
        folder=run.stage(step.id),
        threads=_threads(step.processes),
        alive=run.recipe.cluster.alive if step.stage in TRAINING_STAGES else None,  # the others have no heartbeat
    )


def _set_aside_what_other_inputs_made(run: Run, step: Step) -> None:
    """An earlier attempt may have left checkpoints: they are gone on from only if they were made from the same inputs.

    What was made from others is kept in `stale-<time>-<id>/`, never deleted: it may have cost weeks.
    """
    folder, now = run.stage(step.id), inputs(run, step)
    path = folder / "inputs.json"
    try:
        before = files.read_json(path) if path.is_file() else now
    except ValueError:  # damaged: nobody knows what the rest was made from
        before = None
    if before != now:
        aside = Path(tempfile.mkdtemp(prefix=time.strftime("stale-%Y%m%d-%H%M%S-"), dir=folder))  # two in one second
        for item in folder.iterdir():
            if item.suffix != ".log" and item.name not in _KEPT and not item.name.startswith("stale-"):
                item.replace(aside / item.name)
        with open(folder / "log", "a", encoding="utf-8") as log:
            log.write(f"inputs have changed: what earlier attempts made is in {aside.name}\n")
    files.write_json(path, now)


def _threads(processes: int) -> int:
    """CPU threads per process: the cores shared out, at least one."""
    return max(1, len(os.sched_getaffinity(0)) // processes)
