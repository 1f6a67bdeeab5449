"""What a finished stage leaves: done.json with its outputs' hashes and the hashes of what it read.

A stage counts as done only while its outputs are there and what it read has not changed since.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toolkit import files
from toolkit.errors import RunError
from toolkit.runs.folder import Run, read_json_or_fail


def record_done(
    run: Run,
    ident: str,
    *,
    stage: str,
    started: float,
    inputs: Mapping[str, str],
    outputs: Mapping[str, Path],
    result: Any,
) -> None:
    """Write done.json last of all. Outputs are paths below the stage's folder; inputs are {name: hash}."""
    folder, ended = run.stage(ident), time.time()
    files.write_json(
        folder / "done.json",
        {
            "stage": stage,
            "started": started,
            "ended": ended,
            "elapsed_s": round(ended - started, 2),
            "inputs": dict(inputs),
            "outputs": {str(path.relative_to(folder)): files.fingerprint(path) for path in outputs.values()},
            "names": {name: str(path.relative_to(folder)) for name, path in outputs.items()},
            "result": result,
        },
    )


def done(run: Run, ident: str) -> dict[str, Any] | None:
    """What the stage left in done.json; None before it is done. Raises `RunError` when the file is damaged."""
    path = run.stage(ident) / "done.json"
    if not path.is_file():
        return None
    record = read_json_or_fail(path, dict)
    for name in ("inputs", "outputs", "names"):
        if not isinstance(record.get(name), dict):
            raise RunError(f"damaged: no mapping '{name}'", where=path, do="remove the file to run the stage again")
    return {"elapsed_s": 0.0, "result": {}, **record}


def is_done(run: Run, ident: str, inputs: Mapping[str, str]) -> tuple[bool, str]:
    """Whether the stage need not run again, and why it must."""
    record = done(run, ident)
    if record is None:
        return False, "not finished"
    if record["inputs"] != dict(inputs):
        return False, "its inputs have changed"
    for name, digest in record["outputs"].items():
        path = run.stage(ident) / name
        if not path.exists():
            return False, f"{name} is gone"
        if files.fingerprint(path) != digest:
            return False, f"{name} has changed"
    return True, ""
