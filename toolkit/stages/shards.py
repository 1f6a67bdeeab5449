"""Stage shards: the base's tokenizer with the added tokens, and the corpus through it as Megatron .bin/.idx pairs."""

from __future__ import annotations

import shutil
from pathlib import Path

from toolkit import shards, tokenizer
from toolkit.errors import RecipeError
from toolkit.stages.context import Context, Result


def run(context: Context) -> Result:
    recipe = context.recipe
    corpus = context.made("corpus", "corpus") or Path(str(recipe.inputs.corpus))
    out = context.folder / "shards"
    shutil.rmtree(out, ignore_errors=True)
    words = tokenizer.MEDITRON_TOKENS if recipe.model.extra_tokens == "meditron" else ()
    extended = tokenizer.extend(
        context.hf_base(), out / "tokenizer", words, model_max_length=recipe.model.max_positions
    )
    if extended.vocab_size != context.layout.vocab:
        raise RecipeError(
            f"the tokenizer has {extended.vocab_size} tokens, the recipe's model {context.layout.vocab}",
            where=context.hf_base(),
            do="set model.base_vocab to the size of the base model's tokenizer",
        )
    figures = {}
    for part in ("train", "valid"):
        built = shards.build(
            [corpus / f"{part}.jsonl"],
            out / part,
            tokenizer=out / "tokenizer",
            append_eod=recipe.data.append_eod,
            max_bad_fraction=recipe.corpus.max_bad_fraction,
            workers=recipe.data.shard_workers,
        )
        figures |= {
            f"{part}_documents": built.documents,
            f"{part}_tokens": built.tokens,
            f"{part}_bad_rows": built.bad_rows,
        }
    return Result(outputs={"shards": out}, figures=figures)
