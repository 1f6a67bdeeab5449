"""Documents joined into groups, on disk: each group's best stands for it.

Decides who is the best (lowest rank, then first) and how groups grow together; leaves to others why they do.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from toolkit import files

BLOCK = 1 << 18


def array(path: Path, dtype: type, rows: int) -> np.ndarray:
    """An array of `rows` numbers in a file, all 0 at first, which the system may take out of memory at any time.

    Raises `DiskFull`.
    """
    path.unlink(missing_ok=True)
    if not rows:
        return np.zeros(0, dtype)
    with files.disk_errors(path), open(path, "wb") as file:
        # All the room at once: a mapped file that the disk has no room for would end the process without a word.
        os.posix_fallocate(file.fileno(), 0, rows * np.dtype(dtype).itemsize)
    return np.memmap(path, dtype, "r+", shape=rows)


class Groups:
    """A union-find over `count` documents whose parents are a file (4 bytes each), that other processes may read."""

    def __init__(self, path: Path, ranks: np.ndarray) -> None:
        self.path, self.count = path, len(ranks)
        self._parents = array(path, np.uint32, self.count)
        for begin in range(0, self.count, BLOCK):
            end = min(begin + BLOCK, self.count)
            self._parents[begin:end] = np.arange(begin, end, dtype=np.uint32)
        # Python reads a view's numbers several times faster than those of a numpy array.
        self._parent = memoryview(self._parents).cast("B").cast("I") if self.count else None
        self._rank = memoryview(ranks).cast("B") if self.count else None

    def join(self, pairs: np.ndarray) -> None:
        """Each pair of documents, shape (pairs, 2), is of one group."""
        parent, rank = self._parent, self._rank
        for first, second in pairs.tolist():
            one, two = self._root(first), self._root(second)
            if one != two:
                if (rank[two], two) < (rank[one], one):
                    one, two = two, one
                parent[two] = one

    def _root(self, place: int) -> int:
        parent = self._parent
        while (up := parent[place]) != place:
            parent[place] = place = parent[up]  # halves the way for the next one
        return place

    def members(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(documents, bests) by blocks: those that are not their group's best, ascending, and who that is."""
        for begin in range(0, self.count, BLOCK):
            block = self._parents[begin : begin + BLOCK]
            found = np.flatnonzero(block != np.arange(begin, begin + len(block), dtype=np.uint32)) + begin
            if len(found):
                yield found, roots(self._parents, found)


def roots(parents: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The groups of these documents. `parents` may be changing: what is found then was true, if not all of it."""
    found = np.asarray(parents[places], np.int64)
    while True:
        up = parents[found].astype(np.int64)
        if np.array_equal(up, found):
            return found
        found = up
