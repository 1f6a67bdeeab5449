"""The memory of every pipeline stage as a picture: bars of text for a terminal or a log, and an SVG that stands alone.

Draws what `memory` counted; knows no recipe.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from toolkit.plan.memory import KINDS, Memory

_BLOCKS = dict(zip(KINDS, "█▓▒░▚▞▪", strict=True))
_LETTERS = dict(zip(KINDS, "wgoalbx", strict=True))
_MOST_BARS = 16
# Light and dark shades of seven hues that stay apart for colour-blind eyes too.
_COLOURS = dict(zip(KINDS, ("#2465a8", "#5b9bd5", "#0d6b63", "#d98324", "#b3261e", "#8b7bb8", "#8d99a5"), strict=True))
_ROW, _LEFT, _WIDTH, _RIGHT = 24, 78, 560, 92


def bars(stages: Sequence[Memory], limit_gib: float, *, width: int = 48, unicode: bool | None = None) -> list[str]:
    """Lines: a legend and a bar for each stage, `width` columns up to the fuller of the fullest stage and the limit,
    which `|` marks. Of more than 16 stages some between are left out. `unicode`: None decides by where stdout goes.
    """
    if unicode is None:
        unicode = sys.stdout.isatty() and (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    marks, edge = (_BLOCKS, "│") if unicode else (_LETTERS, "|")
    scale = width / max(limit_gib, *(stage.gib for stage in stages))
    limit = min(width, round(limit_gib * scale))
    lines = ["  ".join(f"{marks[kind]} {kind}" for kind in KINDS) + f"  {edge} {limit_gib:.1f} GiB, what fits"]
    last = -1
    for stage in _some(stages):
        if stage.pp_rank != last + 1:
            lines.append("      ...")
        last = stage.pp_rank
        bar = "".join(
            marks[kind] * (end - begin) for kind, begin, end in _pieces(stage, lambda gib: round(gib * scale))
        )
        bar = bar.ljust(width + 1)
        if bar[limit] == " ":
            bar = bar[:limit] + edge + bar[limit + 1 :]
        over = "  too much" if stage.gib > limit_gib else ""
        lines.append(f"{stage.pp_rank:>4}  {bar.rstrip():<{width + 1}} {stage.gib:6.1f} GiB{over}")
    return lines


def _some(stages: Sequence[Memory]) -> list[Memory]:
    """All of few; of many evenly chosen ones, the first, the last and the fullest among them."""
    if len(stages) <= _MOST_BARS:
        return list(stages)
    step = (len(stages) - 1) / (_MOST_BARS - 2)
    chosen = {round(i * step) for i in range(_MOST_BARS - 1)}
    chosen.add(max(range(len(stages)), key=lambda i: stages[i].gib))
    return [stages[i] for i in sorted(chosen)]


def _pieces(stage: Memory, place: Callable[[float], int]) -> list[tuple[str, int, int]]:
    """(kind, begin, end) of each part in columns or pixels; edges are rounded, so that the whole keeps its length."""
    pieces, reached = [], 0.0
    for kind in KINDS:
        begin, reached = reached, reached + stage.parts[kind]
        pieces.append((kind, place(begin), place(reached)))
    return [piece for piece in pieces if piece[2] > piece[1]]


def svg(stages: Sequence[Memory], limit_gib: float, *, title: str = "Memory of a GPU by pipeline stage") -> str:
    """A whole SVG document, readable on light and dark grounds; each piece tells its GiB on hovering."""
    top = 58
    height = top + _ROW * len(stages) + 30
    most = 1.04 * max(limit_gib, *(stage.gib for stage in stages))

    def at(gib: float) -> int:
        return _LEFT + round(_WIDTH * gib / most)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LEFT + _WIDTH + _RIGHT} {height}" role="img" '
        f'aria-label="{_safe(title)}">',
        "<style>text{font:12px system-ui,sans-serif}.limit{stroke-width:1.5;stroke-dasharray:5 3}"
        ".ink{fill:#1b2126}.soft{fill:#56616b}.limit{stroke:#1b2126}"
        "@media(prefers-color-scheme:dark){.ink{fill:#e7eaec}.soft{fill:#9eaab4}.limit{stroke:#e7eaec}}</style>",
        f'<text class="ink" x="0" y="14" font-weight="600">{_safe(title)}</text>',
    ]
    x = 0
    for kind in KINDS:
        out.append(f'<rect x="{x}" y="26" width="11" height="11" rx="2" fill="{_COLOURS[kind]}"/>')
        out.append(f'<text class="soft" x="{x + 16}" y="36">{kind}</text>')
        x += 30 + 7 * len(kind)
    for number, stage in enumerate(stages):
        y = top + _ROW * number
        out.append(f'<text class="soft" x="0" y="{y + 14}">stage {stage.pp_rank}</text>')
        out += [
            f'<rect x="{begin}" y="{y}" width="{end - begin}" height="{_ROW - 6}" fill="{_COLOURS[kind]}">'
            f"<title>{kind} {stage.parts[kind]:.1f} GiB</title></rect>"
            for kind, begin, end in _pieces(stage, at)
        ]
        out.append(f'<text class="ink" x="{max(at(stage.gib), at(limit_gib)) + 8}" y="{y + 14}">{stage.gib:.1f}</text>')
    edge, low = at(limit_gib), top + _ROW * len(stages)
    out.append(f'<line class="limit" x1="{edge}" x2="{edge}" y1="{top - 6}" y2="{low}"/>')
    out.append(f'<text class="soft" x="{edge}" y="{low + 16}" text-anchor="end">{limit_gib:.1f} GiB fit</text>')
    return "\n".join([*out, "</svg>", ""])


def _safe(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
