"""`python -m toolkit.plan.fit [FILE.csv]`: fits the parameters of `calibrated` to measured step times, and prints them
with the errors they leave, each source judged by what the others gave. Writes nothing.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from toolkit import cli
from toolkit.plan import measurements, speed
from toolkit.plan.calibrated import PARAMS, Params
from toolkit.plan.measurements import Row

HELD_OUT = ("S8",)  # MEDITRON, which the toolkit plans: never fitted to
_NOISE = 0.05  # of a measurement, relative
_STEPS = 25


@dataclass(frozen=True, kw_only=True)
class Belief:
    """What is known of a parameter without any of these measurements: bounds, a value and how sure it is."""

    low: float
    high: float
    value: float
    deviation: float


# Of `matmul`, `link` and `network` what benchmarks of the parts reach (anchored in nccl-tests' 230 of 300 GB/s on eight
# A100, and RoCE's 185 of 200 GB/s); of the others the order of magnitude.
BELIEFS: Mapping[str, Belief] = {
    "matmul": Belief(low=0.6, high=1.02, value=0.95, deviation=0.06),
    "fill": Belief(low=0.0, high=1500.0, value=250.0, deviation=200.0),
    "memory": Belief(low=0.4, high=0.95, value=0.8, deviation=0.1),
    "link": Belief(low=0.4, high=1.0, value=0.74, deviation=0.06),
    "network": Belief(low=0.2, high=1.0, value=0.8, deviation=0.15),
    "shared": Belief(low=0.2, high=1.0, value=0.6, deviation=0.1),
    "layer_s": Belief(low=0.0, high=3e-4, value=5e-5, deviation=5e-5),
}
_WEIGHT = 0.63  # of a belief against one measurement


def error(row: Row, params: Params) -> float:
    """Foretold over measured step time, less one."""
    assert row.step_s is not None
    return speed.step(row.setup, params).seconds / row.step_s - 1


def timed(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.step_s is not None]


def fit(rows: Sequence[Row], start: Params = PARAMS) -> Params:
    """Least squares of the logarithms by Levenberg and Marquardt's method. A source counts with the square root of the
    number of its rows, which have most of their error in common.
    """
    many = Counter(row.source for row in rows)
    weights = [1 / (_NOISE * many[row.source] ** 0.25) for row in rows]
    names = list(BELIEFS)

    def misses(params: Params) -> list[float]:
        found = [math.log1p(error(row, params)) * weight for row, weight in zip(rows, weights, strict=True)]
        return found + [
            (getattr(params, name) - BELIEFS[name].value) / BELIEFS[name].deviation * _WEIGHT for name in names
        ]

    best = replace(start, site=1.0, **{name: BELIEFS[name].value for name in names})
    left, damping = misses(best), 1e-2
    for _ in range(_STEPS):
        slopes = []
        for name in names:
            span = BELIEFS[name].high - BELIEFS[name].low
            moved = misses(replace(best, **{name: getattr(best, name) + 1e-4 * span}))
            slopes.append([(b - a) / 1e-4 for a, b in zip(left, moved, strict=True)])
        square = [[_dot(a, b) for b in slopes] for a in slopes]
        target = [-_dot(a, left) for a in slopes]
        gained = 0.0
        for _ in range(8):
            damped = [[v * (1 + damping * (i == j)) for j, v in enumerate(line)] for i, line in enumerate(square)]
            move = _solve(damped, target)
            tried = replace(best, **{name: _moved(name, best, by) for name, by in zip(names, move, strict=True)})
            missed = misses(tried)
            gained = _dot(left, left) - _dot(missed, missed)
            if gained > 0:
                best, left, damping = tried, missed, damping / 5
                break
            damping *= 5
        if gained < 1e-6:
            break
    return best


def left_out(rows: Sequence[Row]) -> list[tuple[Row, float]]:
    """Each row with its error under the parameters that the other sources give."""
    found = []
    for source in sorted({row.source for row in rows}):
        params = fit([row for row in rows if row.source != source])
        found += [(row, error(row, params)) for row in rows if row.source == source]
    return found


def spread(errors: Sequence[float]) -> tuple[float, float]:
    """Measured over foretold: as far below as above, and as far as the worst of all errors. Five sources say little of
    how far a sixth may lie, so the range is no narrower.
    """
    reach = math.exp(max(abs(math.log1p(e)) for e in errors))
    return 1 / reach, reach


def _moved(name: str, params: Params, by: float) -> float:
    known = BELIEFS[name]
    return min(max(getattr(params, name) + by * (known.high - known.low), known.low), known.high)


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def _solve(matrix: Sequence[Sequence[float]], target: Sequence[float]) -> list[float]:
    """Gauss with pivots."""
    size = len(target)
    rows = [[*line, value] for line, value in zip(matrix, target, strict=True)]
    for i in range(size):
        pivot = max(range(i, size), key=lambda k: abs(rows[k][i]))
        rows[i], rows[pivot] = rows[pivot], rows[i]
        for k in range(i + 1, size):
            factor = rows[k][i] / rows[i][i]
            rows[k] = [a - factor * b for a, b in zip(rows[k], rows[i], strict=True)]
    found = [0.0] * size
    for i in reversed(range(size)):
        found[i] = (rows[i][size] - _dot(rows[i][i + 1 : size], found[i + 1 :])) / rows[i][i]
    return found


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m toolkit.plan.fit", description=__doc__.split(":")[1].strip())
    parser.add_argument("file", nargs="?", type=Path, default=measurements.OURS, help="a table of measurements")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    args = parser.parse_args(argv)
    known = timed(measurements.read(args.file))
    rows = [row for row in known if row.source not in HELD_OUT]
    params = fit(rows)
    judged = left_out(rows)
    low, high = spread([e for _, e in judged])
    sources = sorted({row.source for row in rows})
    errors = {source: [e for row, e in judged if row.source == source] for source in sources}
    held = {row.name: error(row, params) for row in known if row.source in HELD_OUT}
    values = {name: float(f"{getattr(params, name):.3g}") for name in BELIEFS} | {
        "low": round(low, 3),
        "high": round(high, 3),
    }
    if args.json:
        cli.print_json({"parameters": values, "left_out": errors, "held_out": held})
        return 0
    print("PARAMS = Params(" + ", ".join(f"{name}={value!r}" for name, value in values.items()) + ")")
    print("\nleft out   rows  mean error  worst")
    for source in sources:
        own = [abs(e) for e in errors[source]]
        print(f"{source:<10} {len(own):>4}  {100 * sum(own) / len(own):>9.1f}%  {100 * max(own):>5.1f}%")
    every = [abs(e) for _, e in judged]
    print(f"all        {len(every):>4}  {100 * sum(every) / len(every):>9.1f}%  {100 * max(every):>5.1f}%\n")
    for name, e in held.items():
        print(f"{name}: {100 * e:+.1f}%, never fitted to")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
