"""What a search found as a table for people, and as plain values. Decides how many lines are shown, nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from toolkit.plan.layout import layout
from toolkit.plan.search import Candidate, Found
from toolkit.recipe.schema import Recipe

_ROWS, _FALLEN = 12, 10


def search_values(recipe: Recipe, found: Found) -> dict[str, Any]:
    """For JSON: every layout's own sizes beside the words that make it."""
    told = found.as_dict()
    for row, one in zip(told["best"], found.ranked, strict=False):
        s = one.setup
        row |= {
            **{"tp": s.tp, "pp": s.pp, "vp": s.vp, "cp": s.cp, "dp": s.dp, "micro_batch": s.micro_batch},
            **{"recompute": s.recompute, "tokens_per_s_gpu": one.tokens_per_s / s.world},
        }
    best = [
        {"tp": one.setup.tp, "pp": one.setup.pp, "tokens_per_s": one.tokens_per_s, "overrides": list(one.overrides)}
        for one in found.layouts()
    ]
    return {"recipe": recipe.name, "layout": dataclasses.asdict(layout(recipe)), **told, "by_tp_and_pp": best}


def search_text(recipe: Recipe, found: Found) -> str:
    return "\n".join(_lines(recipe, found))


def _lines(recipe: Recipe, found: Found) -> Iterator[str]:
    gpu = found.ranked[0].setup.gpu.title if found.ranked else recipe.cluster.gpu or "GPU"
    yield (
        f"{recipe.name} on {found.gpus:,} {gpu}: {found.tried:,} layouts, {len(found.ranked):,} fit"
        f"{'; the best of each tp and pp' if found.ranked else ''}"
    )
    if found.ranked:
        yield ""
        yield "   tp  pp  vp  cp   dp  micro  recompute    GiB   step s   tokens/s   a GPU"
        shown = found.layouts()
        for number, one in enumerate(shown[:_ROWS], 1):
            yield _row(number, one)
        if len(shown) > _ROWS:
            yield f"  and {len(shown) - _ROWS} more of other tp and pp"
        yield ""
        yield f"the best: {' '.join(found.ranked[0].overrides)}"
    if found.fallen:
        yield ""
        yield "why the others fall"
        for fallen in found.fallen[:_FALLEN]:
            yield f"  {fallen.count:>6,}  {fallen.why}"
            yield f"          such as {fallen.example}"
        rest = sum(fallen.count for fallen in found.fallen[_FALLEN:])
        if rest:
            yield f"  {rest:>6,}  for other reasons"


def _row(number: int, one: Candidate) -> str:
    s, rate = one.setup, one.tokens_per_s
    return (
        f"{number:>2} {s.tp:>2} {s.pp:>3} {s.vp:>3} {s.cp:>3} {s.dp:>4} {s.micro_batch:>6}  {s.recompute:<10} "
        f"{one.memory.gib:>5.1f} {one.step.seconds:>8.4g} {rate:>10,.0f} {rate / s.world:>7,.1f}"
    )
