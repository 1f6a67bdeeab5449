"""Stage base: a tokenizer trained on the corpus and a small random HF model around it, for runs without a real base
model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from toolkit import checkpoint, tokenizer
from toolkit.errors import RunError
from toolkit.stages.context import Context, Result


def run(context: Context) -> Result:
    model, seed = context.recipe.model, context.recipe.train.seed
    corpus = context.made("corpus", "corpus") or Path(str(context.recipe.inputs.corpus))
    text = corpus / "train.jsonl"
    if not text.is_file():
        raise RunError(
            "no corpus to train the base model's tokenizer on",
            where=text,
            do="put the stage corpus before base, or give inputs.corpus",
        )
    pieces = context.folder / "tokenizer"
    tokenizer.train(_texts(text), pieces, vocab_size=model.base_vocab, seed=seed, model_max_length=model.max_positions)
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


def _texts(path: Path) -> Iterator[str]:
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)["text"]
