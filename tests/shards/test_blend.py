"""The manifest: every way in which the files can be others than those it speaks of, and what a training takes of it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.shards.conftest import invented_texts, write_rows
from toolkit import shards, tokenizer
from toolkit.errors import ShardError, UsageError
from toolkit.shards import blend
from toolkit.shards.given import check


@pytest.fixture(scope="module")
def good(meditron, tmp_path_factory) -> Path:
    """Two subsets in three shards, and one to validate on."""
    folder = tmp_path_factory.mktemp("blend")
    for name, count, seed in (("train/pmc-0", 30, 1), ("train/pmc-1", 30, 2), ("train/web-0", 10, 3)):
        (folder / "corpus" / name).parent.mkdir(parents=True, exist_ok=True)
        write_rows(folder / "corpus" / f"{name}.jsonl", invented_texts(count, seed=seed))
    (folder / "corpus" / "valid").mkdir()
    write_rows(folder / "corpus" / "valid" / "pmc-0.jsonl", invented_texts(5, seed=4))
    shards.build_parts(shards.corpus(folder / "corpus"), folder / "s", tokenizer=meditron)
    return folder / "s"


@pytest.fixture
def copy(good, tmp_path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "s"))


def look(folder: Path, **more) -> object:
    return check(folder, **{"vocab_size": 617, "model": None, "say": lambda line: None, **more})


def patched(path: Path, change: Callable[[bytearray], object], *, told: bool = True) -> None:
    """Change bytes in place; without `told` the file's time stays what it was."""
    data, stamp = bytearray(path.read_bytes()), path.stat()
    change(data)
    path.write_bytes(data)
    if not told:
        os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))


def flip(data: bytearray) -> None:
    data[len(data) // 2] ^= 1


def swap(a: Path, b: Path) -> None:
    a.rename(a.with_suffix(".x"))
    b.rename(a)
    a.with_suffix(".x").rename(b)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (lambda s: os.truncate(s / "train/pmc-1.bin", 100), "pmc-1.bin: expected .* bytes, found 100"),
    "index truncated": (lambda s: os.truncate(s / "valid/pmc-0.idx", 20), "valid/pmc-0.idx: expected"),
    "longer": (lambda s: patched(s / "train/pmc-0.bin", lambda d: d.extend(b"\0\0")), "pmc-0.bin: expected"),
    "missing": (lambda s: (s / "train/web-0.idx").unlink(), "web-0.idx: no such file. Blend.json lists it"),
    "bit flipped": (lambda s: patched(s / "train/pmc-1.bin", flip), "pmc-1.bin: was changed since it was made"),
    "index flipped": (lambda s: patched(s / "train/web-0.idx", flip), "web-0.idx: was changed since it was made"),
    "reordered": (
        lambda s: patched(s / "train/web-0.bin", lambda d: d.__setitem__(slice(0, 40), d[40:80])),
        "web-0.bin: was changed",
    ),
    "swapped": (
        lambda s: [swap(s / f"train/pmc-0.{end}", s / f"train/web-0.{end}") for end in ("bin", "idx")],
        "train/.*expected",
    ),
    "another tokenizer": (
        lambda s: patched(s / "tokenizer/added_tokens.json", lambda d: d.__setitem__(slice(2, 7), b'"<CLX')),
        "is not the tokenizer that these shards were made with",
    ),
    "no tokenizer": (lambda s: shutil.rmtree(s / "tokenizer"), "its tokenizer cannot be read"),
    "no manifest": (lambda s: (s / "blend.json").unlink(), "holds no shards. No blend.json"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found_before_a_training(copy, damage):
    assert look(copy).train == blend.read(copy).train
    do, fault = DAMAGES[damage]
    do(copy)
    with pytest.raises(ShardError, match=f"(?i){fault}"):
        look(copy)


def test_what_changed_is_read_whole_and_the_rest_when_asked(copy):
    patched(copy / "train" / "pmc-0.bin", flip, told=False)
    look(copy)  # as many bytes, and older than the manifest: as far as can be seen, the same
    with pytest.raises(ShardError, match="pmc-0.bin: was changed"):
        look(copy, everything=True)
    patched(copy / "train" / "pmc-0.bin", flip)  # back, and younger
    look(copy)
    os.utime(copy / "train" / "web-0.bin")  # a copy that keeps no times
    look(copy, everything=True)


def test_another_model_than_the_one_they_were_made_for(copy, base, huge, tmp_path):
    for size, fault in ((600, "a vocabulary of 617, and the model has 600"), (32_017, "and the model has 32,017")):
        with pytest.raises(ShardError, match=fault):
            look(copy, vocab_size=size)
    look(copy, model=base)  # whose model file was extended
    other = tokenizer.train(invented_texts(400, seed=7), tmp_path / "other", vocab_size=600).folder
    with pytest.raises(ShardError, match="were made with another tokenizer than the model's"):
        look(copy, model=other)
    look(copy, model=tmp_path / "nowhere")  # of which nothing is known here


@pytest.mark.parametrize(
    "change",
    [
        lambda told: "{",
        lambda told: "[]",
        lambda told: "null",
        lambda told: "[" * 99_999,
        lambda told: "\x80",
        lambda told: {**told, "format": 2},
        lambda told: {**told, "train": None},
        lambda told: {**told, "train": []},
        lambda told: {name: value for name, value in told.items() if name != "tokenizer"},
        lambda told: {**told, "train": told["train"] * 2},
        lambda told: {**told, "train": [{**told["train"][0], "bin_bytes": "9"}]},
        lambda told: {**told, "train": [{**told["train"][0], "tokens": -1}]},
        lambda told: {**told, "train": [{**told["train"][0], "input": "x"}]},
        lambda told: {**told, "train": [{**told["train"][0], "prefix": "../../etc/x"}]},
        lambda told: {**told, "train": [{**told["train"][0], "prefix": "/etc/x"}]},
        lambda told: {**told, "train": [{k: v for k, v in told["train"][0].items() if k != "bin_sha256"}]},
        lambda told: {**told, "tokenizer": {**told["tokenizer"], "vocab_size": None}},
    ],
)
def test_a_damaged_manifest_is_one_message(copy, change):
    path = copy / "blend.json"
    made = change(json.loads(path.read_text()))
    path.write_bytes(made.encode("latin-1") if isinstance(made, str) else json.dumps(made).encode())
    with pytest.raises(ShardError, match="(?i)manifest|no shard to train on"):
        look(copy)


def test_what_a_training_is_given(copy):
    found = shards.given(copy)
    assert [path.name for path in found.train] == ["pmc-0", "pmc-1", "web-0"] and found.weights == ()
    assert [found.subset[path] for path in found.train] == ["pmc", "pmc", "web"]
    assert [path.relative_to(copy).as_posix() for path in found.valid] == ["valid/pmc-0"]
    assert {len(digest) for digest in found.sha256.values()} == {64} and len(set(found.sha256.values())) == 4

    weighed = shards.given(copy, {"pmc": 3.0, "web": 1.0})
    one, two, web = weighed.weights
    tokens = [shards.info(path).tokens for path in found.train]
    assert one + two == pytest.approx(3) and web == 1 and one / two == pytest.approx(tokens[0] / tokens[1])
    assert [path.name for path in shards.given(copy, {"pmc": 0, "web": 1}).train] == ["web-0"]

    told = json.loads((copy / "blend.json").read_text())
    for row, weight in zip(told["train"], (0.5, 0.25, 0.25), strict=True):
        row["weight"] = weight
    (copy / "blend.json").write_text(json.dumps(told))
    assert shards.given(copy).weights == (0.5, 0.25, 0.25)
    assert shards.given(copy, {"pmc": 1, "web": 1}).weights != (0.5, 0.25, 0.25)  # the recipe's come first


@pytest.mark.parametrize(
    ("weights", "fault"),
    [
        ({"pmc": 1, "wev": 1}, "names 'wev', no subset of these shards. Did you mean 'web'"),
        ({"pmc": 1}, "says nothing of web"),
        ({"pmc": 0, "web": 0}, "leaves every subset out"),
    ],
)
def test_weights_that_do_not_fit(copy, weights, fault):
    with pytest.raises(UsageError, match=fault):
        shards.given(copy, weights)


def test_a_folder_without_a_manifest_is_taken_as_it_is(meditron, tmp_path):
    for name in ("train", "valid"):
        source = write_rows(tmp_path / f"{name}.jsonl", invented_texts(9))
        shards.build([source], tmp_path / "old" / name, tokenizer=meditron)
    found = shards.given(tmp_path / "old")
    assert found.train == (tmp_path / "old" / "train",) and found.valid == (tmp_path / "old" / "valid",)
    assert found.blend is None and found.sha256 == {} and look(tmp_path / "old") is None
    with pytest.raises(UsageError, match="no subsets to weigh"):
        shards.given(tmp_path / "old", {"pmc": 1})
    (tmp_path / "old" / "valid.idx").unlink()
    with pytest.raises(ShardError, match="holds no shards"):
        look(tmp_path / "old")


def test_nothing_to_train_or_to_validate_on(meditron, tmp_path):
    source = write_rows(tmp_path / "a.jsonl", invented_texts(9))
    shards.build_parts(shards.sources([source]), tmp_path / "s", tokenizer=meditron)
    with pytest.raises(ShardError, match="lists no shard to validate on"):
        shards.given(tmp_path / "s")
