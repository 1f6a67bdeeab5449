"""The files that a recipe names from outside, made absolute when a run is made: it can then go on from anywhere."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from toolkit.recipe.schema import Night, Recipe, Source

# Values that stand where a path may stand and mean something that the run itself makes.
MADE_BY_THE_RUN = frozenset({"world", "make"})
# Options of corpus readers that name files.
_FILES = ("papers", "journals")


def absolute(recipe: Recipe) -> Recipe:
    """`recipe` with every path from outside relative to the working directory made absolute."""
    corpus = dataclasses.replace(
        recipe.corpus,
        sources={name: _source(source) for name, source in recipe.corpus.sources.items()},
        decontaminate=dataclasses.replace(
            recipe.corpus.decontaminate,
            benchmarks={k: str(_absolute(p)) for k, p in recipe.corpus.decontaminate.benchmarks.items()},
        ),
    )
    inputs = {f.name: _absolute(getattr(recipe.inputs, f.name)) for f in dataclasses.fields(recipe.inputs)}
    tune, night = recipe.finetune, recipe.night
    return dataclasses.replace(
        recipe,
        model=dataclasses.replace(recipe.model, base=_absolute(recipe.model.base)),
        corpus=corpus,
        inputs=dataclasses.replace(recipe.inputs, **inputs),
        finetune=tune
        and dataclasses.replace(
            tune,
            path=_absolute(tune.path),
            paths={k: str(_absolute(p)) for k, p in tune.paths.items()},
            template=_absolute(tune.template),
        ),
        score=dataclasses.replace(
            recipe.score,
            paths={k: str(_absolute(p)) for k, p in recipe.score.paths.items()},
            train_paths={k: str(_absolute(p)) for k, p in recipe.score.train_paths.items()},
        ),
        night=night and _night(night),
        cluster=dataclasses.replace(recipe.cluster, calibration=_absolute(recipe.cluster.calibration)),
        container=dataclasses.replace(recipe.container, image=_absolute(recipe.container.image)),
        runs=str(_absolute(recipe.runs)),
    )


def outside(recipe: Recipe) -> list[str]:
    """Every file or folder from outside that the recipe names for its jobs, as it names them; the image aside."""
    named = list(of_corpus(recipe).values())
    named += [getattr(recipe.inputs, f.name) for f in dataclasses.fields(recipe.inputs)]
    tune = recipe.finetune
    named += [] if tune is None else [tune.path, tune.template, *tune.paths.values()]
    named += [recipe.model.base, *recipe.score.paths.values(), *recipe.score.train_paths.values()]
    if recipe.night is not None and "night" in recipe.stages:
        named += [recipe.night.history]
        named += [path for due in recipe.night.checkpoints for path in (due.path, due.config, due.tokenizer)]
    return list(dict.fromkeys(path for path in named if path is not None and path not in MADE_BY_THE_RUN))


def _night(night: Night) -> Night:
    made = [dataclasses.replace(due, path=str(_absolute(due.path))) for due in night.checkpoints]
    watch = tuple(str(_absolute(path)) for path in night.watch)
    return dataclasses.replace(night, watch=watch, history=str(_absolute(night.history)), checkpoints=tuple(made))


def of_corpus(recipe: Recipe) -> dict[str, str]:
    """Key -> file or folder that the corpus is made from or checked against."""
    found: dict[str, str] = {}
    for name, source in recipe.corpus.sources.items():
        key = f"corpus.sources.{name}"
        if source.path is not None:
            found[f"{key}.path"] = source.path
        found |= {f"{key}.paths[{i}]": path for i, path in enumerate(source.paths)}
        for option in _FILES:
            value = source.options.get(option)
            for i, path in enumerate(value if isinstance(value, list | tuple) else [value]):
                if isinstance(path, str):
                    found[f"{key}.options.{option}[{i}]"] = path
    benchmarks = recipe.corpus.decontaminate.benchmarks
    return found | {f"corpus.decontaminate.benchmarks.{name}": path for name, path in benchmarks.items()}


def _source(source: Source) -> Source:
    options = {key: _each_absolute(value) if key in _FILES else value for key, value in source.options.items()}
    paths = tuple(str(_absolute(path)) for path in source.paths)
    return dataclasses.replace(source, path=_absolute(source.path), paths=paths, options=options)


def _each_absolute(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_each_absolute(item) for item in value]
    return _absolute(value) if isinstance(value, str) else value


def _absolute(path: str | None) -> str | None:
    if path is None or path in MADE_BY_THE_RUN:
        return path
    return os.path.abspath(Path(path).expanduser())
