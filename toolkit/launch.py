"""`python -m toolkit.launch`: compose, check, plan, show, write the run folder, submit. Thin: every step is another
module's.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit import cli
from toolkit.cluster.executor import check
from toolkit.errors import PlanRefused, RecipeError, UsageError, nearest
from toolkit.plan import missing_inputs, room
from toolkit.plan.promise import Promise, promise, refuse
from toolkit.plan.show import plan_text, plan_values
from toolkit.plan.show_promise import promise_text
from toolkit.recipe import compose, list_recipes

if TYPE_CHECKING:
    from toolkit.chain import Submitted
    from toolkit.cluster.sbatch import Job
    from toolkit.recipe import Recipe
    from toolkit.runs import Run

_EPILOG = """examples:
  python -m toolkit.launch                                     list the recipes
  python -m toolkit.launch recipe=pretrain_70b --dry-run       show the plan, write nothing
  python -m toolkit.launch recipe=demo train.steps=50          run on this machine
  python -m toolkit.launch recipe=demo cluster=slurm_dev       submit a chain of jobs to Slurm and return
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
    parser.add_argument("--wait", action="store_true", help="on Slurm: stay until the jobs have ended")
    parser.add_argument("--force", action="store_true", help="start what the plan refuses all the same")
    parser.add_argument("--yes", action="store_true", help="do not ask before it takes many GPU-hours")
    parser.add_argument("--in-job", metavar="STAGE", help="for slurm/*.sh: this job does STAGE, submit what follows it")
    parser.add_argument("--new-image", action="store_true", help="with run=RUN: go on with the image that is there now")
    parser.add_argument("--only", action="store_true", help="with --in-job: nothing follows")
    args = parser.parse_intermixed_args(argv)
    recipe, run, overrides = _words(args.words, args.in_job is not None)
    if args.only and not args.in_job:
        raise UsageError("--only goes with --in-job", do="choose stages with stages=[a,b]")
    if args.in_job and (args.dry_run or args.wait or args.json or args.yes):
        do = "give the others to a launch from the login node"
        raise UsageError("--in-job goes with --only and --force alone", do=do)
    if args.new_image and run is None:
        raise UsageError("--new-image goes with run=RUN", do="a new run takes the image that is there")
    if run is not None and (args.force or args.yes):
        raise UsageError("--force and --yes go with recipe=NAME", why="a run was agreed to when it was started")
    if args.in_job and recipe is None and run is None:
        raise UsageError("--in-job without recipe=NAME or run=RUN", do="see python -m toolkit.launch")
    if run is not None:
        if args.in_job and overrides[:1] == [f"stages=[{args.in_job}]"]:
            del overrides[0]  # the script's own word for a new run
        if overrides:
            raise UsageError(
                "a run keeps the recipe it was started with",
                where=f"run={run}",
                do="leave the overrides out, or start a new run with recipe=NAME",
            )
        if args.in_job:
            return _in_job(args, recipe, run, overrides, argv)
        return _go_on(run, args)
    if recipe is None:
        if overrides:
            raise UsageError(f"'{overrides[0]}' without recipe=NAME", do="see python -m toolkit.launch")
        return _list(args.json)
    if args.in_job:
        return _in_job(args, recipe, run, overrides, argv)
    return _launch(recipe, overrides, args, argv)


def _words(words: Sequence[str], in_job: bool) -> tuple[str | None, str | None, list[str]]:
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
    if recipe is not None and run is not None and not in_job:  # a script names its recipe itself
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


def _launch(name: str, overrides: Sequence[str], args: argparse.Namespace, argv: Sequence[str]) -> int:
    composed = compose(name, overrides)
    recipe = composed.recipe
    missing = missing_inputs(recipe)
    found, refused = _promise(recipe, args.force)
    plan = plan_values(recipe, missing, found)
    on_slurm = recipe.cluster.executor == "slurm"
    if args.dry_run:
        scripts = []
        if on_slurm:
            from toolkit.cluster.submission import preview

            scripts = preview(recipe)
        if args.json:
            values = {"values": dataclasses.asdict(recipe), "origin": dict(composed.origin)}
            jobs = {"jobs": [{**_facts(job), "script": text} for job, text in scripts]} if on_slurm else {}
            cli.print_json({**plan, **values, **jobs})
        else:
            _show(recipe, plan_text(composed, missing), found)
            for number, (job, text) in enumerate(scripts, 1):
                print(f"\njob {number} of {len(scripts)}: {job.key}\n\n{text.rstrip()}")
        if refused is not None:
            print(f"error: {refused}", file=sys.stderr)
        return 0 if refused is None else refused.exit_code
    if refused is not None:
        raise refused
    if missing:
        named = "; ".join(f"{key} ({why})" for key, why in missing)
        raise RecipeError(f"not stated: {named}", where=recipe.name, do="give each as KEY=VALUE on the command line")
    check(recipe)
    if "night" in recipe.stages:
        return _night(recipe, args, argv)
    _check_sources(recipe)
    _check_shards(recipe)
    if not args.json:
        _show(recipe, plan_text(composed, missing), found)
    _warn_of_room(recipe)
    from toolkit import pinned_image
    from toolkit.plan.agree import agree
    from toolkit.runs import create

    agree(recipe, found, yes=args.yes)

    command, image = [sys.executable, "-m", "toolkit.launch", *argv], pinned_image.of(recipe)
    run = create(recipe, command=command, plan=plan, image=image)
    if on_slurm:
        return _chain(run, args.json, args.wait, fresh=True)
    from toolkit.submit import execute

    return _report(execute(run, quiet=args.json), args.json)


def _promise(recipe: Recipe, force: bool) -> tuple[Promise | None, PlanRefused | None]:
    """What is promised of the recipe, and why the plan refuses it; forced, a GPU of which nothing is known is fine."""
    try:
        found = promise(recipe)
        refuse(recipe, found)
    except RecipeError as err:
        if not force:
            raise
        print(f"warning: no promise: {err}", file=sys.stderr, flush=True)
        return None, None
    except PlanRefused as err:
        if not force:
            return found, err
        print(f"warning: forced: {err}", file=sys.stderr, flush=True)
    return found, None


def _show(recipe: Recipe, text: str, found: Promise | None) -> None:
    told = f"\n\n{promise_text(recipe, found)}" if found is not None else ""
    print(f"{text}{told}", flush=True)


def _night(recipe: Recipe, args: argparse.Namespace, argv: Sequence[str]) -> int:
    """A night looks first for what there is to do."""
    from toolkit import tonight
    from toolkit.recipe import absolute

    command = [sys.executable, "-m", "toolkit.launch", *argv]
    done = tonight.begin(absolute(recipe), command=command, wait=args.wait, quiet=args.json)
    if args.json:
        cli.print_json(done.as_dict())
    else:
        print(tonight.text(done))
    return 0


def _check_sources(recipe: Recipe) -> None:
    if "corpus" in recipe.stages:
        from toolkit.stages.corpus import check_sources

        check_sources(recipe)


def _check_shards(recipe: Recipe) -> None:
    from toolkit.stages.given import check_shards  # a dry run does not look at them

    check_shards(recipe)


def _warn_of_room(recipe: Recipe) -> None:
    runs = Path(recipe.runs)
    there = next(path for path in (runs, *runs.absolute().parents) if path.is_dir())
    if warning := room.outlook(recipe, shutil.disk_usage(there).free):
        print(warning, file=sys.stderr, flush=True)


def _go_on(name: str, args: argparse.Namespace) -> int:
    from toolkit import pinned_image
    from toolkit.runs import done, find
    from toolkit.submit import execute, outlook

    run = find(name)
    if args.dry_run:
        state = outlook(run)
        if args.json:
            cli.print_json({"run": str(run.path), "stages": state})
        else:
            print("\n".join(f"{row['id']:<18} {row['state']}" for row in state))
        return 0
    check(run.recipe)
    if done(run, "pretrain") is None:
        _check_shards(run.recipe)
    on_slurm = run.recipe.cluster.executor == "slurm"
    if args.new_image:
        if on_slurm:
            from toolkit import chain

            chain.refuse_active(run)
        if pinned_image.accept(run) and not args.json:
            print(f"the run goes on with another image: {run.recipe.container.image}")
    pinned_image.check(run)
    if on_slurm:
        return _chain(run, args.json, args.wait, fresh=False)
    return _report(execute(run, quiet=args.json), args.json)


def _in_job(
    args: argparse.Namespace, recipe: str | None, run: str | None, overrides: Sequence[str], argv: Sequence[str]
) -> int:
    from toolkit.injob import begin

    with contextlib.redirect_stdout(sys.stderr):
        command = [sys.executable, "-m", "toolkit.launch", *argv]
        made = begin(
            args.in_job, recipe=recipe, run=run, overrides=overrides, only=args.only, command=command,
            new_image=args.new_image, force=args.force,
        )  # fmt: skip
    print(made.path)  # alone: the script reads it
    return 0


def _chain(run: Run, as_json: bool, wait: bool, *, fresh: bool) -> int:
    """Submit to Slurm, say what was submitted, and return; with `wait` stay until it has ended."""
    from toolkit import chain

    try:
        made = chain.submit(run)
    except BaseException:
        if fresh:
            chain.discard(run)
        raise
    if not as_json:
        print("\n" + _table(run, made), flush=True)
    if wait:
        from toolkit.submit import summary
        from toolkit.waiting import wait as stay

        stay(run, made)
        told = {**summary(run), "jobs": _submitted(made)}
        return _report(told, as_json)
    if as_json:
        cli.print_json({"run": str(run.path), "jobs": _submitted(made)})
    return 0


def _facts(job: Job) -> dict[str, Any]:
    told = dataclasses.asdict(job)
    kept = ("key", "step", "name", "needs", "array", "nodes", "tasks", "cpus", "gpus", "mem_gib", "time_limit_min")
    return {name: told[name] for name in (*kept, "partition", "exclude")}


def _submitted(made: Sequence[Submitted]) -> list[dict[str, Any]]:
    return [{"id": one.id, "after": list(one.after), **_facts(one.job)} for one in made]


def _table(run: Run, made: Sequence[Submitted]) -> str:
    if not made:
        return f"nothing to submit: every stage of {run.path} is done"
    lines = [f"{'stage':<18} {'job':>9}  {'after':<20} {'nodes x tasks':<14} {'GPUs':<8} time"]
    for one in made:
        size = f"{one.job.nodes} x {one.job.tasks}" + (f"  x {one.job.array}" if one.job.array else "")
        limit = f"{one.job.time_limit_min} min" if one.job.time_limit_min else "-"
        after = ",".join(one.after) or "-"
        lines.append(f"{one.job.key:<18} {one.id:>9}  {after:<20} {size:<14} {one.job.gpus or '-':<8} {limit}")
    lines += _kept_away_from(run, made)
    lines += ["", f"run    {run.path}"]
    lines += [f"follow python -m toolkit.runs show {run.path}", f"       python -m toolkit.runs logs {run.path} -f"]
    return "\n".join(lines)


def _kept_away_from(run: Run, made: Sequence[Submitted]) -> list[str]:
    from toolkit.cluster import excluded

    known = excluded.read(run.path.parent).get(run.recipe.cluster.name, {})
    nodes = sorted({node for one in made for node in one.job.exclude})
    said = [f"  {node}{f': {known[node].why}' if node in known else ''}" for node in nodes]
    return ["", "kept away from (python -m toolkit.runs nodes):", *said] if said else []


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
