"""The kernels' checks tell right numbers from wrong ones; what has no CPU code stands here as plain PyTorch."""

from __future__ import annotations

import pytest

from tests.doctor.conftest import Plant
from toolkit.doctor.asking import Answer, ask

pytestmark = pytest.mark.slow  # torch is imported by each that fails

FLASH = """
import torch
def flash_attn_func(q, k, v, causal=False):
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal={causal}).transpose(1, 2){more}
"""
APEX = """
import torch
class FusedAdam(torch.optim.AdamW):
    def __init__(self, params, adam_w_mode=True, eps=1e-8, **rest):
        assert adam_w_mode
        super().__init__(params, eps={eps}, **rest)
"""
ENGINE = """
import torch
class Linear(torch.nn.Linear):
    def __init__(self, a, b, bias=True, params_dtype=None):
        super().__init__(a, b, bias=bias, dtype=params_dtype)
    def forward(self, x):
        return super().forward(x{detach})
"""


def tried(*kernels: str) -> dict[str, Answer]:
    questions = {f"kernel {kernel}": kernel for kernel in kernels}
    return {questions[question]: answer for question, answer in ask(list(questions), limit_s=120).items()}


def test_right_numbers(plant: Plant) -> None:
    plant("flash_attn", FLASH.format(causal="causal", more=""))
    plant("apex.optimizers", APEX.format(eps="eps"))
    plant("transformer_engine.pytorch", ENGINE.format(detach=""))
    answers = tried("matmul cpu", "attention cpu", "flash cpu", "apex cpu", "te cpu", "allreduce cpu 2")
    assert {name: answer.why for name, answer in answers.items() if not answer.ok} == {}
    assert answers["allreduce cpu 2"].value == {"backend": "gloo", "ranks": 2}
    assert 0 < answers["flash cpu"].value["error"] <= answers["flash cpu"].value["limit"]


def test_wrong_numbers(plant: Plant) -> None:
    plant("flash_attn", FLASH.format(causal="False", more=""))  # looks ahead
    plant("apex.optimizers", APEX.format(eps="1e-2"))
    plant("transformer_engine.pytorch", ENGINE.format(detach=".detach() + 0.5"))
    for name, answer in tried("flash cpu", "apex cpu", "te cpu").items():
        assert (answer.ending, answer.kind) == ("failed", "Wrong"), (name, answer)
        assert "off by" in answer.why


@pytest.mark.parametrize(("more", "why"), [(" * float('nan')", "off by nan"), ("[:, :1]", "shape")])
def test_no_numbers(plant: Plant, more: str, why: str) -> None:
    plant("flash_attn", FLASH.format(causal="causal", more=more))
    assert why in tried("flash cpu")["flash cpu"].why


def test_a_rank_that_dies_ends_the_all_reduce_at_once(plant: Plant) -> None:
    """Its partner would wait half an hour for it."""
    plant("sitecustomize", "import os, sys\nif sys.argv[0] == '-c' and sys.argv[3:4] == ['1']:\n"
          "    print('no such device', file=sys.stderr, flush=True)\n    os._exit(7)\n")  # fmt: skip
    answer = tried("allreduce cpu 2")["allreduce cpu 2"]
    assert answer.kind == "Wrong" and answer.why == "rank 1 of 2 ended with 7: no such device"
