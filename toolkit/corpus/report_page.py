"""The page of a corpus report: figures and tables from what `report.summary` says.

Decides what a reader sees first and how counts are drawn; every text of the corpus is cleaned here and escaped by the
template.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_TEMPLATE = Path(__file__).parent / "template"
_TEXT = 400
_MOST = 12  # rows of a table before the rest becomes one row
_COLOURS = 6  # of rules in the bars; further ones share the last


def render(found: Mapping[str, Any]) -> str:
    """The page as HTML text."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, finalize=lambda value: value if isinstance(value, Markup) else clean(value),
    )  # fmt: skip
    environment.filters.update(number=number, short=short, share=share, words=lambda rule: str(rule).replace("_", " "))
    style = Markup((_TEMPLATE / "report.css").read_text(encoding="utf-8"))
    return environment.get_template("report.html.j2").render(style=style, found=found, **_context(found))


def clean(value: Any, limit: int = _TEXT) -> str:
    """`value` as text in which nothing can hide or reorder what stands around it."""
    raw = str(value)
    raw, cut = raw[:limit], len(raw) > limit
    shown = (
        f"\\u{ord(char):04x}" if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co") and char not in "\n\t" else char
        for char in raw
    )
    return "".join(shown) + ("…" if cut else "")


def number(value: int) -> str:
    return f"{value:,}"


def short(value: float) -> str:
    """Three digits and a unit: 12.3 M."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= 0.9995 * size:
            return f"{value / size:.{2 if value < 9.995 * size else 1 if value < 99.95 * size else 0}f} {unit}"
    return str(round(value))


def share(part: float, whole: float) -> str:
    """Per cent; what is there is never shown as nothing, nor what is missing as all."""
    if not whole:
        return "–"
    value = 100 * part / whole
    if 0 < value < 0.1:
        return "< 0.1 %"
    if 99.9 < value < 100:
        return "> 99.9 %"
    return f"{value:.1f} %"


def _context(found: Mapping[str, Any]) -> dict[str, Any]:
    ranked = sorted(found["removed"], key=lambda rule: (-found["removed"][rule], rule))
    colours = {rule: min(place, _COLOURS - 1) for place, rule in enumerate(ranked)}
    return {
        "verdict": _verdict(found),
        "tiles": _tiles(found),
        "flows": [_flow(name, each, colours) for name, each in found["subsets"].items()],
        "legend": [(rule, colours[rule]) for rule in ranked],
        "licences": _rows(found["licences"], found["out"]),
        "reasons": _rows(found["bad_rows"]["reasons"], found["bad_rows"]["rows"]),
        "years": _columns(_by_year(found["years"])),
        "unknown_year": found["years"].get("unknown", 0),
        "lengths": _columns(_by_length(found["lengths"])),
        "settings": list(_flat(found["settings"])),
    }  # fmt: skip


def _verdict(found: Mapping[str, Any]) -> str:
    return (
        f"{number(found['out'])} of {number(found['in'])} documents are in the corpus: "
        f"{number(found['train'])} to train on, {number(found['valid'])} to validate with."
    )


def _tiles(found: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    lost = found["in"] - found["out"]
    tiles = [
        ("Documents", _count(found["out"]), f"{share(found['out'], found['in'])} of what was read"),
        ("Removed", _count(lost), f"by {len(found['removed'])} rules" if lost else "nothing"),
        ("Tokens, estimated", short(found["tokens_estimated"]), f"at {found['bytes_per_token']} bytes each"),
        ("Text", f"{short(found['bytes'])}B".replace(" BB", " GB"), f"{short(found['characters'])} characters"),
        ("Could not be read", _count(found["bad_rows"]["rows"]), "rows or files, set aside"),
    ]
    if found["copies"] > found["out"]:
        tiles.append(("Copies written", _count(found["copies"]), "after upsampling"))
    return tiles


def _count(value: int) -> str:
    return number(value) if value < 1_000_000 else short(value)


def _flow(name: str, each: Mapping[str, Any], colours: Mapping[str, int]) -> dict[str, Any]:
    """One source as a bar of what stays and what each rule takes, in per cent of its input."""
    whole = each["in"] or 1
    parts = [("train", "train", each["train"]), ("valid", "valid", each["valid"])]
    parts += [(rule, f"rule-{colours[rule]}", count) for rule, count in each["removed"].items()]
    return {
        "name": name,
        "counts": each,
        "parts": [(label, css, count, round(100 * count / whole, 3)) for label, css, count in parts if count],
    }


def _rows(counts: Mapping[str, int], whole: int) -> list[tuple[str, int, float]]:
    """(name, count, per cent of `whole`), the most frequent, then one row for all others."""
    rows = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    if len(rows) > _MOST + 1:
        rows = [*rows[:_MOST], (f"{len(rows) - _MOST} others", sum(count for _, count in rows[_MOST:]))]
    return [(name, count, 100 * count / (whole or 1)) for name, count in rows]


def _by_year(years: Mapping[str, int]) -> list[tuple[str, str, int]]:
    """Every year from the first to the last, by decades where they are many."""
    known = {int(year): count for year, count in years.items() if year.isdigit()}
    if not known:
        return []
    first, last = min(known), max(known)
    if last - first < 40:
        return [(str(year), str(year), known.get(year, 0)) for year in range(first, last + 1)]
    start, span = first // 10 * 10, 10
    while (last - start) // span >= 40:
        span *= 10
    return [
        (str(year), f"{year} to {year + span - 1}", sum(n for y, n in known.items() if year <= y < year + span))
        for year in range(start, last + 1, span)
    ]  # fmt: skip


def _by_length(lengths: Mapping[str, int]) -> list[tuple[str, str, int]]:
    """Every power of two from the shortest to the longest."""
    known = {int(size): count for size, count in lengths.items()}
    sizes, size = [], min(known, default=0)
    while known and size <= max(known):
        sizes.append(size)
        size *= 2
    return [(short(size), f"{short(size)} to {short(2 * size)}", known.get(size, 0)) for size in sizes]


def _columns(bars: Sequence[tuple[str, str, int]]) -> list[dict[str, Any]]:
    """Columns of a chart, the highest 100 tall; a label under the first, the last and few between."""
    most = max((count for _, _, count in bars), default=0) or 1
    step = max(1, -(-len(bars) // 8))
    return [
        {
            "label": label if place % step == 0 else "",
            "title": title,
            "count": count,
            "height": max(1.2, 100 * count / most) if count else 0,
        }
        for place, (label, title, count) in enumerate(bars)
    ]


def _flat(value: Any, key: str = "") -> list[tuple[str, str]]:
    """A nested mapping as dotted keys; lists of plain values on one line."""
    if isinstance(value, Mapping) and value:
        return [pair for name, each in value.items() for pair in _flat(each, f"{key}.{name}" if key else str(name))]
    if isinstance(value, list | tuple) and any(isinstance(each, Mapping) for each in value):
        return [pair for place, each in enumerate(value) for pair in _flat(each, f"{key}[{place}]")]
    if isinstance(value, list | tuple):
        return [(key, ", ".join(map(str, value)) or "none")]
    return [(key, "none" if value in (None, "", {}) else str(value))]
