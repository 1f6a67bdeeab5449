"""Several files to a folder of shards: which become what, what is kept of an earlier build, and equal bytes always."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.shards.conftest import NASTY, invented_texts, write_rows
from toolkit import cli, files, shards
from toolkit.errors import DataError, DiskFull, ShardError
from toolkit.shards import blend, room
from toolkit.shards.__main__ import main


def make_corpus(folder: Path, seed: int = 0) -> Path:
    """Three subsets in seven parts, one of them hard, compressed in every way."""
    zstandard = pytest.importorskip("zstandard")
    for side in ("train", "valid"):
        (folder / side).mkdir(parents=True)
    for n in range(3):
        write_rows(folder / "train" / f"pmc-0000{n}.jsonl", invented_texts(40, seed=seed + n))
    plain = write_rows(folder / "train" / "odd-00000.jsonl", [*NASTY, ""])
    (folder / "train" / "odd-00000.jsonl.gz").write_bytes(gzip.compress(plain.read_bytes() + b"bad\n", mtime=0))
    plain.unlink()
    for side, count in (("train", 30), ("valid", 12)):
        plain = write_rows(folder / side / "guide-lines-00000.jsonl", invented_texts(count, seed=9))
        (folder / side / "guide-lines-00000.jsonl.zst").write_bytes(zstandard.compress(plain.read_bytes()))
        plain.unlink()
    write_rows(folder / "valid" / "pmc-00000.jsonl", invented_texts(9, seed=8))
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("folder") / "corpus")


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def build(corpus: Path, out: Path, folder: Path, **more) -> shards.Parts:
    return shards.build_parts(shards.sources([corpus]), out, tokenizer=folder, max_bad_fraction=0.1, **more)


NAMES = ["guide-lines-00000", "odd-00000", "pmc-00000", "pmc-00001", "pmc-00002"]


def test_each_part_is_the_shard_of_its_file(meditron, corpus, tmp_path):
    made = build(corpus, tmp_path / "s", meditron)
    assert [shard.prefix for shard in made.blend.train] == [f"train/{name}" for name in NAMES]
    assert [shard.subset for shard in made.blend.train] == ["guide-lines", "odd", "pmc", "pmc", "pmc"]
    assert [shard.prefix for shard in made.blend.valid] == ["valid/guide-lines-00000", "valid/pmc-00000"]
    assert made.kept == 0 and [row.line for row in made.bad] == [12]
    for source in shards.corpus(corpus):
        alone = shards.build([source.path], tmp_path / "one", tokenizer=meditron, max_bad_fraction=0.1)
        for end in (".bin", ".idx"):
            assert (tmp_path / f"s/{source.name}{end}").read_bytes() == (tmp_path / f"one{end}").read_bytes()
        shard = next(shard for shard in made.blend.shards if shard.prefix == source.name)
        assert (shard.documents, shard.tokens, shard.empty) == (alone.documents, alone.tokens, alone.empty)
        assert shard.input.sha256 == files.sha256_file(source.path) and shard.input.name == source.path.name
        assert shard.bin_sha256 == files.sha256_file(tmp_path / f"s/{source.name}.bin")
    assert blend.check(tmp_path / "s", everything=True) == made.blend == blend.read(tmp_path / "s")
    own = made.blend.made
    assert (own.dtype, own.append_eod, own.tokenizer.eod_id, own.tokenizer.vocab_size) == ("uint16", True, 602, 617)
    assert own.tokenizer.special["[table]"] == 613
    assert tree(tmp_path / "s" / "tokenizer") == tree(meditron)


@pytest.mark.slow
def test_megatron_reads_every_shard(meditron, corpus, tmp_path):
    indexed = pytest.importorskip("megatron.core.datasets.indexed_dataset")
    from toolkit import tokenizer

    loaded, made = tokenizer.load(meditron), build(corpus, tmp_path / "s", meditron).blend
    for source in shards.corpus(corpus):
        found, shard = indexed.IndexedDataset(str(tmp_path / "s" / source.name)), {s.prefix: s for s in made.shards}
        texts = [text for text in shards.texts(source.path) if text]
        assert len(found) == len(texts) == shard[source.name].documents
        for ids, text in zip((found[n] for n in range(len(found))), texts, strict=True):
            assert loaded.decode(ids.tolist()) == text and ids[-1] == 602


def test_what_stands_is_kept_and_what_changed_is_made_anew(base, meditron, tmp_path):
    corpus, out = make_corpus(tmp_path / "corpus"), tmp_path / "s"
    build(corpus, out, meditron)
    whole, times = tree(out), {path: path.stat().st_mtime_ns for path in out.glob("*/*.bin")}
    assert build(corpus, out, meditron).kept == 7 and tree(out) == whole
    assert {path: path.stat().st_mtime_ns for path in out.glob("*/*.bin")} == times

    changed = corpus / "train" / "pmc-00001.jsonl"
    before = changed.read_bytes()
    changed.write_bytes(before.replace(b"mg", b"kg"))  # as long as it was
    assert build(corpus, out, meditron).kept == 6
    assert [name for name, data in tree(out).items() if data != whole[name]] and tree(out).keys() == whole.keys()
    changed.write_bytes(before)
    assert build(corpus, out, meditron).kept == 6 and tree(out) == whole

    index = out / "train" / "pmc-00000.idx"
    data, stamp = bytearray(index.read_bytes()), index.stat()
    data[-9] ^= 1
    index.write_bytes(data)
    os.utime(index, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # nothing but its content says so
    assert build(corpus, out, meditron).kept == 6 and tree(out) == whole
    for gone in ("train/odd-00000.bad.jsonl", "valid/pmc-00000.json", "train/pmc-00002.bin"):
        (out / gone).unlink()
        assert build(corpus, out, meditron).kept == 6 and tree(out) == whole, gone
    (out / "valid" / "pmc-00000.json").write_text("{")
    assert build(corpus, out, meditron).kept == 6 and tree(out) == whole
    for more in ({"append_eod": False}, {"special_tokens": ["[table]"]}, {}):
        assert build(corpus, out, meditron, **more).kept == 0, more
    assert build(corpus, out, base).kept == 0
    (corpus / "valid" / "pmc-00000.jsonl").rename(corpus / "valid" / "pmc-00007.jsonl")
    assert "valid/pmc-00000" not in {shard.prefix for shard in build(corpus, out, base).blend.shards}


@pytest.mark.slow
def test_the_bytes_do_not_depend_on_the_workers(meditron, corpus, tmp_path):
    for workers in (1, 2, 4):
        build(corpus, tmp_path / str(workers), meditron, workers=workers)
    assert tree(tmp_path / "1") == tree(tmp_path / "2") == tree(tmp_path / "4")


class Killed(BaseException):
    """Stands for a kill: nothing in the toolkit catches it, and clean-up after it is undone."""


def test_killed_at_each_change_of_a_name(meditron, tmp_path, monkeypatch):
    """A build over an older one: at any moment the manifest is absent or true, and going on ends with equal bytes."""
    corpus, out, step, ends = tmp_path / "corpus", tmp_path / "s", 0, set()
    build(make_corpus(corpus, seed=50), tmp_path / "before", meditron)
    shutil.rmtree(corpus)
    build(make_corpus(corpus), tmp_path / "expected", meditron)
    expected = tree(tmp_path / "expected")
    while "done" not in ends:
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(tmp_path / "before", out)
        left = step

        def count(real):
            def call(*args, **more):
                nonlocal left
                if left <= 0:
                    raise Killed
                left -= 1
                return real(*args, **more)

            return call

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", count(os.replace))
            patch.setattr(Path, "unlink", count(Path.unlink))
            with contextlib.suppress(Killed):
                build(corpus, out, meditron)
                ends.add("done")
        try:
            blend.check(out, everything=True)
            ends.add("whole")
        except ShardError as err:
            assert "holds no shards" in str(err), err
            ends.add("none")
        build(corpus, out, meditron)
        assert tree(out) == expected
        step += 7 if step else 1
    assert ends == {"whole", "none", "done"}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc")
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT], ids=lambda one: one.name)
def test_stopped_between_two_files_and_gone_on_with(meditron, tmp_path, sent):
    sources = []
    for n in range(4):
        path = write_rows(tmp_path / f"pmc-{n}.jsonl", invented_texts(400, seed=n))
        path.write_bytes(path.read_bytes() * 60)
        sources.append(path)
    out, words = tmp_path / "s", [sys.executable, "-m", "toolkit.shards", "build", *sources, "--tokenizer", meditron]
    again = [*map(str, words), "-o", str(out), "--workers", "2", "--json"]
    process = subprocess.Popen(again, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not (out / "pmc-1.json").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.005)
    process.send_signal(sent)
    _, said = process.communicate()
    assert process.returncode == (130 if sent == signal.SIGINT else -sent), said
    assert not (out / "blend.json").exists() and not (out / "pmc-3.json").exists() and "Traceback" not in said
    told = json.loads(subprocess.run(again, capture_output=True, check=True, text=True).stdout)
    assert told["kept"] >= 2 and told["train_documents"] == 4 * 400 * 60
    shards.build_parts(shards.sources(sources), tmp_path / "expected", tokenizer=meditron)
    assert tree(out) == tree(tmp_path / "expected") and not list(out.rglob("*.part"))


def test_which_inputs_become_which_shards(meditron, corpus, tmp_path):
    flat = [write_rows(tmp_path / name, ["x"]) for name in ("b.jsonl", "a-1.jsonl")]
    assert [(s.name, s.split) for s in shards.sources(flat)] == [("b", "train"), ("a-1", "train")]
    assert [s.name for s in shards.sources([tmp_path])] == ["a-1", "b"]
    assert [s.name for s in shards.sources([flat[0], corpus])][:3] == ["train/b", *(f"train/{n}" for n in NAMES[:2])]
    old = tmp_path / "old"
    old.mkdir()
    write_rows(old / "train.jsonl", ["x", "y"])
    write_rows(old / "valid.jsonl", ["z"])
    assert [(s.name, s.split) for s in shards.corpus(old)] == [("train/train", "train"), ("valid/valid", "valid")]
    assert shards.sources([old]) == shards.corpus(old)
    (tmp_path / "more").mkdir()
    write_rows(tmp_path / "more" / "b.jsonl", ["x"])
    names = [s.name for s in shards.sources([flat[0], flat[1], tmp_path / "more"])]
    assert names == [f"{tmp_path.name}-b", "a-1", "more-b"]  # two of one name in two folders
    shutil.copytree(corpus, tmp_path / "second")
    names = [s.name for s in shards.sources([corpus, tmp_path / "second"])]
    assert names[0] == f"train/{corpus.name}-{NAMES[0]}" and len(set(names)) == len(names)
    (tmp_path / "empty").mkdir()
    for given, fault in [
        ([flat[0], flat[0]], "would have the name"),
        ([tmp_path / "empty"], "holds no file to read"),
        ([tmp_path / "nowhere"], "no such file"),
        ([], "no input"),
    ]:
        with pytest.raises(DataError, match=fault):
            shards.sources(given)
    for place, fault in ((tmp_path / "empty", "no text to train on"), (tmp_path / "nowhere", "no such corpus")):
        with pytest.raises(DataError, match=fault):
            shards.corpus(place)


def parquet(path: Path, columns: dict[str, list], **more) -> Path:
    arrow, table = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table.write_table(arrow.table(columns), path, **more)
    return path


def test_a_parquet_file_gives_the_same_bytes(meditron, tmp_path):
    texts = [*invented_texts(700), *NASTY, ""]
    shards.build([write_rows(tmp_path / "a.jsonl", texts)], tmp_path / "a", tokenizer=meditron)
    columns = {"id": list(range(len(texts))), "text": texts, "meta": [{"n": n} for n in range(len(texts))]}
    for n, more in enumerate(({}, {"row_group_size": 50, "compression": "zstd"}, {"use_dictionary": False})):
        source = parquet(tmp_path / f"{n}.parquet", columns, **more)
        built = shards.build([source], tmp_path / "p", tokenizer=meditron)
        assert (built.rows, built.empty, built.documents) == (711, 1, 710)
        for end in (".bin", ".idx"):
            assert (tmp_path / f"p{end}").read_bytes() == (tmp_path / f"a{end}").read_bytes()
    odd = parquet(tmp_path / "odd.parquet", {"text": ["good", None, "good"]})
    built = shards.build([odd], tmp_path / "p", tokenizer=meditron, max_bad_fraction=0.5)
    assert [(row.line, row.why) for row in built.bad] == [(2, "field 'text' is not a string but a NoneType")]


def test_parquet_files_that_cannot_be_read(meditron, tmp_path):
    source = parquet(tmp_path / "a.parquet", {"body": invented_texts(300)}, row_group_size=20)
    with pytest.raises(DataError, match="no column 'text'.*Its columns: body"):
        shards.build([source], tmp_path / "s", tokenizer=meditron)
    whole = source.read_bytes()
    flipped = bytearray(whole)
    flipped[200:260] = b"\xff" * 60
    for content in (b"", b"PAR1", whole[:-1], whole[: len(whole) // 2], b'{"text": "x"}\n', bytes(flipped)):
        source.write_bytes(content)
        with pytest.raises(DataError, match="damaged or truncated"):
            shards.build([source], tmp_path / "s", tokenizer=meditron, text_field="body")
    numbers = parquet(tmp_path / "n.parquet", {"text": list(range(9))})
    with pytest.raises(DataError, match="9 of 9 rows are bad.*not a string but a int"):
        shards.build([numbers], tmp_path / "s", tokenizer=meditron)
    assert {path.name for path in tmp_path.iterdir()} == {"a.parquet", "n.parquet"}


def test_bad_rows_are_judged_over_all_files(meditron, tmp_path):
    good = write_rows(tmp_path / "a.jsonl", ["x"] * 95)
    (tmp_path / "b.jsonl").write_text('{"text": "good"}\n' + "bad\n" * 4)
    given = shards.sources([good, tmp_path / "b.jsonl"])
    with pytest.raises(DataError, match="4 of 100 rows are bad") as caught:
        shards.build_parts(given, tmp_path / "s", tokenizer=meditron, max_bad_fraction=0.03)
    assert caught.value.where == f"{tmp_path / 'b.jsonl'}:2" and not (tmp_path / "s" / "blend.json").exists()
    made = shards.build_parts(given, tmp_path / "s", tokenizer=meditron, max_bad_fraction=0.04)
    assert made.kept == 2 and sum(shard.bad_rows for shard in made.blend.train) == 4


def test_a_file_without_a_document_has_no_shard(meditron, tmp_path):
    given = [write_rows(tmp_path / "a.jsonl", ["x"]), write_rows(tmp_path / "b.jsonl", ["", ""])]
    (tmp_path / "c.jsonl").write_text("")
    made = shards.build_parts(shards.sources([*given, tmp_path / "c.jsonl"]), tmp_path / "s", tokenizer=meditron)
    assert [shard.prefix for shard in made.blend.train] == ["a"]
    assert build_again(given[1:], tmp_path, meditron) == "no document in the input"


def build_again(given: list[Path], tmp_path: Path, folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        shards.build_parts(shards.sources(given), tmp_path / "s", tokenizer=folder)
    assert not (tmp_path / "s" / "blend.json").exists()
    return caught.value.what


def test_no_room_is_said_before_the_work(meditron, tmp_path, monkeypatch):
    source, disk = write_rows(tmp_path / "a.jsonl", invented_texts(9000)), tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "none", disk], capture_output=True).returncode:
        pytest.skip("may not mount a small tmpfs here")
    try:
        for make in (
            lambda: shards.build([source], disk / "s", tokenizer=meditron),
            lambda: shards.build_parts(shards.sources([source]), disk / "s", tokenizer=meditron),
        ):
            with pytest.raises(DiskFull, match="or more, and .* are free"):
                make()
            assert not list(disk.iterdir())
        # What the first files became says more of the rest than their sizes do.
        monkeypatch.setattr(room, "_ENOUGH", 1)
        parts = [write_rows(tmp_path / f"p{n}.jsonl", invented_texts(1900, seed=n)) for n in range(3)]
        with pytest.raises(DiskFull, match="or more, and .* are free"):
            shards.build_parts(shards.sources(parts), disk / "s", tokenizer=meditron)
        assert (disk / "s" / "p0.json").exists() and not (disk / "s" / "blend.json").exists()
    finally:
        subprocess.run(["umount", disk], check=True)


def run(*argv: object) -> int:
    return cli.run(main, [str(arg) for arg in argv])


def test_the_command_line_of_folders(meditron, corpus, tmp_path, capsys):
    out = tmp_path / "s"
    build = ("build", corpus, "-o", out, "--tokenizer", meditron, "--max-bad-fraction", 0.1)
    assert run(*build) == 0
    said = capsys.readouterr().out
    assert "7 shards, 0 of them were there" in said and "guide-lines" in said and "set aside" in said
    assert run(*build, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["kept"], told["shards"], told["train_bad_rows"]) == (7, 7, 1)
    assert run("verify", out, "--json") == 0 and json.loads(capsys.readouterr().out)["shards"] == 7
    assert run("verify", out, "--against", corpus, "--workers", 2) == 0 and "whole" in capsys.readouterr().out
    assert run("info", out, "--json") == 0
    assert json.loads(capsys.readouterr().out)["blend"]["train"][0]["subset"] == "guide-lines"
    assert run("sample", out, "--seq-length", 64, "--rows", 3, "--json") == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [sum(piece["tokens"] for piece in row["pieces"]) for row in rows] == [64] * 3
    one, two = (out / "train" / f"pmc-0000{n}" for n in (0, 1))
    assert run("show", one, 0) == 0  # by the tokenizer beside the shards
    alone = capsys.readouterr().out
    assert run("show", one, 0, "--tokenizer", meditron / "tokenizer.model") == 0 and capsys.readouterr().out == alone
    assert run("sample", one, "--seq-length", 64, "--rows", 1) == 0 and capsys.readouterr().out
    assert run("merge", one, two, "-o", tmp_path / "m", "--json") == 0
    assert json.loads(capsys.readouterr().out)["documents"] == 80
    inputs = [corpus / "train" / f"pmc-0000{n}.jsonl" for n in (0, 1)]
    assert run("build", *inputs, "--merge", "-o", tmp_path / "n", "--tokenizer", meditron) == 0
    assert (tmp_path / "m.bin").read_bytes() == (tmp_path / "n.bin").read_bytes()
    assert (tmp_path / "m.idx").read_bytes() == (tmp_path / "n.idx").read_bytes()
    assert run("verify", tmp_path / "m", "--against", *inputs, "--tokenizer", meditron) == 0
    capsys.readouterr()
    for words, fault in [
        (("verify", tmp_path / "m", "--against", *inputs), "--against needs --tokenizer"),
        (("build", corpus, "--merge", "-o", tmp_path / "x", "--tokenizer", meditron), "what is to validate on"),
        (("verify", out, "--against", *inputs), "gives no input for"),
        (("sample", tmp_path / "m"), "give --tokenizer"),
        (("sample", out, "--seq-length", 99_999), "no shard has a row of 99999 tokens"),
        (("merge", one, "-o", one), "fewer than two"),
        (("merge", one, two, "-o", two), "into itself"),
    ]:
        assert run(*words) == 2
        assert fault.lower() in capsys.readouterr().err.lower(), fault


def test_a_sample_is_what_stands_at_its_place(meditron, corpus, tmp_path):
    build(corpus, tmp_path / "s", meditron)
    prefix = tmp_path / "s" / "train" / "pmc-00000"
    stream = [token for n in range(shards.info(prefix).documents) for token in shards.read(prefix, n)]
    from toolkit import tokenizer

    loaded = tokenizer.load(meditron)
    rows = shards.sample([prefix], tokenizer=meditron, seq_length=100, rows=5, seed=3)
    assert rows == shards.sample([prefix], tokenizer=meditron, seq_length=100, rows=5, seed=3)
    for row in rows:
        at = row.number * 100
        for piece in row.pieces:
            own = stream[at : at + piece.tokens]
            assert own == shards.read(prefix, piece.document)[piece.first : piece.first + piece.tokens]
            assert piece.text == loaded.decode(own, control=True)
            at += piece.tokens
        assert at == row.number * 100 + 100
    assert sum("<EOD>" in piece.text for row in rows for piece in row.pieces) >= 3


def test_verify_against_finds_any_difference(base, meditron, tmp_path):
    texts = invented_texts(50)
    source = write_rows(tmp_path / "a.jsonl", texts)
    shards.build([source], tmp_path / "s", tokenizer=meditron)
    assert shards.against(tmp_path / "s", [source], tokenizer=meditron).documents == 50
    swapped = [*texts[:20], texts[21], texts[20], *texts[22:]]
    for given, at in ((texts[:-1], 49), ([*texts, "more"], 50), (swapped, 20), ([*texts[:7], "x", *texts[8:]], 7)):
        write_rows(source, given)
        with pytest.raises(ShardError, match=f"document {at} is not what its input gives"):
            shards.against(tmp_path / "s", [source], tokenizer=meditron)
    write_rows(source, texts)
    with pytest.raises(ShardError, match="document 0 is not .*Token"):
        shards.against(tmp_path / "s", [source], tokenizer=meditron, append_eod=False)
    data = tmp_path / "s.bin"
    raw = bytearray(data.read_bytes())
    raw[1000] ^= 1
    data.write_bytes(raw)
    shards.verify(tmp_path / "s", vocab_size=10_000)  # consistent in itself
    with pytest.raises(ShardError, match="is not what its input gives"):
        shards.against(tmp_path / "s", [source], tokenizer=meditron)
    assert run("verify", tmp_path / "s") == 1  # its manifest knows
