"""Shards that a run is given from outside: refused while nothing has been submitted when a training could not take
them.

Decides when they are looked at; leaves what is wrong with them to `shards`. Light, for login nodes.
"""

from __future__ import annotations

import sys
from pathlib import Path

from toolkit import shards
from toolkit.errors import RecipeError, ShardError, UsageError
from toolkit.plan import layout
from toolkit.recipe import Recipe
from toolkit.shards.given import check


def check_shards(recipe: Recipe) -> None:
    """Raise `RecipeError` for `inputs.shards` that are damaged, were changed since they were made, or are of another
    tokenizer, vocabulary or weights than the recipe's. Shards that the run makes itself are checked in the job.
    """
    folder = recipe.inputs.shards
    if folder is None or "shards" in recipe.stages or "pretrain" not in recipe.stages:
        return
    try:
        look(recipe, Path(folder))
        shards.given(folder, recipe.data.weights)
    except (ShardError, UsageError) as err:
        where = f"inputs.shards: {err.where}" if err.where else "inputs.shards"
        raise RecipeError(err.what, where=where, why=err.why, do=err.do) from err


def look(recipe: Recipe, folder: Path) -> None:
    """The check itself, of any folder of shards. Raises `ShardError`."""
    base = recipe.model.base
    model = Path(base) if base not in (None, "make") else None
    everything = recipe.data.check_shards == "all"
    check(folder, everything=everything, vocab_size=layout(recipe).vocab, model=model, say=_say)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
