"""`python -m toolkit.runs list | show | logs | cancel | retry`: what runs there are, and what to do with one. Thin: it
names options and prints; everything is read from the run folders.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from toolkit import cli
from toolkit.errors import RunError, ToolkitError, UsageError, nearest
from toolkit.plan import layout, steps
from toolkit.recipe import Recipe
from toolkit.runs import Run, done, find, follow, show
from toolkit.runs.cancel import GRACE_S, cancel
from toolkit.runs.overview import Overview, Stage, find_all, overview
from toolkit.runs.text import harmless

_HASHED_GIB = 4  # outputs beyond it are hashed on request only: a login node would read for minutes

_EPILOG = """examples:
  python -m toolkit.runs list                        every run below runs/, newest first
  python -m toolkit.runs show last                   stages, attempts, figures, what going on would do
  python -m toolkit.runs logs last -f                what the newest run says, as it says it
  python -m toolkit.runs logs RUN pretrain --rank 3 --attempt 1 -n 50
  python -m toolkit.runs cancel RUN                  end what works on it; it can go on later
  python -m toolkit.runs retry RUN                   go on where it stopped

RUN is a name as listed, `last`, or a run's folder.
"""


def main(argv: Sequence[str]) -> int:
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a log may hold what the terminal's encoding has not
    args = _parser().parse_args(argv)
    as_json = getattr(args, "json", False)
    root = getattr(args, "root", None)
    if args.verb == "list":
        return _list(root, as_json)
    run = _find(args.run, root or "runs")
    if args.verb == "show":
        return _show(run, as_json, args.check)
    if args.verb == "logs":
        return _logs(run, args, as_json)
    if args.verb == "cancel":
        return _cancel(run, as_json, args.grace)
    from toolkit import launch

    return launch.main([f"run={run.path}", *(["--json"] if as_json else [])])


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    text = "folder of run folders (default: runs)"
    common.add_argument("--root", metavar="FOLDER", default=argparse.SUPPRESS, help=text)
    common.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON document")
    look: dict[str, Any] = {"epilog": _EPILOG, "formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = argparse.ArgumentParser(
        prog="python -m toolkit.runs",
        description="What runs there are, and what to do with one.",
        parents=[common],
        **look,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="list|show|logs|cancel|retry")
    verbs.add_parser("list", help="every run, newest first", parents=[common], **look)
    made = {}
    for name, help_text in (
        ("show", "one run: stages, attempts, figures, what going on with it would do"),
        ("logs", "what a stage has printed: the running one, else the one that failed, else the last"),
        ("cancel", "end what works on the run; it can go on later"),
        ("retry", "go on with the run where it stopped, as python -m toolkit.launch run=RUN"),
    ):
        made[name] = verbs.add_parser(name, help=help_text, description=help_text, parents=[common], **look)
        made[name].add_argument("run", metavar="RUN", help="a name as listed, `last`, or a run's folder")
    made["show"].add_argument("--check", action="store_true", help="hash outputs however large they are")
    logs = made["logs"].add_argument
    logs("stage", metavar="STAGE", nargs="?", help="a stage of this run")
    logs("-f", "--follow", action="store_true", help="go on printing until the stage ends, over new attempts too")
    logs("-n", "--lines", metavar="N", type=_count, help="only the last N lines")
    logs("--attempt", metavar="N", type=_count, help="attempt N, counted from 1 (default: the newest)")
    logs("--rank", metavar="N", type=_count, default=0, help="rank N of a training (default: 0)")
    made["cancel"].add_argument(
        "--grace", metavar="S", type=_seconds, default=GRACE_S, help=f"seconds before SIGTERM (default {GRACE_S:g})"
    )
    return parser


def _list(root: str | None, as_json: bool) -> int:
    folder = Path(root or "runs")
    found = [] if root is None and not folder.exists() else find_all(folder, _order)
    if as_json:
        cli.print_json({"runs": [_plain(dataclasses.replace(run, stages=())) for run in found]})
    elif found:
        show.table(found)
    else:
        print(f"no runs in {harmless(folder)}; start one with python -m toolkit.launch recipe=NAME")
    return 0


def _show(run: Run, as_json: bool, check: bool) -> int:
    seen = overview(run.path, _order)
    following = _following(run, seen, check)
    facts = layout(run.recipe)
    if as_json:
        going_on = {"stages": following} if isinstance(following, list) else {"note": following}
        shape = dataclasses.asdict(facts)
        cli.print_json({**_plain(seen), "title": run.recipe.title, "layout": shape, "going_on": going_on})
        return 0
    if isinstance(following, str):
        lines = [following]
    elif all(row["state"] == "done" for row in following):
        lines = ["nothing to do: every stage is done, and what it read and made is unchanged"]
    else:
        lines = [f"{row['id']:<18} {row['state']}" for row in following]
    nodes = f"{facts.nodes} {'node' if facts.nodes == 1 else 'nodes'}"
    unit = "GPUs" if run.recipe.cluster.device == "gpu" else "processes"
    shape_text = f"{facts.world:,} {unit} on {nodes}, tp {facts.tp} pp {facts.pp} cp {facts.cp} dp {facts.dp}"
    told = [harmless(line, 300) for line in lines]
    print(show.page(seen, title=harmless(run.recipe.title), layout=shape_text, following=told))
    return 0


def _following(run: Run, seen: Overview, check: bool) -> list[dict[str, str]] | str:
    """What going on with the run would do, stage by stage, or why that is not said."""
    if seen.state == "running":
        return "it is being worked on; wait for it, or end that with python -m toolkit.runs cancel"
    try:
        if not check and _outputs_gib(run) > _HASHED_GIB:
            return f"outputs of more than {_HASHED_GIB} GiB are not hashed unless --check asks for it"
        from toolkit.submit import outlook

        return outlook(run)
    except ToolkitError as err:
        return f"not possible: {err}"
    except OSError as err:
        return f"not possible: {err}"


def _outputs_gib(run: Run) -> float:
    total = 0
    for step in steps(run.recipe):
        for name in (done(run, step.id) or {"outputs": {}})["outputs"]:
            path = run.stage(step.id) / name
            total += sum(p.stat().st_size for p in ([path] if path.is_file() else path.rglob("*")) if p.is_file())
    return total / 2**30


def _logs(run: Run, args: argparse.Namespace, as_json: bool) -> int:
    if args.follow and as_json:
        raise UsageError("-f and --json exclude each other", do="leave one of them out")
    if args.follow and args.attempt is not None:
        raise UsageError("-f follows the newest attempt", do="leave --attempt or -f out")
    seen = overview(run.path, _order)
    stage = _stage(run, seen, args.stage)
    folder = run.stage(stage.id)
    if args.follow and not (folder / follow.log_name(args.rank)).exists():
        part = follow.Part(path=folder / follow.log_name(args.rank), start=0, end=None, attempt=None)
    else:
        part = follow.part(folder, [a.logs for a in stage.attempts], rank=args.rank, attempt=args.attempt)
    path = part.path
    if args.rank == 0 and not path.exists() and not args.follow:
        part = _job_log(run, stage, args.attempt)
    lines = follow.read(part, last=args.lines)
    if as_json:
        where = {"run": seen.run, "stage": stage.id, "rank": args.rank, "attempt": part.attempt}
        cli.print_json({**where, "path": harmless(part.path, None), "lines": list(lines)})
        return 0
    start = part.start
    if args.follow:
        start = follow.start_of_last(path, start, args.lines)
        lines = follow.follow(path, start, lambda: _over(run, stage.id))
    empty = True
    for line in lines:
        empty = False
        print(line, flush=args.follow)
    if empty and args.lines is None:
        print(f"stage {stage.id} has printed nothing", file=sys.stderr)
    return 0


def _stage(run: Run, seen: Overview, wanted: str | None) -> Stage:
    """The stage asked for, else the one that runs or failed, else the last that has a log. Raises `UsageError`."""
    known = seen.stages or tuple(
        Stage(id=s.id, stage=s.stage, state="waiting", elapsed_s=None, attempts=()) for s in steps(run.recipe)
    )
    if wanted is not None:
        found = next((s for s in known if s.id == wanted), None)
        if found is None:
            names = [s.id for s in known]
            raise UsageError(
                f"this run has no stage '{harmless(wanted)}'", where=run.path,
                do=nearest(wanted, names) or f"its stages: {', '.join(names)}",
            )  # fmt: skip
        return found
    if seen.state in ("running", "failed") and seen.stage:
        return next(s for s in known if s.id == seen.stage)
    begun = [s for s in known if s.attempts or (run.stage(s.id) / "log").exists()]
    if not begun:
        raise RunError("no stage of this run has begun", where=run.path, do=f"start it: run={run.path}")
    return max(begun, key=lambda s: ((s.attempts[-1].started or 0.0) if s.attempts else 0.0, known.index(s)))


def _job_log(run: Run, stage: Stage, attempt: int | None) -> follow.Part:
    """What the job around the stage said, for a stage that could not even begin. Raises `RunError`."""
    job = stage.attempts[(attempt or len(stage.attempts)) - 1].job_id if stage.attempts else ""
    path = run.path / "jobs" / f"{job}_0_log.err"
    if not job.replace("_", "").isalnum() or not path.is_file():
        raise RunError(f"stage {stage.id} has no log yet", where=run.stage(stage.id))
    print(f"stage {stage.id} has no log; this is its job's: {path}", file=sys.stderr)
    return follow.Part(path=path, start=0, end=None, attempt=attempt or len(stage.attempts))


def _over(run: Run, ident: str) -> bool:
    """Whether nobody works on the run any more, or on another stage than this."""
    now = overview(run.path, _order)
    if now.state != "running":
        return True
    return any(s.id == ident and s.state == "done" for s in now.stages) and now.stage != ident


def _cancel(run: Run, as_json: bool, grace_s: float) -> int:
    ended = cancel(run.path, [step.id for step in steps(run.recipe)], grace_s=grace_s)
    if not ended:
        raise RunError(
            "nothing works on this run, so there is nothing to cancel", where=run.path,
            do="see python -m toolkit.runs list for those that are running",
        )  # fmt: skip
    if as_json:
        cli.print_json({"run": str(run.path), "ended": [dataclasses.asdict(e) for e in ended]})
        return 0
    for one in ended:
        what = f"the job of stage {one.stage}" if one.stage else "the launch"
        how = "by itself" if one.signal == "none" else f"after {one.signal}"
        print(f"ended {what}: process {one.pid} on {one.host}, {how}")
    print(f"go on with it: python -m toolkit.runs retry {run.path}")
    return 0


def _find(name: str, root: str) -> Run:
    try:
        return find(name, root)
    except (OSError, ValueError) as err:
        why = getattr(err, "strerror", None) or ""
        raise RunError(f"no run '{harmless(name)}'", where=harmless(root), why=why) from None


def _order(recipe: Recipe) -> Sequence[Any]:
    return steps(recipe)


def _plain(run: Overview) -> dict[str, Any]:
    """For JSON, which has neither NaN nor infinity: those are text there."""
    made = {key: _finite(value) for key, value in dataclasses.asdict(run).items()}
    return made if run.stages else {key: value for key, value in made.items() if key != "stages"}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return value


if __name__ == "__main__":
    sys.exit(cli.run(main))
