"""`python -m toolkit.doctor`: what is here against the pins, what is broken and what to do about it.

Thin: looking is `toolkit.doctor.diagnose`'s, the words are `show`'s.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from toolkit import cli
from toolkit.doctor import CUDA, PROFILES, diagnose, show
from toolkit.doctor.asking import LIMIT_S
from toolkit.errors import UsageError

_EPILOG = """examples:
  python -m toolkit.doctor                                  this place, whatever it is
  apptainer exec --nv containers/train.sif python3 -m toolkit.doctor     what is in an image, and whether it runs here
  python -m toolkit.doctor --profile login --json

exit codes: 0 no fault, 1 a fault; warnings and what is absent are none
"""


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m toolkit.doctor",
        description="Compare this environment with the pins, and say what recipes may ask of it. Changes nothing.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--profile", choices=("auto", *PROFILES), default="auto", help="what this should be (auto)")
    parser.add_argument(
        "--without", action="append", choices=(CUDA,), default=[], help="what an image was built without"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="folder of runs (runs)")
    parser.add_argument(
        "--limit", type=float, default=LIMIT_S, metavar="SECONDS", help=f"for each question ({LIMIT_S:g})"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    args = parser.parse_args(argv)
    if not 0 < args.limit < 1e6:
        raise UsageError(f"--limit is {args.limit}", do="give a number of seconds")
    with _telling() as told:
        report = diagnose(args.profile, without=frozenset(args.without), runs=args.runs, limit_s=args.limit, told=told)
    if args.json:
        cli.print_json(show.as_dict(report.place, report.findings, report.options))
    else:
        print(show.text(report.place, report.findings, report.options))
    return 0 if report.ok else 1


class _telling:
    """On a terminal, one line that says what is being looked at; nothing elsewhere."""

    def __enter__(self) -> Callable[[str], None]:
        return self.tell if sys.stderr.isatty() else lambda question: None

    def tell(self, question: str) -> None:
        print(f"\r\x1b[K{question} ...", end="", file=sys.stderr, flush=True)

    def __exit__(self, *_: object) -> None:
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(cli.run(main))
