"""`python -m toolkit.plan`: what a recipe amounts to, and with `--instantiate` the proof that NeMo builds just that.

Thin: arithmetic and words are `toolkit.plan`'s, the building `toolkit.train`'s.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit import cli
from toolkit.errors import PlanRefused, ToolkitError, UsageError
from toolkit.plan import layout, missing_inputs
from toolkit.plan.proof import differences, proof_text, without_padding
from toolkit.plan.show import plan_text, plan_values
from toolkit.recipe import compose
from toolkit.recipe.schema import Recipe

if TYPE_CHECKING:
    from toolkit.train import PretrainJob

_EPILOG = """examples:
  python -m toolkit.plan recipe=pretrain_70b                      layout, stages, values and where each comes from
  python -m toolkit.plan recipe=pretrain_70b --instantiate        build what every distinct rank holds, without GPUs
  python -m toolkit.plan recipe=pretrain_70b parallel.vp=2 --instantiate --ranks all --json
"""
_MOST_SHOWN = 3


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m toolkit.plan",
        description="Show what a recipe amounts to; nothing is written or submitted.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="*", metavar="key=value", help="recipe=NAME, then overrides as for launch")
    parser.add_argument("--instantiate", action="store_true", help="build the real model and optimizer of the ranks")
    parser.add_argument("--ranks", choices=("distinct", "all"), help="with --instantiate: which (distinct)")
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    args = parser.parse_intermixed_args(argv)
    name, overrides = _words(args.words)
    if args.ranks and not args.instantiate:
        raise UsageError("--ranks goes with --instantiate")
    composed = compose(name, overrides)
    recipe = composed.recipe
    if args.instantiate:
        found = prove(recipe, ranks=args.ranks or "distinct")
        cli.print_json({"recipe": recipe.name, **found}) if args.json else print(proof_text(recipe, found))
        return 0
    missing = missing_inputs(recipe)
    cli.print_json(plan_values(recipe, missing)) if args.json else print(plan_text(composed, missing))
    return 0


def _words(words: Sequence[str]) -> tuple[str, list[str]]:
    names = [word.partition("=")[2] for word in words if word.startswith("recipe=")]
    if len(names) != 1 or not names[0]:
        raise UsageError("give one recipe=NAME", do="list them with python -m toolkit.launch")
    if any(word.startswith("run=") for word in words):
        raise UsageError("run= has no meaning here", why="a run keeps its plan in plan.json")
    for word in words:
        if "=" not in word and not word.startswith("~"):
            raise UsageError(f"'{word}' is not key=value", do="write key=value; see --help")
    return names[0], [word for word in words if not word.startswith("recipe=")]


def prove(recipe: Recipe, *, ranks: str = "distinct") -> dict[str, Any]:
    """Build the ranks, compare with the plan; raises `PlanRefused` where they differ, else what was found."""
    from toolkit.train.instantiate import instantiate

    with _quiet():
        found = instantiate(job(recipe), ranks=ranks)
    unlike = differences(recipe, found)
    if unlike:
        more = f" (and {len(unlike) - _MOST_SHOWN} more)" if len(unlike) > _MOST_SHOWN else ""
        raise PlanRefused(
            "what NeMo builds is not what the plan says",
            where=recipe.name,
            why="; ".join(unlike[:_MOST_SHOWN]) + more,
            do="one of the two is wrong: do not start this recipe",
        )
    bare = without_padding(recipe, found["parameters"])
    return {"layout": dataclasses.asdict(layout(recipe)), "parameters_without_padding": bare, **found}


def job(recipe: Recipe) -> PretrainJob:
    """The pretraining of this recipe as its ranks would get it, with no file behind it."""
    from toolkit import train

    names = [field.name for field in dataclasses.fields(train.PretrainJob)]
    sections = {name: getattr(recipe, name) for name in names if hasattr(recipe, name)}
    nowhere = Path("not-there")
    return train.PretrainJob(
        **sections,
        folder=nowhere,
        tokenizer=nowhere,
        vocab_rows=layout(recipe).vocab_padded,
        train_shards=(nowhere,),
        valid_shards=(nowhere,),
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What the packages print while they are imported is of use only where something unforeseen happens."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(1), os.dup(2)]
    with tempfile.TemporaryFile() as log:
        try:
            for target in (1, 2):
                os.dup2(log.fileno(), target)
            yield
        except ToolkitError:
            raise
        except BaseException:
            log.seek(0)
            os.write(kept[1], log.read()[-10_000:])
            raise
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for target, source in zip((1, 2), kept, strict=True):
                os.dup2(source, target)
                os.close(source)


if __name__ == "__main__":
    sys.exit(cli.run(main))
