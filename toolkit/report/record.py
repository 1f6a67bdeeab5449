"""What a run folder tells, as values. Decides their shape alone; reading files is `read`'s."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

MODELS = ("base", "pretrained", "finetuned")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of the run; `state` is done, running, failed or waiting."""

    id: str
    stage: str
    state: str
    started: datetime | None
    ended: datetime | None
    elapsed_s: float | None
    attempts: tuple[str, ...]
    outputs: dict[str, str]
    result: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Metrics of one training: columns by name as (step, value) in order of steps; values may be NaN (then a gap).
    `events` are (step, what, details) in the file's order; `watts` the measured mean power of one GPU.
    """

    steps: tuple[int, ...] = ()
    columns: dict[str, tuple[tuple[int, float], ...]]
    resumed: tuple[int, ...] = ()
    damaged: int = 0
    events: tuple[tuple[int, str, dict[str, Any]], ...] = ()
    watts: float | None = None

    def column(self, name: str) -> tuple[tuple[int, float], ...]:
        return self.columns.get(name, ())

    def finite(self, name: str) -> list[tuple[int, float]]:
        return [(step, value) for step, value in self.column(name) if math.isfinite(value)]


@dataclass(frozen=True, kw_only=True)
class Score:
    """Accuracy of one model on one benchmark; fractions between 0 and 1, `low` and `high` the 95 % interval."""

    model: str
    benchmark: str
    title: str
    mode: str
    accuracy: float
    correct: int | None
    n: int | None
    chance: float | None
    low: float | None
    high: float | None
    groups: dict[str, tuple[float, int | None]]
    paper: str | None
    notes: tuple[str, ...]
    shots: int = 0
    seeds: int = 1  # more: `accuracy` is their mean, with standard deviation `sd`
    sd: float | None = None
    invalid: int | None = None


@dataclass(frozen=True, kw_only=True)
class Record:
    """All that a run folder tells; empty where it does not tell (yet). `notes` says what could not be read."""

    root: Path
    run: str
    recipe: dict[str, Any]
    recipe_text: str
    manifest: dict[str, Any]
    manifest_text: str
    plan: dict[str, Any]
    stages: tuple[Stage, ...]
    pretrain: Curve
    finetune: Curve
    scores: tuple[Score, ...]
    preflight: dict[str, Any]
    notes: tuple[str, ...]
