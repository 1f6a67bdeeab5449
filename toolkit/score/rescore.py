"""`score rescore`: the answers in stored generations, without a model."""

from __future__ import annotations

import argparse
from pathlib import Path

from toolkit import cli
from toolkit.progress import progress
from toolkit.scoring import benchmarks


def add(verb: cli.Verb) -> None:
    rescore = verb("rescore", "judge stored generations, without a model")
    rescore.add_argument("file", type=Path, help="JSON lines (or .gz): id, options, gold, generations: [text, ...]")
    rescore.add_argument("--benchmark", required=True, help="name or YAML file")
    rescore.add_argument("--items", type=Path, metavar="FILE", help="write each item's answers as JSON lines")
    rescore.add_argument(
        "--paper-compat", action="store_true", help="read answers as the scorer released with MEDITRON"
    )
    rescore.add_argument(
        "--few-shot", action="store_true", help="with --paper-compat: only what stands before a blank line"
    )
    rescore.set_defaults(call=_rescore)


def _rescore(args: argparse.Namespace) -> None:
    from toolkit.scoring.rescore import rescore

    spec = benchmarks.get(args.benchmark)
    with progress("rescore", unit="items") as bar:
        found = rescore(
            args.file,
            spec,
            items_out=args.items,
            paper_compat=args.paper_compat,
            few_shot=args.few_shot,
            advance=bar.advance,
        )
    if args.json:
        cli.print_json(found.as_dict())
        return
    low, high = (100 * bound for bound in found.ci95)
    counts = f"n={found.n}  correct={found.correct}  invalid={found.invalid}"
    print(f"{found.benchmark}  {counts}  accuracy={100 * found.accuracy:.1f} %  95 % {low:.1f} to {high:.1f}")
    if found.generations != found.n:
        agreement = f"agreement {100 * found.agreement:.1f} %"
        print(f"  {found.generations} generations, {found.invalid_generations} without an answer, {agreement}")
    for why, count in found.reasons.items():
        print(f"  invalid: {why}: {count}")
    for note in found.notes:
        print(f"  note: {note}")
    if args.items:
        print(args.items)
