"""The script that measures on a GPU: its code on the CPU, and where there is a GPU what it is for."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).with_name("bench_layers.py")


def bench(*words: str) -> dict[str, Any]:
    done = subprocess.run([sys.executable, str(SCRIPT), "--json", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def gpu() -> None:
    asked = subprocess.run(
        [sys.executable, "-c", "import torch; print(torch.cuda.is_available())"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "True" not in asked.stdout:
        pytest.skip("no GPU here")


@pytest.mark.parametrize(
    ("name", "gib", "key"),
    [
        ("NVIDIA A100-SXM4-80GB", 79.3, "a100_80gb_sxm"),
        ("NVIDIA A100 80GB PCIe", 79.3, "a100_80gb_pcie"),
        ("NVIDIA H100 NVL", 93.0, "h100_94gb_nvl"),
        ("NVIDIA H200", 139.8, "h200_141gb_sxm"),
    ],
)
def test_the_peak_is_that_of_the_gpu_that_is_there(name: str, gib: float, key: str) -> None:
    spec = importlib.util.spec_from_file_location("bench_layers", SCRIPT)
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.gpu_type(name, gib) == key


def test_the_script_itself_works_without_a_gpu() -> None:
    found = bench("--cpu", "--tiny", "--steps", "2", "--micro-batch", "1", "--micro-batches", "2")
    assert found["layers"] == 2 and found["tokens_per_step"] == 256
    for side in ("stack", "plain"):
        assert found[side]["tokens_per_s"] == pytest.approx(256 / found[side]["step_s"], rel=0.01)
    assert found["last_loss"] < 11.5, "a random model's loss is ln 32,128 = 10.4, and more where weights are larger"


def test_fp32_losses_of_the_gpu_are_those_of_the_cpu(gpu: None) -> None:
    assert bench("--parity", "--steps", "10")["losses_differ_by"] <= 2e-3


def test_seven_b_layers_on_the_gpu_learn_and_are_measured(gpu: None) -> None:
    found = bench("--steps", "10")
    assert found["layers"] >= 1 and found["hidden"] == 4096 and found["precision"] == "bf16"
    assert 0 < found["stack"]["mfu_6n_causal"] < 1
