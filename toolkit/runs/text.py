"""Foreign text that cannot steer a terminal, and spans of time as people say them. Knows nothing of runs."""

from __future__ import annotations

import math
import re
from typing import Any

_MOST = 200
_LARGEST = 1e15  # beyond it a number is damage, not a measurement
_SEQUENCES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[()][0-9A-B])")
_UNITS = ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"))


def harmless(value: object, most: int | None = _MOST) -> str:
    """`value` as one line of at most `most` characters; whatever is not printable stands there as its code."""
    text = str(value)
    if most is not None and len(text) > most:
        text = text[: most - 3] + "..."
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\u00a0\u200c\u200d" else _code(c) for c in text)


def harmless_lines(text: str) -> list[str]:
    """Lines of a log: colours and cursor movements dropped, bars that redraw themselves line by line, tabs kept."""
    lines = _SEQUENCES.sub("", text.replace("\r\n", "\n").replace("\r", "\n")).split("\n")
    return ["\t".join(harmless(part, None) for part in line.split("\t")) for line in lines]


def number(value: Any) -> float | None:
    """`value` as a float of sane size (NaN and infinity included: a loss may be either), else None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    sane = not math.isfinite(value) if isinstance(value, float) else False
    return float(value) if sane or abs(value) <= _LARGEST else None


def whole(value: Any) -> int | None:
    """`value` as a count, else None."""
    value = number(value)
    return int(value) if value is not None and math.isfinite(value) and value >= 0 and value == int(value) else None


def finite(value: Any) -> float | None:
    """`value` as a finite float that is not negative, else None."""
    value = number(value)
    return value if value is not None and math.isfinite(value) and value >= 0 else None


def span(seconds: float | None) -> str:
    """4.2 s, 12 min, 3 h 20 min, 2 d 4 h; - when it is not known."""
    if seconds is None:
        return "-"
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    for size, unit, below, small in _UNITS:
        if seconds >= size:
            return f"{int(seconds // size)} {unit} {int(seconds % size // below)} {small}"
    return f"{seconds / 60:.0f} min"


def _code(char: str) -> str:
    point = ord(char)
    return f"\\x{point:02x}" if point < 256 else f"\\u{point:04x}" if point < 65_536 else f"\\U{point:08x}"
