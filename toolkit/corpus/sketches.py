"""What is kept of a document's shingles: keys of bands by which alike documents meet, and a sketch that measures them.

Decides how both are computed and how alike two sketches say that documents are; knows neither files nor thresholds.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from toolkit.corpus import words

_BATCH = 1 << 17  # words at a time: the 32-bit halves of that many shingles stay in a core's cache


def make(hashed: Sequence[np.ndarray], *, shingle: int, bands: int, rows: int, sketch: int) -> Made:
    """Keys and sketches of documents, given as the hashes of their words (at least one word each).

    Returns keys, shape (documents, bands), uint64: each of `rows` minima over all shingles (MinHash); and for each
    document the `sketch` smallest of its different shingles' numbers, uint32, ascending (all, should it have fewer).
    A document of fewer words than a shingle has one shingle, made of them all.
    """
    minima, sketches = [], []
    for group in _groups(hashed):
        if len(group) == 1 and len(group[0]) > _BATCH:
            pieces = [group[0][i : i + _BATCH + shingle - 1] for i in range(0, len(group[0]) - shingle + 1, _BATCH)]
            made = [_one_go([piece], shingle, bands * rows, sketch) for piece in pieces]
            minima.append(np.min([m for m, _ in made], axis=0))
            sketches.append(np.unique(np.concatenate([s for _, found in made for s in found]))[:sketch])
        else:
            found = _one_go(group, shingle, bands * rows, sketch)
            minima.append(found[0])
            sketches += found[1]
    lowest = np.concatenate(minima, axis=1) if minima else np.zeros((bands * rows, 0), np.uint32)
    return _keys(lowest, bands, rows), sketches


Made = tuple[np.ndarray, list[np.ndarray]]


def similarity(first: Rows, second: Rows) -> np.ndarray:
    """Jaccard similarity of pairs of documents, shape (pairs,), from their sketches as `rows` has them.

    Exact where a document has fewer shingles than a sketch has room for; else an estimate of standard deviation
    sqrt(J (1 - J) / sketch), at most 0.025 at J = 0.8 with 256.
    """
    empty = np.uint64(1 << 32)
    sides = []
    for values, lengths in (first, second):
        side = values.astype(np.uint64)
        side[np.arange(values.shape[1]) >= lengths[:, None]] = empty
        sides.append(side)
    # Up to `known` both sketches are complete: there, all that one of them lacks the document lacks.
    known = np.minimum(*(np.where(side[:, -1] < empty, side[:, -1], empty - np.uint64(1)) for side in sides))
    both = np.concatenate(sides, axis=1)
    both.sort(axis=1)
    seen = both <= known[:, None]
    common = ((both[:, 1:] == both[:, :-1]) & seen[:, 1:]).sum(axis=1)
    return common / np.maximum(seen.sum(axis=1) - common, 1)


Rows = tuple[np.ndarray, np.ndarray]  # sketches, shape (documents, sketch), uint32, and how long each of them is


def rows(sketches: np.ndarray, begins: np.ndarray, ends: np.ndarray, *, sketch: int) -> Rows:
    """Of sketches that lie one behind the other, those that begin and end there."""
    places = begins[:, None] + np.arange(sketch)
    held = places < ends[:, None]
    out = np.zeros(places.shape, np.uint32)
    out[held] = sketches[places[held]]
    return out, ends - begins


def _groups(hashed: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
    """Documents in order, together up to a batch; a longer one is alone."""
    groups: list[list[np.ndarray]] = []
    room = 0
    for item in hashed:
        if len(item) > room:
            groups.append([])
            room = _BATCH
        groups[-1].append(item)
        room -= len(item)
    return groups


def _one_go(hashed: Sequence[np.ndarray], shingle: int, count: int, sketch: int) -> Made:
    lengths = np.array([len(item) for item in hashed])
    if lengths.min() < shingle:  # filled up with what is no word's number but for chance
        filler = np.arange(1, shingle + 1, dtype=np.uint64)
        hashed = [np.concatenate([item, filler[: max(0, shingle - len(item))]]) for item in hashed]
        lengths = np.maximum(lengths, shingle)
    ends = lengths.cumsum()
    valid = np.ones(ends[-1], bool)
    for back in range(1, shingle):
        valid[ends - back] = False  # these would reach into the next document
    found = words.runs(np.concatenate(hashed), shingle)[valid[: ends[-1] - shingle + 1]]
    counts = lengths - shingle + 1
    begins = counts.cumsum() - counts
    return _minima(found, begins, count), _sketches(found, begins, sketch)


def _minima(found: np.ndarray, begins: np.ndarray, count: int) -> np.ndarray:
    """Shape (count, documents), uint32: of as many random orders of all shingles, each document's first."""
    low = found.astype(np.uint32)
    work = np.empty_like(low)
    out = np.empty((count, len(begins)), np.uint32)
    turns, factors = _orders(count)
    for i in range(count):
        np.bitwise_xor(low, turns[i], out=work)
        np.multiply(work, factors[i], out=work)
        np.minimum.reduceat(work, begins, out=out[i])
    return out


def _sketches(found: np.ndarray, begins: np.ndarray, sketch: int) -> list[np.ndarray]:
    high = (found >> np.uint64(32)).astype(np.uint32)  # the halves that the minima do not use
    ends = [*begins[1:].tolist(), len(high)]
    for begin, end in zip(begins.tolist(), ends, strict=True):
        high[begin:end].sort()
    new = np.concatenate([[True], high[1:] != high[:-1]])
    new[begins] = True
    different = high[new]
    places = np.append(new.cumsum()[begins] - 1, len(different)).tolist()
    return [different[places[i] : min(places[i] + sketch, places[i + 1])] for i in range(len(begins))]


def _keys(minima: np.ndarray, bands: int, rows: int) -> np.ndarray:
    parts = minima.astype(np.uint64).reshape(bands, rows, -1)
    keys = np.zeros((bands, minima.shape[1]), np.uint64)
    for row in range(rows):
        keys = words.mix(keys + parts[:, row] + np.uint64(1 + row))
    return np.ascontiguousarray(keys.T)


@functools.cache
def _orders(count: int) -> tuple[np.ndarray, np.ndarray]:
    seeds = words.mix(np.arange(1, 2 * count + 1, dtype=np.uint64) << np.uint64(8)).astype(np.uint32)
    return seeds[:count], seeds[count:] | np.uint32(1)
