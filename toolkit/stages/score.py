"""Stage score: every HF model of the run (base, pretrained, finetuned) on every benchmark of the recipe. A part of it
is one model; a model that is scored again after a stop goes on at the benchmark where it stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toolkit import files, scoring
from toolkit.errors import DataError
from toolkit.plan.stages import SCORED
from toolkit.stages import parts
from toolkit.stages.context import Context, Result


def run(context: Context) -> Result:
    made = parts.all_of(context, parts.finished(context))
    # There is one part even where there is no model to score.
    found = [folder / place for _, folder in zip(models(context), made, strict=False) for place in _places(context)]
    scores = scoring.merge(found, context.folder)
    outputs = {name: context.folder / f"{name}.{kind}" for name, kind in (("scores", "json"), ("predictions", "jsonl"))}
    return Result(outputs=outputs, figures=_figures(scores))


def part(context: Context, number: int) -> Mapping[str, Any]:
    """One model on all benchmarks, a folder of results for each."""
    asked, out = context.recipe.score, context.part(number) / parts.OUT
    out.mkdir(exist_ok=True)
    made = []
    for benchmark in asked.benchmarks:
        spec = scoring.benchmarks.get(benchmark)
        made.append((spec, scoring.benchmarks.load(spec, _path(context, benchmark, spec))))
    rows = []
    for name, folder in list(models(context).items())[number : number + 1]:  # none in a run without a model
        loaded = None
        for place, (spec, items) in zip(_places(context), made, strict=True):
            if (scores := _scored(out / place)) is None:
                loaded = loaded or scoring.load_model(folder, name=name)
                limits = {"limit": asked.limit, "batch_tokens": asked.batch_tokens}
                score = scoring.score(model=loaded, items=items, benchmark=spec, name=name, **limits)
                with files.atomic_folder(out / place) as whole:
                    scoring.write(whole, [score])
                scores = [score.as_dict()]
            rows += scores
            print(f"{name} {spec.name} {scores[0]['accuracy']:.4f}", flush=True)
    return _figures(rows)


def models(context: Context) -> dict[str, Path]:
    """HF folders by the name that scores carry; the base only where this run has one."""
    found: dict[str, Path] = {}
    if context.recipe.model.base is not None:
        found["base"] = context.hf_base()
    for need in context.step.needs:
        if need in SCORED:
            path = context.made(need, "hf")
            assert path is not None
            found[SCORED[need]] = path
    return found


def _places(context: Context) -> list[str]:
    """Folders of a part's results, by the place of the benchmark in the recipe: a benchmark's name may be a path."""
    return [f"{place:02d}" for place in range(len(context.recipe.score.benchmarks))]


def _scored(folder: Path) -> list[dict[str, Any]] | None:
    """What an attempt that was stopped has scored already; None where it did not come so far."""
    try:
        return scoring.read(folder)
    except DataError:
        return None


def _figures(scores: list[dict[str, Any]]) -> dict[str, float]:
    return {f"{s['model']} {s['benchmark']}": round(s["accuracy"], 4) for s in scores}


def _path(context: Context, name: str, spec: scoring.Benchmark) -> Path:
    """The benchmark's file: as given, or among the rows that the demo world left."""
    given = context.recipe.score.paths.get(name)
    if given != "world":
        if given is None:
            raise DataError(f"no file for benchmark '{name}'", do=f"give score.paths.{name}=FILE")
        return Path(given)
    tasks = context.made("corpus", "tasks")
    if tasks is None:
        raise DataError(f"score.paths.{name}=world needs a corpus of kind world", do=f"give score.paths.{name}=FILE")
    return tasks / spec.files[0]
