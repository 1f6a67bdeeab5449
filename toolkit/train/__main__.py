"""`python -m toolkit.train composition`: which sources the first batches of a training are made of. Leaves the counting
to the package.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit import cli
from toolkit.errors import RecipeError, UsageError
from toolkit.recipe import Recipe, compose

if TYPE_CHECKING:
    from toolkit.train.composition import Batch
    from toolkit.train.job import PretrainJob
    from toolkit.train.order import Skip

_EPILOG = """examples:
  python -m toolkit.train composition recipe=pretrain_70b inputs.shards=data/shards --batches 20
  python -m toolkit.train composition recipe=pretrain_7b inputs.shards=data/shards 'data.weights={pmc: 3, replay: 1}'
  python -m toolkit.train composition run=last --batches 5 --json
"""
_ROWS = 20  # batches that are shown one by one


def main(argv: Sequence[str]) -> int:
    parser, verb = cli.verbs(
        "python -m toolkit.train",
        description="What a training is made of. Trainings themselves are started with python -m toolkit.launch.",
        examples=_EPILOG,
    )
    asked = verb("composition", "the exact composition of the first global batches, source by source, without a GPU")
    asked.add_argument("words", nargs="+", metavar="key=value", help="recipe=NAME and overrides, or run=RUN")
    asked.add_argument("--batches", type=int, default=10, metavar="N", help="how many global batches (%(default)s)")
    args = parser.parse_args(argv)
    if args.batches < 1:
        raise UsageError(f"--batches {args.batches}", do="give 1 or more")
    recipe, folder, skips = _given(args.words)
    job = _job(recipe, folder)
    if args.batches > recipe.train.steps:
        raise UsageError(f"--batches {args.batches}, and the training has {recipe.train.steps} steps", do="give fewer")
    with _quiet():
        from toolkit.train import composition

        found = composition.of(job, batches=args.batches, skips=skips)
    told = values(recipe, job, found)
    cli.print_json(told) if args.json else print("\n".join(table(told)))
    return 0


def _given(words: Sequence[str]) -> tuple[Recipe, Path, tuple[Skip, ...]]:
    """The recipe, the folder of its shards, and what its training leaves out."""
    runs = [word.partition("=")[2] for word in words if word.startswith("run=")]
    if runs:
        if len(words) > 1:
            raise UsageError("run= stands alone", why="a run keeps the recipe it was started with")
        from toolkit.plan.stages import step_named
        from toolkit.runs import find
        from toolkit.stages.context import Context
        from toolkit.train.order import read_skips

        run = find(runs[0])
        context = Context(run=run, step=step_named(run.recipe, "pretrain", where=run.path))
        return run.recipe, context.shards(), read_skips(context.folder)
    names = [word.partition("=")[2] for word in words if word.startswith("recipe=")]
    if len(names) != 1 or not names[0]:
        raise UsageError("give one recipe=NAME or run=RUN", do="list recipes with python -m toolkit.launch")
    recipe = compose(names[0], [word for word in words if not word.startswith("recipe=")]).recipe
    if recipe.inputs.shards is None:
        raise RecipeError(
            "inputs.shards is not stated",
            where=recipe.name,
            do="give inputs.shards=FOLDER, or run=RUN of one that made them",
        )
    return recipe, Path(recipe.inputs.shards), ()


def _job(recipe: Recipe, folder: Path) -> PretrainJob:
    from toolkit import train
    from toolkit.plan import layout
    from toolkit.stages.given import look
    from toolkit.stages.pretrain import shards_of

    look(recipe, folder)
    return train.PretrainJob(
        folder=folder,
        model=recipe.model,
        parallel=recipe.parallel,
        train=recipe.train,
        data=recipe.data,
        cluster=recipe.cluster,
        vocab_rows=layout(recipe).vocab_padded,
        tokenizer=folder / "tokenizer",
        **shards_of(folder, recipe.data.weights),
    )


def values(recipe: Recipe, job: PretrainJob, found: Sequence[Batch]) -> dict[str, Any]:
    """Each batch's rows by source; of all together rows, tokens and shares, beside the share of the shards' tokens."""
    length = recipe.train.seq_length
    subsets = sorted({name for batch in found for name in batch.rows} | _tokens(job).keys())
    rows = {name: sum(batch.rows.get(name, 0) for batch in found) for name in subsets}
    total, tokens = sum(rows.values()), _tokens(job)
    sources = {
        name: {
            "rows": rows[name],
            "tokens": rows[name] * length,
            "share": rows[name] / total,
            "share_of_shards": tokens[name] / sum(tokens.values()) if name in tokens else None,
        }
        for name in subsets
    }
    return {
        "recipe": recipe.name,
        "global_batch": recipe.train.global_batch,
        "seq_length": length,
        "seed": recipe.train.seed,
        "sources": sources,
        "batches": [{"step": batch.step, "rows": dict(batch.rows)} for batch in found],
    }


def table(told: dict[str, Any]) -> list[str]:
    """What people see of `values`."""
    sources, batches = told["sources"], told["batches"]
    width = [max(len(name), 12) for name in sources]
    head = f"{told['global_batch']} rows of {told['seq_length']:,} tokens a step, seed {told['seed']}"
    lines = [head, "", "  ".join([f"{'step':>8}", *(f"{n:>{w}}" for n, w in zip(sources, width, strict=True))])]
    for batch in batches[:_ROWS]:
        cells = [f"{batch['rows'].get(name, 0):>{w},}" for name, w in zip(sources, width, strict=True)]
        lines.append("  ".join([f"{batch['step']:>8}", *cells]))
    if len(batches) > _ROWS:
        lines.append(f"{'...':>8}  and {len(batches) - _ROWS} more")
    for title, key, form in (("all", "rows", ",d"), ("tokens", "tokens", ",d"), ("share", "share", ".2%")):
        cells = [f"{format(row[key], form):>{w}}" for row, w in zip(sources.values(), width, strict=True)]
        lines.append("  ".join([f"{title:>8}", *cells]))
    own = [row["share_of_shards"] for row in sources.values()]
    cells = [f"{'-' if share is None else format(share, '.2%'):>{w}}" for share, w in zip(own, width, strict=True)]
    return [*lines, "  ".join([f"{'shards':>8}", *cells])]


def _tokens(job: PretrainJob) -> dict[str, int]:
    """Tokens of each source's shards."""
    found: dict[str, int] = {}
    for prefix in job.train_shards:
        if (facts := job.shard_facts.get(prefix)) is not None:
            found[facts.subset] = found.get(facts.subset, 0) + facts.tokens
    return found


@contextlib.contextmanager
def _quiet():
    """Libraries write to stdout as they are imported; what this verb says must stand there alone."""
    logging.disable(logging.INFO)
    warnings.simplefilter("ignore")
    kept = os.dup(1)
    try:
        sys.stdout.flush()
        os.dup2(2, 1)
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        logging.disable(logging.NOTSET)


if __name__ == "__main__":
    sys.exit(cli.run(main))
