"""Damaged, foreign and contradictory pairs, and the command line."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.shards.conftest import invented_texts, write_rows
from toolkit import cli, shards
from toolkit.errors import DataError, ShardError, UsageError
from toolkit.shards.__main__ import main

HEADER = 34


@pytest.fixture(scope="module")
def good(meditron, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    shards.build([write_rows(folder / "a.jsonl", invented_texts(20))], folder / "s", tokenizer=meditron)
    return folder / "s"


@pytest.fixture
def pair(good, tmp_path) -> tuple[Path, Path]:
    """A copy of the good pair to damage."""
    return tuple(Path(shutil.copy(f"{good}{suffix}", tmp_path / f"s{suffix}")) for suffix in (".bin", ".idx"))


def test_a_good_pair(good):
    found = shards.verify(good, vocab_size=617)
    assert found == shards.info(good) and found.documents == 20 and found.dtype == "uint16"
    assert found.tokens == sum(len(shards.read(good, n)) for n in range(20))


def test_truncated_and_overlong_data(pair):
    data, _ = pair
    whole = data.read_bytes()
    for content in (b"", whole[:2], whole[: len(whole) // 2], whole[:-2], whole[:-1], whole + b"\0\0"):
        data.write_bytes(content)
        for check in (shards.verify, shards.info):
            with pytest.raises(ShardError) as caught:
                check(data.with_suffix(""))
            assert f"{data}: expected {len(whole):,} bytes, found {len(content):,}" in str(caught.value)


def test_every_truncation_of_an_index(pair):
    _, index = pair
    whole = index.read_bytes()
    for cut in range(len(whole)):
        index.write_bytes(whole[:cut])
        with pytest.raises(ShardError) as caught:
            shards.info(index.with_suffix(""))
        expected = f"{len(whole):,}" if cut >= HEADER else f"at least {HEADER}"
        assert f"{index}: expected {expected} bytes, found {cut:,}" in str(caught.value)
    index.write_bytes(whole + b"\0")
    with pytest.raises(ShardError, match="expected"):
        shards.verify(index.with_suffix(""))


def test_a_missing_half(pair):
    data, index = pair
    index.rename(index.with_suffix(".away"))
    with pytest.raises(ShardError, match=r"s\.idx: no such file\. Only s\.bin is there"):
        shards.verify(data.with_suffix(""))
    index.with_suffix(".away").rename(index)
    data.unlink()
    with pytest.raises(ShardError, match=r"s\.bin: no such file\. Only s\.idx is there"):
        shards.verify(data.with_suffix(""))
    index.unlink()
    with pytest.raises(ShardError, match="Neither half is there"):
        shards.verify(data.with_suffix(""))


@pytest.mark.parametrize(
    ("head", "fault"),
    [
        (b"TNTIDX\0\0\0", "not a Megatron index"),
        (b'{"text": "', "not a Megatron index"),
        (b"MMIDIDX\0\0" + struct.pack("<QB", 2, 8), "version 2"),
        (b"MMIDIDX\0\0" + struct.pack("<QB", 1, 6), "dtype code 6"),
        (b"MMIDIDX\0\0" + struct.pack("<QB", 1, 77), "dtype code 77"),
        (b"MMIDIDX\0\0" + struct.pack("<QBQ", 1, 8, 2**64 - 1), "expected"),
        (b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, 8, 20, 2**63), "expected"),
        (b"MMIDIDX\0\0" + struct.pack("<QB", 1, 4), "expected"),  # the right form, ids twice as wide
    ],
)
def test_another_header(pair, head, fault):
    _, index = pair
    index.write_bytes(head + index.read_bytes()[len(head) :])
    with pytest.raises(ShardError, match=fault):
        shards.verify(index.with_suffix(""))


def test_a_pair_without_documents(tmp_path):
    (tmp_path / "s.bin").write_bytes(b"")
    (tmp_path / "s.idx").write_bytes(b"MMIDIDX\0\0" + struct.pack("<QBQQq", 1, 8, 0, 1, 0))
    with pytest.raises(ShardError, match="holds no documents"):
        shards.verify(tmp_path / "s")


def lengths_of(raw: bytearray) -> np.ndarray:
    return np.frombuffer(raw, dtype="<i4", count=20, offset=HEADER)


def pointers_of(raw: bytearray) -> np.ndarray:
    return np.frombuffer(raw, dtype="<i8", count=20, offset=HEADER + 80)


def bounds_of(raw: bytearray) -> np.ndarray:
    return np.frombuffer(raw, dtype="<i8", count=21, offset=HEADER + 240)


def swap(values: np.ndarray, i: int, j: int) -> None:
    values[i], values[j] = int(values[j]), int(values[i])


def shift(lengths: np.ndarray) -> None:
    lengths[3], lengths[4] = -5, lengths[4] + lengths[3] + 5


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda raw: swap(pointers_of(raw), 3, 4), "Sequence 3 "),
        (lambda raw: swap(lengths_of(raw), 0, int(np.argmax(lengths_of(raw)))), "Sequence "),
        (lambda raw: shift(lengths_of(raw)), "Sequence 3 has -5 tokens"),
        (lambda raw: swap(bounds_of(raw), 5, 9), "[Tt]he document bounds"),
        (lambda raw: bounds_of(raw).__setitem__(0, 1), "[Tt]he document bounds"),
        (lambda raw: bounds_of(raw).__setitem__(20, 19), "[Tt]he document bounds"),
        (lambda raw: bounds_of(raw).__setitem__(7, 2**40), "[Tt]he document bounds"),
    ],
)
def test_an_index_that_contradicts_itself(pair, damage, fault):
    _, index = pair
    raw = bytearray(index.read_bytes())
    damage(raw)
    assert raw != index.read_bytes()
    index.write_bytes(raw)
    for check in (lambda prefix: shards.verify(prefix), lambda prefix: shards.read(prefix, 7)):
        with pytest.raises(ShardError, match=fault):
            check(index.with_suffix(""))


def test_ids_outside_the_vocabulary(pair, meditron, base):
    data, _ = pair
    prefix = data.with_suffix("")
    highest = max(max(shards.read(prefix, n)) for n in range(20))
    shards.verify(prefix, vocab_size=highest + 1)
    with pytest.raises(ShardError, match=f"holds token id {highest}, outside the vocabulary of {highest}"):
        shards.verify(prefix, vocab_size=highest)
    with pytest.raises(DataError, match="outside the vocabulary of 600"):
        shards.show(prefix, 0, tokenizer=base)
    data.write_bytes(data.read_bytes()[:-2] + b"\xff\xff")
    with pytest.raises(ShardError, match="holds token id 65535"):
        shards.verify(prefix, vocab_size=617)


def test_documents_that_are_not_there(good):
    for n in (-1, 20):
        with pytest.raises(UsageError, match=f"no document {n}.*0 to 19"):
            shards.read(good, n)


def run(*argv: object) -> int:
    return cli.run(main, [str(arg) for arg in argv])


def test_the_command_line(meditron, tmp_path, capsys):
    source = tmp_path / "a.jsonl"
    source.write_text('{"text": "one [fig]"}\nbad\n{"text": "two"}\n')
    build = ("build", source, "-o", tmp_path / "s", "--tokenizer", meditron)
    assert run(*build, "--max-bad-fraction", 0.5) == 0
    said = capsys.readouterr().out
    assert "2 documents" in said and f"set aside {source}:2: not JSON" in said and "s.bad.jsonl" in said
    assert run(*build, "--max-bad-fraction", 0.5, "--json", "--no-append-eod") == 0
    built = json.loads(capsys.readouterr().out)
    assert (built["documents"], built["eod_id"], built["bad"][0]["line"]) == (2, None, 2)
    for argv in (["verify", tmp_path / "s", "--tokenizer", meditron], ["info", tmp_path / "s"]):
        assert run(*argv, "--json") == 0
        assert json.loads(capsys.readouterr().out)["tokens"] == built["tokens"]
    assert run("show", tmp_path / "s", 0, "--tokenizer", meditron) == 0
    assert capsys.readouterr().out == "one [fig]\n"


def test_errors_on_the_command_line_are_one_message(meditron, tmp_path, capsys):
    source = tmp_path / "a.jsonl"
    source.write_text('{"text": "one"}\nbad\n')
    assert run("build", source, "-o", tmp_path / "s", "--tokenizer", meditron) == 1
    said = capsys.readouterr().err
    assert f"error: {source}:2: 1 of 2 rows are bad, more than the 1.000% allowed. This is the first" in said
    assert run("verify", tmp_path / "s", "--json") == 1
    assert json.loads(capsys.readouterr().out)["error"] == "ShardError"
    assert run("verify", tmp_path / "s", "--vocab-size", 5) == 1
    capsys.readouterr()
    for words, match in ((("--workers", 0), "workers is 0"), (("--max-bad-fraction", 2), "max_bad_fraction is 2.0")):
        assert run("build", source, "-o", tmp_path / "s", "--tokenizer", meditron, *words) == 2
        assert match in capsys.readouterr().err
    assert run("show", tmp_path / "s", 0) == 2 and "which tokenizer" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        run("build", source)
    assert caught.value.code == 2


def test_help_has_examples_that_parse():
    from toolkit.shards.__main__ import EXAMPLES, _parser

    said = subprocess.run([sys.executable, "-m", "toolkit.shards", "build", "--help"], capture_output=True, text=True)
    assert said.returncode == 0 and EXAMPLES in said.stdout
    for line in EXAMPLES.splitlines()[1:]:
        _parser().parse_args(line.split()[3:])
