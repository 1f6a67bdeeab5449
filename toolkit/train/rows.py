"""The lines of metrics.jsonl: adding one, reading them, dropping those that a resumed training writes again. What is in
a line is its writer's to say: a step's figures, a validation, or an event such as a rollback. Loads nothing heavy.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit import files


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What an earlier attempt left: `elapsed_s` of training in all its lines, and whether the validation of the step
    that is gone on from was among those dropped.
    """

    elapsed_s: float = 0.0
    validated: bool = False


def append(path: str | Path, row: Mapping[str, Any]) -> None:
    """Add one line. JSON knows no NaN or infinity: they are written as null. Raises `DiskFull` and `OSError`."""
    plain = {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in row.items()}
    with files.disk_errors(Path(path)), open(path, "a", encoding="utf-8") as handle:
        handle.write(json.dumps(plain) + "\n")


def read(path: str | Path) -> list[dict[str, Any]]:
    """The whole lines, in order; none when there is no file. What a full disk left half written is passed over."""
    path, found = Path(path), []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            found.append(row)
    return found


def drop_from(path: str | Path, step: int, steps: int) -> Kept:
    """Keep the whole lines up to `step` of `steps`; an interrupted writer may have left more, and half a line.

    The validation of `step` itself comes again, unless there is nothing left to train. A rollback stays, whatever its
    step: it is why the lines from there on are written again.
    """
    path = Path(path)
    if not path.is_file():
        return Kept()
    kept, elapsed, validated = [], 0.0, False
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
            at = row["step"]
            spent = row.get("elapsed_s")
        except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
            continue
        if isinstance(at, bool) or not isinstance(at, int):
            continue
        if isinstance(spent, (int, float)) and math.isfinite(spent):
            elapsed = max(elapsed, float(spent))
        again = "valid_loss" in row and at == step < steps
        validated = validated or again
        clock = row.keys() <= {"step", "elapsed_s"}  # how an attempt ends; the next goes on counting from it
        if (at <= step and not again and not clock) or row.get("event") == "rollback":
            kept.append(line)
    files.write_text(path, "".join(line + "\n" for line in kept))
    return Kept(elapsed_s=elapsed, validated=validated)
