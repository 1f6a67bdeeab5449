"""Small files of a run, whatever is really there: damage is told in a word, never met as a surprise. Decides what is
too odd to be read; what a file means is the caller's.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from toolkit.errors import RunError
from toolkit.runs.text import finite, number, whole

_BIGGEST = 8 << 20
_TAIL = 1 << 16
_RECENT = 50


def read_bytes(path: Path) -> bytes:
    """A regular file of sane size; anything else under its name would block, or fill the memory."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise RunError("damaged: not a file", where=path)
        data = file.read(_BIGGEST + 1)
    if len(data) > _BIGGEST:
        raise RunError("damaged: too large for what it is", where=path)
    return data


def json_object(path: Path, *, optional: bool = False) -> dict[str, Any] | None:
    """The JSON object in `path`; None when it is absent and may be. Raises `RunError`."""
    try:
        value = json.loads(read_bytes(path))
    except FileNotFoundError:
        if optional:
            return None
        raise RunError("is missing", where=path) from None
    except OSError as err:
        raise RunError(f"cannot be read: {err.strerror}", where=path) from None
    except (ValueError, RecursionError) as err:
        raise RunError(f"damaged: {err}", where=path) from None
    if not isinstance(value, dict):
        raise RunError("damaged: not a JSON object", where=path)
    return value


def json_or_nothing(path: Path) -> dict[str, Any]:
    try:
        return json_object(path, optional=True) or {}
    except RunError:
        return {}


def last_rows(path: Path) -> list[dict[str, Any]]:
    """The last training steps in metrics.jsonl. A line half written, or damaged, is left out."""
    try:
        with open(path, "rb") as handle:
            size = os.fstat(handle.fileno()).st_size
            handle.seek(max(0, size - _TAIL))
            lines = handle.read(_TAIL).split(b"\n")
    except OSError:
        return []
    rows: list[dict[str, Any]] = []
    for line in reversed(lines):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        step = whole(row.get("step")) if isinstance(row, dict) and "event" not in row else None
        loss = number(row.get("loss")) if step is not None else None
        if step is not None and loss is not None:
            figures = {name: finite(row.get(name)) for name in ("step_s", "tokens_per_s")}
            rows.append({"step": step, "loss": loss, **figures})
            if len(rows) == _RECENT:
                break
    return rows[::-1]
