"""Untrusted values made safe: numbers that are finite, text that is short and cannot steer the page, readable units.

Decides how a number, a duration or a foreign string is shown; knows nothing of runs. HTML escaping is the template's.
"""

from __future__ import annotations

import math
import re
import reprlib
import unicodedata
from datetime import date, datetime, timezone
from typing import Any

LARGEST = 1e15
"""Numbers beyond this are taken for damage, not for measurements: no chart can show them beside real ones."""

TEXT_LIMIT = 400
_KEEP = {"\n", "\t"}
_SHORT = reprlib.Repr()
_SHORT.maxlevel = 2
_JOINERS = {"\u200c", "\u200d"}


def number(value: Any) -> float | None:
    """`value` as a finite float of sane size, else None (bool, text, NaN, infinity, absurd size)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        value = float(value)
    except OverflowError:
        return None
    return value if math.isfinite(value) and abs(value) <= LARGEST else None


def whole(value: Any) -> int | None:
    """`value` as a non-negative integer, else None."""
    value = number(value)
    return int(value) if value is not None and value >= 0 and value == int(value) else None


def text(value: Any, limit: int = TEXT_LIMIT) -> str:
    """`value` as text without control, direction-changing or unpaired characters, at most `limit` characters long.

    Direction marks and control codes could reorder or hide what stands around them, so they show as `\\uXXXX`.
    """
    # Containers are abbreviated: YAML aliases can make a few lines of them as long as the disk is large.
    scalar = value is None or isinstance(value, (str, int, float, date))
    raw = str(value) if scalar else _SHORT.repr(value)
    raw, cut = raw[:limit], len(raw) > limit
    out = []
    for char in raw:
        odd = unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
        out.append(f"\\u{ord(char):04x}" if odd and char not in _KEEP and char not in _JOINERS else char)
    return "".join(_thin(out)) + ("\u2026" if cut else "")


def _thin(chars: list[str], most: int = 4) -> list[str]:
    """Drop combining marks beyond `most` in a row: a tower of them would be drawn over the lines above."""
    out, tower = [], 0
    for char in chars:
        tower = tower + 1 if len(char) == 1 and unicodedata.combining(char) else 0
        if tower <= most:
            out.append(char)
    return out


def percent(value: float | None) -> str:
    """A fraction as per cent with one decimal."""
    return "\u2013" if value is None else f"{100 * value:.1f} %"


def plain(value: float | None, digits: int = 3) -> str:
    """A number with `digits` decimals; very small or large ones in scientific notation."""
    if value is None:
        return "\u2013"
    if value and not 1e-3 <= abs(value) < 1e7:
        return science(value)
    return f"{value:,.{digits}f}"


def science(value: float) -> str:
    """1e-4 rather than 0.0001 or 1.00e-04."""
    if value == 0:
        return "0"
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def count(value: float | None) -> str:
    """A large number in words that fit a tile: 1,234 · 1.23 M · 48.2 B."""
    if value is None:
        return "\u2013"
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if abs(value) >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def duration(seconds: float | None) -> str:
    """Seconds as the two units that matter: 3.4 s · 2 min 5 s · 13 h 50 min · 13 d 20 h."""
    if seconds is None or seconds < 0:
        return "\u2013"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    for size, unit, below, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= size:
            first, rest = divmod(seconds, size)
            return f"{int(first)} {unit} {int(rest // below)} {small}"
    return f"{seconds:.0f} s"


def moment(value: Any) -> datetime | None:
    """An ISO 8601 text or seconds since 1970 as UTC; a time without zone is taken for UTC."""
    if isinstance(value, datetime):
        parsed = value
    elif isinstance(value, str):
        try:
            # Python 3.10 knows neither Z nor a zone without colon.
            parsed = datetime.fromisoformat(
                re.sub(r"([+-]\d\d)(\d\d)$", r"\1:\2", value.strip().replace("Z", "+00:00"))
            )
        except ValueError:
            return None
    else:
        seconds = number(value)
        if seconds is None or not 0 < seconds < 4e9:
            return None
        parsed = datetime.fromtimestamp(seconds, timezone.utc)
    try:
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=timezone.utc)).astimezone(timezone.utc)
    except OverflowError:
        return None


def clock(value: datetime | None) -> str:
    return "\u2013" if value is None else value.strftime("%Y-%m-%d %H:%M UTC")
