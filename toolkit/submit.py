"""Submits a run's stages in order and follows them: what is done is skipped, what fails stops the run.

Decides order and display; how a stage is started is the cluster's, what it does the stage's.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from toolkit import errors, files, nodes, pinned_image
from toolkit.cluster.executor import LocalExecutor, wait
from toolkit.errors import RunError, StageFailed, Stopped, ToolkitError
from toolkit.plan import Step, steps
from toolkit.runs import Run, done, held, is_done
from toolkit.runs.folder import read_json_or_fail
from toolkit.runs.follow import log_sizes
from toolkit.runs.jobs import CANCELLED
from toolkit.stages.context import inputs
from toolkit.stages.entry import run_stage
from toolkit.watch import Watch


def execute(run: Run, *, quiet: bool = False) -> dict[str, Any]:
    """Bring every stage of `run` to its end. Raises `RunBusy`, `StageFailed` or the error that the stage itself
    raised.
    """
    with held(run.path):
        (run.path / CANCELLED).unlink(missing_ok=True)
        planned = steps(run.recipe)
        with Watch(planned, quiet=quiet) as watch:
            for step in planned:
                finished, why = is_done(run, step.id, inputs(run, step))
                if finished:
                    watch.skipped(step.id)
                else:
                    again = why if done(run, step.id) else ""
                    _run_step(run, step, watch, again)
    return summary(run)


def outlook(run: Run) -> list[dict[str, str]]:
    """What going on with `run` would do, stage by stage."""
    rows = []
    for step in steps(run.recipe):
        ready = all(done(run, need) for need in step.needs)
        finished, why = is_done(run, step.id, inputs(run, step)) if ready else (False, "waits for earlier stages")
        rows.append({"id": step.id, "state": "done" if finished else f"to run: {why}"})
    return rows


def summary(run: Run) -> dict[str, Any]:
    records = {step.id: done(run, step.id) for step in steps(run.recipe)}
    report = run.path / "report.html"
    return {
        "run": str(run.path),
        "report": str(report) if report.is_file() else None,
        "stages": [
            {"id": name, "elapsed_s": r["elapsed_s"], "result": r["result"]} for name, r in records.items() if r
        ],
    }


def _run_step(run: Run, step: Step, watch: Watch, why: str) -> None:
    folder = run.stage(step.id)
    attempt = {"job_id": None, "started": time.time(), "ended": None, "state": "RUNNING", "logs": log_sizes(folder)}
    attempts = _attempts(run, step)
    attempts.append(attempt)
    (folder / "progress.json").unlink(missing_ok=True)
    watch.started(step.id, folder, why)
    try:
        pinned_image.check(run)
        if step.stage == "preflight":  # on Slurm each node of the job says what it is like; here there is this one
            nodes.ask(run, step, [nodes.node()])
        job = LocalExecutor(run.path / "jobs").submit(run_stage, str(run.path), step.id)
        attempt["job_id"] = str(job.job_id)
        _note(run, step, attempts)
        answer = wait(job, watch.tick)
    except BaseException as err:
        attempt.update(ended=time.time(), state="FAILED" if isinstance(err, ToolkitError) else "CANCELLED")
        _note(run, step, attempts)
        raise
    code = answer["code"]
    ended = {0: "COMPLETED", Stopped.exit_code: "CANCELLED"}.get(code, "FAILED")
    attempt.update(ended=time.time(), state=ended)
    _note(run, step, attempts)
    if code != 0:
        raise failure(run, step, folder, answer)
    record = done(run, step.id)
    if record is None:
        raise StageFailed(f"stage {step.id} ended without done.json", where=folder / "log")
    watch.finished(step.id, record)


def failure(run: Run, step: Step, folder: Path, answer: dict[str, Any]) -> ToolkitError:
    """The stage's own error where it left one, else where its log is and how to go on."""
    code, before = answer["code"], [answer["error"]] if answer["error"] else []
    for told in before or [read_json_or_fail(path) for path in sorted(folder.glob("error*.json"))]:
        cls = getattr(errors, str(told.get("error")), ToolkitError)
        if isinstance(cls, type) and issubclass(cls, ToolkitError):
            return cls(told["what"], where=told["where"], why=told["why"], do=told["do"])
    if code == Stopped.exit_code:
        return Stopped(f"stage {step.id} was asked to stop; what it did is saved", do=f"go on with run={run.path}")
    reason = f"killed by signal {code - 128}" if code > 128 else f"exit code {code}"
    return StageFailed(
        f"stage {step.id} failed ({reason})",
        where=folder / "log",
        why=_last_words(folder),
        do=f"mend the cause, then go on with run={run.path}",
    )


def _last_words(folder: Path) -> str:
    """The last line that looks like an error in any rank's log."""
    for log in [folder / "log", *sorted(folder.glob("rank-*.log"))]:
        if log.is_file():
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-200:]
            told = [line.strip() for line in lines if "Error" in line or line.startswith("error:")]
            if told:
                return f"its log says: {told[-1][:300]}"
    return ""


def job_rows(run: Run) -> list[dict[str, Any]]:
    """What jobs.json says of each stage, in order. Raises `RunError` when it is damaged."""
    path = run.path / "jobs.json"
    rows = read_json_or_fail(path, dict).get("stages")
    ids = [step.id for step in steps(run.recipe)]
    whole = isinstance(rows, list) and all(
        isinstance(row, dict) and row.get("id") in ids and isinstance(row.get("attempts"), list) for row in rows
    )
    if not whole:
        raise RunError("damaged: not a list of this run's stages and their attempts", where=path)
    return sorted(rows, key=lambda row: ids.index(row["id"]))


def _attempts(run: Run, step: Step) -> list[dict[str, Any]]:
    return next((list(row["attempts"]) for row in job_rows(run) if row["id"] == step.id), [])


def _note(run: Run, step: Step, attempts: list[dict[str, Any]]) -> None:
    rows = [row for row in job_rows(run) if row["id"] != step.id]
    order = [s.id for s in steps(run.recipe)]
    rows.append({"id": step.id, "stage": step.stage, "attempts": attempts})
    files.write_json(run.path / "jobs.json", {"stages": sorted(rows, key=lambda row: order.index(row["id"]))})
