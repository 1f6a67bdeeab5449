"""`python -m toolkit.plan`: what a recipe amounts to and takes, the layouts that would fit, how exact that is, and with
`--instantiate` the proof that NeMo builds just that. Thin: every figure is another module's.
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

from toolkit import cli, files
from toolkit.errors import PlanRefused, ToolkitError, UsageError
from toolkit.plan import layout, missing_inputs, picture
from toolkit.plan.promise import Promise, params, promise
from toolkit.plan.proof import differences, proof_text, without_padding
from toolkit.plan.show import plan_text, plan_values
from toolkit.plan.show_promise import promise_text
from toolkit.recipe import compose
from toolkit.recipe.compose import Composed
from toolkit.recipe.schema import Recipe

if TYPE_CHECKING:
    from toolkit.train import PretrainJob

_EPILOG = """examples:
  python -m toolkit.plan recipe=pretrain_70b                      memory, time, cost, carbon, disk; layout and values
  python -m toolkit.plan recipe=pretrain_70b --picture memory.svg the same, and the memory of every stage as a picture
  python -m toolkit.plan recipe=pretrain_70b --search             every layout of its GPUs that fits, the fastest first
  python -m toolkit.plan recipe=pretrain_70b --search --gpus 64   the same on 64 of them
  python -m toolkit.plan recipe=pretrain_70b --instantiate        build what every distinct rank holds, without GPUs
  python -m toolkit.plan recipe=pretrain_70b parallel.vp=2 --instantiate --ranks all --json
  python -m toolkit.plan calibrate runs/RUN...                    learn how fast this site is from its own runs
  python -m toolkit.plan validate FILE.csv                        predicted and measured, line by line
"""
_MOST_SHOWN = 3


def main(argv: Sequence[str]) -> int:
    if argv and argv[0] == "calibrate":
        from toolkit.plan.calibrate import main as calibrate

        return calibrate(list(argv[1:]))
    if argv and argv[0] == "validate":
        from toolkit.plan.validate import main as validate

        return validate(list(argv[1:]))
    parser = argparse.ArgumentParser(
        prog="python -m toolkit.plan",
        description="Show what a recipe amounts to and takes; nothing is submitted.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="*", metavar="key=value", help="recipe=NAME, then overrides as for launch")
    parser.add_argument("--search", action="store_true", help="rank every layout of the GPUs that fits")
    parser.add_argument("--gpus", metavar="N", help="as if the cluster had so many GPUs, in nodes of the same size")
    parser.add_argument("--picture", type=Path, metavar="FILE.svg", help="draw the memory of every stage there as well")
    parser.add_argument("--instantiate", action="store_true", help="build the real model and optimizer of the ranks")
    parser.add_argument("--ranks", choices=("distinct", "all"), help="with --instantiate: which (distinct)")
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    args = parser.parse_intermixed_args(argv)
    name, overrides = _words(args.words)
    if args.ranks and not args.instantiate:
        raise UsageError("--ranks goes with --instantiate")
    if args.search and args.instantiate:
        raise UsageError("--search and --instantiate exclude each other", do="give the layout you chose as parallel.*")
    if args.picture is not None and (args.search or args.instantiate):
        raise UsageError("--picture goes with the plan of one layout", do="leave --search and --instantiate out")
    gpus = None if args.gpus is None else _count(args.gpus)
    if args.search:
        return _search(name, overrides, gpus, args.json)
    composed = compose(name, [*overrides, *_nodes(name, overrides, gpus)])
    recipe = composed.recipe
    if args.instantiate:
        found = prove(recipe, ranks=args.ranks or "distinct")
        cli.print_json({"recipe": recipe.name, **found}) if args.json else print(proof_text(recipe, found))
        return 0
    return _show(composed, args.json, args.picture)


def _show(composed: Composed, as_json: bool, drawing: Path | None) -> int:
    recipe, missing = composed.recipe, missing_inputs(composed.recipe)
    found = promise(recipe)
    if drawing is not None:
        _draw(recipe, found, drawing)
    if as_json:
        cli.print_json(plan_values(recipe, missing, found))
    else:
        print(f"{plan_text(composed, missing)}\n\n{promise_text(recipe, found)}")
    return 0


def _draw(recipe: Recipe, found: Promise, path: Path) -> None:
    if not found.trainings:
        raise UsageError("no memory to draw", where=recipe.name, why="it is predicted of trainings on GPUs alone")
    one = found.trainings[0]
    try:
        files.write_text(path, picture.svg(one.stages, one.limit_gib, title=f"{recipe.name}, {one.stage}"))
    except OSError as err:
        raise UsageError(f"cannot be written: {err.strerror}", where=path, do="give another --picture") from None


def _search(name: str, overrides: Sequence[str], gpus: int | None, as_json: bool) -> int:
    from toolkit.plan.search import search
    from toolkit.plan.show_search import search_text, search_values

    recipe = compose(name, overrides).recipe
    found = search(recipe, gpus, params(recipe))
    cli.print_json(search_values(recipe, found)) if as_json else print(search_text(recipe, found))
    return 0


def _count(word: str) -> int:
    if not word.isascii() or not word.isdigit() or int(word) < 1:
        raise UsageError(f"--gpus {word} is no number of GPUs", do="give 1 or more")
    return int(word)


def _nodes(name: str, overrides: Sequence[str], gpus: int | None) -> list[str]:
    """The overrides that make the recipe's cluster one of so many GPUs, in nodes of the size that it has."""
    if gpus is None:
        return []
    each = compose(name, overrides).recipe.cluster.devices_per_node
    if gpus < each:
        return ["cluster.nodes=1", f"cluster.devices_per_node={gpus}"]
    if gpus % each:
        nearest = gpus // each * each
        raise UsageError(
            f"--gpus {gpus} are no whole nodes of {each}",
            do=f"give {nearest} or {nearest + each}, or fewer than {each}",
        )
    return [f"cluster.nodes={gpus // each}"]


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
