"""A corpus of parts: the bytes are those of a single build, whichever sources were read beforehand."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.corpus import BadRow, Document, Source, build, build_part
from toolkit.corpus.sift import Edge, Sifted
from toolkit.corpus.tally import EXAMPLES, LISTED_ROWS, RULES, Tally
from toolkit.errors import DataError, DiskFull, RecipeError

RULES_OF_ALL = {"seed": 7, "valid_fraction": 0.2, "max_bad_fraction": 0.4}


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def sources(jsonl, pmc) -> list[Source]:
    """Four kinds of trouble: bad rows and licences, a subset met twice, text beyond ASCII, nothing that may stay."""
    rows = [{"id": f"a{i}", "text": f"text {i}", "license": ("CC0", "cc-by", "cc-by-nc")[i % 3]} for i in range(40)]
    first = jsonl(*rows, b"{bad", b"[1]", {"text": " "}, name="first.jsonl")
    more = [{"id": f"b{i}", "text": f"é \u2028 {i}", "license": ("CC0", "x")[i % 2]} for i in range(40)]
    second = jsonl(*more, *([b"{bad"] * 6), name="second.jsonl")
    bound = jsonl(*({"id": f"c{i}", "text": "t", "license": "cc-by-nc"} for i in range(3)), name="bound.jsonl")
    return [
        Source(kind="jsonl", path=first, subset="notes"),
        Source(kind="jats", path=pmc, subset="papers"),
        Source(kind="jsonl", path=bound, subset="bound"),
        Source(kind="jsonl", path=second, subset="notes"),
        Source(kind="world", subset="world", options={"documents_per_entity": 1}),
    ]


@pytest.mark.parametrize("done", [[0], [4], [1, 2], [0, 2, 3], [3, 1, 0, 4, 2]], ids=str)
def test_the_bytes_of_a_single_build(sources, tmp_path, done):
    whole = build(sources=sources, out=tmp_path / "whole", **RULES_OF_ALL)
    parts = {n: tmp_path / f"part{n}" for n in done}
    kept = {n: build_part(source=sources[n], out=out, **RULES_OF_ALL) for n, out in parts.items()}
    merged = build(sources=sources, out=tmp_path / "merged", parts=parts, **RULES_OF_ALL)
    assert bytes_of(tmp_path / "merged") == bytes_of(tmp_path / "whole")
    assert {**vars(merged), "out": ""} == {**vars(whole), "out": ""} and list(merged.removed) == list(whole.removed)
    assert kept.get(2, 0) == 0 and all(kept[n] > 0 for n in done if n != 2)


def test_what_was_made_beforehand_is_not_read_again(jsonl, tmp_path):
    paths = [jsonl(*({"id": f"{k}{i}", "text": "t"} for i in range(9)), name=f"{k}.jsonl") for k in "ab"]
    sources = [Source(kind="jsonl", path=path, subset=path.stem) for path in paths]
    build(sources=sources, out=tmp_path / "whole", **RULES_OF_ALL)
    build_part(source=sources[1], out=tmp_path / "part", **RULES_OF_ALL)
    paths[1].write_bytes(b"no longer readable")
    build(sources=sources, out=tmp_path / "merged", parts={1: tmp_path / "part"}, **RULES_OF_ALL)
    assert bytes_of(tmp_path / "merged") == bytes_of(tmp_path / "whole")


@pytest.mark.parametrize(("fraction", "side"), [(0.999999, "valid"), (0.000001, "train")])
def test_the_document_that_changes_sides_is_the_same(jsonl, tmp_path, fraction, side):
    sources = [
        Source(kind="jsonl", path=jsonl(*({"id": f"{k}{i}", "text": "t"} for i in range(5)), name=f"{k}.jsonl"))
        for k in "abc"
    ]
    rules = {"seed": 3, "valid_fraction": fraction}
    report = build(sources=sources, out=tmp_path / "whole", **rules)
    assert getattr(report, side) == 14
    parts = {n: tmp_path / f"part{n}" for n in range(3)}
    for n, out in parts.items():
        build_part(source=sources[n], out=out, **rules)
        assert len((out / f"{side}.jsonl").read_text().splitlines()) == 5  # a part moves nothing: it cannot know
    build(sources=sources, out=tmp_path / "merged", parts=parts, **rules)
    assert bytes_of(tmp_path / "merged") == bytes_of(tmp_path / "whole")
    assert json.loads((tmp_path / "merged" / "report.json").read_text())["moved"].startswith(("a", "b", "c"))


def test_a_part_refuses_what_a_build_refuses(jsonl, tmp_path):
    bad = Source(kind="jsonl", path=jsonl(b"x", b"y", {"text": "t"}))
    with pytest.raises(DataError, match="2 of 3 rows cannot be read"):
        build_part(source=bad, out=tmp_path / "out", **RULES_OF_ALL)
    with pytest.raises(RecipeError, match="valid_fraction"):
        build_part(source=bad, out=tmp_path / "out", seed=1, valid_fraction=1)
    with pytest.raises(DataError, match="would be replaced, and it is no corpus"):
        build_part(source=bad, out=tmp_path, **RULES_OF_ALL)
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))


def test_a_full_disk_leaves_nothing(jsonl, tmp_path):
    source = Source(kind="jsonl", path=jsonl(*({"id": f"{i}", "text": "t" * 900} for i in range(200))))
    build_part(source=source, out=tmp_path / "part", **RULES_OF_ALL)
    disk = tmp_path / "small"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", disk], capture_output=True).returncode:
        pytest.skip("no right to mount a small file system")
    try:
        with pytest.raises(DiskFull):
            build_part(source=source, out=disk / "out", **RULES_OF_ALL)
        with pytest.raises(DiskFull):
            build(sources=[source], out=disk / "out", parts={0: tmp_path / "part"}, **RULES_OF_ALL)
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", disk], check=True)


EVENTS = st.tuples(
    st.sampled_from(["bad", "keep", *(rule for rule in RULES if rule != "bad_row")]),
    st.sampled_from("abc"),
    st.sampled_from(["train", "valid"]),
    st.sampled_from(["CC0", "unknown", "cc-by"]),
)


def count(tally: Tally, events: list[tuple[str, str, str, str]], start: int = 0) -> Tally:
    for number, (what, subset, part, licence) in enumerate(events, start):
        doc = Document(id=str(number), source="s", subset=subset, title="t", text="x" * number, license=licence)
        if what == "bad":
            tally.bad(BadRow(file="f", line=number, why="w", sample="s"), subset)
        elif what == "keep":
            tally.keep(doc, part)
        else:
            tally.remove(what, doc)
    return tally


@given(events=st.lists(EVENTS, max_size=60), cut=st.integers(0, 60))
@settings(deadline=None)
def test_two_tallies_make_the_one_that_counts_both(events, cut):
    whole = count(Tally(), events)
    merged = count(Tally(), events[:cut])
    later = Tally.from_state(json.loads(json.dumps(count(Tally(), events[cut:], len(events[:cut])).as_state())))
    merged.merge(later)
    assert json.dumps(merged.as_dict()) == json.dumps(whole.as_dict())  # the order of names too
    assert json.dumps(merged.as_state()) == json.dumps(whole.as_state())
    assert merged.kept == whole.kept and isinstance(merged.removed, Counter)
    assert len(merged.examples["licence"]) <= EXAMPLES and len(merged.bad_rows) <= LISTED_ROWS


def test_lists_that_are_full_take_no_more():
    events = [("bad", "a", "train", "CC0")] * LISTED_ROWS
    merged = count(Tally(), events[: LISTED_ROWS - 1])
    merged.merge(count(Tally(), events, LISTED_ROWS - 1))
    assert [row["line"] for row in merged.bad_rows] == list(range(LISTED_ROWS))
    assert merged.removed["bad_row"] == 2 * LISTED_ROWS - 1


@given(at=st.lists(st.sampled_from([0.1, 0.25, 0.5, 0.9]), max_size=12), cut=st.integers(0, 12))
def test_the_first_of_equal_edges_stays(at, cut):
    """As in a single pass, where only a lower or a higher position takes the place."""
    edges = [Edge(at=value, id=str(n), subset="s") for n, value in enumerate(at)]
    found = []
    for run in (edges, edges[:cut], edges[cut:]):
        found.append(Sifted())
        for edge in run:
            found[-1].see(edge, edge)
    whole, merged, later = found
    merged.merge(Sifted.from_state(json.loads(json.dumps(later.as_state()))))
    assert (merged.low, merged.high) == (whole.low, whole.high)
