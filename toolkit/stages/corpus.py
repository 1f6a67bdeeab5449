"""Stage corpus: sources to the documents that train and validate; a demo world also leaves its benchmark and finetuning
rows. A part of it is a share of the input, read and filtered; the job that finishes takes the duplicates out.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from toolkit import corpus
from toolkit.cleaning import Decontamination
from toolkit.corpus import readers
from toolkit.errors import RecipeError, RunBusy
from toolkit.recipe.schema import Recipe
from toolkit.runs import held
from toolkit.stages import parts
from toolkit.stages.context import Context, Result

KEPT = (parts.OUT,)  # of a part, whatever has changed: its units know what they were made of, and by which rules
_PREPARED = "prepared"
_LOOK_S = 2.0


def run(context: Context) -> Result:
    recipe, out, own = context.recipe, context.folder / "corpus", context.folder / "corpus.work"
    sources = sources_of(recipe)
    shares = [context.part(number) / parts.OUT for number in range(context.step.parts)]
    report = corpus.build(
        sources=sources,
        out=out,
        settings=settings_of(recipe),
        workers=recipe.corpus.workers,
        work=own,
        finished=shares if context.step.parts > 1 else (),
        prepared=_prepared(context),
    )
    shutil.rmtree(context.folder / _PREPARED, ignore_errors=True)
    outputs = {"corpus": out}
    for source in sources:
        if source.kind == "world":
            from toolkit.corpus import world

            world.make(source.options).write_tasks(context.folder / "tasks")
            outputs["tasks"] = context.folder / "tasks"
    figures = {
        "documents": report.documents_out,
        "train": report.train,
        "valid": report.valid,
        "removed": dict(report.removed),
    }
    return Result(outputs=outputs, figures={**figures, "set_aside": report.set_aside, "characters": report.characters})


def part(context: Context, number: int) -> Mapping[str, Any]:
    """The units of the input whose number is this one, modulo the number of parts."""
    recipe = context.recipe
    made = corpus.build_units(
        sources=sources_of(recipe),
        folder=context.part(number) / parts.OUT,
        settings=settings_of(recipe),
        share=(number, context.step.parts),
        workers=recipe.corpus.workers,
        prepared=_prepared(context),
    )
    return {"units": made}


def check_sources(recipe: Recipe) -> None:
    """Raise `RecipeError` for options that a source's reader does not know or cannot take, and files for one that reads
    none.
    """
    if "corpus" not in recipe.stages:
        return
    for name, source in recipe.corpus.sources.items():
        try:
            readers.check(source.kind, source.options)
            if source.given and source.kind in readers.WITHOUT_INPUT:
                raise RecipeError(f"a source of kind {source.kind} takes no path")
        except RecipeError as err:
            what = f"{err.where}: {err.what}" if err.where else err.what
            raise RecipeError(what, where=f"corpus.sources.{name}", why=err.why, do=err.do) from None


def sources_of(recipe: Recipe) -> list[corpus.Source]:
    return [
        corpus.Source(
            kind=source.kind,
            paths=source.given,
            subset=name,
            options=source.options,
            valid_fraction=source.valid_fraction,
            license=source.license or "",
        )
        for name, source in recipe.corpus.sources.items()
    ]


def settings_of(recipe: Recipe) -> corpus.Settings:
    asked = recipe.corpus
    rules = dataclasses.asdict(asked.decontaminate)
    benchmarks = rules.pop("benchmarks") or {k: p for k, p in recipe.score.paths.items() if p != "world"}
    return corpus.Settings(
        seed=recipe.train.seed,
        valid_fraction=asked.valid_fraction,
        max_bad_fraction=asked.max_bad_fraction,
        markup=asked.markup,
        tables=asked.tables,
        upsample=asked.upsample,
        filters=asked.filters,
        duplicates=asked.duplicates,
        decontamination=Decontamination(**rules),
        benchmarks=benchmarks,
    )


def _prepared(context: Context) -> Path:
    """The folder that all parts share, with what readers must know of a whole source: one makes it, the others wait."""
    folder = context.folder / _PREPARED
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        corpus.prepare(sources_of(context.recipe), folder, settings_of(context.recipe))
    return folder


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    told = False
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(held(folder))
                break
            except RunBusy as err:  # a table of hundreds of gigabytes takes hours; its maker's lock ends with it
                if not told:
                    print(f"waiting for another part of this stage: {err}", flush=True)
                    told = True
                time.sleep(_LOOK_S)
        yield
