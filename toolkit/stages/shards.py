"""Stage shards: the base's tokenizer with the added tokens, and the corpus through it as Megatron .bin/.idx pairs. A
part of it is a span of the training text.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toolkit import shards, tokenizer
from toolkit.errors import RecipeError
from toolkit.stages import parts
from toolkit.stages.context import Context, Result


def run(context: Context) -> Result:
    recipe, corpus = context.recipe, _corpus(context)
    out = context.folder / "shards"
    shutil.rmtree(out, ignore_errors=True)
    _extend(context, out / "tokenizer")
    settings, workers = _settings(context, out / "tokenizer"), recipe.data.shard_workers
    figures = {}
    for name in ("train", "valid"):
        text = corpus / f"{name}.jsonl"
        if name == "train" and (made := parts.finished(context)):
            built = shards.merge(text, parts.all_of(context, made), out / name, **settings)
        else:
            built = shards.build([text], out / name, workers=workers, **settings)
        figures |= {
            f"{name}_documents": built.documents,
            f"{name}_tokens": built.tokens,
            f"{name}_bad_rows": built.bad_rows,
        }
    return Result(outputs={"shards": out}, figures=figures)


def part(context: Context, number: int) -> Mapping[str, Any]:
    """A span of the training text, encoded; its tokenizer stands beside it."""
    folder = context.part(number)
    words, out = folder / "tokenizer", folder / parts.OUT
    shutil.rmtree(words, ignore_errors=True)
    shutil.rmtree(out, ignore_errors=True)
    _extend(context, words)
    made = shards.build_part(
        _corpus(context) / "train.jsonl",
        out,
        number=number,
        parts=context.step.parts,
        workers=context.recipe.data.shard_workers,
        **_settings(context, words),
    )
    return {"documents": made.documents, "tokens": made.tokens, "bad_rows": made.bad_rows}


def _corpus(context: Context) -> Path:
    return context.made("corpus", "corpus") or Path(str(context.recipe.inputs.corpus))


def _extend(context: Context, out: Path) -> None:
    model = context.recipe.model
    words = tokenizer.MEDITRON_TOKENS if model.extra_tokens == "meditron" else ()
    extended = tokenizer.extend(context.hf_base(), out, words, model_max_length=model.max_positions)
    if extended.vocab_size != context.layout.vocab:
        raise RecipeError(
            f"the tokenizer has {extended.vocab_size} tokens, the recipe's model {context.layout.vocab}",
            where=context.hf_base(),
            do="set model.base_vocab to the size of the base model's tokenizer",
        )


def _settings(context: Context, words: Path) -> dict[str, Any]:
    recipe = context.recipe
    fraction = recipe.corpus.max_bad_fraction
    return {"tokenizer": words, "append_eod": recipe.data.append_eod, "max_bad_fraction": fraction}
