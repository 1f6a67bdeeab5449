"""The bytes of a shard against Megatron's own builder and reader."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.shards.conftest import NASTY, invented_texts, write_rows
from toolkit import shards
from toolkit import tokenizer as tokenizers
from toolkit.shards import format

documents = st.lists(st.lists(st.integers(0, 65_499), min_size=1, max_size=30), min_size=1, max_size=30)


def reference_ids(folder: Path, text: str, eod: int) -> list[int]:
    """Plain SentencePiece on the stretches between tags; written apart from the toolkit's own way."""
    import sentencepiece

    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    tags = tokenizers.MEDITRON_TOKENS[5:] if (folder / "added_tokens.json").exists() else ()
    ids = []
    while text:
        found = re.search("|".join(map(re.escape, tags)), text) if tags else None
        stretch = text[: found.start()] if found else text
        ids += model.encode(stretch)
        if found:
            ids.append(model.vocab_size() + tokenizers.MEDITRON_TOKENS.index(found[0]))
        text = text[found.end() :] if found else ""
    return [*ids, eod]


@pytest.mark.slow
@pytest.mark.parametrize(("which", "eod", "dtype"), [("base", 2, "uint16"), ("meditron", 602, "uint16")])
def test_bytes_are_those_of_megatrons_builder(request, tmp_path, which, eod, dtype):
    folder = request.getfixturevalue(which)
    texts = [*NASTY, "", *invented_texts(300, seed=5), ""]
    built = shards.build([write_rows(tmp_path / "a.jsonl", texts)], tmp_path / "ours", tokenizer=folder)
    write_with_megatron(tmp_path / "theirs", [reference_ids(folder, text, eod) for text in texts if text], dtype)
    for suffix in (".bin", ".idx"):
        assert (tmp_path / f"ours{suffix}").read_bytes() == (tmp_path / f"theirs{suffix}").read_bytes()
    assert (built.dtype, built.documents, built.empty) == (dtype, len(texts) - 2, 2)


@pytest.mark.slow
def test_large_vocabulary_is_int32_as_megatrons(huge, tmp_path):
    loaded = tokenizers.load(huge)
    assert loaded.vocab_size == 66_101
    texts = invented_texts(50)
    built = shards.build([write_rows(tmp_path / "a.jsonl", texts)], tmp_path / "ours", tokenizer=huge)
    write_with_megatron(tmp_path / "theirs", [[*loaded.encode(text), 600] for text in texts], "int32")
    for suffix in (".bin", ".idx"):
        assert (tmp_path / f"ours{suffix}").read_bytes() == (tmp_path / f"theirs{suffix}").read_bytes()
    assert built.dtype == "int32" and shards.verify(tmp_path / "ours", vocab_size=66_101).tokens == built.tokens


@pytest.mark.slow
def test_megatron_reads_it(meditron, tmp_path):
    indexed = pytest.importorskip("megatron.core.datasets.indexed_dataset")
    texts = [*NASTY, *invented_texts(100)]
    shards.build([write_rows(tmp_path / "a.jsonl", texts)], tmp_path / "s", tokenizer=meditron)
    theirs = indexed.IndexedDataset(str(tmp_path / "s"))
    assert len(theirs) == len(texts) and list(theirs.document_indices) == list(range(len(texts) + 1))
    for n, text in enumerate(texts):
        assert theirs[n].tolist() == shards.read(tmp_path / "s", n) == reference_ids(meditron, text, 602)


@pytest.mark.slow
def test_megatrons_own_shards_are_read(tmp_path):
    indexed = pytest.importorskip("megatron.core.datasets.indexed_dataset")
    import torch

    builder = indexed.IndexedDatasetBuilder(str(tmp_path / "s.bin"), dtype=np.int32)
    for sentences in ([[1, 2], [3]], [[]], [[4], [5, 6], [7]]):
        for sentence in sentences:
            builder.add_item(torch.tensor(sentence, dtype=torch.int64))
        builder.end_document()
    builder.finalize(str(tmp_path / "s.idx"))
    assert shards.verify(tmp_path / "s", vocab_size=8).documents == 3
    assert [shards.read(tmp_path / "s", n) for n in range(3)] == [[1, 2, 3], [], [4, 5, 6, 7]]


def write_with_megatron(prefix: Path, ids: list[list[int]], dtype: str) -> None:
    indexed = pytest.importorskip("megatron.core.datasets.indexed_dataset")
    import torch

    builder = indexed.IndexedDatasetBuilder(f"{prefix}.bin", dtype=getattr(np, dtype))
    for document in ids:
        builder.add_document(torch.tensor(document, dtype=torch.int64), [len(document)])
    builder.finalize(f"{prefix}.idx")


@given(documents, st.sampled_from(["uint16", "int32"]))
@settings(deadline=None, max_examples=60)
def test_any_documents_come_back(tmp_path_factory, ids, dtype):
    prefix = tmp_path_factory.mktemp("s") / "s"
    with format.writer(prefix, dtype) as out:
        for document in ids:
            out.add([len(document)], np.array(document, dtype=dtype).tobytes())
    found = shards.verify(prefix, vocab_size=65_500)
    assert (found.documents, found.tokens) == (len(ids), sum(map(len, ids)))
    assert [shards.read(prefix, n) for n in range(len(ids))] == ids


def test_an_index_of_several_blocks(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 9, size=1000).tolist()
    content = []
    for name, block in (("small", 64), ("large", 1 << 20)):
        monkeypatch.setattr(format, "_BLOCK", block)
        with format.writer(tmp_path / name, "uint16") as out:
            out.add(lengths, bytes(2 * sum(lengths)))
        content.append((tmp_path / f"{name}.idx").read_bytes())
    assert content[0] == content[1]
    assert shards.verify(tmp_path / "small").documents == 1000


def test_the_dtype_is_megatrons_choice():
    assert [format.dtype_for(size) for size in (32_017, 65_499, 65_500, 128_256)] == [
        "uint16",
        "uint16",
        "int32",
        "int32",
    ]
