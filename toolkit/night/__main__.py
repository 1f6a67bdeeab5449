"""`python -m toolkit.night run|status|page`: score what is new, say what is known, draw the pages anew. Thin."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from toolkit import cli
from toolkit.errors import RunError
from toolkit.night import History

_EXAMPLES = """examples:
  python -m toolkit.night run 'night.watch=[runs/pretrain_70b-*]' score.paths.medqa4=medqa/test.jsonl ...
  python -m toolkit.night run recipe=my_nights --wait      (on Slurm: stay until the verdict)
  python -m toolkit.night status nights
  python -m toolkit.night page nights

exit codes of run: 0 nothing new, submitted or good · 5 worse than the last good night · 1 another night is at work"""


def main(argv: Sequence[str]) -> int | None:
    parser, verb = cli.verbs("python -m toolkit.night", description=__doc__, examples=_EXAMPLES)
    run = verb("run", "score new checkpoints of watched trainings, and compare them with the last good ones")
    run.add_argument("words", nargs="*", metavar="key=value", help="recipe=NAME (default: nightly), then overrides")
    run.add_argument("--wait", action="store_true", help="on Slurm: stay until the jobs have ended")
    run.set_defaults(call=_run, words_of=list(argv))
    for name, summary, call in (
        ("status", "the last good checkpoint of every training, and what each night came to", _status),
        ("page", "write the pages anew, and say where they are", _page),
    ):
        sub = verb(name, summary)
        sub.add_argument("history", type=Path, nargs="?", default=Path("nights"), help="the folder (default: nights)")
        sub.set_defaults(call=call)
    args = parser.parse_args(argv)
    return args.call(args)


def _run(args: argparse.Namespace) -> None:
    from toolkit import tonight

    name = next((word[7:] for word in args.words if word.startswith("recipe=")), "nightly")
    recipe = tonight.recipe_of(name, [word for word in args.words if not word.startswith("recipe=")])
    command = [sys.executable, "-m", "toolkit.night", *args.words_of]
    done = tonight.begin(recipe, command=command, wait=args.wait, quiet=args.json)
    if args.json:
        cli.print_json(done.as_dict())
        return
    print(tonight.text(done))


def _history(folder: Path) -> History:
    if not (folder / "series").is_dir() and not (folder / "nights").is_dir():
        raise RunError("no night has left anything here", where=folder, do="give the folder of night.history")
    return History(folder)


def _status(args: argparse.Namespace) -> None:
    history = _history(args.history)
    series = []
    for name in history.series():
        good, scored = history.good(name), history.scored(name)
        tried = [{"step": one.step, "tries": one.number, "why": one.reason} for one in history.tries(name).values()]
        worse = [one.step for one in scored if one.verdict and one.verdict.get("worse")]
        series.append({"series": name, "scored": [one.step for one in scored], "good": good.step if good else None,
                       "worse": worse, "tried": tried})  # fmt: skip
    if args.json:
        cli.print_json({"history": str(args.history), "series": series, "nights": history.nights()})
        return
    for row in series:
        print(f"{row['series']}: {len(row['scored'])} scored, last good step {row['good']}"
              + (f", worse: {', '.join(map(str, row['worse']))}" if row["worse"] else ""))  # fmt: skip
        for one in row["tried"]:
            print(f"  step {one['step']}: tried {one['tries']} times, {_line(one['why'])}")
    for night in history.nights()[-10:]:
        began = night.get("began")
        known = isinstance(began, (int, float)) and 0 < began < 4e9
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(began)) if known else "?"
        state = night.get("state") or ("worse" if night.get("worse") else "good")
        print(f"{when:<16}  {_line(state):<12} {_line(night.get('night'))}")


def _line(value: object) -> str:
    """Words of a file that somebody may have written, without what steers a terminal."""
    return "".join(char if char.isprintable() else " " for char in str(value))


def _page(args: argparse.Namespace) -> None:
    from toolkit.stages.night import pages

    history = _history(args.history)
    made = [str(pages(history, name)) for name in history.series()]
    if args.json:
        cli.print_json({"pages": made, "index": str(args.history / "index.html")})
        return
    print("\n".join([*made, str(args.history / "index.html")]))


if __name__ == "__main__":
    sys.exit(cli.run(main))
