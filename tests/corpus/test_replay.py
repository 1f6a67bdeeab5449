"""General text and code in the layouts they come in, and samples of them that are exact, seeded and stable."""

from __future__ import annotations

import datetime
import gzip
import json
import os
from pathlib import Path

import pytest

from toolkit.corpus import replay
from toolkit.corpus.document import BadRow, Document, Left
from toolkit.errors import RecipeError

CODE = "def f(x):\n\n\n\n    return x  \n\tif x < 18 else None\n"


def read(path, **options):
    replay.check({key: value for key, value in options.items() if key[0] != "_"})
    return list(replay.read(path, "replay", options))


def parquet(path, rows, **how):
    pyarrow, tables = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    tables.write_table(pyarrow.Table.from_pylist(rows), path, **how)
    return path


def parts(items):
    """(documents, rows left unsampled, bad rows)."""
    left = sum(item.count for item in items if isinstance(item, Left))
    return [i for i in items if isinstance(i, Document)], left, [i for i in items if isinstance(i, BadRow)]


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        (
            {"text": "On lungs.", "red_pajama_subset": "wikipedia",
             "meta": {"title": "Lung", "url": "https://w.org/L", "language": "en", "timestamp": "2023-03"}},
            {"source": "redpajama-wikipedia", "title": "Lung", "url": "https://w.org/L", "language": "en",
             "date": "2023-03"},
        ),
        (
            {"text": CODE, "meta": "{'license': 'mit', 'source': 'github'}", "red_pajama_subset": "github"},
            {"source": "redpajama-github", "text": CODE, "language": "none", "license": "MIT"},
        ),
        (
            {"text": "A page.", "id": "<urn:uuid:0f1e2d3c-1111>", "dump": "CC-MAIN-2013-20", "url": "http://a.b/c",
             "date": "2013-05-18T05:48:54Z", "file_path": "s3://x", "language": "en", "token_count": 3},
            {"source": "fineweb", "id": "<urn:uuid:0f1e2d3c-1111>", "date": "2013-05-18T05:48:54Z", "language": "en"},
        ),
        (
            {"content": "Web.", "url": "http://a.b", "timestamp": datetime.datetime(2013, 5, 18), "segment": "1",
             "dump": "CC-MAIN-2013-20", "image_urls": []},
            {"source": "refinedweb", "text": "Web.", "date": "2013-05-18T00:00:00"},
        ),
        (
            {"max_stars_repo_path": "src/f.py", "max_stars_repo_name": "a/b", "max_stars_count": 3, "id": "17",
             "content": CODE, "max_stars_repo_licenses": ["Apache-2.0", "MIT"]},
            {"source": "starcoder", "id": "a/b/src/f.py", "title": "src/f.py", "text": CODE, "language": "none",
             "license": "Apache-2.0"},
        ),
        (
            {"text": "As released.", "source": "arxiv", "pajama-block": "RedPajama"},
            {"source": "arxiv", "license": "CC0-1.0", "language": ""},
        ),
    ],
    ids=["redpajama", "redpajama-code", "fineweb", "refinedweb", "starcoder", "other"],
)  # fmt: skip
def test_the_layouts_of_the_collections(tmp_path, row, wanted):
    stated = {"license": "CC0"} if wanted.get("license") == "CC0-1.0" else {}
    made = [parquet(tmp_path / "a.parquet", [row, row])]
    if not any(isinstance(value, datetime.datetime) for value in row.values()):
        made.append(tmp_path / "a.jsonl.gz")
        made[-1].write_bytes(gzip.compress((json.dumps(row) + "\n").encode()))
    for path in made:
        doc = read(path, **stated)[0]
        assert isinstance(doc, Document) and {key: getattr(doc, key) for key in wanted} == wanted
        assert doc.meta["file"] == path.name and bool(doc.meta.get("code")) == (wanted.get("language") == "none")
        assert doc.subset == "replay" and doc.id


def test_a_share_is_near_it_seeded_and_the_same_wherever_the_rows_lie(tmp_path, jsonl):
    rows = [{"text": f"row {i}", "id": str(i)} for i in range(4000)]
    path = jsonl(*rows)
    documents, left, bad = parts(read(path, fraction=0.1, seed=1))
    assert 320 < len(documents) < 480 and left == 4000 - len(documents) and not bad
    assert [d.text for d in parts(read(path, fraction=0.1, seed=1))[0]] == [d.text for d in documents]
    assert {d.text for d in parts(read(path, fraction=0.1, seed=2))[0]} != {d.text for d in documents}
    turned = jsonl(*reversed(rows), {"text": "another"}, name="b.jsonl")
    assert {d.text for d in parts(read(turned, fraction=0.1, seed=1))[0]} - {"another"} == {d.text for d in documents}
    more = {d.text for d in parts(read(path, fraction=0.3, seed=1))[0]}
    assert {d.text for d in documents} < more  # a larger share holds the smaller one
    assert parts(read(path, fraction=0)) == ([], 4000, []) and len(parts(read(path, fraction=1))[0]) == 4000
    table = parquet(tmp_path / "a.parquet", rows)
    taken, left, _ = parts(read(table, fraction=0.1, seed=1))
    assert 320 < len(taken) < 480 and left == 4000 - len(taken)
    assert [d.text for d in parts(read(table, fraction=0.1, seed=1))[0]] == [d.text for d in taken]


def exact(root, **options):
    given = replay.prepare([root], options, root.parent / "work")
    return {p.name: parts(read(p, **options, **given)) for p in sorted(root.iterdir())}


def test_an_exact_number_is_shared_out_over_the_files_and_taken(tmp_path):
    root = tmp_path / "in"
    root.mkdir()
    (root / "a.jsonl").write_text("".join(json.dumps({"text": f"a {i}"}) + "\n\n" for i in range(500)))
    (root / "b.jsonl.gz").write_bytes(
        gzip.compress("".join(json.dumps({"content": f"b {i}"}) + "\n" for i in range(250)).encode())
    )
    parquet(root / "c.parquet", [{"text": f"c {i}"} for i in range(1000)], row_group_size=100)
    (root / "d.jsonl").write_text("")
    found = exact(root, documents=177, seed=4)
    assert {name: len(documents) for name, (documents, _, _) in found.items()} == {
        "a.jsonl": 51, "b.jsonl.gz": 25, "c.parquet": 101, "d.jsonl": 0,
    }  # fmt: skip
    assert {name: left for name, (_, left, _) in found.items()} == {
        "a.jsonl": 449, "b.jsonl.gz": 225, "c.parquet": 899, "d.jsonl": 0,
    }  # fmt: skip
    again = exact(root, documents=177, seed=4)
    assert [d.text for d in again["c.parquet"][0]] == [d.text for d in found["c.parquet"][0]]
    assert exact(root, documents=177, seed=5)["c.parquet"][0] != found["c.parquet"][0]
    numbers = [int(d.text[2:]) for seed in range(12) for d in exact(root, documents=177, seed=seed)["c.parquet"][0]]
    assert 450 < sum(numbers) / len(numbers) < 550 and min(numbers) < 30 and max(numbers) > 970  # all over the file
    everything = exact(root, documents=1750)
    assert sum(len(documents) for documents, _, _ in everything.values()) == 1750
    assert all(left == 0 for _, left, _ in everything.values())
    with pytest.raises(RecipeError, match="1751 documents are asked for, and there are 1750 rows"):
        exact(root, documents=1751)


def test_bad_rows_behind_which_too_few_come_are_made_up_for_as_well(tmp_path):
    root = tmp_path / "in"
    root.mkdir()
    lines = [b'{"text": 3}' if i % 5 == 4 or i > 280 else json.dumps({"text": f"{i}"}).encode() for i in range(300)]
    (root / "a.jsonl.gz").write_bytes(gzip.compress(b"\n".join([*lines, b""]))[:-8])  # and cut off
    sound = sum(b'"text": "' in line for line in lines)
    seen = set()
    for wanted in (1, 60, sound - 1, sound, 300):
        documents, left, bad = exact(root, documents=wanted, seed=wanted)["a.jsonl.gz"]
        assert len(documents) == len({d.text for d in documents}) == min(wanted, sound)
        assert len(documents) + left + len(bad) == 301 and sum("ends early" in row.why for row in bad) == 1
        seen.add(tuple(d.text for d in documents[:3]))
    assert len(seen) > 3
    table = parquet(tmp_path / "t.parquet", [{"text": None if i > 40 else f"{i}"} for i in range(60)])
    found = parts(read(table, documents=41, _shares={str(table): [41, 60]}))
    assert [len(found[0]), found[1] + len(found[2])] == [41, 19]


def test_a_bad_row_is_made_up_for_by_a_later_one(tmp_path):
    root = tmp_path / "in"
    root.mkdir()
    lines = [b'{"text": "cut' if i % 3 == 0 else json.dumps({"text": f"{i}"}).encode() for i in range(300)]
    (root / "a.jsonl").write_bytes(b"\n".join(lines))
    documents, left, bad = exact(root, documents=60)["a.jsonl"]
    assert len(documents) == 60 and bad and len(documents) + left + len(bad) == 300


def test_files_are_counted_again_only_when_they_have_changed(tmp_path, monkeypatch):
    root, work = tmp_path / "in", tmp_path / "work"
    root.mkdir()
    for name in "ab":
        (root / f"{name}.jsonl").write_text('{"text": "x"}\n' * 8)
    first = replay.prepare([root], {"documents": 4}, work)
    counted: list[str] = []
    real = replay._count
    monkeypatch.setattr(replay, "_count", lambda file, limit: counted.append(file.name) or real(file, limit))
    assert replay.prepare([root], {"documents": 4}, work) == first and counted == []
    (root / "b.jsonl").write_text('{"text": "x"}\n' * 16)
    shares = replay.prepare([root], {"documents": 3}, work)["_shares"]
    assert counted == ["b.jsonl"] and {Path(k).name: v for k, v in shares.items()} == {
        "a.jsonl": [1, 8],
        "b.jsonl": [2, 16],
    }
    (work / "replay.json").write_text("{cut")
    assert replay.prepare([root], {"documents": 3}, work)["_shares"] == shares
    assert replay.prepare([root], {"fraction": 0.5}, work) == {}


def test_shares_add_up_whatever_the_sizes():
    assert replay.shares({"a": 1, "b": 1, "c": 1}, 2) == {"a": 1, "b": 1, "c": 0}
    assert replay.shares({"a": 0, "b": 0}, 0) == {"a": 0, "b": 0}
    for wanted in range(0, 1000, 37):
        rows = {"a": 3, "b": 497, "c": 500}
        given = replay.shares(rows, wanted)
        assert sum(given.values()) == wanted and all(abs(given[n] - wanted * rows[n] / 1000) < 1 for n in rows)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "is no Parquet file"),
        (b"PAR1" + b"\0" * 400 + b"PAR1", "is no Parquet file"),
        (b"no parquet", "is no Parquet file"),
        (None, "no column text or content or raw_content; the file has words"),
    ],
)
def test_what_is_no_parquet_is_a_bad_row(tmp_path, data, why):
    path = tmp_path / "a.parquet"
    if data is None:
        parquet(path, [{"words": "x"}])
    else:
        pytest.importorskip("pyarrow")
        path.write_bytes(data)
    (row,) = read(path)
    assert isinstance(row, BadRow) and why in row.why


def test_damaged_parquet_ends_in_a_bad_row_and_never_in_more_than_there_was(tmp_path):
    path = parquet(
        tmp_path / "a.parquet", [{"text": f"row {i} " + "word " * 50} for i in range(2000)], row_group_size=200
    )
    whole = path.read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    assert "no Parquet" in read(tmp_path / "cut.parquet")[0].why
    hurt = bytearray(whole)
    middle = len(whole) // 2
    hurt[middle : middle + 200] = os.urandom(200)
    (tmp_path / "hurt.parquet").write_bytes(hurt)
    documents, _, bad = parts(read(tmp_path / "hurt.parquet"))
    assert len(documents) <= 2000 and (bad or len(documents) == 2000)


def test_rows_without_text_and_long_ones_are_bad_rows(tmp_path, jsonl):
    rows = [{"text": None, "n": 1}, {"text": "fine", "n": 2}, {"text": "x" * 2_100_000, "n": 3}]
    for path in (jsonl(*rows), parquet(tmp_path / "a.parquet", rows)):
        first, fine, long = read(path, max_line_mib=1)
        assert isinstance(first, BadRow) and "no field" in first.why and fine.text == "fine"
        assert isinstance(long, BadRow) and "longer than 1 MiB" in long.why
    nested = parquet(tmp_path / "n.parquet", [{"text": ["a", "b"]}])
    assert "holds no text" in read(nested)[0].why
    half = jsonl(b'{"text": "\\ud83d"}', b'{"text": "ok", "meta": "{(((("}', b"[1]", b"\xff{}", name="h.jsonl")
    assert [type(item).__name__ for item in read(half)] == ["BadRow", "Document", "BadRow", "BadRow"]


def test_text_that_is_not_utf8_is_a_bad_row_alone(tmp_path):
    pyarrow, tables = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    texts = pyarrow.array([b"fine", b"\xff\xfe", b"well"], pyarrow.binary()).view(pyarrow.binary())
    column = pyarrow.Array.from_buffers(pyarrow.string(), 3, texts.buffers())
    path = tmp_path / "a.parquet"
    tables.write_table(pyarrow.table({"text": column}), path)
    assert [type(item).__name__ for item in read(path)] == ["Document", "BadRow", "Document"]


def test_packed_lines_that_break_off_are_said_and_the_rest_counted(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    rows = "".join(json.dumps({"text": f"{i} " + os.urandom(20).hex()}) + "\n" for i in range(3000))
    path.write_bytes(gzip.compress(rows.encode())[:-2000])
    documents, left, bad = parts(read(path, fraction=0.5))
    assert documents and left and len(bad) == 1 and "truncated" in bad[0].why
    (tmp_path / "e.jsonl").write_bytes(b"")
    assert "empty" in read(tmp_path / "e.jsonl", fraction=0.5)[0].why


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fractoin": 0.1}, "'fractoin'.*fraction"),
        ({"fraction": 0.1, "documents": 5}, "both"),
        ({"fraction": 1.5}, "fraction"),
        ({"fraction": "some"}, "fraction"),
        ({"documents": -1}, "documents"),
        ({"documents": 0.5}, "documents"),
        ({"documents": True}, "documents"),
        ({"seed": "x"}, "seed"),
        ({"max_line_mib": 0}, "max_line_mib"),
    ],
)
def test_options_that_are_none_are_refused(options, words):
    with pytest.raises(RecipeError, match=words):
        replay.check(options)
