"""Stages whose work can be shared out: each part in a folder and under a lock of its own, then one job that finishes.

Decides when a part counts and what an earlier attempt left that may be gone on with; what a part is, and how the parts
become the stage's outputs, is the stage's (`part` and `run` of its module).
"""

from __future__ import annotations

import contextlib
import importlib
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from toolkit import files
from toolkit.errors import RunBusy, ToolkitError, UsageError
from toolkit.plan import Step
from toolkit.runs import held
from toolkit.stages.context import Context, inputs

STAGES = ("corpus", "shards", "score", "night")
OUT = "out"  # in a part's folder: what it made
_KEPT = ("lock", "log")
# A node that died holds its locks until the file system's lease ends, for NFSv4 90 s by default (RFC 8881, 8.3).
_WAIT_S = 300.0


def run_part(context: Context, number: int | str, *, wait_s: float = _WAIT_S) -> Path:
    """Do one part of the stage, counted from 0, unless it is done already; returns the folder with what it made.

    An attempt that was stopped is gone on with if it read the same inputs, else what it left is removed. Raises
    `UsageError` for a number that is none of this stage's parts, `RunBusy` when another process has the part for longer
    than `wait_s`, and what the stage raises; each but the first is also left in `error-part-<number>.json`.
    """
    number = checked(context.step, number)
    module = importlib.import_module(f"toolkit.stages.{context.step.stage}")
    folder, error = context.part(number), context.folder / f"error-part-{number}.json"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with _held(folder, wait_s):
            error.unlink(missing_ok=True)
            read = inputs(context.run, context.step)
            if _counts(folder, read):
                print(f"part {number} of {context.step.id} is done", flush=True)
                return folder / OUT
            started = time.time()
            _clean(folder, read, getattr(module, "KEPT", ()))
            figures = module.part(context, number)
            _record(folder, number, started, read, figures)
            error.unlink(missing_ok=True)  # of one that found this one at work
    except ToolkitError as err:
        with contextlib.suppress(ToolkitError, OSError):  # the disk may be what is wrong
            files.write_json(error, err.as_dict())
        raise
    return folder / OUT


def checked(step: Step, number: int | str) -> int:
    """The number of one of the step's parts. Raises `UsageError`."""
    if step.stage not in STAGES:
        raise UsageError(f"stage {step.id} has no parts", do="run it as a whole")
    text = str(number)
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) >= step.parts:
        last = f"0 to {step.parts - 1}" if step.parts > 1 else "0"
        raise UsageError(f"stage {step.id} has no part {text[:40]!r}", do=f"its parts: {last}")
    return int(text)


def finished(context: Context) -> Mapping[int, Path]:
    """By number, in order, what the parts made that are done, whole, and of the inputs as they are now."""
    if not (context.folder / "parts").is_dir():
        return {}
    read = inputs(context.run, context.step)
    folders = {number: context.part(number) for number in range(context.step.parts)}
    return {number: folder / OUT for number, folder in folders.items() if _counts(folder, read)}


def all_of(context: Context, made: Mapping[int, Path]) -> list[Path]:
    """What every part made, in order; those that are not among `made` are done here. Raises as `run_part`."""
    return [made.get(number) or run_part(context, number) for number in range(context.step.parts)]


def clear(context: Context) -> None:
    """Remove what the parts made, and leave their logs: for after the stage has been recorded as done."""
    folder = context.folder / "parts"
    for part in sorted(folder.glob("[0-9]*")):
        with contextlib.suppress(OSError):  # the stage is done, whatever cannot be removed
            (part / "done.json").unlink(missing_ok=True)  # first: without it the rest counts for nothing
            for item in part.iterdir():
                if item.is_dir():
                    shutil.rmtree(item, ignore_errors=True)
                elif item.name != "log":
                    item.unlink()
            part.rmdir()
    with contextlib.suppress(OSError):
        folder.rmdir()


@contextlib.contextmanager
def _held(folder: Path, wait_s: float) -> Iterator[None]:
    deadline, told = time.monotonic() + wait_s, False
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(held(folder))
                break
            except RunBusy as err:
                if time.monotonic() >= deadline:
                    raise
                if not told:
                    print(f"waiting for another process: {err}", flush=True)
                    told = True
                time.sleep(min(1.0, wait_s))
        yield


def _counts(folder: Path, read: Mapping[str, str]) -> bool:
    """Whether the part is done, of these inputs, and still as it was recorded."""
    try:
        record = files.read_json(folder / "done.json")
        same = record["inputs"] == read and (folder / OUT).is_dir()
        return same and record["outputs"] == {OUT: files.fingerprint(folder / OUT)}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def _clean(folder: Path, read: Mapping[str, str], kept: Sequence[str]) -> None:
    """Leave nothing but what an attempt at the same inputs has finished, and what is `kept` as it knows its own inputs;
    parts are cheap, unlike checkpoints.
    """
    try:
        same = files.read_json(folder / "inputs.json") == read and not (folder / "done.json").exists()
    except (OSError, ValueError, RecursionError):
        same = False
    (folder / "done.json").unlink(missing_ok=True)
    if not same:
        for item in list(folder.iterdir()):
            if item.suffix == ".log" or item.name in (*_KEPT, *kept):
                continue
            if item.is_dir() and not item.is_symlink():
                shutil.rmtree(item)
            else:
                item.unlink()
    for place in (folder, folder / OUT):
        files.remove_parts(place)
    files.write_json(folder / "inputs.json", read)


def _record(folder: Path, number: int, started: float, read: Mapping[str, str], figures: Mapping[str, Any]) -> None:
    ended = time.time()
    files.write_json(
        folder / "done.json",
        {
            "part": number,
            "started": started,
            "ended": ended,
            "elapsed_s": round(ended - started, 2),
            "inputs": dict(read),
            "outputs": {OUT: files.fingerprint(folder / OUT)},
            "result": dict(figures),
        },
    )
