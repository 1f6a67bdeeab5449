"""Stage pretrain: continued pretraining of the imported base on the shards, by NeMo on Megatron-core, in every rank."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toolkit import shards, train
from toolkit.stages import given, training
from toolkit.stages.context import Context, Result


def run(context: Context) -> Result:
    source, start = context.shards(), training.weights(context, "import")
    fields = shards_of(source, context.recipe.data.weights)
    if context.rank == 0:
        check(context, source)
    common = training.fields(context, start=start, settings=context.recipe.train)
    train.pretrain(train.PretrainJob(**common, **fields))
    return training.result(context)


def check(context: Context, source: Path) -> None:
    """That the shards are those that were made, and of this model. Raises `ShardError`. One rank's work is enough."""
    given.look(context.recipe, source)
    found = shards.given(source)
    for prefix in found.train + found.valid:
        # Where nothing tells what they were made with, every id is looked at.
        shards.verify(prefix, vocab_size=context.layout.vocab if found.blend is None else None)


def shards_of(folder: Path, weights: Mapping[str, float]) -> dict[str, Any]:
    """What a `PretrainJob` takes of a folder of shards."""
    found = shards.given(folder, weights)
    return {
        "train_shards": found.train,
        "valid_shards": found.valid,
        "shard_weights": found.weights,
        "shard_facts": {
            prefix: train.ShardFacts(subset=found.subset[prefix], tokens=found.tokens[prefix], sha256=digest)
            for prefix, digest in found.sha256.items()
        },
    }
