"""The in-job entry: runs on the host, reads the run folder, starts the stage's payload. The same for every executor."""

from __future__ import annotations

import os
import sys
from typing import Any

from toolkit import files
from toolkit.cluster.ranks import run_ranks
from toolkit.errors import ToolkitError
from toolkit.plan import steps
from toolkit.runs import find, held


def run_stage(run: str, ident: str) -> dict[str, Any]:
    """Run one stage of the run in folder `run`; returns {"code": exit code, "error": what stopped it before it began,
    or None}.
    """
    try:
        return {"code": _run_stage(run, ident), "error": None}
    except ToolkitError as err:
        return {"code": err.exit_code, "error": err.as_dict()}


def _run_stage(run: str, ident: str) -> int:
    found = find(run)
    step = next(s for s in steps(found.recipe) if s.id == ident)
    folder = found.stage(ident)
    folder.mkdir(parents=True, exist_ok=True)
    with held(folder):  # a launcher that was killed may have left its job running
        files.remove_parts(folder)
        for stale in [folder / "done.json", *folder.glob("error*.json")]:
            stale.unlink(missing_ok=True)
        command = [sys.executable, "-m", "toolkit.stages", str(found.path), ident]
        code = run_ranks(command, processes=step.processes, folder=folder, threads=_threads(step.processes))
        if code != 0:  # rank 0 may have ended well and recorded it before another failed
            (folder / "done.json").unlink(missing_ok=True)
        return code


def _threads(processes: int) -> int:
    """CPU threads per process: the cores shared out, at least one."""
    return max(1, len(os.sched_getaffinity(0)) // processes)
