"""FLOPs of one token as the sources of published TFLOP/s count them, for GPT's shapes and Llama's. What the toolkit
itself reports is `toolkit.flops`'.
"""

from __future__ import annotations

from collections.abc import Mapping

from toolkit.plan.setup import Setup

# A unit of a table of measurements -> (passes over a layer's products, over attention, of the head), each of two FLOPs
# a multiplication.
UNITS: Mapping[str, tuple[float, float, float]] = {
    "TF_hw_full_recompute": (4, 4, 3),  # arXiv 2104.04473: 96 B s l h^2 (1 + s/6h + V/16lh) of a step
    "TF_model_full_attn": (3, 3, 3),  # arXiv 2205.05198: 72 B s l h^2 (1 + s/6h + V/12lh); Megatron-LM's formula
    "TF_model_causal_attn": (3, 1.5, 3),  # a token sees half of its sequence on average
    "TF_6n": (3, 0, 3),  # products alone
}


def per_token(s: Setup, unit: str) -> float:
    """FLOPs of one token under the convention of a unit. Raises `KeyError` for another."""
    layers, attention, head = UNITS[unit]
    shape = s.shape
    products = shape.layers * s.layer_matrices
    scores = 2 * shape.layers * shape.hidden * s.seq
    return 2 * (layers * products + attention * scores + head * shape.vocab * shape.hidden)


def tflops(s: Setup, step_s: float, unit: str) -> float:
    """TFLOP/s of one GPU at so many seconds a step."""
    return s.tokens * per_token(s, unit) / step_s / s.world / 1e12


def tokens_per_s(s: Setup, tflops_of_one: float, unit: str) -> float:
    """Of all GPUs, from the published TFLOP/s of one."""
    return tflops_of_one * 1e12 * s.world / per_token(s, unit)
