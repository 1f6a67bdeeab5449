"""A shard by several jobs: spans that cover the file, and the bytes of a single build whatever the number of parts."""

from __future__ import annotations

import gzip
import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.shards.conftest import NASTY, invented_texts, write_rows
from toolkit import files, shards
from toolkit import tokenizer as tokenizers
from toolkit.errors import DataError, DiskFull, ShardError
from toolkit.shards import rows


def in_parts(path: Path, out: Path, count: int, folder: Path, **more) -> list[Path]:
    made = [out / f"part{n}" for n in range(count)]
    for number, place in enumerate(made):
        shards.build_part(path, place, number=number, parts=count, tokenizer=folder, **more)
    return made


def hard(path: Path) -> Path:
    """Text that is hard to cut: a byte order mark, blank and bad and long lines, CRLF, no end to the last line."""
    good = write_rows(path, [*invented_texts(150), *NASTY, "", *invented_texts(30, seed=1)]).read_bytes().splitlines()
    good[20:20] = [b"", b"  ", b"not json", b'{"text": "x"}\r', b"\xff\xfe"]
    good[100:100] = [b"", b"[1]", b'{"body": 3}']
    path.write_bytes(b"\xef\xbb\xbf" + b"\n".join([*good, b"", b"null", b'{"text": "the last"}']))
    return path


@pytest.mark.parametrize("parts", [1, 2, 3, 7, 60])
@pytest.mark.parametrize("eod", [True, False])
def test_the_bytes_of_a_single_build(meditron, tmp_path, parts, eod):
    source = hard(tmp_path / "a.jsonl")
    more = {"append_eod": eod, "max_bad_fraction": 0.1}
    whole = shards.build([source], tmp_path / "s", tokenizer=meditron, **more)
    assert whole.bad_rows == 5 and whole.empty == 1
    made = in_parts(source, tmp_path / "parts", parts, meditron, **more)
    merged = shards.merge(source, made, tmp_path / "m", tokenizer=meditron, **more)
    for name in ("bin", "idx", "bad.jsonl"):
        assert (tmp_path / f"m.{name}").read_bytes() == (tmp_path / f"s.{name}").read_bytes(), name
    moved = {"prefix": "", "bad_file": ""}
    assert {**vars(merged), **moved} == {**vars(whole), **moved}
    assert shards.verify(tmp_path / "m", vocab_size=617).documents == whole.documents
    sizes = [files.read_json(out / "part.json")["documents"] for out in made]
    assert sum(sizes) == whole.documents and sum(size > 0 for size in sizes) >= min(parts, 2)


def test_a_compressed_file_is_one_part(meditron, tmp_path):
    pytest.importorskip("zstandard")
    import zstandard

    plain = write_rows(tmp_path / "a.jsonl", invented_texts(60)).read_bytes()
    for name, content in {"a.jsonl.gz": gzip.compress(plain), "a.jsonl.zst": zstandard.compress(plain)}.items():
        (tmp_path / name).write_bytes(content)
        whole = shards.build([tmp_path / name], tmp_path / "s", tokenizer=meditron)
        made = in_parts(tmp_path / name, tmp_path / name[-3:], 3, meditron)
        assert [files.read_json(out / "part.json")["rows"] for out in made] == [60, 0, 0]
        merged = shards.merge(tmp_path / name, made, tmp_path / "m", tokenizer=meditron)
        assert (merged.bin_sha256, merged.idx_sha256) == (whole.bin_sha256, whole.idx_sha256)


LINES = st.lists(st.binary(max_size=12).map(lambda line: line.replace(b"\n", b"")), max_size=30)


@given(lines=LINES, parts=st.integers(1, 9), ended=st.booleans())
@settings(deadline=None)
def test_spans_cover_the_file_and_end_where_lines_end(tmp_path_factory, lines, parts, ended):
    path = tmp_path_factory.mktemp("cut") / "a.jsonl"
    data = b"\n".join(lines) + (b"\n" if ended else b"")
    path.write_bytes(data)
    spans = rows.cut(path, parts)
    assert len(spans) == parts and spans[0].start == 0 and spans[-1].end == len(data)
    assert all(a.end == b.start for a, b in zip(spans, spans[1:], strict=False))
    assert all(span.start in (0, len(data)) or data[span.start - 1 : span.start] == b"\n" for span in spans)
    found, before = [], 0
    for span in spans:
        taken = list(rows.rows(span))
        found += [(number + before, row) for number, row, _ in taken]
        assert all(0 < read <= span.end - span.start for _, _, read in taken)
        before += rows.count_lines(span)
    assert found == [(number, row) for number, row, _ in rows.rows(rows.Span(path=path))]
    assert before == data.count(b"\n")


def test_lines_longer_than_a_block_stay_whole(meditron, tmp_path):
    source = write_rows(tmp_path / "a.jsonl", ["a", "word " * 120_000, "b"])
    whole = shards.build([source], tmp_path / "s", tokenizer=meditron)
    made = in_parts(source, tmp_path / "parts", 5, meditron)
    assert shards.merge(source, made, tmp_path / "m", tokenizer=meditron).bin_sha256 == whole.bin_sha256


def test_the_share_of_bad_rows_is_judged_over_all_parts(meditron, tmp_path):
    source = tmp_path / "a.jsonl"
    source.write_text('{"text": "good"}\n' * 95 + "bad row of length\n" * 5)
    made = in_parts(source, tmp_path / "parts", 10, meditron, max_bad_fraction=0.01)  # the last has half of them bad
    with pytest.raises(DataError, match="5 of 100 rows are bad") as caught:
        shards.merge(source, made, tmp_path / "m", tokenizer=meditron, max_bad_fraction=0.01)
    assert caught.value.where == f"{source}:96"
    assert not list(tmp_path.glob("m.*")) and not list(tmp_path.glob(".m.*"))
    assert shards.merge(source, made, tmp_path / "m", tokenizer=meditron, max_bad_fraction=0.05).bad_rows == 5


def test_a_beginning_of_nothing_but_bad_rows_is_the_wrong_file(meditron, tmp_path):
    source = tmp_path / "a.jsonl"
    source.write_text("bad\n" * 3000 + '{"text": "good"}\n' * 3000)
    more = {"parts": 5, "tokenizer": meditron, "max_bad_fraction": 0.6}
    with pytest.raises(DataError, match="the first 1024 rows are all bad"):
        shards.build_part(source, tmp_path / "p0", number=0, **more)
    source.write_text('{"text": "good"}\n' + "bad\n" * 9000)
    assert shards.build_part(source, tmp_path / "p3", number=3, **more).bad_rows > 1000


def test_no_document_in_any_part(meditron, tmp_path):
    source = tmp_path / "a.jsonl"
    source.write_text('{"text": ""}\n' * 9)
    made = in_parts(source, tmp_path / "parts", 2, meditron)
    with pytest.raises(DataError, match="no document in the input"):
        shards.merge(source, made, tmp_path / "m", tokenizer=meditron)


def drop_last_byte(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def test_parts_that_do_not_belong_together(base, meditron, tmp_path):
    source = write_rows(tmp_path / "a.jsonl", invented_texts(60))
    source.write_bytes(source.read_bytes() + b"bad\n")
    made = in_parts(source, tmp_path / "parts", 3, meditron)
    other = in_parts(source, tmp_path / "other", 2, meditron)
    merge = {"tokenizer": meditron, "max_bad_fraction": 0.1}
    for wrong in ([made[1], made[0], made[2]], made[:2], [*made[:2], made[1]], [other[0], *made[1:]], []):
        with pytest.raises(ShardError, match=r"is not part|not the whole file"):
            shards.merge(source, wrong, tmp_path / "m", **merge)
    with pytest.raises(ShardError, match="(?i)append_eod is True, expected False"):
        shards.merge(source, made, tmp_path / "m", append_eod=False, **merge)
    with pytest.raises(ShardError, match="(?i)tokenizer is"):
        shards.merge(source, made, tmp_path / "m", **{**merge, "tokenizer": base})
    source.write_bytes(source.read_bytes() + b'{"text": "more"}\n')
    with pytest.raises(ShardError, match="(?i)size is"):
        shards.merge(source, made, tmp_path / "m", **merge)
    assert not list(tmp_path.glob("m.*"))


@pytest.mark.parametrize("name", ["part.bin", "part.idx", "part.bad.jsonl", "part.json"])
@pytest.mark.parametrize("damage", ["gone", "truncated", "empty", "longer"])
def test_a_damaged_part(meditron, tmp_path, name, damage):
    source = write_rows(tmp_path / "a.jsonl", invented_texts(40))
    source.write_bytes(source.read_bytes() + b"bad\n")
    made = in_parts(source, tmp_path / "parts", 2, meditron)
    path = made[1] / name
    if damage == "gone":
        path.unlink()
    elif damage == "longer":
        path.write_bytes(path.read_bytes() + (b"{}" if name.endswith(("json", "jsonl")) else b"\0\0"))
    else:
        path.write_bytes(b"" if damage == "empty" else path.read_bytes()[:-3])
    with pytest.raises(ShardError):
        shards.merge(source, made, tmp_path / "m", tokenizer=meditron, max_bad_fraction=0.1)
    assert not list(tmp_path.glob("m.*")) and not list(tmp_path.glob(".m.*"))


@pytest.mark.parametrize("field", ["documents", "start", "number"])
@pytest.mark.parametrize("value", [-1, "3", None, 1.5, True])
def test_a_part_that_says_nonsense_of_itself(meditron, tmp_path, field, value):
    source = write_rows(tmp_path / "a.jsonl", ["one", "two"])
    (made,) = in_parts(source, tmp_path / "parts", 1, meditron)
    said = json.loads((made / "part.json").read_text())
    (made / "part.json").write_text(json.dumps({**said, field: value}))
    with pytest.raises(ShardError, match=f"(?i)is no part of a shard.*{field} is"):
        shards.merge(source, [made], tmp_path / "m", tokenizer=meditron)


@pytest.mark.parametrize(("number", "parts"), [(-1, 3), (3, 3), (0, 0)])
def test_a_part_that_is_none(meditron, tmp_path, number, parts):
    source = write_rows(tmp_path / "a.jsonl", ["one"])
    with pytest.raises(DataError, match="there is no part"):
        shards.build_part(source, tmp_path / "p", number=number, parts=parts, tokenizer=meditron)
    with pytest.raises(DataError, match="no such file"):
        shards.build_part(tmp_path / "b.jsonl", tmp_path / "p", number=0, parts=1, tokenizer=meditron)
    assert not (tmp_path / "p").exists()


def test_a_full_disk_leaves_no_shard(meditron, tmp_path):
    source = write_rows(tmp_path / "a.jsonl", invented_texts(3000))
    made = in_parts(source, tmp_path / "parts", 2, meditron)
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96k", "none", disk], capture_output=True).returncode:
        pytest.skip("may not mount a small tmpfs here")
    try:
        with pytest.raises(DiskFull, match="no space left"):
            shards.merge(source, made, disk / "m", tokenizer=meditron)
        assert not list(disk.iterdir())
        with pytest.raises(DiskFull, match="no space left"):
            shards.build_part(source, disk / "p", number=1, parts=2, tokenizer=meditron)
        assert not list((disk / "p").iterdir())
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.slow
def test_workers_change_nothing(huge, tmp_path):
    """In ids of 32 bits, too."""
    source = write_rows(tmp_path / "a.jsonl", invented_texts(2500))
    whole = shards.build([source], tmp_path / "s", tokenizer=huge)
    made = in_parts(source, tmp_path / "parts", 2, huge, workers=2)
    merged = shards.merge(source, made, tmp_path / "m", tokenizer=huge)
    assert (merged.dtype, merged.bin_sha256, merged.idx_sha256) == ("int32", whole.bin_sha256, whole.idx_sha256)
    assert tokenizers.load(huge).vocab_size == merged.vocab_size
