"""The files that a recipe names from outside, made absolute when a run is made: it can then go on from anywhere."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from toolkit.recipe.schema import Recipe

# Values that stand where a path may stand and mean something that the run itself makes.
MADE_BY_THE_RUN = frozenset({"world", "make"})


def absolute(recipe: Recipe) -> Recipe:
    """`recipe` with every path from outside relative to the working directory made absolute."""
    sources = {k: dataclasses.replace(s, path=_absolute(s.path)) for k, s in recipe.corpus.sources.items()}
    inputs = {f.name: _absolute(getattr(recipe.inputs, f.name)) for f in dataclasses.fields(recipe.inputs)}
    tune = recipe.finetune
    return dataclasses.replace(
        recipe,
        model=dataclasses.replace(recipe.model, base=_absolute(recipe.model.base)),
        corpus=dataclasses.replace(recipe.corpus, sources=sources),
        inputs=dataclasses.replace(recipe.inputs, **inputs),
        finetune=tune and dataclasses.replace(tune, path=_absolute(tune.path)),
        score=dataclasses.replace(recipe.score, paths={k: str(_absolute(p)) for k, p in recipe.score.paths.items()}),
        container=dataclasses.replace(recipe.container, image=_absolute(recipe.container.image)),
        runs=str(_absolute(recipe.runs)),
    )


def outside(recipe: Recipe) -> list[str]:
    """Every file or folder from outside that the recipe names for its jobs, as it names them; the image aside."""
    named = [source.path for source in recipe.corpus.sources.values()]
    named += [getattr(recipe.inputs, f.name) for f in dataclasses.fields(recipe.inputs)]
    named += [recipe.model.base, recipe.finetune.path if recipe.finetune else None, *recipe.score.paths.values()]
    return list(dict.fromkeys(path for path in named if path is not None and path not in MADE_BY_THE_RUN))


def _absolute(path: str | None) -> str | None:
    if path is None or path in MADE_BY_THE_RUN:
        return path
    return os.path.abspath(Path(path).expanduser())
