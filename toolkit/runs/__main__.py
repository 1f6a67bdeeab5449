"""`python -m toolkit.runs list | show | logs | cancel | retry | nodes`: what runs there are, and what to do with one.
Thin: it names options and prints; everything is read from the run folders, and asked of Slurm where it works on one.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from toolkit import cli
from toolkit.cluster import excluded
from toolkit.errors import RunBusy, RunError, ToolkitError, UsageError, nearest
from toolkit.plan import layout, steps
from toolkit.recipe import Recipe
from toolkit.recipe.layout_rules import trains
from toolkit.runs import Run, done, find, follow, logs, show
from toolkit.runs.cancel import GRACE_S, cancel
from toolkit.runs.cancel_jobs import cancel_jobs
from toolkit.runs.jobs import jobs_of
from toolkit.runs.overview import Overview, Stage, find_all, overview
from toolkit.runs.text import harmless

_HASHED_GIB = 4  # outputs beyond it are hashed on request only: a login node would read for minutes

_EPILOG = """examples:
  python -m toolkit.runs list                        every run below runs/, newest first
  python -m toolkit.runs show last                   stages, attempts, figures, what going on would do
  python -m toolkit.runs logs last -f                what the newest run says, as it says it
  python -m toolkit.runs logs RUN pretrain --rank 3 --attempt 1 -n 50
  python -m toolkit.runs logs RUN shards --part 3    one task of an array
  python -m toolkit.runs logs RUN pretrain --job     what the job around the stage said: requeues, hangs, nodes
  python -m toolkit.runs cancel RUN                  end what works on it; it can go on later
  python -m toolkit.runs retry RUN                   go on where it stopped
  python -m toolkit.runs nodes                       unfit nodes, which new jobs keep away from
  python -m toolkit.runs nodes --forget node07       it has been mended

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
    if args.verb == "nodes":
        return _nodes(Path(root or "runs"), as_json, args.cluster, args.forget)
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
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="list|show|logs|cancel|retry|nodes")
    verbs.add_parser("list", help="every run, newest first", parents=[common], **look)
    text = "nodes that a preflight has found unfit, which new jobs keep away from"
    option = verbs.add_parser("nodes", help=text, description=text, parents=[common], **look).add_argument
    option("--forget", metavar="NODE", nargs="+", help="take these off the list: they have been mended")
    option("--cluster", metavar="NAME", help="only those of this cluster")
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
    option = made["logs"].add_argument
    option("stage", metavar="STAGE", nargs="?", help="a stage of this run")
    option("-f", "--follow", action="store_true", help="go on printing until the stage ends, over new attempts too")
    option("-n", "--lines", metavar="N", type=_count, help="only the last N lines")
    option("--attempt", metavar="N", type=_count, help="attempt N, counted from 1 (default: the newest)")
    option("--rank", metavar="N", type=_count, default=0, help="rank N of a training (default: 0)")
    option("--part", metavar="N", type=_count, help="part N of a stage that an array of jobs shares out")
    option("--job", action="store_true", help="what the job around the stage said")
    made["cancel"].add_argument(
        "--grace",
        metavar="S",
        type=_seconds,
        default=GRACE_S,
        help=f"seconds before SIGTERM, and for jobs to go (default {GRACE_S:g})",
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


def _nodes(root: Path, as_json: bool, cluster: str | None, forget: Sequence[str] | None) -> int:
    known = {name: nodes for name, nodes in excluded.read(root).items() if cluster in (None, name)}
    gone: dict[str, tuple[str, ...]] = {}
    if forget:
        strange = sorted(set(forget) - {node for nodes in known.values() for node in nodes})
        if strange:
            listed = [node for nodes in known.values() for node in nodes]
            what = f"{', '.join(map(harmless, strange))}: not on the list of unfit nodes"
            raise UsageError(what, where=root / excluded.NAME, do=nearest(strange[0], listed))
        gone = {name: excluded.clear(root, name, forget) for name in known}
        known = {n: {node: one for node, one in nodes.items() if node not in forget} for n, nodes in known.items()}
    if as_json:
        rows = [{"cluster": n, "node": node, **dataclasses.asdict(one)} for n, found in known.items()
                for node, one in found.items()]  # fmt: skip
        cli.print_json({"nodes": rows, "forgotten": sorted({node for nodes in gone.values() for node in nodes})})
        return 0
    for name, nodes in gone.items():
        for node in nodes:
            print(f"forgotten: {node} of {harmless(name)}; new jobs may run there")
    for name, found in known.items():
        for node, one in found.items():
            when = time.strftime("%Y-%m-%d %H:%M", time.localtime(one.since)) if 0 < one.since < 1e11 else "?"
            print(f"{harmless(name)}  {node}  since {when}  {harmless(one.why)}  ({harmless(one.run)})")
    if not any(known.values()) and not forget:
        print(f"no unfit nodes in {harmless(root / excluded.NAME)}")
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
    print(
        show.page(
            seen, title=harmless(run.recipe.title), layout=shape_text if trains(run.recipe) else "", following=told
        )
    )
    return 0


def _following(run: Run, seen: Overview, check: bool) -> list[dict[str, str]] | str:
    """What going on with the run would do, stage by stage, or why that is not said."""
    if seen.state == "queued":
        return "its jobs are queued; wait for them, or end that with python -m toolkit.runs cancel"
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
    if args.part is not None and (args.attempt is not None or args.rank):
        raise UsageError("--part has neither attempts nor ranks", do="leave --attempt and --rank out")
    if args.job and args.rank:
        raise UsageError("--job is the output of the whole job, not of a rank", do="leave --rank or --job out")
    seen = overview(run.path, _order)
    known = seen.stages or tuple(
        Stage(id=s.id, stage=s.stage, state="waiting", elapsed_s=None, attempts=()) for s in steps(run.recipe)
    )
    stage = logs.pick(run.path, seen, known, args.stage)
    part = _log(run, stage, args)
    lines = follow.read(part, last=args.lines)
    if as_json:
        where = {"run": seen.run, "stage": stage.id, "rank": args.rank, "part": args.part, "attempt": part.attempt}
        cli.print_json({**where, "path": harmless(part.path, None), "lines": list(lines)})
        return 0
    if args.follow:
        if stage.state == "queued":
            reason = f" ({stage.reason})" if stage.reason else ""
            print(f"stage {stage.id} is queued{reason}; what it says will follow", file=sys.stderr, flush=True)
        over = logs.until_over(
            run.path, _order, stage, [s.id for s in known], part=args.part, job=args.job
        )  # fmt: skip
        lines = follow.follow(part.path, follow.start_of_last(part.path, part.start, args.lines), over)
    empty = True
    for line in lines:
        empty = False
        print(line, flush=args.follow)
    if empty and args.lines is None:
        print(f"stage {stage.id} has printed nothing", file=sys.stderr)
    return 0


def _log(run: Run, stage: Stage, args: argparse.Namespace) -> follow.Part:
    """The bytes that are meant. A stage that could not even begin has no log; its job may say why."""
    folder = run.stage(stage.id)
    if args.job:
        return logs.of_job(run.path, stage, attempt=args.attempt, part=args.part, coming=args.follow)
    if args.part is not None:
        return logs.of_part(run.path, stage, args.part, coming=args.follow)
    if args.follow and not (folder / follow.log_name(args.rank)).exists():
        return follow.Part(path=folder / follow.log_name(args.rank), start=0, end=None, attempt=None)
    part = follow.part(folder, [a.logs for a in stage.attempts], rank=args.rank, attempt=args.attempt)
    if args.rank or part.path.exists() or args.follow:
        return part
    try:
        part = logs.of_job(run.path, stage, attempt=args.attempt, part=None, coming=False)
    except RunError:
        raise RunError(f"stage {stage.id} has no log yet", where=folder) from None
    also = "; its parts have logs of their own: --part N" if (folder / "parts").is_dir() else ""
    print(f"stage {stage.id} has no log; this is its job's: {part.path}{also}", file=sys.stderr)
    return part


def _cancel(run: Run, as_json: bool, grace_s: float) -> int:
    known = [step.id for step in steps(run.recipe)]
    try:
        # Where jobs work on it, what holds a stage's lock is a job, and only Slurm can end that.
        stages = [] if jobs_of(run.path, known) else known
    except RunError:  # damaged; whoever works on it here can be ended all the same
        stages = known
    ended = cancel(run.path, stages, grace_s=grace_s)
    try:
        gone = cancel_jobs(run.path, known, grace_s=grace_s)  # also those that a launch gave to Slurm until now
    except RunBusy:
        raise
    except RunError:
        if not ended:
            raise
        gone = []
    if not ended and not gone:
        raise RunError(
            "nothing works on this run, so there is nothing to cancel", where=run.path,
            do="see python -m toolkit.runs list for those that are running",
        )  # fmt: skip
    if as_json:
        told = {"ended": [dataclasses.asdict(e) for e in ended], "jobs": [dataclasses.asdict(j) for j in gone]}
        cli.print_json({"run": str(run.path), **told})
        return 0
    for one in ended:
        what = f"the job of stage {one.stage}" if one.stage else "the launch"
        how = "by itself" if one.signal == "none" else f"after {one.signal}"
        print(f"ended {what}: process {one.pid} on {one.host}, {how}")
    for job in gone:
        how = f" (it is {job.now} still, which Slurm brings to its end)" if job.now else ""
        print(f"cancelled job {job.id} of stage {job.stage}, which was {job.before}{how}")
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
