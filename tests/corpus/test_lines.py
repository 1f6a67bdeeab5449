"""JSON lines whatever the file holds."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys

import pytest

from toolkit.corpus import lines


def _rows(path, **options):
    return [(number, row, bad and bad.why) for number, row, bad in lines.rows(path, **options)]


def test_lines_of_every_kind(jsonl):
    path = jsonl(
        {"a": 1}, b"", b"  ", b"{", b"3", b'{"a": "\xff"}', b'{"a": NaN}', b'{"a": "\\ud800"}', b"\0", {"b": 2}
    )
    found = _rows(path)
    assert [number for number, _, _ in found] == [1, 4, 5, 6, 7, 8, 9, 10]
    assert [row for _, row, _ in found][0] == {"a": 1} and found[-1][1] == {"b": 2}
    assert str(found[4][1]["a"]) == "nan"
    reasons = [why for _, _, why in found if why]
    assert [why.split(":")[0] for why in reasons] == [
        "not JSON",
        "a JSON object was expected, not int",
        "not UTF-8 (byte 8 of the line)",
        "half of a surrogate pair, which no UTF-8 file can hold",
        "not JSON",
    ]


@pytest.mark.parametrize("depth", [500, 100_000])
def test_deep_nesting_is_no_crash(jsonl, depth):
    ((_, row, why),) = _rows(jsonl(b'{"a":' + b"[" * depth + b"]" * depth + b"}"))
    assert row is not None or "nested too deeply" in why or "not JSON" in why


def test_byte_order_mark_crlf_and_no_last_newline(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n{"b": 2}')
    assert _rows(path) == [(1, {"a": 1}, None), (2, {"b": 2}, None)]


def test_a_packed_file_that_breaks_off(tmp_path):
    import random

    some = random.Random(3)
    data = "".join(json.dumps({"n": n, "x": some.random()}) + "\n" for n in range(5_000)).encode()
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(data)[:-5_000])
    found = _rows(path)
    assert len(found) > 1_000 and [why for *_, why in found if why] == ["the gzip stream ends early (a truncated file)"]
    path.write_bytes(b"")
    assert _rows(path) == [(0, None, "the file is empty")]


def test_200_mb_on_one_line_are_never_held(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    piece = b"x" * (1 << 20)
    with gzip.open(path, "wb", compresslevel=1) as handle:
        handle.write(b'{"a": 1}\n{"text": "')
        for _ in range(200):
            handle.write(piece)
        handle.write(b'"}\n{"a": 2}\n')
    code = (
        "import sys; from pathlib import Path; from tests.memory import peak_kib; from toolkit.corpus import lines\n"
        "base = peak_kib()\n"
        "print([(n, row, bad and bad.why) for n, row, bad in lines.rows(Path(sys.argv[1]), 16)])\n"
        "print(peak_kib() - base)"
    )
    out = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True).stdout
    rows, grown = out.splitlines()
    assert rows == "[(1, {'a': 1}, None), (2, None, 'the line is longer than 16 MiB'), (3, {'a': 2}, None)]"
    assert int(grown) < 64 * 1024  # KiB


def test_the_same_without_orjson(jsonl, monkeypatch):
    path = jsonl({"a": "é\u2028"}, b"{", b'{"a": 1e400}', b'{"a": "\\udc00"}', b'{"a": 1}{')
    with_it = _rows(path)
    monkeypatch.setitem(sys.modules, "orjson", None)
    assert _rows(path) == with_it
