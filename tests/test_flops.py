"""FLOPs under their named conventions, and the paper's utilization from its speed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit import flops
from toolkit.models import Shape

LLAMA_70B = Shape(layers=80, hidden=8192, ffn=28672, heads=64, kv_heads=8, vocab=32_000)


@pytest.mark.parametrize(("name", "share"), [("paper", 42.3), ("6n", 41.7), ("6n_causal", 43.1), ("6n_full", 44.7)])
def test_the_papers_speed_under_each_convention(name: str, share: float) -> None:
    """MEDITRON paper, section 4.1: 40,200 tokens/s on 128 A100 (312 TFLOP/s) at 4,096 tokens are 42.3 %."""
    needed = flops.per_token(LLAMA_70B, 4096, name, 70e9)
    assert needed is not None
    assert round(100 * flops.mfu(40_200, 128, 312, needed), 1) == share


def test_the_papers_flops() -> None:
    assert 40_200 * flops.per_token(LLAMA_70B, 4096, "paper", 70e9) == pytest.approx(1.6884e16)


def test_a_model_without_a_nominal_size_has_no_such_figure() -> None:
    assert flops.per_token(LLAMA_70B, 4096, "paper") is None
    assert set(flops.by_convention(LLAMA_70B, 4096)) == {"6n", "6n_causal", "6n_full"}
    assert list(flops.by_convention(LLAMA_70B, 4096, 70e9)) == list(flops.CONVENTIONS)
    with pytest.raises(KeyError):
        flops.per_token(LLAMA_70B, 4096, "7n")


def test_by_hand() -> None:
    """One layer of width 4, 10 pieces, 3 tokens: the products that a token takes part in, counted one by one."""
    tiny = Shape(layers=1, hidden=4, ffn=6, heads=2, kv_heads=1, vocab=10)
    products = 4 * 4 + 2 * 4 * 2 + 4 * 4 + 3 * 4 * 6 + 4 * 10  # Q; K and V; O; gate, up, down; the head
    norms = 2 * 4 + 4
    scores_and_values = 2 * (2 * 4 * 3)
    assert flops.per_token(tiny, 3, "6n_full") == 6 * (products + norms) + 3 * scores_and_values
    assert flops.per_token(tiny, 3, "6n") == 6 * (products + norms + 4 * 10)


@given(
    st.builds(
        lambda layers, heads, width, groups, ffn, vocab: Shape(
            layers=layers, hidden=heads * groups * width, ffn=ffn, heads=heads * groups, kv_heads=groups, vocab=vocab
        ),
        *(st.integers(1, 64) for _ in range(6)),
    ),
    st.integers(1, 10_000),
)
def test_attention_only_adds(shape: Shape, length: int) -> None:
    found = flops.by_convention(shape, length)
    assert 0 < found["6n_causal"] <= found["6n_full"]
    assert found["6n_full"] - found["6n_causal"] == 6 * shape.layers * shape.hidden * length
    assert flops.mfu(2.0, 2, 1e-12, 3.0) == 3.0
