"""Pairs of documents that are nearly the same, band by band, in as many processes as one likes.

Decides who is compared and what a pair must show; leaves the measures to `sketches`, what becomes of them to `judge`.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from pathlib import Path

import numpy as np

from toolkit.cleaning import Duplicates
from toolkit.corpus import sketches
from toolkit.corpus.columns import Joined, drop
from toolkit.corpus.groups import BLOCK, roots
from toolkit.corpus.meeting import PAIRS, Pairs, meeting, pieces
from toolkit.progress import progress


def pairs(docs: Joined, work: Path, rules: Duplicates, workers: int) -> Iterator[Pairs]:
    """Pairs that link all near duplicates. `work` holds `reasons.u`, 0 for those to compare, and `parents.u`, the
    groups that the one who asks makes of the pairs as they come.
    """
    jobs = [(docs.folders, np.diff(docs.begins), work, rules, band, workers) for band in range(rules.bands)]
    with progress("corpus: near duplicates", len(jobs), "bands") as bar:
        if workers == 1 or docs.total < BLOCK:
            for job in jobs:
                yield from _of_band(job)
                bar.advance()
            return
        # Spawned, not forked: whoever builds may have threads, and their locks would come along.
        with ProcessPoolExecutor(workers, get_context("spawn"), _begin_worker) as pool:
            try:
                for found in pool.map(_whole_band, jobs):
                    yield found
                    bar.advance()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


def _begin_worker() -> None:
    """Ctrl-C is for the one who started this; and a worker whose parent was killed ends, rather than wait for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        if (parent := parent_process()) is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


_Job = tuple[Sequence[Path], np.ndarray, Path, Duplicates, int, int]


def _whole_band(job: _Job) -> Pairs:
    return np.concatenate([np.zeros((0, 2), np.int64), *_of_band(job)])


def _of_band(job: _Job) -> Iterator[Pairs]:
    """Pairs of documents that meet in one band and are alike enough. Those already of one group are left out, which
    may be more or fewer from run to run; what the groups become is the same.
    """
    folders, rows, work, rules, band, workers = job
    docs = Joined(folders, rows)
    if not docs.total:
        return
    reasons = np.memmap(work / "reasons.u", np.uint8, "r")
    parents = np.memmap(work / "parents.u", np.uint32, "r")

    def read(part: int) -> tuple[np.ndarray, np.ndarray]:
        stays = np.flatnonzero(reasons[docs.rows_of(part)] == 0)
        return docs.pick("bands.npy", part, band)[stays], stays + docs.begins[part]

    memory = (rules.memory_mib << 20) // workers
    batch = max(PAIRS, memory // (4 * 8 * rules.sketch))  # their sketches take a quarter of it
    for pairs in meeting(read, docs.parts(), docs.total, memory):
        for begin in range(0, len(pairs), batch):
            some = pairs[begin : begin + batch]
            some = some[_differ(parents, some)]
            if not len(some):
                continue
            places, where = np.unique(some, return_inverse=True)
            where = where.reshape(some.shape)
            known, lengths = _sketches(docs, places, rules.sketch)
            for few in pieces(np.arange(len(some))):
                few = few[_differ(parents, some[few])]
                sides = ((known[side], lengths[side]) for side in where[few].T)
                yield some[few][sketches.similarity(*sides) >= rules.near_threshold]


def _differ(parents: np.ndarray, pairs: Pairs) -> np.ndarray:
    return roots(parents, pairs[:, 0]) != roots(parents, pairs[:, 1])


def _sketches(docs: Joined, places: np.ndarray, sketch: int) -> sketches.Rows:
    """The sketches of these documents (ascending), from each part in one go."""
    known = np.zeros((len(places), sketch), np.uint32)
    lengths = np.zeros(len(places), np.int64)
    for part, begin, end in docs.by_part(places):
        local = places[begin:end] - docs.begins[part]
        ends = docs.pick("sketch_end.npy", part, local)
        begins = np.where(local > 0, docs.pick("sketch_end.npy", part, local - 1), 0)
        mapped = docs.open("sketch.npy", part)
        for i in range(0, len(local), PAIRS):
            to = slice(begin + i, begin + min(i + PAIRS, len(local)))
            known[to], lengths[to] = sketches.rows(mapped, begins[i : i + PAIRS], ends[i : i + PAIRS], sketch=sketch)
        drop(mapped)
    return known, lengths
