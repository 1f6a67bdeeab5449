"""The stages of a run in order: their ids, how many processes each takes, into how many parts it falls, what each needs
from earlier ones or from outside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from toolkit import mixture
from toolkit.errors import UsageError
from toolkit.plan.layout import layout
from toolkit.recipe.layout_rules import TRAINING_STAGES
from toolkit.recipe.schema import Recipe


@dataclass(frozen=True, kw_only=True)
class Step:
    """One stage of a run. `id` names its folder; `needs` are ids of earlier steps; `processes` run side by side.

    `parts` is how many jobs can each do a share of it, before one that finishes it; 1: there is nothing to share out.
    """

    id: str
    stage: str
    needs: tuple[str, ...]
    processes: int
    what: str
    parts: int = 1

    @property
    def per_device(self) -> bool:
        """Whether it takes the whole layout, a process for every device, be that one; the others take one process."""
        return self.stage in _PER_DEVICE


_WHAT = {
    "corpus": "sources to clean documents",
    "base": "small random HF model and its tokenizer",
    "shards": "documents to Megatron .bin/.idx",
    "import": "HF model to Megatron checkpoint",
    "preflight": "every rank meets the others, and says what its node is like",
    "pretrain": "continued pretraining",
    "export": "Megatron checkpoint to HF model",
    "finetune": "supervised finetuning, loss on the answers",
    "score": "benchmarks for every HF model of the run",
    "report": "one page with curves, scores and manifest",
    "night": "new checkpoints of watched trainings, scored and compared with the last good ones",
}

_PER_DEVICE = (*TRAINING_STAGES, "preflight")  # a process for every device; the others are one each

# What a stage reads, by stage; taken from the nearest earlier step of one of these kinds, where there is one.
_READS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "base": (("corpus",),),
    "shards": (("corpus",), ("base",)),
    "import": (("base",), ("shards",)),
    "pretrain": (("shards",), ("import",), ("preflight",)),
    "export": (TRAINING_STAGES, ("base",), ("shards",)),
    "finetune": (("corpus",), ("shards",), ("pretrain", "import"), ("preflight",)),
    "score": (("corpus",), ("base",), ("export",)),
}

# Models that are scored, by the export that makes them; scores carry the name.
SCORED: Mapping[str, str] = {"export-pretrain": "pretrained", "export-finetune": "finetuned", "export": "checkpoint"}


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
        processes = world if stage in _PER_DEVICE else 1
        made.append(
            Step(
                id=ident,
                stage=stage,
                needs=tuple(dict.fromkeys(n for n in needs if n)),
                processes=processes,
                what=_WHAT.get(stage, ""),
                parts=_parts(recipe, stage, needs),
            )
        )
    return tuple(made)


def _parts(recipe: Recipe, stage: str, needs: Sequence[str | None]) -> int:
    """A part is a share of the corpus's files, one of the files that come of them, or a model that is scored."""
    models = sum(need in SCORED for need in needs) + (recipe.model.base is not None)
    found = {"corpus": recipe.corpus.tasks, "shards": recipe.data.shard_parts, "score": models}
    found["night"] = len(recipe.night.checkpoints) if recipe.night else 0
    return max(1, found.get(stage, 1))


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
            if source.kind != "world" and not source.given
        ]
        if not recipe.corpus.sources:
            missing.append(("corpus.sources", "the stage corpus reads them"))
        asked = recipe.corpus.decontaminate
        if asked.mode != "off" and not (asked.benchmarks or recipe.score.paths or recipe.score.benchmarks):
            missing.append(("corpus.decontaminate.benchmarks", "the files of the benchmarks that it is kept clear of"))
    needs_base = stages & {"base", "shards", "import", "export"}
    if needs_base and recipe.model.base is None:
        kept = "tokenizer.model" if recipe.model.family == "llama2" else "tokenizer.json"
        missing.append(("model.base", f"HF folder of the base model, with its {kept}"))
    if recipe.model.base == "make" and "base" not in stages and needs_base:
        missing.append(("stages", "model.base=make needs the stage base before shards"))
    for stage, producers, key in (
        ("shards", ("corpus",), "inputs.corpus"),
        ("pretrain", ("shards",), "inputs.shards"),
        ("pretrain", ("import",), "inputs.checkpoint"),
        ("finetune", ("shards",), "inputs.shards"),
        ("finetune", ("pretrain", "import"), "inputs.checkpoint"),
        ("export", ("shards",), "inputs.shards"),  # for the tokenizer
    ):
        given = getattr(recipe.inputs, key.split(".")[1]) is not None or key in (named for named, _ in missing)
        if stage in stages and not stages & {*producers} and not given:
            missing.append((key, f"stage {stage} needs it when stage {producers[0]} is left out"))
    if "finetune" in stages and recipe.finetune and recipe.finetune.path is None:
        names = mixture.parse(recipe.finetune.benchmark)
        keys = ["finetune.path"] if len(names) == 1 else [f"finetune.paths.{name}" for name in names]
        there = {f"finetune.paths.{name}" for name in recipe.finetune.paths}
        left = [] if len(names) == 1 and there else [key for key in keys if key not in there]
        missing += [(key, "training rows of the benchmark") for key in left]
    if "score" in stages and recipe.model.base is None and "export" not in stages:
        missing.append(("model.base", "HF folder of the model to score"))
    if "night" in stages:
        if recipe.night is None or not recipe.night.watch:
            missing.append(("night.watch", "runs or folders of checkpoints to watch"))
        if not recipe.score.benchmarks:
            missing.append(("score.benchmarks", "what checkpoints are scored on"))
    if stages & {"score", "night"}:
        missing += [
            (f"score.paths.{b}", "the benchmark's file") for b in recipe.score.benchmarks if b not in recipe.score.paths
        ]
    return missing


def step_named(recipe: Recipe, ident: str, *, where: object) -> Step:
    """The step of that id. Raises `UsageError`, which names `where` and the steps that there are."""
    order = steps(recipe)
    found = next((step for step in order if step.id == ident), None)
    if found is None:
        known = ", ".join(step.id for step in order)
        raise UsageError(f"this run has no stage '{ident}'", where=where, do=f"its stages: {known}")
    return found
