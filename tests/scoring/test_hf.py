from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from tests.scoring.conftest import save_llama
from toolkit.errors import CheckpointError, DataError, MissingPackage
from toolkit.scoring import check_hf, load_model
from toolkit.scoring.hf import named

pytest.importorskip("transformers")
WEIGHTS = "model.safetensors"
GONE = "model.layers.1.mlp.up_proj.weight"


def tensors_of(folder: Path) -> dict:
    from safetensors.torch import load_file

    return load_file(folder / WEIGHTS)


def save(folder: Path, tensors: dict, name: str = WEIGHTS) -> None:
    from safetensors.torch import save_file

    save_file(tensors, folder / name, metadata={"format": "pt"})


def shard(folder: Path) -> dict:
    """Split the weights over two files with an index; returns the index."""
    tensors = tensors_of(folder)
    (folder / WEIGHTS).unlink()
    names = sorted(tensors)
    files = {name: f"model-{1 + (i % 2):05d}-of-00002.safetensors" for i, name in enumerate(names)}
    for file in set(files.values()):
        save(folder, {name: tensors[name] for name in names if files[name] == file}, file)
    index = {"metadata": {}, "weight_map": files}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return index


def refused(folder: Path, *words: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        load_model(folder)
    for word in words:
        assert word in str(caught.value)


def test_a_whole_folder_is_read(llama: Path):
    shapes = check_hf(llama)
    assert shapes["model.embed_tokens.weight"] == (420, 32)
    loaded = load_model(llama)
    assert (loaded.vocab_size, loaded.window, loaded.notes) == (420, 256, ())
    assert not loaded.model.training


@pytest.mark.parametrize(("path", "name"), [("base/hf", "base"), ("Llama-2-7b", "Llama-2-7b"), ("/hf", "hf")])
def test_what_a_model_is_called(tmp_path: Path, path: str, name: str):
    assert named(tmp_path / path) == name


def test_shards_are_read(llama: Path, llama_copy: Path):
    shard(llama_copy)
    assert check_hf(llama_copy) == check_hf(llama)
    load_model(llama_copy)


def test_what_is_not_there(llama_copy: Path, tmp_path: Path):
    refused(tmp_path / "none", "no such model folder")
    refused(tmp_path / "model" / "config.json", "no such model folder")
    (llama_copy / WEIGHTS).rename(llama_copy / "pytorch_model.bin")
    refused(llama_copy, "no weights", "never loaded")
    (llama_copy / "pytorch_model.bin").unlink()
    refused(llama_copy, "no weights: neither model.safetensors nor model.safetensors.index.json")
    (llama_copy / "config.json").unlink()
    refused(llama_copy, "config.json is missing")


def test_a_missing_tensor_is_named(llama_copy: Path):
    tensors = tensors_of(llama_copy)
    del tensors[GONE]
    save(llama_copy, tensors)
    refused(llama_copy, f"the tensor '{GONE}' is missing")
    del tensors["lm_head.weight"]
    save(llama_copy, tensors)
    refused(llama_copy, "the tensor 'lm_head.weight' is missing (2 in all)")


def test_a_tensor_of_another_shape(llama_copy: Path):
    tensors = tensors_of(llama_copy)
    save(llama_copy, tensors | {GONE: tensors[GONE][:, :16].contiguous()})
    refused(llama_copy, f"the tensor '{GONE}' has another shape")


def test_a_tensor_too_many_is_noted(llama_copy: Path):
    tensors = tensors_of(llama_copy)
    save(llama_copy, tensors | {"model.extra": tensors[GONE].clone()})
    assert load_model(llama_copy).notes == ("tensors in the files that are no part of the model: 1",)


@pytest.mark.parametrize("keep", [0, 4, 8, 100, -1])
def test_truncated_weights(llama_copy: Path, keep: int):
    raw = (llama_copy / WEIGHTS).read_bytes()
    (llama_copy / WEIGHTS).write_bytes(raw[:keep])
    refused(llama_copy, WEIGHTS, "cut short", str(len(raw[:keep])))


@pytest.mark.parametrize(
    "header", [b"[1, 2]", b'{"a": 3}', b'{"a": {"data_offsets": [0]}}', b'{"a": ', b"\xff\xff", b"[" * 90_000]
)
def test_damaged_headers(llama_copy: Path, header: bytes):
    (llama_copy / WEIGHTS).write_bytes(len(header).to_bytes(8, "little") + header)
    refused(llama_copy, WEIGHTS, "damaged safetensors header")


def test_a_tied_output_needs_no_tensor_of_its_own(tmp_path: Path, tokenizer_folder: Path):
    folder = save_llama(tmp_path / "tied", tokenizer_folder, tie_word_embeddings=True)
    assert "lm_head.weight" not in check_hf(folder)
    assert load_model(folder).notes == ()


def test_without_transformers(llama: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingPackage, match="scoring needs transformers"):
        load_model(llama)


def test_bad_indexes(llama_copy: Path):
    index = shard(llama_copy)
    path = llama_copy / "model.safetensors.index.json"
    for change, words in (
        ({GONE: "model-00003-of-00002.safetensors"}, "which is missing"),
        ({"model.other": "model-00001-of-00002.safetensors"}, "lacks the tensor 'model.other'"),
        ({GONE: "../model/model-00001-of-00002.safetensors"}, "outside its folder"),
    ):
        path.write_text(json.dumps(index | {"weight_map": index["weight_map"] | change}))
        refused(llama_copy, words)
    for text in ("{", "[]", "{}", '{"weight_map": {"a": "b"}}', '{"metadata": {}, "weight_map": {"a": 3}}'):
        path.write_text(text)
        refused(llama_copy, path.name)
    left_out = {name: file for name, file in index["weight_map"].items() if name != GONE}
    path.write_text(json.dumps({"metadata": {}, "weight_map": left_out}))
    refused(llama_copy, f"'{GONE}' is missing")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"model_type": "no_such"}, "no_such"),
        ({"num_hidden_layers": 10**9}, "1000000000"),
        ({"num_hidden_layers": "two"}, "'two'"),
        ({"num_hidden_layers": 3}, "model.layers.2."),
        ({"hidden_size": 64}, "shape"),
        ({"hidden_act": "no_such"}, "cannot be loaded"),
        (
            {"model_type": "own", "auto_map": {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"}},
            "cannot be loaded",
        ),
    ],
)
def test_bad_configs(llama_copy: Path, change: dict, word: str):
    (llama_copy / "own.py").write_text("raise SystemExit('code of the folder ran')")
    path = llama_copy / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    refused(llama_copy, word)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000])
def test_damaged_config(llama_copy: Path, text: str):
    (llama_copy / "config.json").write_text(text)
    refused(llama_copy, "config.json")


def test_tokenizers(tmp_path: Path, tokenizer_folder: Path, llama_copy: Path):
    refused(save_llama(tmp_path / "small", tokenizer_folder, vocab_size=100), "420 tokens, and 100 rows")
    with_own = load_model(llama_copy)
    (llama_copy / "tokenizer.model").unlink()
    with_hf = load_model(llama_copy)
    text = "Question: What may Brolax cause?\nAnswer: A"
    assert with_own.encode(text) == with_hf.encode(text)
    for file in llama_copy.glob("*token*"):
        file.unlink()
    with pytest.raises(DataError, match="no tokenizer"):
        load_model(llama_copy)
    shutil.copy(tokenizer_folder / "tokenizer.model", llama_copy)
    (llama_copy / "tokenizer.model").write_bytes(b"\x00" * 10)
    with pytest.raises(DataError):
        load_model(llama_copy)
