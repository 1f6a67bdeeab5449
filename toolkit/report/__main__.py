"""`python -m toolkit.report RUN [-o FILE] [--json]`: write the page of a run and say where it is."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from toolkit import cli
from toolkit.report import page, read


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m toolkit.report", description="Write the page of a run.")
    parser.add_argument("run", metavar="RUN", type=Path, help="a run folder, such as runs/demo-20260101-ab12")
    parser.add_argument("-o", "--out", metavar="FILE", type=Path, help="where to write it (default: RUN/report.html)")
    parser.add_argument("--json", action="store_true", help="print path, state, verdict and notes as JSON")
    arguments = parser.parse_args(argv)
    record = read.read(arguments.run)
    path = page.write(record, arguments.out)
    summary = page.summary(record)
    if arguments.json:
        cli.print_json({"report": str(path), **summary})
        return 0
    for note in summary["notes"]:
        print(f"note: {note}", file=sys.stderr)
    print(f"{summary['verdict']}\n{path}")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
