"""`python -m toolkit.plan.fit_memory [FILE.csv]`: fits the two constants of `memory` that are fitted to the measured
peaks of a table of measurements, and prints them with the errors they leave. Writes nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from toolkit import cli
from toolkit.errors import UsageError
from toolkit.plan import measurements
from toolkit.plan.measurements import Row
from toolkit.plan.memory import CONSTANTS, Constants, limit_gib, worst

_MOST = (0.4, 15.0)  # where fragmentation and DeepSpeed's GiB are looked for
_STEPS = 16


def peaks(rows: Sequence[Row]) -> list[Row]:
    """Those that say something of memory: a peak, or that there was too little."""
    return [row for row in rows if row.peak_gib is not None or row.out_of_memory]


def errors(rows: Sequence[Row], constants: Constants = CONSTANTS) -> list[float]:
    """Relative, of the rows with a peak."""
    return [worst(row.setup, constants).gib / row.peak_gib - 1 for row in rows if row.peak_gib]


def fit(rows: Sequence[Row], start: Constants = CONSTANTS) -> Constants:
    """Least squares of the relative errors, by grids that narrow."""
    measured = [row for row in rows if row.peak_gib]
    spans = [(0.0, most) for most in _MOST]
    best = start
    for _ in range(2):
        steps = [(high - low) / _STEPS for low, high in spans]
        grids = [[low + step * i for i in range(_STEPS + 1)] for (low, _), step in zip(spans, steps, strict=True)]
        tried = [replace(start, fragmentation=share, deepspeed_gib=gib) for share in grids[0] for gib in grids[1]]
        best = min(tried, key=lambda constants: sum(e * e for e in errors(measured, constants)))
        middle = (best.fragmentation, best.deepspeed_gib)
        spans = [(max(0.0, at - step), at + step) for at, step in zip(middle, steps, strict=True)]
    return best


def table(rows: Sequence[Row], constants: Constants = CONSTANTS) -> str:
    lines = [f"{'':<24} {'predicted':>9} {'measured':>9} {'error':>7}   GiB"]
    for row in rows:
        most = worst(row.setup, constants)
        said = f"{row.peak_gib:9.0f}" if row.peak_gib else f"{'too much':>9}"
        off = f"{most.gib / row.peak_gib - 1:+7.1%}" if row.peak_gib else f"{'':7}"
        verdict = "" if most.gib <= limit_gib(row.setup.gpu) else "  refused"
        lines.append(f"{row.name:<24} {most.gib:9.1f} {said} {off}{verdict}")
    left = [abs(e) for e in errors(rows, constants)]
    if left:
        lines.append(f"mean error {sum(left) / len(left):.1%}, worst {max(left):.1%}, of {len(left)}")
    return "\n".join(lines)


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m toolkit.plan.fit_memory", description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, default=measurements.OURS, metavar="FILE.csv")
    path = parser.parse_args(argv).file
    rows = peaks(measurements.read(path))
    if not errors(rows):
        raise UsageError(f"{path} has no measured peak", do="give a table with the column peak_mem_GiB")
    best = fit(rows)
    print(table(rows, best))
    print(f"fragmentation={best.fragmentation:.3f}, deepspeed_gib={best.deepspeed_gib:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
