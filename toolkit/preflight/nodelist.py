"""Slurm's lists of nodes and lists of ranks, as words. Reads a node list where there is no Slurm to ask, as in an
image.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable

_MOST = 20_000


def names(nodelist: str) -> tuple[str, ...]:
    """`gpu[01-03,7]-ib,login1` as names in order; empty when it is written in no way known here."""
    found: list[str] = []
    for word in re.findall(r"(?:[^,\[\]]|\[[^\]]*\])+", nodelist):
        pieces = [_piece(piece) for piece in re.findall(r"\[[^\]]*\]|[^\[\]]+", word)]
        count = 1
        for piece in pieces:
            count *= len(piece)
        if not 0 < count <= _MOST - len(found):
            return ()
        found += ["".join(parts) for parts in itertools.product(*pieces)]
    return tuple(found)


def _piece(text: str) -> list[str]:
    """`[01-03,7]` as its numbers, anything else as itself; nothing for what cannot be read."""
    if not text.startswith("["):
        return [text]
    found: list[str] = []
    for span in text[1:-1].split(","):
        match = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", span)
        if match is None or int(match[2] or match[1]) - int(match[1]) > _MOST:
            return []
        found += [str(n).zfill(len(match[1])) for n in range(int(match[1]), int(match[2] or match[1]) + 1)]
    return found


def spans(ranks: Iterable[int]) -> str:
    """`0-7,12`."""
    found: list[list[int]] = []
    for rank in sorted(set(ranks)):
        if found and rank == found[-1][1] + 1:
            found[-1][1] = rank
        else:
            found.append([rank, rank])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in found)


def ranks(numbers: Iterable[int]) -> str:
    """`rank 3`, or `ranks 0-7,12`."""
    text = spans(numbers)
    return f"rank {text}" if text.isdigit() else f"ranks {text}"
