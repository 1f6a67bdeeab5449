"""`python -m toolkit.launch`: compose, check, plan, show, write the run folder, submit. Thin: every step is another
module's.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence

from toolkit import cli
from toolkit.cluster.executor import check
from toolkit.errors import RecipeError, UsageError, nearest
from toolkit.plan import layout, missing_inputs, steps
from toolkit.plan.show import plan_text
from toolkit.recipe import compose, list_recipes

_EPILOG = """examples:
  python -m toolkit.launch                                     list the recipes
  python -m toolkit.launch recipe=pretrain_70b --dry-run       show the plan, write nothing
  python -m toolkit.launch recipe=demo train.steps=50          run on this machine
  python -m toolkit.launch run=last                            go on with the newest run where it stopped
"""

_KEYS = {"recipe": "recipe=NAME, as listed by python -m toolkit.launch", "run": "run=RUN, or run=last"}


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m toolkit.launch",
        description="Run a recipe, or go on with a run. Values are overridden as group=choice or a.b=c.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="*", metavar="key=value", help="recipe=NAME or run=RUN, then overrides")
    parser.add_argument("--dry-run", action="store_true", help="compose, check and show; write and submit nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    args = parser.parse_intermixed_args(argv)
    recipe, run, overrides = _words(args.words)
    if run is not None:
        if overrides:
            raise UsageError(
                "a run keeps the recipe it was started with",
                where=f"run={run}",
                do="leave the overrides out, or start a new run with recipe=NAME",
            )
        return _go_on(run, args.json, args.dry_run)
    if recipe is None:
        if overrides:
            raise UsageError(f"'{overrides[0]}' without recipe=NAME", do="see python -m toolkit.launch")
        return _list(args.json)
    return _launch(recipe, overrides, args.json, args.dry_run, argv)


def _words(words: Sequence[str]) -> tuple[str | None, str | None, list[str]]:
    recipe = run = None
    overrides = []
    for number, word in enumerate(words):
        key, _, value = word.partition("=")
        if key in ("recipe", "run") and value:
            if (recipe if key == "recipe" else run) is not None:
                raise UsageError(f"{key}= is given twice")
            recipe, run = (value, run) if key == "recipe" else (recipe, value)
        elif key in ("recipe", "run") or ("=" not in word and not word.startswith("~")):
            names = [name for name, _ in list_recipes()]
            hint = nearest(word, names).replace("'", "recipe=", 1).replace("'", "") if word not in _KEYS else ""
            following = "".join(words[number + 1 : number + 2]) if word in _KEYS else ""
            known = f"{key}={following}" if following.isidentifier() else _KEYS.get(key)
            raise UsageError(
                f"'{word}' is not key=value",
                do=hint if hint.startswith("did you mean") else f"write {known or 'key=value; see --help'}",
            )
        else:
            overrides.append(word)
    if recipe is not None and run is not None:
        raise UsageError("recipe= and run= exclude each other", do="recipe=NAME starts a run, run=RUN goes on with one")
    return recipe, run, overrides


def _list(as_json: bool) -> int:
    recipes = list_recipes()
    if as_json:
        cli.print_json({"recipes": [{"name": name, "title": title} for name, title in recipes]})
        return 0
    width = max((len(name) for name, _ in recipes), default=0)
    for name, title in recipes:
        print(f"{name:<{width}}  {title}")
    print("\nstart one: python -m toolkit.launch recipe=NAME [key=value ...]   (--dry-run shows it first)")
    return 0


def _launch(name: str, overrides: Sequence[str], as_json: bool, dry_run: bool, argv: Sequence[str]) -> int:
    composed = compose(name, overrides)
    recipe = composed.recipe
    missing = missing_inputs(recipe)
    plan = {
        "recipe": recipe.name,
        "layout": dataclasses.asdict(layout(recipe)),
        "stages": [dataclasses.asdict(step) for step in steps(recipe)],
        "missing": [{"key": key, "why": why} for key, why in missing],
    }
    if dry_run:
        if as_json:
            cli.print_json({**plan, "values": dataclasses.asdict(recipe), "origin": dict(composed.origin)})
        else:
            print(plan_text(composed, missing))
        return 0
    if missing:
        named = "; ".join(f"{key} ({why})" for key, why in missing)
        raise RecipeError(f"not stated: {named}", where=recipe.name, do="give each as KEY=VALUE on the command line")
    check(recipe)
    if not as_json:
        print(plan_text(composed, missing), flush=True)
    from toolkit.runs import create
    from toolkit.submit import execute

    run = create(recipe, command=[sys.executable, "-m", "toolkit.launch", *argv], plan=plan)
    return _report(execute(run, quiet=as_json), as_json)


def _go_on(name: str, as_json: bool, dry_run: bool) -> int:
    from toolkit.runs import find
    from toolkit.submit import execute, outlook

    run = find(name)
    if dry_run:
        state = outlook(run)
        if as_json:
            cli.print_json({"run": str(run.path), "stages": state})
        else:
            print("\n".join(f"{row['id']:<18} {row['state']}" for row in state))
        return 0
    return _report(execute(run, quiet=as_json), as_json)


def _report(result: dict[str, object], as_json: bool) -> int:
    if as_json:
        cli.print_json(result)
    else:
        print(f"run    {result['run']}")
        if result.get("report"):
            print(f"report {result['report']}")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
