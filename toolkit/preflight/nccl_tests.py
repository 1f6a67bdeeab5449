"""The table that nccl-tests print: written for measurements of our own, and read from theirs.

Decides which numbers of a line are which, and what is wrong with a table as a whole; what is too slow is not its say.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

_PREFIX = re.compile(r"^\s*(?:\[\d+,\d+\]<std(?:out|err)>:)?[>\s]*")  # mpirun --tag-output, and quotations
_NUMBER = re.compile(r"\d+(?:[.,]\d+)?(?:[eE][+-]?\d+)?")
_BOUNDS = re.compile(r"#\s*Out of bounds values\s*:\s*(\d+)\s*(\w+)")
_AVERAGE = re.compile(r"#\s*Avg bus bandwidth\s*:\s*(\S+)")
_FAILED = re.compile(r".*(?:Test (?:NCCL|CUDA|MPI)? ?failure|Test timeout|error while loading shared)")
_QUAD = 4  # time, algbw, busbw, wrong
_LONGEST = 4_000_000
MOST_GB_S = 1e5


@dataclass(frozen=True, kw_only=True)
class Row:
    """One message size, the better of out-of-place and in-place. `wrong` counts elements; None: not checked."""

    size_bytes: int
    time_us: float
    algbw_gb_s: float
    busbw_gb_s: float
    wrong: int | None = None


@dataclass(frozen=True, kw_only=True)
class Table:
    """`whole` when the last lines are there; `failed` is the line that says why it broke off; `average` is theirs."""

    rows: tuple[Row, ...] = ()
    whole: bool = False
    failed: str = ""
    average_gb_s: float | None = None
    out_of_bounds: int | None = None

    @property
    def peak_gb_s(self) -> float | None:
        """The highest bus bandwidth: what the largest messages reach."""
        return max((row.busbw_gb_s for row in self.rows), default=None)

    @property
    def wrong(self) -> int:
        """Elements that were not the sum that they should be."""
        return max(self.out_of_bounds or 0, sum(row.wrong or 0 for row in self.rows))


def read(text: str) -> Table:
    """What of `text` is a table, whatever stands around it. Never raises: what is none has no rows."""
    rows: dict[int, Row] = {}
    whole, failed, average, bounds = False, "", None, None
    for line in text[:_LONGEST].splitlines():
        line = _PREFIX.sub("", line, count=1).rstrip()
        if match := _BOUNDS.search(line):
            bounds, whole = int(match[1][:15]), True
            if match[2].upper() == "FAILED":
                bounds = max(1, bounds)
        elif match := _AVERAGE.search(line):
            average = _number(match[1])
        elif not failed and _FAILED.match(line):
            failed = line[:300]
        elif (row := _row(line.split())) is not None:
            rows[row.size_bytes] = row
    return Table(
        rows=tuple(rows[size] for size in sorted(rows)),
        whole=whole,
        failed=failed,
        average_gb_s=average,
        out_of_bounds=bounds,
    )


def _row(words: list[str]) -> Row | None:
    """Size, count and type, then perhaps operation and root, then twice the four of a measurement."""
    if len(words) < 3 + 2 * _QUAD or not (words[0].isdecimal() and words[1].isdecimal() and words[2][0].isalpha()):
        return None
    found = []
    for place in (-2 * _QUAD, -_QUAD):
        time_us, algbw, busbw, wrong = (_number(word) for word in (words + [""])[place - 1 : place + _QUAD - 1])
        if time_us is not None and algbw is not None and busbw is not None:
            # Older versions print the largest difference there, which is no count.
            count = int(wrong) if wrong is not None and wrong == int(wrong) else None
            found.append((busbw, algbw, time_us, count))
    if not found or len(words[0]) > 15:
        return None
    busbw, algbw, time_us, _ = max(found, key=lambda one: one[:3])
    counts = [one[3] for one in found if one[3] is not None]
    return Row(
        size_bytes=int(words[0]), time_us=time_us, algbw_gb_s=algbw, busbw_gb_s=busbw,
        wrong=max(counts) if counts else None,
    )  # fmt: skip


def _number(word: str) -> float | None:
    """A number that a measurement may have, also with a decimal comma; None for N/A, nan and the like."""
    if not _NUMBER.fullmatch(word) or len(word) > 30:
        return None
    value = float(word.replace(",", "."))
    return value if math.isfinite(value) and value < 1e15 else None


def bus_factor(ranks: int) -> float:
    """Bus bandwidth over algorithm bandwidth of an all-reduce over `ranks` (nccl-tests, doc/PERFORMANCE.md)."""
    return 2 * (ranks - 1) / ranks


def write(rows: list[Row], *, what: str = "all_reduce_perf") -> str:
    """The rows as nccl-tests would print them, measured in place."""
    lines = [
        f"# {'':>10}  {'':>12}  {'':>8}  {'':>6}  {'':>6}" + " " * 11 + f"{'out-of-place':<35}in-place",
        f"# {'size':>10}  {'count':>12}  {'type':>8}  {'redop':>6}  {'root':>6}"
        + f"  {'time':>7}  {'algbw':>6}  {'busbw':>6} {'#wrong':>6}" * 2,
        f"# {'(B)':>10}  {'(elements)':>12}  {'':>8}  {'':>6}  {'':>6}"
        + f"  {'(us)':>7}  {'(GB/s)':>6}  {'(GB/s)':>6}  {'':>5}" * 2,
    ]
    absent = f"  {'N/A':>7}  {'N/A':>6}  {'N/A':>6}  {'N/A':>5}"
    for row in rows:
        wrong = "N/A" if row.wrong is None else str(row.wrong)
        lines.append(
            f"{row.size_bytes:>12}  {row.size_bytes // 4:>12}  {'float':>8}  {'sum':>6}  {-1:>6}{absent}"
            f"  {_time(row.time_us):>7}  {_rate(row.algbw_gb_s):>6}  {_rate(row.busbw_gb_s):>6}  {wrong:>5}"
        )
    bad = sum(row.wrong or 0 for row in rows)
    mean = sum(row.busbw_gb_s for row in rows) / len(rows) if rows else 0.0
    lines += [
        f"# Out of bounds values : {bad} {'FAILED' if bad else 'OK'}",
        f"# Avg bus bandwidth    : {mean:.6g}",
        "#",
        f"# Collective test concluded: {what}",
    ]
    return "\n".join(lines) + "\n"


def _time(value: float) -> str:
    return f"{value:.2f}" if value < 100 else f"{value:.1f}" if value < 10_000 else f"{value:.0f}"


def _rate(value: float) -> str:
    """Two decimals as theirs; more for the slow ways of a CPU, where two would leave nothing."""
    return f"{value:.2f}" if value >= 10 else f"{value:.4f}"
