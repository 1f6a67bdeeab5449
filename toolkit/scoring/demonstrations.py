"""Which solved questions stand before a question, and in which order.

Decides the draw: by a seed, the same for every question (of a group, where the benchmark says so), and never a
question that is scored; leaves their wording to `prompts` and what fits into a window to whoever calls it.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from toolkit.errors import DataError, UsageError
from toolkit.scoring import benchmarks
from toolkit.scoring.benchmarks import Benchmark
from toolkit.scoring.items import Item

SEEDS = (1234, 432, 32)
"""The seeds of the MEDITRON paper's few-shot results (released code); it reports mean and deviation over them."""


def pool(
    spec: Benchmark,
    path: str | Path | None = None,
    *,
    train_path: str | Path | None = None,
    seed: int = 0,
    compat: bool = False,
) -> list[Item]:
    """All items that demonstrations may be drawn from, in their files' order. Raises as `benchmarks.load`."""
    kinds = {"split": "demonstrations", "train_path": train_path, "seed": seed, "compat": compat}
    return benchmarks.load(spec, path, **kinds)


def draw(
    spec: Benchmark,
    pool: Sequence[Item],
    *,
    shots: int,
    seed: int,
    mode: str = "letter",
    compat: bool = False,
    group: str | None = None,
) -> tuple[Item, ...]:
    """The first `shots` of `pool`, shuffled by `seed`: more shots begin with the fewer ones of the same seed.

    Of those of `group` where one is given, and for the modes that reason of those that have an explanation. `compat`
    shuffles as the released code does (`datasets.Dataset.shuffle`). Raises UsageError (`shots` below 0) and DataError
    (too few in the pool).
    """
    if shots < 0:
        raise UsageError(f"shots must be at least 0, not {shots}")
    if not shots:
        return ()
    own = [item for item in pool if group is None or item.group == group]
    fit = [item for item in own if item.explanation.strip()] if mode in ("cot", "sc_cot") else own
    if len(fit) < shots:
        what = f"too few questions to demonstrate '{spec.name}' with" + (f" in '{group}'" if group else "")
        explained = f" with an explanation of {len(own)}" if len(fit) < len(own) else ""
        why = f"{shots} are asked for, and the pool has {len(fit)}{explained}"
        raise DataError(what, why=why, do="ask for fewer shots, or give more with --train")
    if compat:
        from toolkit.scoring import paper_compat

        order = paper_compat.order(len(fit), seed)
    else:
        order = list(range(len(fit)))
        random.Random(seed).shuffle(order)
    return tuple(fit[i] for i in order[:shots])


def by_group(
    spec: Benchmark,
    items: Sequence[Item],
    pool: Sequence[Item],
    *,
    shots: int,
    seed: int,
    mode: str = "letter",
    compat: bool = False,
) -> Mapping[str, tuple[Item, ...]]:
    """For every group of `items`, what stands before its questions.

    One draw for all where the benchmark says `demonstrate: pooled` (and in `compat`), else one of each group's own.
    What is scored is taken out of the pool first: items of the same question and the same context; of several such in
    the pool the first stays. Raises as `draw`.
    """
    seen = {key(item) for item in items}
    free = []
    for item in pool if shots else ():
        if (asked := key(item)) not in seen:
            seen.add(asked)
            free.append(item)
    groups = sorted({item.group for item in items})
    options = {"shots": shots, "seed": seed, "mode": mode, "compat": compat}
    if compat or spec.demonstrate == "pooled":
        drawn = draw(spec, free, **options)
        return dict.fromkeys(groups, drawn)
    return {group: draw(spec, free, group=group, **options) for group in groups}


def key(item: Item) -> tuple[str, str]:
    """What two items share that ask the same, whatever their ids, capitals and blanks."""
    return " ".join((item.question or item.prompt).split()).casefold(), " ".join(item.context.split()).casefold()
