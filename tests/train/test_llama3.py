"""A small Llama 3 goes through the stages: its tokenizer.json, its rotary base, attention within documents."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.test_tokenizer_json import make
from tests.train.conftest import launch
from tests.train.forks import Forks
from toolkit import checkpoint, tokenizer
from toolkit.stages.training import vocab_rows

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent


def test_a_small_llama_3_is_imported_trained_and_exported(forks: Forks, tmp_path: Path) -> None:
    import numpy as np
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    (tmp_path / "words").mkdir()
    words = tokenizer.load(make(tmp_path / "words"))
    base = tmp_path / "base"
    checkpoint.make_random_hf(
        base, layers=2, hidden=64, ffn=96, heads=4, kv_heads=2, vocab_size=words.vocab_size, max_positions=512,
        tokenizer=words.folder, seed=1, init_std=0.08, rope_theta=500000.0, bos_token_id=words.bos_id,
        eos_token_id=words.eos_id,
    )  # fmt: skip
    model = {"base": base, "family": "llama3", "name": "small", "layers": 2, "hidden": 64, "ffn": 96, "heads": 4}
    model |= {"kv_heads": 2, "base_vocab": words.vocab_size, "extra_tokens": "none", "rope_base": 500000.0}
    run = launch(
        tmp_path / "runs",
        *("stages=[corpus,shards,import,pretrain,export]", "parallel=tp1_pp1", "cluster.devices_per_node=1"),
        *("train.steps=3", "train.warmup_steps=1", "train.save_every=3", "train.valid_every=3"),
        *("data.reset_attention=true", "train.attention=flash"),
        *(f"model.{name}={value}" for name, value in model.items()),
    )
    rows = [json.loads(line) for line in (run.stage("pretrain") / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3]
    exported = run.stage("export-pretrain") / "hf"
    config = json.loads((exported / "config.json").read_text(encoding="utf-8"))
    assert (config["rope_theta"], config["vocab_size"]) == (500000.0, words.vocab_size)
    assert AutoTokenizer.from_pretrained(exported).encode("a dose", add_special_tokens=False) == words.encode("a dose")

    trained = run.stage("pretrain") / "checkpoints" / "step=2"
    assert vocab_rows(trained) >= words.vocab_size
    tokens = torch.randint(0, words.vocab_size, (2, 128), generator=torch.Generator().manual_seed(1))
    (tmp_path / "tokens.json").write_text(json.dumps(tokens.tolist()))
    folder = run.stage("shards") / "shards" / "tokenizer"
    command = [
        sys.executable,
        str(HERE / "megatron_logits.py"),
        str(run.path / "recipe.yaml"),
        str(trained),
        str(folder),
    ]
    command += [str(tmp_path / "tokens.json"), str(tmp_path / "out.npy")]
    assert forks.run_ranks(command, processes=1, folder=tmp_path, threads=1) == 0, (tmp_path / "log").read_text()[
        -2000:
    ]
    megatron = np.load(tmp_path / "out.npy")[..., : words.vocab_size]
    with torch.no_grad():
        hf = AutoModelForCausalLM.from_pretrained(exported, dtype=torch.float32)(tokens).logits.numpy()
        other = AutoModelForCausalLM.from_pretrained(exported, dtype=torch.float32, rope_theta=10000.0)(tokens)
    assert np.abs(hf - megatron).max() <= 1e-4
    assert np.abs(other.logits.numpy() - megatron).max() > 1e-3, "the rotary base makes no difference"
