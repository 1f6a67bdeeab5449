"""Stage base: a tokenizer trained on the corpus and a small random HF model around it, for runs without a real base
model.
"""

from __future__ import annotations

from itertools import chain
from pathlib import Path

from toolkit import checkpoint, shards, tokenizer
from toolkit.stages.context import Context, Result


def run(context: Context) -> Result:
    model, seed = context.recipe.model, context.recipe.train.seed
    corpus = context.made("corpus", "corpus") or Path(str(context.recipe.inputs.corpus))
    text = [source.path for source in shards.corpus(corpus) if source.split == "train"]
    pieces = context.folder / "tokenizer"
    tokenizer.train(
        chain.from_iterable(map(shards.texts, text)),
        pieces,
        vocab_size=model.base_vocab,
        seed=seed,
        model_max_length=model.max_positions,
    )
    out = context.folder / "hf"
    checkpoint.make_random_hf(
        out,
        layers=model.layers,
        hidden=model.hidden,
        ffn=model.ffn,
        heads=model.heads,
        kv_heads=model.kv_heads,
        vocab_size=model.base_vocab,
        max_positions=model.max_positions,
        tokenizer=pieces,
        seed=seed,
        init_std=model.init_std,
        rope_theta=model.rope_base,
        rms_norm_eps=model.norm_eps,
    )
    return Result(outputs={"hf": out}, figures={"vocabulary": model.base_vocab})
