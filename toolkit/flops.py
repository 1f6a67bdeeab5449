"""Floating-point operations of training a dense Llama on one token, under conventions that are named, and the model
FLOP utilization that follows. The same speed is 41.7 % or 44.7 % of the same GPUs by convention alone, so no figure
stands here without its name.
"""

from __future__ import annotations

from collections.abc import Mapping

from toolkit.models import Shape

CONVENTIONS: Mapping[str, str] = {
    "6n": "6 FLOPs a parameter, no attention",
    "6n_causal": "6 FLOPs a multiplied parameter, and causal attention",
    "6n_full": "6 FLOPs a multiplied parameter, and attention over the whole sequence",
    "paper": "6 FLOPs a parameter of the nominal size",
}


def per_token(shape: Shape, seq_length: int, convention: str, nominal_parameters: float | None = None) -> float | None:
    """FLOPs of forward and backward for one token of a sequence of `seq_length`; `shape.vocab` without padding.

    A matrix of N parameters costs 2N in the forward pass and 4N in the backward pass (Kaplan et al. 2020, section 2.1).

    `6n`         6 x all parameters, the input embedding too.
    `6n_causal`  6 x the parameters that a token is multiplied with (a look-up in the input embedding is no product)
                 + 6 x layers x hidden x seq_length: scores and values, 2 x 2 x hidden x seq_length a layer forward and
                 twice that backward, halved because a token sees half of its sequence on average.
    `6n_full`    the same without the half: 12 x layers x hidden x seq_length, as in PaLM's appendix B
                 (arXiv 2204.02311) and Megatron-LM's formula.
    `paper`      6 x `nominal_parameters`, as the MEDITRON paper counts (arXiv 2311.16079, appendix A: 40,200 tokens/s
                 are 1.688e16 FLOP/s, which is 6 x 70e9 x 40,200); None where no nominal size is stated.

    Recomputed activations count in none of them. Raises `KeyError` for another name.
    """
    attention = 12 * shape.layers * shape.hidden * seq_length
    multiplied = 6 * (shape.parameters - shape.vocab * shape.hidden)
    if convention == "paper":
        return None if nominal_parameters is None else 6.0 * nominal_parameters
    return float(
        {"6n": 6 * shape.parameters, "6n_causal": multiplied + attention // 2, "6n_full": multiplied + attention}[
            convention
        ]
    )


def by_convention(shape: Shape, seq_length: int, nominal_parameters: float | None = None) -> dict[str, float]:
    """FLOPs of one token under every convention that has a figure for this model."""
    found = {name: per_token(shape, seq_length, name, nominal_parameters) for name in CONVENTIONS}
    return {name: value for name, value in found.items() if value is not None}


def mfu(tokens_per_s: float, devices: int, peak_tflops: float, flops_per_token: float) -> float:
    """Model FLOP utilization as a fraction: what the tokens needed over what `devices` of `peak_tflops` could have done
    (dense bf16 TFLOP/s each). Above 1 is no utilization but a wrong GPU type or peak.
    """
    return tokens_per_s * flops_per_token / (devices * peak_tflops * 1e12)
