"""Stage score: every HF model of the run (base, pretrained, finetuned) on every benchmark of the recipe, in every mode
and with every seed. A part of it is one model; what a model has answered is kept, and not asked again after a stop.
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

STORE = "store"
KEPT = (STORE,)  # of a part, whatever has changed: its files know what was asked, and of which model


def run(context: Context) -> Result:
    made = parts.all_of(context, parts.finished(context))
    # There is one part even where there is no model to score.
    found = [folder for _, folder in zip(models(context), made, strict=False)]
    scores = scoring.merge(found, context.folder)
    outputs = {name: context.folder / f"{name}.{kind}" for name, kind in (("scores", "json"), ("predictions", "jsonl"))}
    return Result(outputs=outputs, figures=figures(scores))


def part(context: Context, number: int) -> Mapping[str, Any]:
    """One model on all benchmarks."""
    out = context.part(number) / parts.OUT
    made = sets(context)
    for name, folder in list(models(context).items())[number : number + 1]:
        store = scoring.Store(context.part(number) / STORE)
        return figures(score_folder(context, folder, name=name, out=out, store=store, made=made))
    out.mkdir(exist_ok=True)  # of a run without a model
    return {}


def score_folder(
    context: Context,
    model: Path,
    *,
    name: str,
    out: Path,
    store: scoring.Store | None = None,
    made: list[scoring.series.Set] | None = None,
) -> list[dict[str, Any]]:
    """An HF folder on all that the recipe scores, into `out`; returns the rows of its scores.json.

    With a `store` it goes on where it was stopped. `made` are the sets, where they are read already.
    """
    asked = context.recipe.score
    engine = scoring.engines.load(model, engine=asked.engine, name=name, batch_tokens=asked.batch_tokens)
    options = {
        "limit": asked.limit,
        "compat": asked.paper_compat,
        "samples": asked.samples,
        "temperature": asked.temperature,
        "max_tokens": asked.max_tokens,
    }
    scores = []
    for one in scoring.series.run(
        engine, sets(context) if made is None else made, modes=asked.modes, seeds=asked.seeds, shots=asked.shots,
        store=store, options=options,
    ):  # fmt: skip
        print(f"{name} {one.benchmark} {one.mode} {one.accuracy:.4f}", flush=True)
        scores.append(one)
    with files.atomic_folder(out) as whole:
        scoring.write(whole, scores)
    return scoring.read(out)


def sets(context: Context) -> list[scoring.series.Set]:
    """Everything that the recipe scores, read; what it draws demonstrations from, too. Raises DataError."""
    asked, found = context.recipe.score, []
    for name in asked.benchmarks:
        spec = scoring.benchmarks.get(name)
        options = {"shots": asked.shots, "compat": asked.paper_compat, "train_path": asked.train_paths.get(name)}
        found.append(scoring.series.open_set(spec, _path(context, name, spec), **options))
    return found


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


def figures(scores: list[dict[str, Any]]) -> dict[str, float]:
    """Accuracies by model and benchmark, and by mode and seed where there are several."""
    rows = [row for row in scores if "seeds" not in row]
    several = {key: len({row[key] for row in rows}) > 1 for key in ("mode", "seed")}
    keys = ("model", "benchmark", *(key for key, more in several.items() if more))
    return {" ".join(str(row[key]) for key in keys): round(row["accuracy"], 4) for row in rows}


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
