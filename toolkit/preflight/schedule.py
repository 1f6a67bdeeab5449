"""Which nodes are tried together: rounds in which a node has one partner, so that pairs disturb each other little."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

MOST_COMPLETE = 16  # nodes of which all pairs are tried
ROUNDS = 8  # beyond them
T = TypeVar("T")


def rounds(members: Sequence[T], most: int | None = None) -> list[list[tuple[T, T]]]:
    """Rounds of disjoint pairs by the circle method: all pairs after len-1 of them (len, when it is odd and each sits
    out once). `most` rounds; by default all for up to `MOST_COMPLETE` members, else `ROUNDS`.
    """
    seats: list[T | None] = list(members)
    if len(seats) < 2:
        return []
    if len(seats) % 2:
        seats.append(None)
    made = []
    for _ in range(len(seats) - 1):
        half = len(seats) // 2
        pairs = zip(seats[:half], reversed(seats[half:]), strict=True)
        made.append([(a, b) for a, b in pairs if a is not None and b is not None])
        seats = [seats[0], seats[-1], *seats[1:-1]]
    if most is None:
        most = len(made) if len(members) <= MOST_COMPLETE else ROUNDS
    return made[:most]  # two that follow each other already join all nodes in one ring
