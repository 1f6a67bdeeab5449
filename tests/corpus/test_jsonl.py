"""JSON lines of every kind and condition: what is sound is read, what is not is set aside with its line."""

from __future__ import annotations

import gzip
import json
import tracemalloc

import pytest

from toolkit.corpus import jsonl
from toolkit.corpus.document import BadRow, Document
from toolkit.errors import RecipeError


def read(path, **options):
    jsonl.check(options)
    return list(jsonl.read(path, "s", options))


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b'{"text": "cut o', "not JSON"),
        (b"words", "not JSON"),
        (b'{"text": "a" "b"}', "not JSON"),
        (b'{"text": "nul \0"}', "not JSON"),
        ('{"text": "é"}'.encode("latin-1"), "not UTF-8 (byte 11"),
        (b"\xff\xfe{\0", "not UTF-8"),
        (b"[1]", "not list"),
        (b'"text"', "not str"),
        (b"null", "not NoneType"),
        (b"{}", "no field text or clean_text; the row has none"),
        (b'{"body": "x"}', "the row has body"),
        (b'{"text": null}', "no field"),
        (b'{"text": 5}', "holds int, not text"),
        (b'{"text": ["a"]}', "holds list, not text"),
        (b'{"text": "\\ud83d"}', "surrogate"),
        (b"[" * 100_000, "not JSON"),
        (b'{"text": "x", "n": ' + b"9" * 5000 + b"}", "not JSON"),
    ],
)
def test_a_bad_row_is_set_aside_with_its_line(jsonl_file, line, why):
    path = jsonl_file({"text": "a"}, line, {"text": "b"})
    first, bad, last = read(path)
    assert isinstance(bad, BadRow) and (bad.file, bad.line) == (str(path), 2)
    assert why in bad.why, bad.why
    assert [first.text, last.text] == ["a", "b"]


@pytest.fixture
def jsonl_file(jsonl):
    return jsonl


def test_fields_have_their_defaults_and_their_options(jsonl_file):
    both = {"text": "a", "clean_text": "b", "id": 5}
    path = jsonl_file({"clean_text": "b", "raw_text": "r" * 600}, both, {"body": "c"})
    first, second, third = read(path)
    assert (first.text, second.text, second.id) == ("b", "a", "5")
    assert second.meta == {"file": "in.jsonl", "clean_text": "b"} and first.meta == {"file": "in.jsonl"}
    assert isinstance(third, BadRow)
    assert [type(row) for row in read(path, text_field="body")] == [BadRow, BadRow, Document]
    assert read(path, license="CC BY 4.0")[0].license == "CC-BY-4.0"
    with pytest.raises(RecipeError, match="'licence' of a jsonl source.*license"):
        read(path, licence="x")


def test_rows_without_id_are_known_by_their_text_wherever_they_stand(jsonl_file):
    a, b = read(jsonl_file({"text": "one"}, {"text": "two"}))
    d, c = read(jsonl_file({"text": "two"}, {"text": "one"}, name="other.jsonl"))
    assert (a.id, b.id) == (c.id, d.id) and a.id != b.id


def test_clinical_text_stays_letter_by_letter_and_control_characters_go(jsonl_file):
    text = "of pH <7.35 [95% CI 1–2]\no 5 µg/kg; α₂ > 30 %\n- (see p<0.05)"
    (doc,) = read(jsonl_file({"text": f"\x00\x08{text}  \r\n\r\n\r\n\r\nend\x1b"}))
    assert doc.text == text + "\n\nend"


def test_packed_files_are_read_and_cut_off_ones_said(jsonl_file, tmp_path):
    plain = jsonl_file(*({"text": f"text {i}"} for i in range(5000)))
    want = [row.text for row in read(plain)]
    data = plain.read_bytes()
    packed = tmp_path / "p.jsonl.gz"
    packed.write_bytes(gzip.compress(data[:9999]) + gzip.compress(data[9999:]))
    assert [row.text for row in read(packed)] == want
    packed.write_bytes(gzip.compress(data)[:-100])
    *rows, last = read(packed)
    assert isinstance(last, BadRow) and "truncated" in last.why and last.line == len(rows) + 1 > 100
    packed.write_bytes(b"no gzip at all")
    assert [row.why.startswith("is not gzip") for row in read(packed)] == [True]


def test_zstd_files_are_read_and_cut_off_ones_said(jsonl_file, tmp_path):
    zstandard = pytest.importorskip("zstandard")
    plain = jsonl_file(*({"text": f"text {i}"} for i in range(5000)))
    want = [row.text for row in read(plain)]
    data, packed = plain.read_bytes(), tmp_path / "p.jsonl.zst"
    packed.write_bytes(zstandard.compress(data[:9999]) + zstandard.compress(data[9999:]))
    assert [row.text for row in read(packed)] == want
    packed.write_bytes(zstandard.compress(data)[:-100])
    assert "truncated" in read(packed)[-1].why
    packed.write_bytes(b"no zstd at all")
    assert [row.why.startswith("is not zstd") for row in read(packed)] == [True]


def test_a_line_over_the_limit_is_skipped_without_being_held(tmp_path):
    path = tmp_path / "long.jsonl.gz"
    line = json.dumps({"text": "x" * (24 * 2**20)}).encode()
    path.write_bytes(gzip.compress(b'{"text": "a"}\n' + line + b'\n{"text": "b"}\n' + line, 1))
    del line
    tracemalloc.start()
    a, long, b, last = read(path, max_line_mib=1)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (a.text, b.text) == ("a", "b")
    assert [(row.line, "longer than 1 MiB" in row.why) for row in (long, last)] == [(2, True), (4, True)]
    assert most < 16 * 2**20


def test_blank_lines_a_byte_order_mark_and_a_missing_last_newline_do_no_harm(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_bytes('\ufeff{"text": "é"}\r\n\n  \n{"text": "b"}'.encode())
    assert [row.text for row in read(path)] == ["é", "b"]


def test_an_empty_file_is_a_bad_row(tmp_path):
    (tmp_path / "empty.jsonl").write_bytes(b"")
    assert [type(row) for row in read(tmp_path / "empty.jsonl")] == [BadRow]


@pytest.mark.parametrize("limit", [0, -1, "many", True])
def test_a_limit_that_is_none_is_refused(limit):
    with pytest.raises(RecipeError, match="max_line_mib"):
        jsonl.check({"max_line_mib": limit})
