"""From JSONL to a shard: what becomes a document, what is set aside, and what an interruption leaves behind."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.shards.conftest import NASTY, invented_texts, write_rows
from toolkit import shards
from toolkit import tokenizer as tokenizers
from toolkit.errors import DataError, DiskFull, ShardError, UsageError
from toolkit.shards import rows


def pair_bytes(prefix: Path) -> tuple[bytes, bytes]:
    return Path(f"{prefix}.bin").read_bytes(), Path(f"{prefix}.idx").read_bytes()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def texts_of(prefix: Path, folder: Path, count: int) -> list[str]:
    return [shards.show(prefix, n, tokenizer=folder) for n in range(count)]


def test_documents_end_with_eod_and_begin_with_nothing(base, meditron, tmp_path):
    source = write_rows(tmp_path / "a.jsonl", NASTY)
    built = shards.build([source], tmp_path / "s", tokenizer=meditron)
    loaded = tokenizers.load(meditron)
    assert [shards.read(tmp_path / "s", n) for n in range(len(NASTY))] == [[*loaded.encode(t), 602] for t in NASTY]
    assert texts_of(tmp_path / "s", meditron, len(NASTY)) == [text + "<EOD>" for text in NASTY]
    shards.build([source], tmp_path / "b", tokenizer=base)
    assert shards.read(tmp_path / "b", 0)[-1] == 2
    shards.build([source], tmp_path / "n", tokenizer=meditron, append_eod=False)
    assert texts_of(tmp_path / "n", meditron, len(NASTY)) == NASTY
    assert (built.documents, built.rows, built.vocab_size, built.eod_id) == (len(NASTY), len(NASTY), 617, 602)


def test_the_result_says_what_is_on_disk(meditron, tmp_path):
    import hashlib

    source = write_rows(tmp_path / "a.jsonl", ["one", "", "two"])
    built = shards.build([source], tmp_path / "s", tokenizer=meditron)
    data, index = pair_bytes(tmp_path / "s")
    assert built.bin_sha256 == hashlib.sha256(data).hexdigest()
    assert built.idx_sha256 == hashlib.sha256(index).hexdigest()
    model = (meditron / "tokenizer.model").read_bytes()
    assert built.tokenizer_sha256 == hashlib.sha256(model).hexdigest()
    assert (built.rows, built.empty, built.bad_rows, built.bad, built.bad_file) == (3, 1, 0, (), "")
    assert built.bytes == len(data) + len(index)
    found = shards.info(tmp_path / "s")
    assert all(getattr(found, name) == getattr(built, name) for name in ("documents", "tokens", "dtype", "bytes"))
    assert names(tmp_path) == {"a.jsonl", "s.bin", "s.idx", "s.json"}


def test_compressed_inputs_make_the_same_bytes(meditron, tmp_path):
    zstandard = pytest.importorskip("zstandard")
    plain = write_rows(tmp_path / "a.jsonl", invented_texts(200)).read_bytes()
    half = plain.index(b"\n", len(plain) // 2) - 7  # frames and members may end within a row
    compress = zstandard.ZstdCompressor().compress
    forms = {
        "bom.jsonl": b"\xef\xbb\xbf" + plain,
        "crlf.jsonl": plain.replace(b"\n", b"\r\n"),
        "blank.jsonl": plain.replace(b"\n", b"\n\n  \n"),
        "no_end.jsonl": plain[:-1],
        "one.jsonl.gz": gzip.compress(plain),
        "two.jsonl.gz": gzip.compress(plain[:half]) + gzip.compress(plain[half:]),
        "one.jsonl.zst": compress(plain),
        "two.jsonl.zst": compress(plain[:half]) + compress(plain[half:]),
    }
    shards.build([tmp_path / "a.jsonl"], tmp_path / "s", tokenizer=meditron)
    for name, content in forms.items():
        (tmp_path / name).write_bytes(content)
        assert shards.build([tmp_path / name], tmp_path / "t", tokenizer=meditron).rows == 200, name
        assert pair_bytes(tmp_path / "t") == pair_bytes(tmp_path / "s"), name


def test_several_inputs_follow_each_other(meditron, tmp_path):
    a, b = invented_texts(5, seed=1), invented_texts(7, seed=2)
    sources = [write_rows(tmp_path / "b.jsonl", b), write_rows(tmp_path / "a.jsonl", a)]
    shards.build(sources, tmp_path / "s", tokenizer=meditron, append_eod=False)
    assert texts_of(tmp_path / "s", meditron, 12) == b + a


def test_another_text_field(meditron, tmp_path):
    source = write_rows(tmp_path / "a.jsonl", ["raw"], clean_text="clean")
    shards.build([source], tmp_path / "s", tokenizer=meditron, text_field="clean_text", append_eod=False)
    assert texts_of(tmp_path / "s", meditron, 1) == ["clean"]


@pytest.mark.slow
def test_the_bytes_do_not_depend_on_the_workers(meditron, tmp_path):
    texts = [*invented_texts(3000), *NASTY, ""]
    source = write_rows(tmp_path / "a.jsonl", texts)
    other = tmp_path / "b.jsonl"
    other.write_bytes(b"not json\n" + source.read_bytes())
    results = []
    for workers in (1, 2, 3):
        built = shards.build([source, other], tmp_path / f"s{workers}", tokenizer=meditron, workers=workers)
        bad = Path(built.bad_file).read_text()
        results.append((*pair_bytes(tmp_path / f"s{workers}"), bad, built.documents, built.empty, built.bad))
    assert results[0] == results[1] == results[2]


BAD = {
    "{": "not JSON",
    "not json": "not JSON",
    '"text"': "not a JSON object but a str",
    "[1]": "not a JSON object but a list",
    "null": "not a JSON object but a NoneType",
    "{}": "no field 'text' among none",
    '{"body": "x", "id": 3}': "no field 'text' among body, id",
    '{"text": null}': "field 'text' is not a string but a NoneType",
    '{"text": ["a"]}': "field 'text' is not a string but a list",
    '{"text": 1' + "0" * 5000 + "}": "not JSON",
    "[" * 200_000: "not JSON",
    b'\xff\xfe{\x00"\x00': "not JSON",
}


@pytest.mark.parametrize("row", BAD, ids=lambda row: repr(row)[:20])
def test_a_bad_row_is_set_aside_with_its_line(meditron, tmp_path, row):
    source = tmp_path / "a.jsonl"
    raw = row if isinstance(row, bytes) else row.encode()
    good = b'{"text": "good"}\n'
    source.write_bytes(good + b"\n" + raw + b"\n" + good)
    built = shards.build([source], tmp_path / "s", tokenizer=meditron, max_bad_fraction=0.5)
    assert (built.rows, built.documents, built.bad_rows) == (3, 2, 1)
    assert (built.bad[0].file, built.bad[0].line) == (str(source), 3) and BAD[row] in built.bad[0].why
    kept = json.loads((tmp_path / "s.bad.jsonl").read_text())
    assert (kept["file"], kept["line"], kept["why"]) == (str(source), 3, built.bad[0].why)
    assert kept["row"] == raw.decode("utf-8", "replace")[:2000]
    assert built.bad_file == str(tmp_path / "s.bad.jsonl")


def test_the_threshold_is_a_share_of_all_rows(meditron, tmp_path):
    source = tmp_path / "a.jsonl"
    source.write_text('{"text": "good"}\n' * 99 + "bad\n")
    assert shards.build([source], tmp_path / "s", tokenizer=meditron, max_bad_fraction=0.01).bad_rows == 1
    with pytest.raises(DataError) as caught:
        shards.build([source], tmp_path / "t", tokenizer=meditron, max_bad_fraction=0.0099)
    assert f"{source}:100: 1 of 100 rows are bad" in str(caught.value) and "not JSON" in str(caught.value)
    assert names(tmp_path) == {"a.jsonl", "s.bin", "s.idx", "s.json", "s.bad.jsonl"}


def test_a_wrong_field_is_noticed_long_before_the_end(meditron, tmp_path):
    source = write_rows(tmp_path / "a.jsonl", ["x" * 700] * 5000)
    with pytest.raises(DataError, match=r"a\.jsonl:1: the first 1\d\d\d rows are all bad.*no field 'body' among text"):
        shards.build([source], tmp_path / "s", tokenizer=meditron, text_field="body", max_bad_fraction=0.9)
    assert names(tmp_path) == {"a.jsonl"}


def test_no_more_bad_rows_means_no_old_list_of_them(meditron, tmp_path):
    source = tmp_path / "a.jsonl"
    source.write_text('{"text": "good"}\nbad\n')
    shards.build([source], tmp_path / "s", tokenizer=meditron, max_bad_fraction=0.5)
    source.write_text('{"text": "good"}\n')
    shards.build([source], tmp_path / "s", tokenizer=meditron)
    assert not (tmp_path / "s.bad.jsonl").exists()


def test_an_endless_row_is_set_aside_in_little_memory(meditron, tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "MAX_ROW_BYTES", 1000)
    good = b'{"text": "good"}\n'
    limit = b'{"text": "' + b"x" * (1000 - 12) + b'"}\n'
    endless = b'{"text": "' + b"x" * 3_000_000 + b'"}\n'
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(good + endless + limit + good + endless[:-1]))
    built = shards.build([tmp_path / "a.jsonl.gz"], tmp_path / "s", tokenizer=meditron, max_bad_fraction=0.5)
    assert (built.rows, built.documents, [row.line for row in built.bad]) == (5, 3, [2, 5])
    assert "longer than" in built.bad[0].why


@pytest.mark.parametrize("content", ["", "\n\n", '{"text": ""}\n' * 3])
def test_no_document_at_all(meditron, tmp_path, content):
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(DataError, match="no document in the input"):
        shards.build([tmp_path / "a.jsonl"], tmp_path / "s", tokenizer=meditron)
    assert names(tmp_path) == {"a.jsonl"}


def test_inputs_that_cannot_be_read(meditron, tmp_path):
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "utf16.jsonl").write_bytes('{"text": "x"}\n'.encode("utf-16"))
    for given, fault in [
        ([], "no input"),
        ([tmp_path / "no.jsonl"], "no such file"),
        ([tmp_path], "is a folder"),
        ([tmp_path / "a.txt"], "not a JSONL or Parquet file by its name"),
        ([tmp_path / "utf16.jsonl"], "not JSON"),
    ]:
        with pytest.raises(DataError, match=fault):
            shards.build(given, tmp_path / "out" / "s", tokenizer=meditron)
    good = write_rows(tmp_path / "a.jsonl", ["x"])
    for wrong in ({"max_bad_fraction": 1.5}, {"workers": 0}):
        with pytest.raises(UsageError, match="max_bad_fraction|workers"):
            shards.build([good], tmp_path / "out" / "s", tokenizer=meditron, **wrong)
    with pytest.raises(DataError, match="no such tokenizer folder"):
        shards.build([good], tmp_path / "out" / "s", tokenizer=tmp_path / "nowhere")
    assert not list(tmp_path.glob("out/*"))


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_a_truncated_or_damaged_compressed_input(meditron, tmp_path, suffix):
    plain = write_rows(tmp_path / "a.jsonl", invented_texts(300)).read_bytes()
    if suffix == "gz":
        whole = gzip.compress(plain)
    else:
        whole = pytest.importorskip("zstandard").ZstdCompressor(write_checksum=True).compress(plain)
    path = tmp_path / f"a.jsonl.{suffix}"
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    for content in (whole[:-1], whole[:-6], whole[: len(whole) // 2], whole[:3], b"not compressed", bytes(flipped)):
        path.write_bytes(content)
        with pytest.raises(DataError, match="damaged or truncated"):
            shards.build([path], tmp_path / "s", tokenizer=meditron)
    assert names(tmp_path) == {"a.jsonl", path.name}


def test_a_full_disk_leaves_the_old_shard_and_no_parts(meditron, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", disk], capture_output=True).returncode:
        pytest.skip("may not mount a small tmpfs here")
    try:
        small = write_rows(tmp_path / "small.jsonl", invented_texts(20))
        large = write_rows(tmp_path / "large.jsonl", invented_texts(3000))
        shards.build([small], disk / "s", tokenizer=meditron)
        before = pair_bytes(disk / "s")
        for workers in (1, 2):
            with pytest.raises(DiskFull, match="no space left"):
                shards.build([large], disk / "s", tokenizer=meditron, workers=workers)
            assert pair_bytes(disk / "s") == before and names(disk) == {"s.bin", "s.idx", "s.json"}
        with pytest.raises(DiskFull):
            tokenizers.extend(meditron, disk / "t", [f"<x{i}>" for i in range(9000)])
        assert names(disk) == {"s.bin", "s.idx", "s.json"}
    finally:
        subprocess.run(["umount", disk], check=True)


def start_build(source: Path, prefix: Path, folder: Path, workers: int) -> subprocess.Popen:
    """A build in its own process, returned when its first bytes are written."""
    command = [sys.executable, "-m", "toolkit.shards", "build", source, "-o", prefix, "--tokenizer", folder]
    process = subprocess.Popen([*map(str, command), "--workers", str(workers)], stderr=subprocess.PIPE, text=True)
    while not any(path.stat().st_size for path in prefix.parent.glob(f".{prefix.name}.bin.*.part")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    return process


def children(pid: int) -> set[int]:
    found = set()
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in path.read_text().split():
            found |= {int(child)} | children(int(child))
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def long_source(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("long") / "long.jsonl"
    path.write_bytes(write_rows(path, invented_texts(800)).read_bytes() * 150)
    return path


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc")
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_in_the_middle(meditron, long_source, tmp_path, workers):
    old = write_rows(tmp_path / "old.jsonl", ["an older shard"])
    for prefix in (tmp_path / "new", tmp_path / "old"):
        shards.build([old], tmp_path / "old", tokenizer=meditron)
        before = pair_bytes(tmp_path / "old")
        process = start_build(long_source, prefix, meditron, workers)
        started = children(process.pid)
        assert len(started) >= (workers if workers > 1 else 0)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        process.stderr.close()
        assert pair_bytes(tmp_path / "old") == before
        deadline = time.monotonic() + 60
        while any(map(alive, started)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(map(alive, started)), "workers outlive their parent"
    with pytest.raises(ShardError, match="Neither half is there"):
        shards.verify(tmp_path / "new")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_in_the_middle(meditron, long_source, tmp_path, workers):
    process = start_build(long_source, tmp_path / "s", meditron, workers)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130 and "Traceback" not in said and "interrupted" in said
    assert names(tmp_path) == set()


class Killed(BaseException):
    """Stands for a kill: nothing in the toolkit catches it, and clean-up after it is undone."""


def test_killed_at_each_step_of_the_replacement(meditron, tmp_path, monkeypatch):
    """Stop at every change of a name: there is the old pair, the new pair, or none that `verify` takes."""
    sources = [write_rows(tmp_path / f"{i}.jsonl", [word]) for i, word in enumerate(("same size a", "same size b"))]
    pairs = []
    for source in sources:
        shards.build([source], tmp_path / "s", tokenizer=meditron)
        pairs.append(pair_bytes(tmp_path / "s"))
    assert pairs[0] != pairs[1] and [len(part) for part in pairs[0]] == [len(part) for part in pairs[1]]
    outcomes = []
    for step in range(10):
        shards.build([sources[0]], tmp_path / "s", tokenizer=meditron)
        left = step

        def count(real):
            def call(*args, **more):
                nonlocal left
                if left == 0:
                    raise Killed
                left -= 1
                return real(*args, **more)

            return call

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", count(os.replace))
            patch.setattr(Path, "unlink", count(Path.unlink))
            with contextlib.suppress(Killed):
                shards.build([sources[1]], tmp_path / "s", tokenizer=meditron)
        try:
            shards.verify(tmp_path / "s")
        except ShardError:
            outcomes.append("none")
        else:
            outcomes.append(("old", "new")[pairs.index(pair_bytes(tmp_path / "s"))])
    assert outcomes[0] == "old" and outcomes[-1] == "new" and "none" in outcomes
    assert outcomes == sorted(outcomes, key=["old", "none", "new"].index)


@pytest.mark.slow
def test_a_dead_worker_is_one_message(meditron, long_source, tmp_path):
    process = start_build(long_source, tmp_path / "s", meditron, 2)
    workers = [pid for pid in children(process.pid) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(workers[0], signal.SIGKILL)
    _, said = process.communicate()
    assert process.returncode == 1 and "a worker process died" in said and "Traceback" not in said
    assert names(tmp_path) == set()
