"""The stages of a run in order: their ids, how many processes each takes, what each needs from earlier ones or from
outside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from toolkit.plan.layout import layout
from toolkit.recipe.rules import TRAINING_STAGES
from toolkit.recipe.schema import Recipe


@dataclass(frozen=True, kw_only=True)
class Step:
    """One stage of a run. `id` names its folder; `needs` are ids of earlier steps; `processes` run side by side."""

    id: str
    stage: str
    needs: tuple[str, ...]
    processes: int
    what: str


_WHAT = {
    "corpus": "sources to clean documents",
    "base": "small random HF model and its tokenizer",
    "shards": "documents to Megatron .bin/.idx",
    "import": "HF model to Megatron checkpoint",
    "pretrain": "continued pretraining",
    "export": "Megatron checkpoint to HF model",
    "finetune": "supervised finetuning, loss on the answers",
    "score": "benchmarks for every HF model of the run",
    "report": "one page with curves, scores and manifest",
}

# What a stage reads, by stage; taken from the nearest earlier step of one of these kinds, where there is one.
_READS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "base": (("corpus",),),
    "shards": (("corpus",), ("base",)),
    "import": (("base",), ("shards",)),
    "pretrain": (("shards",), ("import",)),
    "export": (TRAINING_STAGES, ("base",), ("shards",)),
    "finetune": (("corpus",), ("shards",), ("pretrain", "import")),
    "score": (("corpus",), ("base",), ("export",)),
}


def steps(recipe: Recipe) -> tuple[Step, ...]:
    """The recipe's stages as steps; an export's id says which training it exports."""
    world = layout(recipe).world
    made: list[Step] = []
    for stage in recipe.stages:
        trained = next((s for s in reversed(made) if s.stage in TRAINING_STAGES), None)
        ident = f"export-{trained.id}" if stage == "export" and trained else stage
        needs = [_latest(made, kinds) for kinds in _READS.get(stage, ())]
        if stage == "score":
            needs = [*needs[:-1], *(s.id for s in made if s.stage == "export")]
        if stage == "report":
            needs = [s.id for s in made]
        processes = world if stage in TRAINING_STAGES else 1
        made.append(
            Step(
                id=ident,
                stage=stage,
                needs=tuple(dict.fromkeys(n for n in needs if n)),
                processes=processes,
                what=_WHAT.get(stage, ""),
            )
        )
    return tuple(made)


def _latest(made: list[Step], kinds: tuple[str, ...]) -> str | None:
    for step in reversed(made):
        if step.stage in kinds:
            return step.id
    return None


def missing_inputs(recipe: Recipe) -> list[tuple[str, str]]:
    """(key, why) of every value that a real run needs and the recipe leaves open."""
    stages = set(recipe.stages)
    missing: list[tuple[str, str]] = []
    if "corpus" in stages:
        missing += [
            (f"corpus.sources.{name}.path", "files of this subset")
            for name, source in recipe.corpus.sources.items()
            if source.kind != "world" and source.path is None
        ]
        if not recipe.corpus.sources:
            missing.append(("corpus.sources", "the stage corpus reads them"))
    needs_base = stages & {"base", "shards", "import", "export"}
    if needs_base and recipe.model.base is None:
        missing.append(("model.base", "HF folder of the base model, with its tokenizer.model"))
    if recipe.model.base == "make" and "base" not in stages and needs_base:
        missing.append(("stages", "model.base=make needs the stage base before shards"))
    for stage, producer, key in (
        ("shards", "corpus", "inputs.corpus"),
        ("pretrain", "shards", "inputs.shards"),
        ("pretrain", "import", "inputs.checkpoint"),
    ):
        if stage in stages and producer not in stages and getattr(recipe.inputs, key.split(".")[1]) is None:
            missing.append((key, f"stage {stage} needs it when stage {producer} is left out"))
    if "finetune" in stages and recipe.finetune and recipe.finetune.path is None:
        missing.append(("finetune.path", "training rows of the benchmark"))
    if "score" in stages:
        missing += [
            (f"score.paths.{b}", "the benchmark's file") for b in recipe.score.benchmarks if b not in recipe.score.paths
        ]
    return missing
