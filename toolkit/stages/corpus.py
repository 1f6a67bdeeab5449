"""Stage corpus: sources to train.jsonl and valid.jsonl; a demo world also leaves its benchmark and finetuning rows. A
part of it is one source.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toolkit import corpus
from toolkit.stages import parts
from toolkit.stages.context import Context, Result


def run(context: Context) -> Result:
    sources, out = _sources(context), context.folder / "corpus"
    report = corpus.build(sources=sources, out=out, parts=parts.finished(context), **_rules(context))
    outputs = {"corpus": out}
    for source in sources:
        if source.kind == "world":
            from toolkit.corpus import world

            world.make(source.options).write_tasks(context.folder / "tasks")
            outputs["tasks"] = context.folder / "tasks"
    figures = {
        "documents": report.documents_out,
        "train": report.train,
        "valid": report.valid,
        "removed": dict(report.removed),
    }
    return Result(outputs=outputs, figures={**figures, "set_aside": report.set_aside, "characters": report.characters})


def part(context: Context, number: int) -> Mapping[str, Any]:
    """One source, read and sifted."""
    source = _sources(context)[number]
    documents = corpus.build_part(source=source, out=context.part(number) / parts.OUT, **_rules(context))
    return {"source": source.subset, "documents": documents}


def _sources(context: Context) -> list[corpus.Source]:
    return [
        corpus.Source(kind=s.kind, path=s.path, subset=name, options=s.options)
        for name, s in context.recipe.corpus.sources.items()
    ]


def _rules(context: Context) -> dict[str, Any]:
    asked = context.recipe.corpus
    return {
        "seed": context.recipe.train.seed,
        "valid_fraction": asked.valid_fraction,
        "allow_noncommercial": asked.allow_noncommercial,
        "max_bad_fraction": asked.max_bad_fraction,
    }
