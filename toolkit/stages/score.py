"""Stage score: every HF model of the run (base, pretrained, finetuned) on every benchmark of the recipe."""

from __future__ import annotations

from pathlib import Path

from toolkit import scoring
from toolkit.errors import DataError
from toolkit.stages.context import Context, Result

_NAMES = {"export-pretrain": "pretrained", "export-finetune": "finetuned"}


def run(context: Context) -> Result:
    asked = context.recipe.score
    made = []
    for benchmark in asked.benchmarks:
        spec = scoring.benchmarks.get(benchmark)
        items = scoring.benchmarks.load(spec, _path(context, benchmark, spec))
        made.append((spec, items))
    scores = []
    for name, folder in models(context).items():
        loaded = scoring.load_model(folder, name=name)
        for spec, items in made:
            scores.append(
                scoring.score(
                    model=loaded,
                    items=items,
                    benchmark=spec,
                    name=name,
                    limit=asked.limit,
                    batch_tokens=asked.batch_tokens,
                )
            )
            print(f"{name} {spec.name} {scores[-1].accuracy:.4f}", flush=True)
    scoring.write(context.folder, scores)
    outputs = {name: context.folder / f"{name}.{kind}" for name, kind in (("scores", "json"), ("predictions", "jsonl"))}
    return Result(outputs=outputs, figures={f"{s.model} {s.benchmark}": round(s.accuracy, 4) for s in scores})


def models(context: Context) -> dict[str, Path]:
    """HF folders by the name that scores carry; the base only where this run has one."""
    found: dict[str, Path] = {}
    if context.recipe.model.base is not None:
        found["base"] = context.hf_base()
    for need in context.step.needs:
        if need in _NAMES:
            path = context.made(need, "hf")
            assert path is not None
            found[_NAMES[need]] = path
    return found


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
