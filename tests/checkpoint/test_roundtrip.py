"""Import, export and back: every bit, every shape, every type; the folder that export writes is a model to
transformers.
"""

from __future__ import annotations

import json
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.checkpoint.conftest import SMALL, read_all
from toolkit import checkpoint, cli, files, tokenizer
from toolkit.checkpoint.__main__ import main
from toolkit.errors import CheckpointError, UsageError

torch = pytest.importorskip("torch")


@st.composite
def shapes(draw: st.DrawFn) -> dict:
    kv_heads = draw(st.integers(1, 4))
    heads = kv_heads * draw(st.integers(1, 4))
    return {
        "layers": draw(st.integers(1, 3)), "hidden": heads * 2 * draw(st.integers(1, 3)), "heads": heads,
        "kv_heads": kv_heads, "ffn": draw(st.integers(1, 40)), "vocab_size": draw(st.integers(1, 90)),
        "tied": draw(st.booleans()), "max_positions": 16, "seed": draw(st.integers(0, 2**31)), "tokenizer": None,
    }  # fmt: skip


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shape=shapes(), more=st.integers(0, 5), padding=st.integers(0, 40), shard=st.sampled_from([300, 10**9]))
def test_there_and_back_is_the_identity(tmp_path_factory, shape, more, padding, shard):
    root = tmp_path_factory.mktemp("trip")
    checkpoint.make_random_hf(root / "hf", **shape)
    vocab = shape["vocab_size"] + more
    checkpoint.import_hf(
        root / "hf", root / "imported", vocab_size=vocab, padded_vocab_size=vocab + padding, progress=False
    )
    checkpoint.export_hf(root / "imported", root / "back", config=root / "hf", shard_bytes=shard, progress=False)
    before, after = read_all(root / "hf"), read_all(root / "back")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert checkpoint.diff(root / "hf", root / "back").equal


@pytest.mark.parametrize("new_rows", ["copy_last", "mean"])
def test_new_tokens_and_padding(tmp_path, hf_folder, new_rows):
    done = checkpoint.import_hf(
        hf_folder, tmp_path / "imported", vocab_size=117, padded_vocab_size=128, new_rows=new_rows, progress=False
    )
    assert (done.base_vocab_size, done.vocab_size, done.padded_vocab_size) == (100, 117, 128)
    config = tmp_path / "imported" / "hf_config.json"
    exported = checkpoint.export_hf(tmp_path / "imported", tmp_path / "out", config=config, progress=False)
    assert (exported.vocab_size, exported.padded_vocab_size) == (117, 128)
    padded = checkpoint.export_hf(
        tmp_path / "imported", tmp_path / "padded", config=config, vocab_size=128, progress=False
    )
    assert padded.vocab_size == 128
    base, new, all_rows = (read_all(p) for p in (hf_folder, tmp_path / "out", tmp_path / "padded"))
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        assert new[name].shape == (117, 32)
        assert torch.equal(new[name][:100], base[name])
        row = base[name][-1] if new_rows == "copy_last" else base[name].double().mean(0).float()
        assert torch.equal(all_rows[name][100:], row.expand(28, 32))
    assert json.loads((tmp_path / "out" / "config.json").read_text())["vocab_size"] == 117


def test_default_padding_is_the_next_multiple_of_128(hf_folder, imported):
    record = files.read_json(imported / "import.json")
    assert (record["vocab_size"], record["padded_vocab_size"]) == (100, 128)
    for name, facts in record["files"].items():
        assert facts == {"bytes": (imported / name).stat().st_size, "sha256": files.sha256_file(imported / name)}
    assert {"weights/.metadata", "weights/common.pt", "weights/metadata.json", "hf_config.json"} < set(record["files"])


@pytest.mark.parametrize(
    ("sizes", "word"), [({"vocab_size": 99}, "below the base"), ({"padded_vocab_size": 99}, "below vocab_size")]
)
def test_a_vocabulary_does_not_shrink(tmp_path, hf_folder, sizes, word):
    with pytest.raises(UsageError, match=word):
        checkpoint.import_hf(hf_folder, tmp_path / "out", **sizes)
    assert not (tmp_path / "out").exists()


def test_export_cannot_invent_tokens(tmp_path, hf_folder, imported):
    with pytest.raises(CheckpointError, match=r"word_embeddings.weight.* not at least \[129, 32\]"):
        checkpoint.export_hf(imported, tmp_path / "out", config=hf_folder, vocab_size=129)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_types_are_kept_or_cast(tmp_path, hf_folder, dtype):
    from safetensors.torch import save_file

    base = read_all(hf_folder)
    source = tmp_path / "typed"
    source.mkdir()
    files.write_json(source / "config.json", {**files.read_json(hf_folder / "config.json"), "torch_dtype": dtype})
    typed = {name: tensor.to(getattr(torch, dtype)) for name, tensor in base.items()}
    save_file(typed, source / "model.safetensors")
    checkpoint.import_hf(source, tmp_path / "imported", progress=False)
    kept = checkpoint.export_hf(tmp_path / "imported", tmp_path / "kept", config=source, progress=False)
    assert kept.dtype == dtype and checkpoint.diff(source, tmp_path / "kept").equal
    cast = checkpoint.export_hf(tmp_path / "imported", tmp_path / "cast", config=source, dtype="bf16", progress=False)
    assert cast.dtype == files.read_json(tmp_path / "cast" / "config.json")["torch_dtype"] == "bfloat16"
    after = read_all(tmp_path / "cast")
    assert all(torch.equal(after[name], tensor.to(torch.bfloat16)) for name, tensor in typed.items())


def test_qkv_of_each_group_lie_together(hf_folder, imported):
    """Megatron's order, written out once by hand: per KV group its queries, its key, its value; gate above up."""
    from tests.checkpoint.torch_writer import read
    from toolkit.checkpoint.distcp import Reader

    base, reader = read_all(hf_folder), Reader(imported)
    prefix, layer = "module.decoder.layers.", "model.layers.1."
    q, k, v = (base[f"{layer}self_attn.{part}_proj.weight"] for part in "qkv")
    qkv = read(reader, f"{prefix}self_attention.linear_qkv.weight", layer=1)
    expected = torch.cat([q[0:16], k[0:8], v[0:8], q[16:32], k[8:16], v[8:16]])  # 2 groups of 2 heads of 8
    assert torch.equal(qkv, expected)
    fc1 = read(reader, f"{prefix}mlp.linear_fc1.weight", layer=1)
    assert torch.equal(fc1, torch.cat([base[f"{layer}mlp.{part}_proj.weight"] for part in ("gate", "up")]))


def test_the_exported_folder_is_whole(tmp_path, hf_folder, imported, tokenizer_folder):
    out = tmp_path / "out"
    done = checkpoint.export_hf(
        imported, out, config=hf_folder, tokenizer=tokenizer_folder, shard_bytes=40_000, progress=False
    )
    names = {path.name for path in out.iterdir()}
    assert set(done.files) == names
    assert {"tokenizer.model", "added_tokens.json", "generation_config.json", "README.md"} < names
    assert "corpus.txt" not in names
    index = files.read_json(out / "model.safetensors.index.json")
    assert index["metadata"]["total_size"] == done.nbytes and len(set(index["weight_map"].values())) > 1
    record = files.read_json(out / "conversion.json")
    assert set(record["files"]) == names - {"conversion.json"}
    assert all(files.sha256_file(out / name) == facts["sha256"] for name, facts in record["files"].items())
    assert "Not for clinical use" in (out / "README.md").read_text()
    base, config = (files.read_json(folder / "config.json") for folder in (hf_folder, out))
    assert config == base
    assert (out / "tokenizer.model").read_bytes() == (tokenizer_folder / "tokenizer.model").read_bytes()


def test_a_tokenizer_of_more_tokens_than_rows_is_refused(tmp_path, hf_folder, imported):
    spm = pytest.importorskip("sentencepiece")
    lines = [f"dose {n} of drug {n * 7} given twice" for n in range(200)]
    (tmp_path / "base").mkdir()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_prefix=str(tmp_path / "base" / "tokenizer"), vocab_size=100,
        model_type="bpe", hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    size = tokenizer.load(tmp_path / "base").vocab_size
    tokenizer.extend(tmp_path / "base", tmp_path / "more", [f"[{n}]" for n in range(101 - size)])
    words = ["export", str(imported), str(tmp_path / "out"), "--config", str(hf_folder)]
    with pytest.raises(CheckpointError, match="has 101 tokens, and the model is cut to 100"):
        main([*words, "--tokenizer", str(tmp_path / "more" / "tokenizer.model")])
    assert not (tmp_path / "out").exists()
    assert main([*words, "--tokenizer", str(tmp_path / "more"), "--vocab-size", "101"]) == 0
    assert (tmp_path / "out" / "added_tokens.json").is_file()
    for name in ("tokenizer.model", "added_tokens.json"):
        (tmp_path / "more" / name).unlink()
    with pytest.raises(CheckpointError, match="has 101 tokens, and the model is cut to 100"):
        main([*words, "--tokenizer", str(tmp_path / "more")])


@pytest.mark.parametrize("tied", [False, True])
def test_transformers_loads_it(tmp_path, tied):
    transformers = pytest.importorskip("transformers")
    checkpoint.make_random_hf(tmp_path / "hf", **{**SMALL, "tied": tied})
    checkpoint.import_hf(tmp_path / "hf", tmp_path / "imported", vocab_size=117, progress=False)
    config = tmp_path / "imported" / "hf_config.json"
    checkpoint.export_hf(tmp_path / "imported", tmp_path / "out", config=config, shard_bytes=50_000, progress=False)
    load = transformers.AutoModelForCausalLM.from_pretrained
    model, info = load(tmp_path / "out", output_loading_info=True, local_files_only=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"))
    base = load(tmp_path / "hf", local_files_only=True)
    ids = torch.arange(2 * 20).reshape(2, 20) % 100
    with torch.no_grad():
        before, after = base(ids).logits, model(ids).logits
    assert after.shape == (2, 20, 117)
    assert torch.equal(after[..., :100], before)


def test_rope_and_other_fields_are_carried_over(tmp_path, hf_folder):
    source = tmp_path / "hf"
    source.mkdir()
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 64}  # fmt: skip
    config = {**files.read_json(hf_folder / "config.json"), "rope_theta": 500000.0, "rope_scaling": scaling, "x": [1]}
    files.write_json(source / "config.json", config)
    files.write_json(source / "generation_config.json", {"eos_token_id": [2, 5], "temperature": 0.6, "do_sample": True})
    (source / "model.safetensors").write_bytes((hf_folder / "model.safetensors").read_bytes())
    shape = checkpoint.read_shape(source)
    assert (shape.rope_theta, dict(shape.rope_scaling)) == (500000.0, scaling)
    checkpoint.import_hf(source, tmp_path / "imported", progress=False)
    for n, stated in enumerate((source, None)):  # without a config, the import's
        out = tmp_path / f"out{n}"
        checkpoint.export_hf(tmp_path / "imported", out, config=stated, progress=False)
        assert files.read_json(out / "config.json") == config
        assert files.read_json(out / "generation_config.json")["eos_token_id"] == [2, 5]


def test_the_tokenizer_goes_along_while_its_tokens_are_the_models(tmp_path, hf_folder, tokenizer_folder):
    source = tmp_path / "hf"
    shutil.copytree(hf_folder, source)
    shutil.copytree(tokenizer_folder, source, dirs_exist_ok=True)
    checkpoint.import_hf(source, tmp_path / "same", progress=False)
    checkpoint.import_hf(source, tmp_path / "more", vocab_size=117, progress=False)
    for n, (origin, config, size, there) in enumerate(
        (("same", None, None, True), ("same", source, None, True), ("same", source, 90, False),
         ("more", None, None, False), ("more", source, 117, False))
    ):  # fmt: skip
        out = tmp_path / f"out{n}"
        done = checkpoint.export_hf(tmp_path / origin, out, config=config, vocab_size=size, progress=False)
        assert done.tokenizer == (out / "tokenizer.model").exists() == (out / "added_tokens.json").exists() == there
        assert not (out / "corpus.txt").exists()


def test_rope_parameters_of_newer_configs(tmp_path, hf_folder):
    config = files.read_json(hf_folder / "config.json")
    del config["rope_theta"], config["rope_scaling"], config["torch_dtype"]
    config |= {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 20000.0}, "dtype": "bfloat16"}
    files.write_json(tmp_path / "config.json", config)
    shape = checkpoint.read_shape(tmp_path / "config.json")
    assert (shape.rope_theta, shape.rope_scaling["factor"], shape.dtype) == (20000.0, 2.0, "bfloat16")


def test_a_tied_model_may_store_its_head_twice(tmp_path):
    from safetensors.torch import save_file

    checkpoint.make_random_hf(tmp_path / "hf", **{**SMALL, "tied": True})
    tensors = read_all(tmp_path / "hf")
    assert "lm_head.weight" not in tensors
    head = tensors["model.embed_tokens.weight"].clone()
    save_file({**tensors, "lm_head.weight": head}, tmp_path / "hf" / "model.safetensors")
    checkpoint.check_hf(tmp_path / "hf")
    head[3, 3] += 1
    save_file({**tensors, "lm_head.weight": head}, tmp_path / "hf" / "model.safetensors")
    with pytest.raises(CheckpointError, match="differs from the embedding"):
        checkpoint.check_hf(tmp_path / "hf")


def test_random_base(tmp_path, tokenizer_folder):
    fields = {**SMALL, "hidden": 64, "layers": 2, "tokenizer": tokenizer_folder}
    shape = checkpoint.make_random_hf(tmp_path / "a", **fields)
    checkpoint.make_random_hf(tmp_path / "b", **fields)
    checkpoint.make_random_hf(tmp_path / "c", **{**fields, "seed": 8})
    assert files.fingerprint(tmp_path / "a") == files.fingerprint(tmp_path / "b")
    assert not checkpoint.diff(tmp_path / "a", tmp_path / "c").equal
    assert (shape.layers, shape.head_dim) == (2, 16)
    tensors = read_all(tmp_path / "a")
    assert torch.equal(tensors["model.norm.weight"], torch.ones(64))
    std = {name: float(tensor.std()) for name, tensor in tensors.items() if tensor.ndim == 2}
    assert abs(std["model.embed_tokens.weight"] - 0.02) < 0.001
    assert abs(std["model.layers.1.mlp.down_proj.weight"] - 0.01) < 0.001  # 0.02 / sqrt(2 * 2 layers)
    assert (tmp_path / "a" / "tokenizer.model").is_file()
    with pytest.raises(CheckpointError, match="multiple of 'num_key_value_heads'"):
        checkpoint.make_random_hf(tmp_path / "d", **{**fields, "kv_heads": 3})


def test_diff_tells_what_differs(tmp_path, hf_folder, imported):
    from safetensors.torch import save_file

    tensors = read_all(hf_folder)
    (tmp_path / "config.json").write_text((hf_folder / "config.json").read_text())
    tensors["model.layers.2.mlp.up_proj.weight"][5, 6] += 0.25
    tensors["model.norm.weight"] = tensors["model.norm.weight"].double()
    tensors["lm_head.weight"][0, 0] = float("nan")
    save_file(tensors, tmp_path / "model.safetensors")
    for a in (hf_folder, imported):
        found = checkpoint.diff(a, tmp_path)
        gaps = {each.name: each for each in found.differing}
        assert not found.equal and found.compared == len(tensors)
        assert set(gaps) == {"model.layers.2.mlp.up_proj.weight", "model.norm.weight", "lm_head.weight"}
        assert gaps["model.layers.2.mlp.up_proj.weight"].max_abs == pytest.approx(0.25, abs=1e-6)
        assert gaps["model.norm.weight"].max_abs == 0.0 and gaps["model.norm.weight"].b == "float64 [32]"
        assert gaps["lm_head.weight"].max_abs != gaps["lm_head.weight"].max_abs  # NaN
    assert checkpoint.diff(imported, hf_folder).equal and checkpoint.diff(imported, imported).equal
    checkpoint.make_random_hf(tmp_path / "taller", **{**SMALL, "layers": 4})
    checkpoint.import_hf(tmp_path / "taller", tmp_path / "taller_in", progress=False)
    assert len(checkpoint.diff(hf_folder, tmp_path / "taller").only_b) == 9
    stacked = checkpoint.diff(imported, tmp_path / "taller_in")
    assert {each.max_abs for each in stacked.differing} >= {None} and not stacked.equal


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"rope_theta": 500000.0}, "rope_theta: 10000.0 | 500000.0"),
        ({"rms_norm_eps": 1e-6}, "rms_norm_eps: 1e-05 | 1e-06"),
        ({"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 4}, "num_attention_heads: 4 | 8"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, 'rope_scaling: null | {"rope_type": "linear"'),
        ({"rope_scaling": {"rope_type": "default"}, "max_position_embeddings": 128}, None),
    ],
)
def test_the_same_weights_under_another_config_are_another_model(tmp_path, hf_folder, imported, changes, told, capsys):
    other = tmp_path / "other"
    shutil.copytree(hf_folder, other)
    files.write_json(other / "config.json", {**files.read_json(hf_folder / "config.json"), **changes})
    for first in (hf_folder, imported, imported / "weights"):
        found = checkpoint.diff(first, other)
        assert found.equal == (not found.config) == (told is None)
        assert told is None or found.config[0].startswith(told)
    assert cli.run(main, ["verify", str(other), str(imported), "--no-logits"]) == (told is not None)
    assert ("config differs" in capsys.readouterr().out) == (told is not None)


def test_the_card_tells_of_the_origin_and_takes_scores(tmp_path, hf_folder, imported, capsys):
    out = tmp_path / "out"
    checkpoint.export_hf(imported, out, config=hf_folder, origin={"recipe": "a|b\nc"}, progress=False)
    assert (
        "| recipe | a\\|b c |" in (out / "README.md").read_text() and "## Scores" not in (out / "README.md").read_text()
    )
    row = {"model": "m", "benchmark": "medqa", "mode": "letter", "accuracy": 0.5, "ci95": [0.4, 0.6], "n": 100}
    files.write_json(tmp_path / "scores.json", [row, {**row, "model": "other"}])
    words = ["card", str(out), "--scores", str(tmp_path / "scores.json")]
    assert cli.run(main, words) == 2 and "There are: m, other" in capsys.readouterr().err
    assert cli.run(main, [*words, "--model", "m"]) == 0
    text = (out / "README.md").read_text()
    assert "| medqa | letter | 50.0 % | 40.0 to 60.0 | 100 |" in text and "| recipe |" in text
    record = files.read_json(out / "conversion.json")
    assert record["files"]["README.md"]["sha256"] == files.sha256_file(out / "README.md") and len(record["scores"]) == 1
    for spoilt in ("[", "{}", '[{"model": "m"}]', '[{"model": "m", "ci95": 3}]'):
        (tmp_path / "scores.json").write_text(spoilt)
        assert cli.run(main, [*words, "--model", "m"]) in (1, 2), spoilt
        assert (out / "README.md").read_text() == text
    files.write_json(tmp_path / "scores.json", [row])
    assert cli.run(main, ["card", str(hf_folder), *words[2:]]) == 1  # no export
