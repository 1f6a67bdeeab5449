"""The rules about duplicates, one after the other, over the fingerprints of all units.

Decides what each rule compares and who stays; leaves finding what is equal to `meeting`, what is alike to `near`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from toolkit.cleaning import Duplicates
from toolkit.corpus import fingerprints, near
from toolkit.corpus.columns import Joined
from toolkit.corpus.dedup import EXACT, NEAR, REASONS, RETRACTED, SAME_ID, WITHDRAWN, Verdicts
from toolkit.corpus.groups import BLOCK, Groups, array
from toolkit.corpus.meeting import Pairs, meeting, pieces
from toolkit.errors import DataError

_ARRAYS = (("reasons", np.uint8), ("winners", np.uint32))


def judge(folders: Sequence[Path], work: Path, rules: Duplicates, workers: int) -> Verdicts:
    """As `dedup.decide` says."""
    work.mkdir(parents=True, exist_ok=True)
    found = [fingerprints.counts(folder, rules) for folder in folders]
    docs = Joined(folders, [each["documents"] for each in found])
    keys = Joined(folders, [each["keys"] for each in found])
    if max(docs.total, keys.total) >= 1 << 32:
        raise DataError("holds more documents than can be compared", where=work, why="the most are 4 billion")
    reasons, winners = (array(work / f"{name}.u", kind, docs.total) for name, kind in _ARRAYS)
    ranks = array(work / "ranks.u", np.uint8, docs.total)
    for part in docs.parts():
        ranks[docs.rows_of(part)] = docs.pick("rank.npy", part)
    _withdraw(docs, keys, [each["withdrawn"] for each in found], reasons)
    _retract(docs, keys, [each["retracted"] for each in found], reasons)
    parents = work / "parents.u"
    if rules.ids:
        groups = Groups(parents, ranks)
        for pairs in _same_keys(docs, keys, reasons, rules.memory_mib << 20):
            groups.join(pairs)
        _keep_revisions(groups, docs, ranks, work, reasons, winners)
    if rules.exact:
        groups = Groups(parents, ranks)
        for pairs in _same_words(docs, reasons, rules.memory_mib << 20):
            groups.join(pairs)
        _remove(groups, EXACT, reasons, winners)
    if rules.near:
        groups = Groups(parents, ranks)
        for pairs in near.pairs(docs, work, rules, workers):
            groups.join(pairs)
        _remove(groups, NEAR, reasons, winners)
    for name in ("ranks.u", "parents.u"):
        (work / name).unlink(missing_ok=True)
    totals = np.zeros(len(REASONS), np.int64)
    for begin in range(0, docs.total, BLOCK):
        totals += np.bincount(reasons[begin : begin + BLOCK], minlength=len(REASONS))
    return Verdicts(
        reasons=[np.asarray(reasons[docs.rows_of(part)]) for part in docs.parts()],
        counts={name: int(number) for name, number in zip(REASONS[1:], totals[1:], strict=True)},
        winners=winners,
        folders=list(folders),
    )


def _withdraw(docs: Joined, keys: Joined, numbers: Sequence[int], reasons: np.ndarray) -> None:
    parts = [part for part in docs.parts() if numbers[part]]
    if not parts:
        return
    names = np.concatenate([docs.open("withdrawn.npy", part) for part in parts])
    versions = np.concatenate([docs.open("withdrawn_version.npy", part) for part in parts])
    order = np.lexsort((versions, names[:, 1], names[:, 0]))
    names, versions = names[order], versions[order]
    last = np.append(np.any(names[1:] != names[:-1], axis=1), True)  # the newest that is withdrawn of each
    names, versions = names[last], versions[last]
    for part, owner, place in _owners(docs, keys, names):
        owner = owner[docs.pick("version.npy", part, owner) <= versions[place]]
        reasons[owner.astype(np.int64) + docs.begins[part]] = WITHDRAWN


def _retract(docs: Joined, keys: Joined, numbers: Sequence[int], reasons: np.ndarray) -> None:
    parts = [part for part in docs.parts() if numbers[part]]
    if not parts:
        return
    names = np.unique(np.concatenate([docs.open("retracted.npy", part) for part in parts]), axis=0)
    for part, owner, _ in _owners(docs, keys, names):
        rows = owner.astype(np.int64) + docs.begins[part]
        reasons[rows[reasons[rows] == 0]] = RETRACTED


def _owners(docs: Joined, keys: Joined, names: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """(part, its documents with a key among `names`, which of them); `names` are sorted, each once."""
    for part in docs.parts():
        if keys.rows_of(part).start == keys.rows_of(part).stop:
            continue
        given = docs.pick("key.npy", part)
        place = np.minimum(np.searchsorted(names[:, 0], given[:, 0]), len(names) - 1)
        hit = np.flatnonzero(np.all(names[place] == given, axis=1))
        yield part, docs.pick("key_owner.npy", part, hit), place[hit]


def _same_keys(docs: Joined, keys: Joined, reasons: np.ndarray, memory: int) -> Iterator[Pairs]:
    def owners(part: int) -> np.ndarray:
        return docs.pick("key_owner.npy", part).astype(np.int64) + docs.begins[part]

    def read(part: int) -> tuple[np.ndarray, np.ndarray]:
        rows = keys.rows_of(part)
        if rows.start == rows.stop:
            return np.zeros(0, np.uint64), np.zeros(0, np.int64)
        stays = np.flatnonzero(reasons[owners(part)] == 0)
        return docs.pick("key.npy", part, (stays, 0)), stays + rows.start

    for pairs in meeting(read, keys.parts(), keys.total, memory):
        for some in pieces(pairs):
            some = some[_equal(keys, "key.npy", some)]
            sides = []
            for side in some.T:
                part = np.searchsorted(keys.begins, side, "right") - 1
                sides.append(keys.take("key_owner.npy", side).astype(np.int64) + docs.begins[part])
            yield np.stack(sides, axis=1)


def _same_words(docs: Joined, reasons: np.ndarray, memory: int) -> Iterator[Pairs]:
    def read(part: int) -> tuple[np.ndarray, np.ndarray]:
        stays = np.flatnonzero(reasons[docs.rows_of(part)] == 0)
        return docs.pick("exact.npy", part, (stays, 0)), stays + docs.begins[part]

    for pairs in meeting(read, docs.parts(), docs.total, memory):
        for some in pieces(pairs):
            yield some[_equal(docs, "exact.npy", some)]


def _equal(rows: Joined, name: str, pairs: Pairs) -> np.ndarray:
    return np.all(rows.take(name, pairs[:, 0]) == rows.take(name, pairs[:, 1]), axis=-1)


def _remove(groups: Groups, reason: int, reasons: np.ndarray, winners: np.ndarray) -> None:
    for members, bests in groups.members():
        reasons[members] = reason
        winners[members] = bests


def _keep_revisions(
    groups: Groups, docs: Joined, ranks: np.ndarray, work: Path, reasons: np.ndarray, winners: np.ndarray
) -> None:
    """Of each group its best stays, or the newest revision of that: of its id and rank the highest version."""
    newest = array(work / "newest.u", np.uint32, docs.total)
    for begin in range(0, docs.total, BLOCK):
        newest[begin : begin + BLOCK] = np.arange(begin, min(begin + BLOCK, docs.total), dtype=np.uint32)
    for members, bests in groups.members():
        of_it = ranks[members] == ranks[bests]
        members, bests = members[of_it], bests[of_it]
        of_it = docs.take("id_hash.npy", members) == docs.take("id_hash.npy", bests)
        members, bests = members[of_it], bests[of_it]
        versions = docs.take("version.npy", members)
        if not len(members):
            continue
        # By group and version, the first of equal versions last: what is last of a group then is its newest.
        order = np.lexsort((-members, versions, bests))
        members, bests, versions = members[order], bests[order], versions[order]
        last = np.append(bests[1:] != bests[:-1], True)
        members, bests, versions = members[last], bests[last], versions[last]
        newer = versions > docs.take("version.npy", newest[bests].astype(np.int64))
        newest[bests[newer]] = members[newer]
    for members, bests in groups.members():
        stays = newest[bests]
        # The best itself goes when a revision of it stays; it is a member of nothing, so each of its group says so.
        old = bests[stays != bests]
        for gone, winner in ((members[members != stays], stays[members != stays]), (old, newest[old])):
            reasons[gone] = SAME_ID
            winners[gone] = winner
    (work / "newest.u").unlink(missing_ok=True)
