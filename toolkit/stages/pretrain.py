"""Stage pretrain: continued pretraining of the imported base on the shards, by NeMo on Megatron-core, in every rank."""

from __future__ import annotations

from toolkit import shards, train
from toolkit.stages import training
from toolkit.stages.context import Context, Result


def run(context: Context) -> Result:
    source, start = context.shards(), training.weights(context, "import")
    for part in ("train", "valid"):
        shards.verify(source / part, vocab_size=context.layout.vocab)
    common = training.fields(context, start=start, settings=context.recipe.train)
    train.pretrain(train.PretrainJob(**common, train_shards=(source / "train",), valid_shards=(source / "valid",)))
    return training.result(context)
