"""Stage shards: the base's tokenizer with the added tokens, and the corpus through it as Megatron .bin/.idx pairs. A
part of it is a share of the corpus' files.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from toolkit import shards, tokenizer
from toolkit.errors import RecipeError
from toolkit.shards import blend
from toolkit.stages import parts
from toolkit.stages.context import Context, Result


def run(context: Context) -> Result:
    """Files that an interrupted attempt has finished, or that parts have made, are not encoded again."""
    sources, out = shards.corpus(corpus_of(context)), context.folder / "shards"
    _remove_others(out, sources)
    _extend(context, out / blend.TOKENIZER)
    if made := parts.finished(context):
        for folder in parts.all_of(context, made):
            _take_over(folder, out)
    workers = context.recipe.data.shard_workers
    built = shards.build_parts(sources, out, workers=workers, **_settings(context, out / blend.TOKENIZER)).blend
    figures: dict[str, Any] = {"shards": len(built.shards)}
    for name in blend.SPLITS:
        side = getattr(built, name)
        counts = ("documents", "tokens", "bad_rows")
        figures |= {f"{name}_{what}": sum(getattr(shard, what) for shard in side) for what in counts}
    return Result(outputs={"shards": out}, figures=figures)


def part(context: Context, number: int) -> Mapping[str, Any]:
    """Every so-maniest file of the corpus, encoded; its tokenizer stands beside it."""
    folder = context.part(number)
    words, out = folder / "tokenizer", folder / parts.OUT
    _extend(context, words)
    out.mkdir(parents=True, exist_ok=True)
    mine = shards.corpus(corpus_of(context))[number :: context.step.parts]
    _remove_others(out, mine)
    if not mine:  # fewer files than parts
        return {"shards": 0}
    _, kept, _ = shards.encode_parts(
        mine, out, workers=context.recipe.data.shard_workers, **_settings(context, words)
    )  # fmt: skip
    made = [blend.read_pair(out / source.name)[1] for source in mine]
    counts = {what: sum(getattr(shard, what) for shard in made) for what in ("documents", "tokens", "bad_rows")}
    return {"shards": len(made), "kept": kept, **counts}


def corpus_of(context: Context) -> Path:
    """The folder of the corpus: an earlier stage's, or the one given."""
    return context.made("corpus", "corpus") or Path(str(context.recipe.inputs.corpus))


def _take_over(folder: Path, out: Path) -> None:
    """What a part made, as further names of the same files; copies where the file system has no such thing."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        there = out / path.relative_to(folder)
        there.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            there.unlink()
        try:
            os.link(path, there)
        except OSError:
            shutil.copy2(path, there)


def _remove_others(out: Path, sources: Sequence[shards.Source]) -> None:
    """Leave nothing in the stage's own folder but what this corpus' files may have made."""
    kept = {f"{source.name}{end}" for source in sources for end in (".bin", ".idx", ".json", ".bad.jsonl")}
    for path in sorted(out.rglob("*"), reverse=True):
        inside = path.relative_to(out)
        if path.is_file() and inside.parts[0] != blend.TOKENIZER and inside.as_posix() not in kept:
            path.unlink()


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
