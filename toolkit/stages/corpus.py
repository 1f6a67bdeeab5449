"""Stage corpus: sources to train.jsonl and valid.jsonl; a demo world also leaves its benchmark and finetuning rows."""

from __future__ import annotations

from toolkit import corpus
from toolkit.stages.context import Context, Result


def run(context: Context) -> Result:
    asked, seed = context.recipe.corpus, context.recipe.train.seed
    sources = [
        corpus.Source(kind=s.kind, path=s.path, subset=name, options=s.options) for name, s in asked.sources.items()
    ]
    out = context.folder / "corpus"
    report = corpus.build(
        sources=sources,
        out=out,
        seed=seed,
        valid_fraction=asked.valid_fraction,
        allow_noncommercial=asked.allow_noncommercial,
        max_bad_fraction=asked.max_bad_fraction,
    )
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
