"""The trainings of a recipe as one kind of value: which stages they are, and what `train` would be for each.

Decides how many steps a finetuning has before its rows are counted; leaves that counting to the stage.
"""

from __future__ import annotations

import dataclasses
import math

from toolkit import mixture
from toolkit.recipe.compose import recipes_dir
from toolkit.recipe.layout_rules import TRAINING_STAGES
from toolkit.recipe.schema import Recipe, Train

UNKNOWN_STEPS = 10**15  # of a finetuning whose rows nobody has counted
_LEAST = 20  # one row in so many is held out at most


def stages(recipe: Recipe) -> list[str]:
    return [stage for stage in recipe.stages if stage in TRAINING_STAGES]


def adapts(recipe: Recipe, stage: str) -> bool:
    """Whether the stage trains adapters alone, of which nothing is predicted."""
    return stage == "finetune" and recipe.finetune is not None and recipe.finetune.peft != "none"


def foretold(recipe: Recipe) -> list[str]:
    """The stages whose memory and time are predicted."""
    return [stage for stage in stages(recipe) if not adapts(recipe, stage)]


def settings(recipe: Recipe, stage: str) -> Train:
    """The values of the training that `stage` does: finetuning has a few of its own."""
    asked = recipe.finetune
    if stage != "finetune" or asked is None:
        return recipe.train
    return dataclasses.replace(
        recipe.train,
        steps=asked.steps or _steps(recipe) or UNKNOWN_STEPS,
        decay_steps=None,
        seq_length=asked.seq_length,
        micro_batch=asked.micro_batch,
        global_batch=asked.global_batch,
        save_every=asked.save_every,
        valid_every=asked.valid_every,
        keep_every=None,
    )


def of_stage(recipe: Recipe, stage: str) -> Recipe:
    """`recipe` with the values of the training that `stage` does as its `train`, for what looks there alone."""
    return dataclasses.replace(recipe, train=settings(recipe, stage))


def known(train: Train) -> bool:
    """Whether it is known how many steps it has."""
    return train.steps < UNKNOWN_STEPS


def _steps(recipe: Recipe) -> int | None:
    """Of a finetuning, from the training rows that its benchmarks are known to have; None where one does not say."""
    asked = recipe.finetune
    assert asked is not None
    rows = 0.0
    for name, weight in mixture.parse(asked.benchmark).items():
        size = _train_size(name)
        if size is None:
            return None
        rows += weight * (size - min(asked.held_out, size // _LEAST))
    found = math.ceil(asked.epochs * rows / asked.global_batch)
    return max(1, math.ceil(found / asked.steps_multiple) * asked.steps_multiple)


def _train_size(benchmark: str) -> int | None:
    """`train_size` of recipes/benchmark/NAME.yaml, the one line of it that matters here; the others stay unread."""
    path = recipes_dir() / "benchmark" / f"{benchmark}.yaml"
    if not path.is_file():
        return None
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        key, _, value = line.partition(":")
        word = value.partition("#")[0].strip().replace("_", "")
        if key == "train_size" and word.isdigit():
            return int(word)
    return None
