"""`python -m toolkit.plan validate FILE.csv`: what the plan foretells of trainings that were measured, line by line,
and how far off it is. Judges nothing: bars are the tests'.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit import cli
from toolkit.errors import DataError
from toolkit.plan import conventions, measurements, memory, speed
from toolkit.plan.calibrated import PARAMS, Params
from toolkit.plan.measurements import Row

_LEAST_RANKED = 10  # rows of a source, to say something of their order


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One line: seconds of a step, GiB of the fullest GPU; errors are foretold over measured, less one."""

    row: Row
    step_s: float
    low_s: float
    high_s: float
    gib: float
    fits: bool
    tflops: float | None  # of one GPU, as the line's unit counts, at the measured speed

    @property
    def error(self) -> float | None:
        return None if self.row.step_s is None else self.step_s / self.row.step_s - 1

    @property
    def inside(self) -> bool | None:
        return None if self.row.step_s is None else self.low_s <= self.row.step_s <= self.high_s

    @property
    def memory_error(self) -> float | None:
        return None if self.row.peak_gib is None else self.gib / self.row.peak_gib - 1

    @property
    def tflops_error(self) -> float | None:
        return None if self.tflops is None or self.row.tflops is None else self.tflops / self.row.tflops - 1

    def as_dict(self) -> dict[str, Any]:
        row = self.row
        tokens = row.setup.tokens / row.setup.world
        return {
            "id": row.name,
            "line": row.line,
            "source": row.source,
            "step_s": {
                "predicted": self.step_s,
                "low": self.low_s,
                "high": self.high_s,
                "measured": row.step_s,
                "error": self.error,
                "inside": self.inside,
            },
            "tokens_per_s_gpu": {
                "predicted": tokens / self.step_s,
                "measured": None if row.step_s is None else tokens / row.step_s,
            },
            "memory_gib": {"predicted": self.gib, "measured": row.peak_gib, "error": self.memory_error},
            "out_of_memory": {"predicted": not self.fits, "measured": row.out_of_memory},
            "tflops": {
                "unit": row.unit,
                "at_measured_speed": self.tflops,
                "published": row.tflops,
                "error": self.tflops_error,
            },
        }


def judge(rows: Sequence[Row], params: Params = PARAMS) -> list[Judged]:
    """What is foretold of each measurement."""
    found = []
    for row in rows:
        took, most = speed.step(row.setup, params), memory.worst(row.setup)
        counted = None
        if row.unit in conventions.UNITS and row.step_s is not None:
            counted = conventions.tflops(row.setup, row.step_s, row.unit)
        found.append(
            Judged(
                row=row,
                step_s=took.seconds,
                low_s=took.low,
                high_s=took.high,
                gib=most.gib,
                fits=memory.fits(row.setup),
                tflops=counted,
            )
        )
    return found


def summary(judged: Sequence[Judged]) -> dict[str, Any]:
    """Means and worst of the errors over all lines and by source; None where nothing was measured."""
    sources = sorted({one.row.source for one in judged})
    return {
        "all": _means(judged),
        **{name or "-": _means([o for o in judged if o.row.source == name]) for name in sources},
    }


def _means(judged: Sequence[Judged]) -> dict[str, Any]:
    timed = [one for one in judged if one.error is not None]
    errors = [one.error for one in timed if one.error is not None]
    weighed = [one.memory_error for one in judged if one.memory_error is not None]
    seen = [one for one in judged if one.row.out_of_memory or one.row.peak_gib is not None]
    ranked = None
    if len(timed) >= _LEAST_RANKED:  # batches differ within a sweep: seconds of one sequence
        ranked = spearman(
            [one.step_s / one.row.setup.global_batch for one in timed],
            [(one.row.step_s or 0) / one.row.setup.global_batch for one in timed],
        )
    return {
        "rows": len(judged),
        "timed": len(timed),
        "mean_error": _mean([abs(e) for e in errors]),
        "worst_error": max((abs(e) for e in errors), default=None),
        "bias": _mean(errors),
        "inside": _mean([float(bool(one.inside)) for one in timed]),
        "rank_correlation": ranked,
        "memory_rows": len(weighed),
        "memory_mean_error": _mean([abs(e) for e in weighed]),
        "out_of_memory": sum(one.row.out_of_memory for one in judged),
        "refused": sum(one.row.out_of_memory and not one.fits for one in judged),
        "false_alarms": sum(not one.row.out_of_memory and not one.fits for one in seen),
    }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def spearman(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Rank correlation; equal values share their mean rank. None where one of the two has no order."""
    x, y = _ranks(a), _ranks(b)
    middle = (len(x) + 1) / 2
    over = sum((i - middle) * (j - middle) for i, j in zip(x, y, strict=True))
    under = math.sqrt(sum((i - middle) ** 2 for i in x) * sum((j - middle) ** 2 for j in y))
    return over / under if under else None


def _ranks(values: Sequence[float]) -> list[float]:
    return [sum(v < value for v in values) + (sum(v == value for v in values) + 1) / 2 for value in values]


def text(judged: Sequence[Judged]) -> str:
    """The table for people."""
    wide = max(len(one.row.name) for one in judged)
    lines = [f"{'':<{wide}}  {'source':<6} {'step s: predicted':>17} {'range':>17} {'measured':>9} {'error':>7}   GiB"]
    for one in judged:
        row = one.row
        span = f"{_seconds(one.low_s)}-{_seconds(one.high_s)}"
        measured = "" if row.step_s is None else _seconds(row.step_s)
        outside = "" if one.inside is not False else " outside"
        lines.append(
            f"{row.name:<{wide}}  {row.source:<6} {_seconds(one.step_s):>17} {span:>17} {measured:>9} "
            f"{_percent(one.error):>7}   {_memory(one)}{outside}"
        )
    lines += [
        "",
        f"{'source':<7} {'rows':>4} {'mean':>6} {'worst':>6} {'bias':>6} {'inside':>6} {'ranks':>6} {'memory':>6}",
    ]
    found = summary(judged)
    for name, means in found.items():
        rank = means["rank_correlation"]
        lines.append(
            f"{name:<7} {means['rows']:>4} {_share(means['mean_error']):>6} {_share(means['worst_error']):>6} "
            f"{_percent(means['bias']):>6} {_share(means['inside'], 0):>6} {'' if rank is None else f'{rank:.2f}':>6} "
            f"{_share(means['memory_mean_error']):>6}"
        )
    means = found["all"]
    if means["out_of_memory"] or means["memory_rows"]:
        lines.append(
            f"\nout of memory: {means['refused']} of {means['out_of_memory']} refused, "
            f"{means['false_alarms']} false alarms"
        )
    counted = [abs(one.tflops_error) for one in judged if one.tflops_error is not None]
    if counted:
        lines.append(f"published TFLOP/s from measured seconds: mean error {100 * sum(counted) / len(counted):.2f}%")
    return "\n".join(lines)


def _seconds(value: float) -> str:
    return f"{value:.3f}" if value < 10 else f"{value:.1f}" if value < 1000 else f"{value:,.0f}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:+.1f}%"


def _share(value: float | None, digits: int = 1) -> str:
    return "" if value is None else f"{100 * value:.{digits}f}%"


def _memory(one: Judged) -> str:
    said = f"{one.gib:.0f}" + ("" if one.fits else " does not fit")
    if one.row.out_of_memory:
        return f"{said}, and did not"
    return said if one.row.peak_gib is None else f"{said}, measured {one.row.peak_gib:.0f} {_percent(one.memory_error)}"


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m toolkit.plan validate",
        description="What the plan foretells of measured trainings, and its errors.",
    )
    parser.add_argument(
        "file", nargs="?", type=Path, default=measurements.OURS, help="CSV; without: the published ones"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    args = parser.parse_args(argv)
    unsound: list[DataError] = []
    judged = judge(measurements.read(args.file, unsound))
    if args.json:
        rows: list[Mapping[str, Any]] = [one.as_dict() for one in judged]
        left = [{"where": err.where, "what": err.what, "why": err.why} for err in unsound]
        cli.print_json({"file": str(args.file), "rows": rows, "unsound": left, "summary": summary(judged)})
    elif judged:
        print(text(judged))
    for err in unsound:
        print(f"error: {err}", file=sys.stderr)
    return 1 if unsound else 0
