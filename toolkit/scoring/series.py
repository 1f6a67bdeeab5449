"""Several scorings of one model: benchmarks, modes and seeds after each other.

Decides what is scored in which order and which seeds would say the same; leaves the single scoring to `evaluate`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.errors import UsageError, nearest
from toolkit.scoring import benchmarks, demonstrations, paper_compat
from toolkit.scoring.benchmarks import Benchmark
from toolkit.scoring.engines import Engine
from toolkit.scoring.evaluate import score
from toolkit.scoring.items import Item
from toolkit.scoring.scores import Score
from toolkit.scoring.store import Store


@dataclass(frozen=True, kw_only=True)
class Set:
    """What is scored, and what demonstrations are drawn from."""

    spec: Benchmark
    items: Sequence[Item]
    pool: Sequence[Item] = ()


def open_set(
    spec: Benchmark,
    path: str | Path | None = None,
    *,
    train_path: str | Path | None = None,
    shots: int = 0,
    compat: bool = False,
) -> Set:
    """The items of `spec` at `path`; with `shots` those of its demonstrations too. Raises DataError."""
    if compat:
        spec = paper_compat.apply(spec)
    items = benchmarks.load(spec, path, compat=compat)
    pool = demonstrations.pool(spec, path, train_path=train_path, compat=compat) if shots else []
    return Set(spec=spec, items=items, pool=pool)


def run(
    engine: Engine,
    sets: Sequence[Set],
    *,
    modes: Sequence[str] = (),
    seeds: Sequence[int] = (0,),
    shots: int = 0,
    store: Store | None = None,
    options: Mapping[str, Any],
) -> Iterator[Score]:
    """A score for each set, mode (none: the benchmark's own) and seed; `options` are further ones of `score`.

    Raises UsageError before anything is scored for a mode that a benchmark does not have and for seeds that are given
    twice; where a seed decides nothing (no demonstrations, no samples) the first alone is scored.
    """
    if len(set(seeds)) < max(1, len(seeds)):
        raise UsageError("a seed is given twice" if seeds else "no seed is given", do="give each seed once")
    for one in sets:
        for mode in modes:
            if mode not in benchmarks.MODES:
                raise UsageError(f"unknown mode '{mode}'", do=nearest(mode, benchmarks.MODES))
            if mode not in one.spec.modes:
                do = f"its modes: {', '.join(one.spec.modes)}"
                raise UsageError(f"benchmark '{one.spec.name}' has no mode {mode}", do=do)
    for one in sets:
        for mode in modes or (one.spec.mode,):
            for seed in seeds if shots or mode == "sc_cot" else seeds[:1]:
                more = {key: value for key, value in options.items() if mode == "sc_cot" or key not in _SAMPLING}
                yield score(
                    model=engine, items=one.items, benchmark=one.spec, pool=one.pool, mode=mode, seed=seed, shots=shots,
                    store=store, **more,
                )  # fmt: skip


_SAMPLING = ("samples", "temperature")
