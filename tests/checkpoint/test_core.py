"""megatron-core itself loads what import writes, at several layouts, and what it saves is exported bit-equal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkpoint.conftest import SMALL
from toolkit import checkpoint, cli, files
from toolkit.checkpoint.__main__ import main

pytest.importorskip("megatron.core")
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tp", "pp", "rows", "tied"),
    [(1, 1, 128, False), (2, 2, 256, False), (1, 2, 128, True)],  # 256: a larger tp pads more than import did
)
def test_core_loads_and_saves(tmp_path, capsys, tp, pp, rows, tied):
    hf = tmp_path / "hf"
    checkpoint.make_random_hf(hf, **{**SMALL, "layers": 4, "tied": tied, "init_std": 0.3})
    if tp * pp == 1:  # as Llama 3.1 and later
        scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                   "original_max_position_embeddings": 16}  # fmt: skip
        files.write_json(hf / "config.json", {**files.read_json(hf / "config.json"), "rope_scaling": scaling})
    checkpoint.import_hf(hf, tmp_path / "imported", progress=False)
    command = [
        *(sys.executable, "-W", "ignore", str(ROOT / "tests/checkpoint/core_job.py")),
        *(str(tmp_path / "imported"), str(hf / "config.json"), str(tmp_path / "saved")),
        *("--tp", str(tp), "--pp", str(pp), "--rows", str(rows)),
    ]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]

    seen = checkpoint.inspect(tmp_path / "saved")
    assert not seen.incomplete
    chunks = {tensor.name: tensor.chunks for tensor in seen.tensors}
    assert chunks["module.decoder.layers.mlp.linear_fc1.weight"] == 4 * 2 * tp  # core cuts gate and up by TP
    exported = checkpoint.export_hf(tmp_path / "saved", tmp_path / "back", config=hf, progress=False)
    assert exported.padded_vocab_size == rows
    assert checkpoint.diff(hf, tmp_path / "back").equal
    assert checkpoint.diff(tmp_path / "saved", hf).equal

    if tp * pp == 1:  # the meaning of the tensors too, not their places alone
        words = ["verify", tmp_path / "back", tmp_path / "saved", "--json"]
        assert cli.run(main, [str(word) for word in words]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["equal"] and found["bits"]["compared"] == 39 and found["why"] == ""
        logits = found["logits"]
        assert logits["largest"] > 0.1  # far from uniform, so that a wrong order of heads or halves would show
        assert logits["max_abs"] < 1e-4 and logits["top1_agreement"] == 1.0 and logits["tokens"] == 64
        wrong = checkpoint.make_random_hf(tmp_path / "wrong", **{**SMALL, "layers": 4, "seed": 8, "init_std": 0.3})
        assert wrong.layers == 4
        assert cli.run(main, ["verify", str(tmp_path / "wrong"), str(tmp_path / "saved"), "--json"]) == 1
        found = json.loads(capsys.readouterr().out)
        assert not found["equal"] and found["logits"]["max_abs"] > 0.1 and found["logits"]["top1_agreement"] < 0.9
