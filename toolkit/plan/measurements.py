"""Published measurements of training steps: reads tables of them, line by line, and says where those of this repository
come from. What a line means for a step is `setup`'s, what is made of it `fit`'s and `validate`'s.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from toolkit.errors import DataError, RecipeError, UsageError
from toolkit.plan import conventions, setup
from toolkit.plan.setup import Setup

OURS = Path(__file__).with_name("measurements.csv")
SOURCES: Mapping[str, str] = {
    "S1": "Narayanan et al. 2021 (arXiv 2104.04473), table 1",
    "S3": "Korthikanti et al. 2022 (arXiv 2205.05198), table 5",
    "S4": "BigScience, chronicles of tr11-176B-ml, sweep of February 2022",
    "S8": "MEDITRON, Chen et al. 2023 (arXiv 2311.16079), section 4.1",
    "S10": "Megatron-LM's README, H100 table of 2024",
    "S12": "NVIDIA's recipes for DGX Cloud (NVIDIA/dgxc-benchmarking, READMEs of 24.09 to 24.12), H100 in bf16",
}
_MOST_BYTES = 50_000_000


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measurement. `step_s` is None where the training ran out of memory, or was not timed; `peak_gib` None where
    no memory was measured.
    """

    line: int
    name: str
    source: str
    setup: Setup
    step_s: float | None
    peak_gib: float | None
    out_of_memory: bool
    tflops: float | None = None  # published, of one GPU, beside a time
    unit: str = ""


def read(path: Path, unsound: list[DataError] | None = None) -> list[Row]:
    """Every line of the table. Raises `DataError`, which names file and line, for one that is not sound, or adds it to
    `unsound`, where that is given, and goes on.
    """
    try:
        if path.is_file() and path.stat().st_size > _MOST_BYTES:
            raise DataError("this is no table of measurements", where=path, why=f"it is above {_MOST_BYTES:,} bytes")
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as err:
        raise DataError("not UTF-8", where=path, why=f"byte {err.start}", do="save the table as UTF-8") from None
    except OSError as err:
        raise DataError(f"cannot be read: {err.strerror}", where=path) from None
    lines = text.splitlines()
    reader = csv.DictReader(lines, strict=True)
    found: list[Row] = []
    try:
        columns = reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
        twice = [name for name, times in Counter(columns).items() if name and times > 1]
        if twice:
            raise DataError(f"the table has the columns {', '.join(twice)} more than once", where=path)
        lacking = [name for name in setup.NEEDED if name not in columns]
        if lacking:
            raise DataError(
                f"the table lacks the columns {', '.join(lacking)}" if lines else "the table is empty",
                where=path,
                do=f"its first line names the columns; needed: {', '.join(setup.NEEDED)}, and step_s or tok_s_gpu",
            )
        for values in reader:
            try:
                found.append(_row(values, reader.line_num, path))
            except DataError as err:
                if unsound is None:
                    raise
                unsound.append(err)
    except csv.Error as err:
        raise DataError(f"not a CSV table: {err}", where=f"{path}:{reader.line_num}") from None
    if not found and not unsound:
        raise DataError("the table has no measurement", where=path)
    return found


def _row(values: dict[str, str], line: int, path: Path) -> Row:
    where = f"{path}:{line}"
    if None in values or any(value is None for value in values.values()):
        raise DataError("more or fewer fields than the first line has columns", where=where)
    values = {name: value.strip() for name, value in values.items()}
    try:
        made = setup.of_row(values)
        unit, measured, peak = (values.get(name, "") for name in ("unit", "measured", "peak_mem_GiB"))
        out = "oom" in (unit.lower(), measured.lower(), peak.lower()) or peak.startswith(">")
        tflops = _number("measured", measured) if unit.startswith("TF") and not out else None
        timed = None if out else _step_s(values, made, unit)
        if timed is None and tflops is not None and unit in conventions.UNITS:
            timed, tflops = made.tokens / conventions.tokens_per_s(made, tflops, unit), None
        return Row(
            line=line,
            name=values.get("id") or f"line {line}",
            source=values.get("src", ""),
            setup=made,
            step_s=timed,
            peak_gib=None if out or not peak else _number("peak_mem_GiB", peak),
            out_of_memory=out,
            tflops=tflops,
            unit=unit,
        )
    except (RecipeError, UsageError) as err:
        raise DataError(err.what, where=where, why=err.why, do=err.do) from None


def _step_s(values: Mapping[str, str], made: Setup, unit: str) -> float | None:
    """As stated, else from the tokens a second. None where the line gives neither."""
    if values.get("step_s"):
        return _number("step_s", values["step_s"])
    if values.get("tok_s_gpu"):
        return made.tokens / made.world / _number("tok_s_gpu", values["tok_s_gpu"])
    kind = unit.lower()
    if values.get("measured") and kind in ("s/step", "tok/s", "tok/s/gpu"):
        measured = _number("measured", values["measured"])
        if kind == "s/step":
            return measured
        return made.tokens / measured / (made.world if kind == "tok/s/gpu" else 1)
    return None


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < 1e15:
        raise UsageError(f"{name}={text!r} is no measurement", do="give a number above 0, or leave it empty")
    return value
