"""Pairs of rows whose numbers are equal, among any number of rows, in bounded memory.

Decides how they are sorted and which of a group are paired; leaves to others what a number says of a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

PAIRS = 1 << 11  # in one piece of them
Pairs = np.ndarray  # shape (pairs, 2), int64


def meeting(
    read: Callable[[int], tuple[np.ndarray, np.ndarray]], parts: range, total: int, memory: int
) -> Iterator[Pairs]:
    """Pairs of places whose values seem equal: each with the one before it, and with the first of the same value.

    `read(part)` gives values, uint64, and their places (below `total`, ascending). They are sorted by stretches of the
    range of values, as many as `memory` (bytes) asks for, so that it does not grow with their number. Places take the
    room of a value's last bits: different values of the same first bits are among the pairs, and few.
    """
    bits = max(1, (total - 1).bit_length())
    stretches = 1
    while total * 8 * 4 > stretches * memory:  # values, their sorting, and the pairs
        stretches *= 2
    mask, shift = np.uint64((1 << bits) - 1), np.uint64(bits)
    top = np.uint64(64 - stretches.bit_length() + 1)
    for stretch in range(stretches):
        packed = []
        for part in parts:
            values, places = read(part)
            if stretches > 1:
                here = values >> top == stretch
                values, places = values[here], places[here]
            packed.append((values & ~mask) | places.astype(np.uint64))
        if not packed:
            return
        ordered = np.concatenate(packed)
        del packed
        ordered.sort()
        group = ordered >> shift
        same = np.flatnonzero(group[1:] == group[:-1]) + 1
        if not len(same):
            continue
        # The first of each group: of those that follow one another, the one before the first of them.
        begins = np.concatenate([[True], np.diff(same) > 1])
        leaders = np.maximum.accumulate(np.where(begins, same - 1, 0))
        places = (ordered & mask).astype(np.int64)
        del ordered, group
        yield np.stack([places[same - 1], places[same]], axis=1)
        far = leaders < same - 1
        yield np.stack([places[leaders[far]], places[same[far]]], axis=1)


def pieces(pairs: Pairs) -> Iterator[Pairs]:
    return (pairs[i : i + PAIRS] for i in range(0, len(pairs), PAIRS))
