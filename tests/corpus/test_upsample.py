"""The score and the copies of the paper's upsampling trial."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from tests.corpus import made_s2orc
from toolkit.corpus import Settings, Source, build, upsample, zlines
from toolkit.errors import DataError


def _weight(**more):
    facts = {"types": ("Review",), "mesh": (), "journal": "", "date": "2020-01-01", "citations": 10}
    return upsample.features(**{**facts, **more})


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, (0.5, 1291.0, 2.5)),
        ({"types": ("Guideline", "Review", "Journal Article")}, (1.5, 1291.0, 2.5)),
        ({"types": ("Clinical Trial, Phase III", "Randomized Controlled Trial")}, (1.1, 1291.0, 2.5)),
        ({"types": ("MetaAnalysis", "CaseReport")}, (1.0, 1291.0, 2.5)),
        ({"types": ("Review", "Retracted Publication")}, (-1.0, 1291.0, 2.5)),
        ({"types": ("Review", "Preprint")}, (-1.0, 1291.0, 2.5)),
        ({"mesh": ("Humans", "Animals")}, (-1.0, 1291.0, 2.5)),
        ({"types": (), "journal": "J. Clin. Tests:  New-York"}, (1.0, 1291.0, 2.5)),
        ({"date": ""}, (0.5, -1.0, -1.0)),
        ({"date": "2020-13-40"}, (0.5, -1.0, -1.0)),
        ({"date": "2020"}, (0.5, 1291.0, 2.5)),
        ({"date": "2030-01-01"}, (0.5, 0.0, 10.0)),
        ({"citations": None}, (0.5, 1291.0, -1.0)),
    ],
)
def test_features(more, expected):
    assert _weight(**more, journals=frozenset(["j clin tests newyork"])) == expected


def test_score_counts_age_and_citations_only_above_zero():
    limits = [1.0, 5.0]
    assert upsample.score((0.5, 100.0, 9.0), limits) == 0.5 + 1 + 1
    assert upsample.score((0.5, 365 * 5.5 + 1, 5.0), limits) == 0.5 + 0.2 + 0.5
    assert upsample.score((0.5, 365 * 10 + 1, 1.0), limits) == 0.5
    assert upsample.score((0.0, 100.0, 9.0), limits) == 0
    assert upsample.score((0.5, -1.0, -1.0), limits) == 0.5
    assert upsample.score((-1.0, 100.0, 9.0), limits) == -1


def test_quartiles_do_not_hang_on_the_order():
    weights = [(0.0, 1.0, float(n)) for n in range(101)] + [None, (1.0, -1.0, -1.0)]
    assert upsample.thresholds(weights) == upsample.thresholds(reversed(weights)) == [25.0, 75.0]
    assert upsample.thresholds([None]) == [0.0, 0.0] and upsample.thresholds([(0.0, 1.0, 4.0)]) == [4.0, 4.0]


def test_copies_have_the_score_as_their_mean_and_the_same_seed_gives_the_same():
    limits = [1.0, 5.0]
    assert upsample.copies(None, limits, 1, "a") == 1
    assert upsample.copies((-1.0, 1.0, 1.0), limits, 1, "a") == 0
    assert upsample.copies((0.0, 1.0, 9.0), limits, 1, "a") == 1
    weight = (0.6, 100.0, 3.0)  # 0.6 + 1 + 0.5
    counts = [upsample.copies(weight, limits, 7, f"s2:{n}") for n in range(4000)]
    assert set(counts) == {3, 4} and abs(sum(counts) / 4000 - 3.1) < 0.02
    assert counts == [upsample.copies(weight, limits, 7, f"s2:{n}") for n in range(4000)]
    assert counts != [upsample.copies(weight, limits, 8, f"s2:{n}") for n in range(4000)]


def test_a_list_of_journals(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("\ufeff# ours\n\nThe Lancet  # London\nN. Engl. J. Med.\n", encoding="utf-8")
    assert upsample.journal_list(path) == {"the lancet", "n engl j med"}
    for data in (b"", b"# nothing\n", b"\xff\xfe\x00"):
        path.write_bytes(data)
        with pytest.raises(DataError):
            upsample.journal_list(path)
    with pytest.raises(DataError, match="cannot be read"):
        upsample.journal_list(tmp_path / "absent.txt")


def test_a_corpus_that_is_upsampled(tmp_path):
    """Copies stand in the part for training alone, and what the trial drops is counted."""
    numbers = range(1, 13)
    kinds = {1: ["Guideline"], 2: ["Preprint"], 3: ["Review"], 5: ["Guideline"]}
    rows, known = [], []
    for number in numbers:
        text = f"Iron number {number} was given to the patients of ward {number * 7} for {number * 3} days."
        rows.append(made_s2orc.Record(number, pubmed=str(number)).add(text, "paragraph").first())
        facts = {"publicationtypes": kinds.get(number), "publicationdate": "2022-01-01", "citationcount": number * 10}
        known.append({"corpusid": number, "externalids": {"PubMed": str(number)}, "title": f"Of {number}", **facts})
    known[0]["citationcount"] = 999
    for name, lines in (("s2orc.jsonl", rows), ("papers.jsonl", known)):
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    source = Source(
        kind="s2orc",
        paths=(str(tmp_path / "s2orc.jsonl"),),
        options={"papers": str(tmp_path / "papers.jsonl")},
        valid_fraction=0.3,
    )
    report = build(sources=[source], out=tmp_path / "out", settings=Settings(upsample=True, seed=0))
    assert dict(report.removed) == {"upsample_dropped": 1} and report.documents_out == 11 and report.valid > 0

    def written(part: str) -> Counter[str]:
        paths = (tmp_path / "out" / part).iterdir()
        return Counter(zlines.loads(line)["id"] for path in paths for line in zlines.lines(path))

    train, valid = written("train"), written("valid")
    assert (
        set(valid.values()) == {1} and "s2:5" in valid and report.written == sum(train.values()) + sum(valid.values())
    )
    # A guideline scores 1, its age 1, the most cited quarter 1; a review 0.5 + 1; all others nothing.
    copies = {"s2:1": {4}, "s2:3": {2, 3}}
    assert all(count in copies.get(id, {1}) for id, count in train.items()) and "s2:1" in train
    assert {*train, *valid} == {f"s2:{number}" for number in numbers if number != 2}
