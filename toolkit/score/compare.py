"""`score compare` and `score gate`: two folders of scores, item by item."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from toolkit import cli
from toolkit.errors import GateFailed

_SHOWN = 10


def add(verb: cli.Verb) -> None:
    compare = verb("compare", "what changed between two models, item by item")
    gate = verb("gate", "exit 5 when the second model is worse than the first")
    for parser, call in ((compare, _compare), (gate, _gate)):
        parser.add_argument("a", type=Path, help="folder that `score run` wrote (or its predictions.jsonl)")
        parser.add_argument("b", type=Path, help="the same of the other model")
        parser.add_argument(
            "--show",
            type=int,
            default=_SHOWN,
            metavar="N",
            help=f"changed items to print (default {_SHOWN}; --json has all)",
        )
        parser.set_defaults(call=call)
    gate.add_argument("--min-drop", type=float, default=0.01, help="accuracy that may be lost (default 0.01)")
    gate.add_argument(
        "--alpha", type=float, default=0.05, help="level of the paired test, Holm over benchmarks (default 0.05)"
    )


def _compare(args: argparse.Namespace) -> None:
    from toolkit.scoring.compare import compare

    found = compare(args.a, args.b)
    if args.json:
        cli.print_json(found.as_dict())
        return
    print(f"{found.a} -> {found.b}")
    for row in found.rows:
        print(f"{_head(row)}  p={row.p:.3g} (McNemar, exact)")
        print(f"  {len(row.worse)} items got wrong, {len(row.better)} got right; {_could(row.smallest)}")
        if row.invalid_before or row.invalid_after:
            print(f"  without an answer: {row.invalid_before} -> {row.invalid_after}")
        for what, items in (("wrong now", row.worse), ("right now", row.better)):
            _items(what, items, args.show)
    for note in found.notes:
        print(f"note: {note}")


def _gate(args: argparse.Namespace) -> int:
    from toolkit.scoring.gate import judge

    found = judge(args.a, args.b, min_drop=args.min_drop, alpha=args.alpha)
    worse = [row for row in found.rows if row.worse]
    if args.json:
        cli.print_json(found.as_dict())
    else:
        for row in found.rows:
            word = "WORSE" if row.worse else "ok"
            test = f"p={row.p_adjusted:.3g} (one-sided, Holm over {len(found.rows)})"
            print(f"{word:5}  {_head(row)}  {test}; {_could(row.smallest)}")
        _items("wrong now", found.items, args.show)
        for note in found.notes:
            print(f"note: {note}")
    if not worse:
        return 0
    names = ", ".join(f"{row.benchmark} {row.mode} ({100 * row.difference:+.1f} points)" for row in worse)
    why = f"a drop of at least {100 * args.min_drop:g} points with p below {args.alpha:g}"
    print(f"error: {GateFailed(f'{found.b} is worse than {found.a}: {names}', why=why)}", file=sys.stderr)
    return GateFailed.exit_code


def _head(row) -> str:  # a Compared or a Judged
    shots = f" {row.shots}-shot" if row.shots else ""
    change = f"{100 * row.difference:+.1f} points (95 % {100 * row.low:+.1f} to {100 * row.high:+.1f})"
    return (
        f"{row.benchmark}  {row.mode}{shots}  n={row.n}  {100 * row.before:.1f} % -> {100 * row.after:.1f} %  {change}"
    )


def _could(smallest: float | None) -> str:
    if smallest is None:
        return "so few items differ that no difference could be shown"
    return f"could show {100 * smallest:.1f} points"


def _items(what: str, items, shown: int) -> None:  # of Changed
    for item in items[: max(0, shown)]:
        print(f"  {what}: {item.benchmark} {item.id}  {item.before} -> {item.after}  (right: {item.gold})")
    if len(items) > shown > 0:
        print(f"  ... and {len(items) - shown} more {what} (--json has all)")
