"""Asks a person before a launch takes more GPU-hours than the site lets pass without a word. Decides nothing of how
many those are; where nobody can be asked it goes on, and says so.
"""

from __future__ import annotations

import sys

from toolkit.errors import PlanRefused
from toolkit.plan.promise import Promise
from toolkit.recipe.schema import Recipe


def agree(recipe: Recipe, found: Promise | None, *, yes: bool) -> None:
    """Raise `PlanRefused` when somebody at a terminal does not agree; `yes` has agreed beforehand."""
    hours, limit = found and found.gpu_hours, recipe.cluster.ask_gpu_hours
    if hours is None or hours <= limit or yes:
        return
    told = f"this takes about {hours:,.0f} GPU-hours, more than cluster.ask_gpu_hours={limit:,.0f}"
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        print(f"{told}; nobody can be asked here, so it goes on", file=sys.stderr, flush=True)
        return
    print(f"{told}. Start it? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise PlanRefused(
            "not started", where=recipe.name, why=f"nobody agreed to {hours:,.0f} GPU-hours", do="--yes agrees"
        )
