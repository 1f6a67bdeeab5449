"""Runs of words by which many questions are looked for in a text at once.

Decides which runs of a question tell it from others and how a text is searched; leaves to others what a find means.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

_COMMON = 5  # a run in as many questions is a phrase of examiners
_SHORT_RUN = 4  # short questions are looked for by their rarest run of that many words
_Rows = tuple[np.ndarray, np.ndarray, np.ndarray]  # numbers of runs, their items, at which word of these they stand


@dataclass(frozen=True, kw_only=True)
class Table:
    """Runs of `length` words: sorted numbers, whose items they belong to, and at which word of these they stand."""

    length: int
    numbers: np.ndarray
    items: np.ndarray
    offsets: np.ndarray
    seen: np.ndarray  # by a run's first bits, whether there is such a run: says no at once, to nearly all of a text
    shift: np.uint64

    def find(self, runs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(items, places): where in the text each of these items would begin."""
        at = np.flatnonzero(self.seen.take((runs >> self.shift).view(np.int64)))
        low = np.searchsorted(self.numbers, runs[at], "left")
        counts = np.searchsorted(self.numbers, runs[at], "right") - low
        rows = np.repeat(low, counts) + np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)
        return self.items[rows], np.repeat(at, counts) - self.offsets[rows]


def tables(hashed: Sequence[np.ndarray], asking: Sequence[bool], ngram: int) -> Iterator[tuple[bool, Table]]:
    """(short, table): long questions, that ask for something, by all their runs of `ngram` words, the others by one of
    at most four. Questions are the hashes of their words.
    """
    long = [(item, values) for item, found in enumerate(hashed) if asking[item] for _, values in runs(found, {ngram})]
    each = np.concatenate([np.zeros(0, np.uint64), *(np.unique(values) for _, values in long)])
    numbers, counts = np.unique(each, return_counts=True)
    common = numbers[counts >= _COMMON]
    rows: list[_Rows] = []
    having: set[int] = set()
    for item, values in long:
        rare = np.flatnonzero(~np.isin(values, common))
        if len(rare):
            having.add(item)
            rows.append((values[rare], np.full(len(rare), item), rare))
    if rows:
        yield False, _table(ngram, rows)
    short: defaultdict[int, list[tuple[int, list[int]]]] = defaultdict(list)
    for item, found in enumerate(hashed):
        if item not in having:
            length = min(len(found), _SHORT_RUN)
            short[length] += ((item, values.tolist()) for _, values in runs(found, {length}))
    for length, items in sorted(short.items()):
        often = Counter(number for _, values in items for number in set(values))
        yield True, _table(length, [_rarest(item, values, often) for item, values in items])


def _rarest(item: int, values: Sequence[int], often: Mapping[int, int]) -> _Rows:
    place = min(range(len(values)), key=lambda i: (often[values[i]], i))
    return np.array([values[place]], np.uint64), np.array([item]), np.array([place])


def _table(length: int, rows: Iterable[_Rows]) -> Table:
    numbers, items, offsets = (np.concatenate(column) for column in zip(*rows, strict=True))
    order = np.lexsort((offsets, items, numbers))
    bits = min(24, max(12, (32 * len(numbers)).bit_length()))
    shift = np.uint64(64 - bits)
    seen = np.zeros(1 << bits, bool)
    seen[(numbers >> shift).view(np.int64)] = True
    return Table(
        length=length, numbers=numbers[order], items=items[order], offsets=offsets[order], seen=seen, shift=shift
    )


def runs(hashes: np.ndarray, lengths: set[int]) -> Iterator[tuple[int, np.ndarray]]:
    """(length, a number for each run of that many words), for the lengths that the text has room for."""
    longest = min(max(lengths, default=0), len(hashes))
    total = np.zeros(len(hashes), np.uint64)
    weight = 1
    for length in range(1, longest + 1):
        weight = weight * 0x9E3779B97F4A7C15 % (1 << 64)
        total = total[: len(hashes) - length + 1]
        total += hashes[length - 1 :] * np.uint64(weight)
        if length in lengths:
            yield length, total.copy() if length < longest else total
