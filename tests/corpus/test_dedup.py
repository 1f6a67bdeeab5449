"""Duplicates across units: who stays, whatever the order of work, and nothing else is lost."""

from __future__ import annotations

import contextlib
import random
import resource
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.cleaning import Duplicates
from toolkit.corpus import papers, sketches, words
from toolkit.corpus.dedup import REASONS, decide
from toolkit.corpus.document import Document, Withdrawal, bare_doi
from toolkit.corpus.fingerprints import Collector
from toolkit.errors import DataError, DiskFull, RecipeError

RULES = Duplicates()


def doc(text: str, id: str = "", **kw) -> Document:
    return Document(id=id or f"x:{abs(hash(text))}", source="s", subset="s", title="", text=text, **kw)


def prose(rng: random.Random, count: int) -> list[str]:
    return [f"w{int(rng.paretovariate(0.6)) % 50000}" for _ in range(count)]


def changed(rng: random.Random, given: list[str], rate: float) -> list[str]:
    return [f"new{rng.randrange(10**9)}" if rng.random() < rate else word for word in given]


def collected(folder: Path, docs, withdrawals=(), rules: Duplicates = RULES) -> Path:
    collector = Collector(folder, rules)
    for item in docs:
        collector.add(item, words.hashes(item.text))
    for item in withdrawals:
        collector.withdraw(item)
    collector.close()
    return folder


def judged(tmp_path: Path, units, rules: Duplicates = RULES, workers: int = 1, withdrawals=()):
    folders = [
        collected(tmp_path / f"unit{i}", docs, withdrawals if i == len(units) - 1 else (), rules)
        for i, docs in enumerate(units)
    ]
    return decide(folders, tmp_path / "work", rules, workers)


def names(verdicts) -> list[list[str]]:
    return [[REASONS[reason] for reason in unit] for unit in verdicts.reasons]


def jaccard(first: list[str], second: list[str], shingle: int = 5) -> float:
    sides = [{tuple(side[i : i + shingle]) for i in range(len(side) - shingle + 1)} for side in (first, second)]
    return len(sides[0] & sides[1]) / len(sides[0] | sides[1])


def test_ids_across_sources_the_full_text_stays_and_links_reach_over_steps(tmp_path):
    units = [
        [doc("an abstract", "pmid:1", keys=("pmid:1",), rank=1), doc("of another", "pmid:2", keys=("pmid:2",), rank=1)],
        [],
        [
            doc("the paper", "pmc:PMC1", keys=("pmc:pmc1", "pmid:1")),
            doc("its copy elsewhere", "s2:9", keys=("doi:10.1/x", "s2:9")),
            doc("a copy of both", "s2:10", keys=("doi:10.1/x", "pmc:pmc1"), rank=1),
        ],
    ]
    verdicts = judged(tmp_path, units)
    assert names(verdicts) == [["same_id", ""], [], ["", "same_id", "same_id"]]
    assert {rule: count for rule, count in verdicts.counts.items() if count} == {"same_id": 3}
    winner = verdicts.winner(0, 0)
    assert (winner.unit, winner.number, winner.id) == (2, 0, "pmc:PMC1")
    assert verdicts.winner(0, 1) is None


def test_of_revisions_the_newest_stays_wherever_it_comes(tmp_path):
    def revision(version, number, **kw):
        return doc(f"text of revision {number}", "pmid:7", keys=("pmid:7",), rank=1, version=version, **kw)

    units = [
        [revision("24n0001 2020-01-01", 0), revision("24n1300 2024-05-01", 1)],
        [revision("24n1200 2024-01-01", 2), revision("24n1300 2024-05-01", 3)],
    ]
    verdicts = judged(tmp_path, units)
    assert names(verdicts) == [["same_id", ""], ["same_id", "same_id"]]
    assert {verdicts.winner(0, 0).number, verdicts.winner(1, 1).number} == {1}
    # A lower rank stays before any revision, and another id's version says nothing.
    other = [doc("whole", "pmc:P", keys=("pmid:7",), version="")]
    more = [doc("same rank, other id", "s2:1", keys=("pmid:7",), rank=1, version="99")]
    assert names(judged(tmp_path / "b", [*units, more, other])) == [["same_id"] * 2, ["same_id"] * 2, ["same_id"], [""]]
    assert names(judged(tmp_path / "c", [*units, more])) == [["same_id", ""], ["same_id"] * 2, ["same_id"]]


def test_withdrawn_up_to_a_version(tmp_path):
    def record(number, version):
        return doc(f"record number {number} of them", f"pmid:{number}", keys=(f"pmid:{number}",), version=version)

    units = [[record(1, "24n0001"), record(2, "24n0005"), record(3, "24n0002"), record(4, "")]]
    gone = [
        Withdrawal(key="pmid:1", version="24n0003"),
        Withdrawal(key="pmid:2", version="24n0004"),
        Withdrawal(key="pmid:3", version="24n0002"),
        Withdrawal(key="pmid:3", version="24n0001"),
        Withdrawal(key="pmid:4", version="24n0001"),
        Withdrawal(key="pmid:99", version="24n0009"),
    ]
    verdicts = judged(tmp_path, units, withdrawals=gone)
    assert names(verdicts) == [["withdrawn", "", "withdrawn", "withdrawn"]]
    assert verdicts.winner(0, 0) is None


@pytest.mark.parametrize(
    "written", ["10.1/X", " 10.1/X ", "https://doi.org/10.1/X", "http://dx.doi.org/10.1/X", "doi: 10.1/X", "DOI:10.1/X"]
)
def test_a_doi_is_the_same_however_it_is_written(written):
    assert bare_doi(written) == "10.1/X" == papers.ids_of({"DOI": written})["doi"]
    assert bare_doi("doi:none") == "doi:none"


def test_retracted_in_every_version_and_source(tmp_path):
    units = [
        [
            doc("an old version", "pmid:1", keys=("pmid:1",), version="24n0001"),
            doc("sound", "pmid:2", keys=("pmid:2",)),
        ],
        [doc("a newer version", "pmid:1", keys=("pmid:1", "doi:10.1/x"), version="24n0009")],
        [],
        [doc("the full text", "pmc:PMC9", keys=("pmc:pmc9", "doi:10.1/x")), doc("without keys", "x", keys=())],
    ]
    folders = [tmp_path / f"unit{i}" for i in range(len(units))]
    for folder, docs in zip(folders, units, strict=True):
        collected(folder, docs)
    collector = Collector(tmp_path / "last", RULES)
    collector.retract(("pmid:1", "doi:10.1/x"))
    collector.retract(("pmid:1", "pmid:77"))
    collector.withdraw(Withdrawal(key="pmid:1", version="24n0005"))
    collector.close()
    verdicts = decide([*folders, tmp_path / "last"], tmp_path / "work", RULES)
    assert names(verdicts) == [["withdrawn", ""], ["retracted"], [], ["retracted", ""], []]
    assert verdicts.winner(1, 0) is None and verdicts.counts["retracted"] == 2


def test_exact_and_near(tmp_path):
    rng = random.Random(1)
    base = prose(rng, 300)
    same = " ".join(base)
    units = [
        [doc(same, "a", rank=1), doc(" ".join(prose(rng, 300)), "b")],
        [doc(same.upper().replace(" w", ",\n w"), "c"), doc(same + " " + " ".join(prose(rng, 6)), "d")],
        [doc(" ".join(base[:150]), "half"), doc(" ".join(changed(rng, base, 0.15)), "far")],
    ]
    verdicts = judged(tmp_path, units)
    # "c" is of the lower rank, so that "a", though it comes first, goes.
    assert names(verdicts) == [["exact_duplicate", ""], ["", "near_duplicate"], ["", ""]]
    assert verdicts.winner(0, 0).id == verdicts.winner(1, 1).id == "c"
    off = judged(tmp_path / "off", units, Duplicates(exact=False, near=False))
    assert names(off) == [["", ""], ["", ""], ["", ""]]
    only_near = judged(tmp_path / "near", units, Duplicates(exact=False))
    assert names(only_near) == [["near_duplicate", ""], ["", "near_duplicate"], ["", ""]]


def test_short_texts_are_duplicates_only_of_their_like(tmp_path):
    texts = ["Not available.", "not available", "Fever.", "Cough.", "", "...", "…", "...", "Dose <18 mg", "Dose >18 mg"]
    verdicts = judged(tmp_path, [[doc(text, str(i)) for i, text in enumerate(texts)]])
    assert names(verdicts) == [["", "exact_duplicate", "", "", "", "", "", "exact_duplicate", "", ""]]


@pytest.mark.parametrize("length", [40, 150, 1500])
def test_planted_at_five_distances(tmp_path, length):
    """What is planted near is found, what is planted far stays, by the Jaccard similarity that the test computes."""
    rng = random.Random(length)
    units: list[list[Document]] = [[] for _ in range(5)]
    near, far = [], []
    for number in range(150):
        base = prose(rng, length)
        units[0].append(doc(" ".join(base), f"base{number}"))
        for unit, rate in enumerate((0.004, 0.02, 0.06, 0.2), 1):
            copy = changed(rng, base, rate)
            alike = jaccard(base, copy)
            place = (unit, len(units[unit]))
            units[unit].append(doc(" ".join(copy), f"copy{number}-{unit}"))
            if alike >= 0.85:
                near.append(place)
            elif alike <= 0.6:
                far.append(place)
    verdicts = judged(tmp_path, units)
    found = names(verdicts)
    hit = sum(found[unit][number] != "" for unit, number in near)
    assert len(near) > 150 and hit >= 0.97 * len(near)
    assert len(far) > 150 and all(found[unit][number] == "" for unit, number in far)
    assert set(found[0]) == {""}
    for unit, number in near:
        if found[unit][number]:
            assert verdicts.winner(unit, number).id.removeprefix("base").split("-")[0] in units[unit][number].id


def test_the_same_verdicts_for_any_memory_workers_and_division(tmp_path, monkeypatch):
    rng = random.Random(3)
    docs = []
    for number in range(400):
        base = prose(rng, rng.randrange(3, 90))
        for copy in range(rng.choice((1, 1, 1, 2, 4))):
            text = " ".join(base if copy % 2 else changed(rng, base, 0.01))
            key = (f"pmid:{rng.randrange(900)}",) if rng.random() < 0.3 else ()
            docs.append(doc(text, f"{number}-{copy}", keys=key, rank=rng.randrange(2), version=str(rng.randrange(9))))
    rng.shuffle(docs)
    whole = judged(tmp_path / "one", [docs])
    flat = np.concatenate(whole.reasons)
    assert all(whole.counts[name] > 0 for name in REASONS[3:])
    divided = judged(tmp_path / "many", [docs[i : i + 37] for i in range(0, len(docs), 37)])
    assert np.array_equal(np.concatenate(divided.reasons), flat)
    # So little memory that every sort is done in stretches, and bands by other processes.
    from toolkit.corpus import judge, meeting, near

    def in_stretches(read, parts, total, memory):
        return meeting.meeting(read, parts, total, 2000)

    with monkeypatch.context() as patched:
        for module in (near, judge):
            patched.setattr(module, "meeting", in_stretches)
        stretches = decide([tmp_path / "one" / "unit0"], tmp_path / "work2", RULES)
    assert np.array_equal(stretches.reasons[0], flat)
    monkeypatch.setattr(near, "BLOCK", 64)
    spawned = decide([tmp_path / "one" / "unit0"], tmp_path / "work3", RULES, workers=2)
    assert np.array_equal(spawned.reasons[0], flat)
    places = [(part, number) for part, reasons in enumerate(divided.reasons) for number in range(len(reasons))]
    gone = [(part, number) for part, number in places if divided.reasons[part][number]]
    assert len(gone) == sum(divided.counts.values())
    for unit, number in gone:
        winner = divided.winner(unit, number)
        place = winner.unit * 37 + winner.number
        assert docs[place].id == winner.id and docs[place].rank <= docs[unit * 37 + number].rank


def test_a_document_of_many_pieces_is_the_same_as_in_one(monkeypatch):
    rng = np.random.default_rng(5)
    docs = [rng.integers(0, 2**63, size, dtype=np.uint64) for size in (1, 4, 5, 6, 400, 3000, 2, 700)]
    shape = {"shingle": 5, "bands": 4, "rows": 3, "sketch": 64}
    keys, found = sketches.make(docs, **shape)
    alone = [sketches.make([item], **shape) for item in docs]
    monkeypatch.setattr(sketches, "_BATCH", 128)
    small_keys, small = sketches.make(docs, **shape)
    for i, (key, sketch) in enumerate(alone):
        assert np.array_equal(keys[i], key[0]) and np.array_equal(keys[i], small_keys[i])
        assert np.array_equal(found[i], sketch[0]) and np.array_equal(found[i], small[i])
        assert np.all(np.diff(found[i].astype(np.int64)) > 0)
    assert [len(each) for each in found[:4]] == [1, 1, 1, 2]


@settings(deadline=None, max_examples=60)
@given(
    first=st.lists(st.integers(0, 40), min_size=1, max_size=120),
    second=st.lists(st.integers(0, 40), min_size=1, max_size=120),
)
def test_similarity_is_exact_where_sketches_are_whole(first, second):
    numbers = words.mix(np.arange(41, dtype=np.uint64) + np.uint64(1))
    _, found = sketches.make([numbers[first], numbers[second]], shingle=1, bands=1, rows=1, sketch=64)
    ends = np.cumsum([len(each) for each in found])
    rows, lengths = sketches.rows(np.concatenate(found), ends - [len(each) for each in found], ends, sketch=64)
    exact = len(set(first) & set(second)) / len(set(first) | set(second))
    assert sketches.similarity((rows[:1], lengths[:1]), (rows[1:], lengths[1:]))[0] == pytest.approx(exact)


def test_an_estimate_of_long_documents_is_near_the_truth():
    rng = np.random.default_rng(6)
    errors = []
    for _ in range(40):
        base = rng.integers(0, 2**63, 4000, dtype=np.uint64)
        copy = np.where(rng.random(4000) < 0.03, rng.integers(0, 2**63, 4000, dtype=np.uint64), base)
        sides = [set(words.runs(each, 5).tolist()) for each in (base, copy)]
        _, found = sketches.make([base, copy], shingle=5, bands=1, rows=1, sketch=256)
        whole = np.array([256])
        truth = len(sides[0] & sides[1]) / len(sides[0] | sides[1])
        errors.append(sketches.similarity((found[0][None], whole), (found[1][None], whole))[0] - truth)
    assert abs(np.mean(errors)) < 0.015 and np.std(errors) < 0.035


def test_bad_fingerprints_are_refused(tmp_path):
    folder = collected(tmp_path / "u", [doc("a b c d e f", "1")])
    with pytest.raises(DataError, match="other rules"):
        decide([folder], tmp_path / "w", Duplicates(shingle=3))
    decide([folder], tmp_path / "w", Duplicates(near_threshold=0.78, ids=False))
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    (broken / "bands.npy").write_bytes((broken / "bands.npy").read_bytes()[:130])
    with pytest.raises(DataError, match="bands.npy"):
        decide([broken], tmp_path / "w", RULES)
    unfinished = Collector(tmp_path / "open", RULES)
    unfinished.add(doc("one two three", "1"), words.hashes("one two three"))
    for path in (tmp_path / "open", tmp_path / "absent"):
        with pytest.raises(DataError, match="no fingerprints"):
            decide([path], tmp_path / "w", RULES)
    assert decide([], tmp_path / "w", RULES).counts["near_duplicate"] == 0


def test_a_full_disk_is_said_and_nothing_counts_as_finished(tmp_path):
    docs = [doc(f"text number {i} " * 60, str(i)) for i in range(3000)]
    with files_of_at_most(200_000), pytest.raises(DiskFull):
        collected(tmp_path / "u", docs)
    with pytest.raises(DataError, match="no fingerprints"):
        decide([tmp_path / "u"], tmp_path / "w", RULES)
    folder = collected(tmp_path / "u", docs)
    with files_of_at_most(2_000), pytest.raises(DiskFull):
        decide([folder], tmp_path / "w", RULES)
    assert not decide([folder], tmp_path / "w", RULES).reasons[0].any()


@contextlib.contextmanager
def files_of_at_most(size: int):
    """What a full disk does to a file that grows: the system refuses to write on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


@pytest.mark.parametrize(
    ("threshold", "rows", "rate"), [(0.5, 2, 0.07), (0.6, 3, 0.05), (0.7, 5, 0.03), (0.9, 6, 0.008)]
)
def test_rows_are_such_that_pairs_at_the_threshold_meet(tmp_path, threshold, rows, rate):
    rules = Duplicates(near_threshold=threshold)
    assert rules.rows == rows and Duplicates(near_threshold=threshold, rows=4).rows == 4
    rng = random.Random(7)
    docs, alike = [], 0
    for number in range(150):
        base = prose(rng, 250)
        copy = changed(rng, base, rate)
        docs += [doc(" ".join(base), f"{number}a"), doc(" ".join(copy), f"{number}b")]
        sets = [{tuple(text[i : i + 5]) for i in range(len(text) - 4)} for text in (base, copy)]
        alike += threshold <= len(sets[0] & sets[1]) / len(sets[0] | sets[1])
    found = judged(tmp_path, [docs], rules).counts
    assert alike > 50 and 0.95 * alike < found["near_duplicate"] + found["exact_duplicate"] <= alike


@pytest.mark.parametrize("wrong", [{"near_threshold": 0}, {"near_threshold": 1.5}, {"bands": 0}, {"memory_mib": 1}])
def test_impossible_rules(wrong):
    with pytest.raises(RecipeError, match=next(iter(wrong))):
        Duplicates(**wrong)
