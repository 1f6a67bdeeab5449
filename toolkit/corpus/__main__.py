"""`python -m toolkit.corpus`: build a corpus. Decides how options are named; `builder` does the work."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence

from toolkit import cli
from toolkit.corpus.builder import build
from toolkit.corpus.sift import KINDS, Source
from toolkit.errors import UsageError

_EXAMPLES = """examples:
  python -m toolkit.corpus build jats articles/ -o corpus/pmc
  python -m toolkit.corpus build jsonl guidelines.jsonl.gz -o corpus/guidelines --valid-fraction 0.05
  python -m toolkit.corpus build world -o corpus/world --tasks corpus/questions -p seed=1 -p documents_per_entity=20
"""


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m toolkit.corpus", description="Sources to clean, split JSON lines.", epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="build")
    verb = verbs.add_parser(
        "build", help="build a corpus folder", epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = verb.add_argument
    add("kind", choices=KINDS, help="world: the invented pharmacopoeia; jats: PMC articles; jsonl: JSON lines")
    add("input", nargs="*", help="files or folders (none for world)")
    add("-o", "--out", required=True, help="output folder, replaced as a whole")
    add("--seed", type=int, default=0, help="of the split (default 0)")
    add("--valid-fraction", type=float, default=0.03, help="share of documents for validation (default 0.03)")
    add("--subset", default="", help="name of these documents in the corpus")
    add("--allow-noncommercial", action="store_true", help="keep texts that forbid commercial use or derived works")
    add("--max-bad-fraction", type=float, default=0.01, help="share of unreadable rows that is accepted (default 0.01)")
    add("-p", "--option", action="append", default=[], metavar="KEY=VALUE", help="option of the reader; repeatable")
    add("--tasks", metavar="FOLDER", help="world only: write its questions there")
    add("--json", action="store_true", help="print the report as JSON")
    args = parser.parse_args(argv)
    if (args.kind == "world") == bool(args.input):
        raise UsageError("world takes no input" if args.input else f"{args.kind} needs at least one file or folder")
    if args.tasks and args.kind != "world":
        raise UsageError("--tasks belongs to world")
    options = dict(_option(text) for text in args.option)
    paths = args.input or [None]
    report = build(
        sources=[Source(kind=args.kind, path=path, subset=args.subset, options=options) for path in paths],
        out=args.out,
        seed=args.seed,
        valid_fraction=args.valid_fraction,
        allow_noncommercial=args.allow_noncommercial,
        max_bad_fraction=args.max_bad_fraction,
    )
    shown = dataclasses.asdict(report)
    if args.tasks:
        from toolkit.corpus import world

        shown["tasks"] = world.make(options).write_tasks(args.tasks)
    if args.json:
        cli.print_json(shown)
    else:
        for key, value in shown.items():
            print(f"{key}: {value}")
    return 0


def _option(text: str) -> tuple[str, object]:
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise UsageError(f"'{text}' is no option", do="write KEY=VALUE")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


if __name__ == "__main__":
    sys.exit(cli.run(main))
