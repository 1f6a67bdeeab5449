"""What a run's plan promised of its trainings beside what happened, from plan.json and the curves.

Decides what is compared with what; the promise was the plan's, and is not worked out again.
"""

from __future__ import annotations

from typing import Any

from toolkit.report import speed
from toolkit.report.record import Curve, Record
from toolkit.report.values import count, number, plain

_WHAT = {"pretrain": "Continued pretraining", "finetune": "Finetuning"}


def section(record: Record) -> dict[str, Any]:
    """Tables of (what, promised, smaller words, happened, difference), one for each training that has a promise; and
    what the plan said against the run that was started all the same.
    """
    told = record.plan.get("promise")
    told = told if isinstance(told, dict) else {}
    found = told.get("trainings")
    tables = []
    for one in found[:10] if isinstance(found, list) else ():
        stage = one.get("stage") if isinstance(one, dict) else None
        if stage in _WHAT:
            rows = _rows(record, one, record.pretrain if stage == "pretrain" else record.finetune)
            tables.append({"what": _WHAT[stage], "rows": rows, "began": any(row[3] for row in rows)})
    return {"tables": tables, "refused": _words(told.get("refused"))}


def _words(refused: Any) -> list[str]:
    entries = refused[:10] if isinstance(refused, list) else []
    return [str(one["what"])[:300] for one in entries if isinstance(one, dict) and "what" in one]


def _rows(record: Record, one: dict[str, Any], curve: Curve) -> list[tuple[str, str, str, str, str]]:
    rows = []
    low, high = _of(one, "step_s_low"), _of(one, "step_s_high")
    span = f"{plain(low, 3)} to {plain(high, 3)} s" if low is not None and high is not None else ""
    rows.append(_row("Step time", _of(one, "step_s"), speed.median(curve, "step_s"), " s", 3, span))
    rows.append(_row("Tokens/s", _of(one, "tokens_per_s"), speed.median(curve, "tokens_per_s"), "", 0, ""))
    measured = [value for _, value in curve.finite("memory_gib")]
    memory = _of(_first_stage(one), "gib")
    words = "rank 0; measured is what torch allocated, without CUDA's and NCCL's own"
    rows.append(_row("GPU memory", memory, max(measured, default=None), " GiB", 1, words))
    done = max(curve.steps[-1], len(curve.steps)) if curve.steps else 0
    took = speed.hours(curve)
    rows += _spent(record, one, curve, done, took)
    return [row for row in rows if row is not None]


def _spent(
    record: Record, one: dict[str, Any], curve: Curve, done: int, took: float | None
) -> list[tuple[str, str, str, str, str] | None]:
    """Hours, GPU-hours, energy and carbon: of the whole training where nothing was logged yet, else of what was."""
    steps = _of(one, "steps")
    held = one.get("held") if isinstance(one.get("held"), dict) else {}
    part = done / steps if steps and done else 1.0
    words = f"of {done:,} of {steps:,.0f} steps" if steps and done else "of all steps"
    size = speed.devices(record.recipe)
    used = speed.account(record.recipe, curve)
    pairs = [
        ("Hours", "hours", took, " h", 2),
        ("GPU-hours", "gpu_hours", took * size if took is not None and size else None, "", 1),
        ("Energy", "kwh", used and used.kwh, " kWh", 1),
        ("Carbon", "kgco2", used and used.kgco2, " kgCO2", 2),
    ]
    told = "failures and restarts counted in"
    rows = []
    for what, key, happened, unit, digits in pairs:
        value = _of(held, key)
        promised = None if value is None else value * part
        rows.append(_row(what, promised, happened, unit, digits, f"{words}, {told}" if what == "Hours" else words))
    return rows


def _row(
    what: str, promised: float | None, happened: float | None, unit: str, digits: int, words: str
) -> tuple[str, str, str, str, str] | None:
    """None for what was not promised."""
    if promised is None:
        return None
    change = ""
    if happened is not None and promised > 0:
        change = f"{100 * (happened / promised - 1):+.1f} %".replace("-", "\u2212")
    return what, _show(promised, unit, digits), words, "" if happened is None else _show(happened, unit, digits), change


def _show(value: float, unit: str, digits: int) -> str:
    return f"{count(value) if value >= 1e6 else plain(value, digits)}{unit}"


def _of(values: dict[str, Any], key: str) -> float | None:
    value = number(values.get(key))
    return value if value is not None and value >= 0 else None


def _first_stage(one: dict[str, Any]) -> dict[str, Any]:
    memory = one.get("memory")
    stages = memory.get("stages") if isinstance(memory, dict) else None
    first = stages[0] if isinstance(stages, list) and stages else None
    return first if isinstance(first, dict) else {}
