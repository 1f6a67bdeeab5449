"""Stage pretrain: continued pretraining of the imported base on the shards, by NeMo on Megatron-core, in every rank."""

from __future__ import annotations

from toolkit import shards, train
from toolkit.stages import training
from toolkit.stages.context import Context, Result


def run(context: Context) -> Result:
    recipe, source = context.recipe, context.shards()
    start = training.weights(context, "import")
    for part in ("train", "valid"):
        shards.verify(source / part, vocab_size=context.layout.vocab)
    job = train.PretrainJob(
        folder=context.folder,
        model=recipe.model,
        parallel=recipe.parallel,
        train=recipe.train,
        data=recipe.data,
        cluster=recipe.cluster,
        vocab_rows=training.vocab_rows(start),
        tokenizer=context.tokenizer(),
        weights=start,
        resume=training.resume_from(context),
        train_shards=(source / "train",),
        valid_shards=(source / "valid",),
    )
    train.pretrain(job)
    if context.rank != 0:
        return Result(outputs={})
    metrics = context.folder / "metrics.jsonl"
    made = training.resume_from(context)
    assert made is not None
    return Result(outputs={"checkpoint": made, "metrics": metrics}, figures=training.curve(metrics))
