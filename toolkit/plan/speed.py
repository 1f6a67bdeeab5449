"""How long one training step takes, by part, and within which range: the time of each layer and link from `work` and
`traffic`, put together by the schedule of the pipeline. Knows setups, and neither sources nor sites.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from toolkit.plan import traffic, work
from toolkit.plan.calibrated import PARAMS, Params
from toolkit.plan.setup import Setup

_HIDDEN = 0.7  # of a collective, where it runs behind a matrix product, which it slows in turn
_IN_PIECES = 0.6  # of tensor-parallel communication where it runs in pieces behind its own products
_ENDS = 0.1  # of traffic that overlaps: its first and last pieces have nothing to hide behind
_ADAM_BYTES = 44  # of each parameter an optimizer holds: norm, clip, two moments, master weights, weights
_ZERO_BYTES = 8  # of each parameter: gradients set to zero, and scaled


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """Seconds of one step; `parts` add up to `seconds`; published steps lie between `low` and `high`."""

    parts: Mapping[str, float]
    seconds: float
    low: float
    high: float


def step(s: Setup, params: Params = PARAMS) -> StepTime:
    """The step of a training that runs undisturbed: without saving, validating and starting.

    One forward, one backward: m micro-batches go through the slowest stage one after another, and (pp - 1) / vp more
    through the others fill and drain the pipeline (arXiv 2104.04473, section 2.2).
    """
    rates = work.Rates(s, params)
    one = work.layer(s, rates, params)
    tensor = traffic.all_reduce(s, params)
    passed = traffic.context(s, params)
    waits, waits_backward = _exposed(passed, one.attention), _exposed(2 * passed, one.attention_backward)
    ring = waits + waits_backward
    again = {"full": one.forward, "selective": one.attention if s.fused or not s.flash_attention else 0.0}
    compute = one.forward + one.backward + again.get(s.recompute, 0.0)
    shown = tensor * _reductions(s)
    each = compute + shown + ring + one.accumulate
    layers, m = max(s.stage_layers), s.micro_batches
    middle = layers * each
    slowest = max(middle, s.stage_layers[-1] * each + work.head(s, rates))
    sends = traffic.stage_to_stage(s, params)
    if s.overlap_p2p:
        sends *= 1 - _HIDDEN
    held = layers * s.layer_matrices / s.tp + s.vocab_padded * s.shape.hidden / s.tp * _embeddings(s)
    before, after = traffic.reduction(s, params, held)
    if s.overlap_dp:
        before = _exposed(before, layers * (one.backward + one.accumulate + waits_backward))
        after = _exposed(after, layers * (one.forward + waits))
    own = held / (s.dp * s.cp) if s.distributed_optimizer else held
    parts = {
        "compute": m * layers * compute,
        "tensor_parallel": m * layers * shown,
        "context_parallel": m * layers * ring,
        "accumulation": m * layers * one.accumulate,
        "logits": m * (slowest - middle),
        "pipeline": m * sends,
        "bubble": (s.pp - 1) * (middle + sends) / s.vp,
        "data_parallel": before + after + traffic.tied(s, params),
        "optimizer": (own * _ADAM_BYTES + held * _ZERO_BYTES) / rates.memory,
    }
    parts = {name: seconds * params.site for name, seconds in parts.items() if seconds > 0}
    seconds = sum(parts.values())
    return StepTime(parts=parts, seconds=seconds, low=seconds * params.low, high=seconds * params.high)


def tokens_per_s(s: Setup, params: Params = PARAMS) -> float:
    """Of all GPUs together."""
    return s.tokens / step(s, params).seconds


def _reductions(s: Setup) -> float:
    """Tensor-parallel all-reduces of one layer that show, of 2 forward, 2 backward, and 2 where all is recomputed.
    Where the sequence is split, the backward pass gathers the layers' inputs once more (arXiv 2205.05198).
    """
    again = 2.0 if s.recompute == "full" else 0.0
    if s.overlap_tp:
        return (4 + again) * (1 - _IN_PIECES)
    if s.sequence_parallel:
        return again + (3 + (1 - _HIDDEN) if s.overlap_backward else 5)
    return again + (2 + 2 * (1 - _HIDDEN) if s.overlap_backward else 4)


def _embeddings(s: Setup) -> int:
    """Embedding and head on one rank: with a pipeline, the first and the last hold one each."""
    return 1 if s.pp > 1 or s.tied else 2


def _exposed(seconds: float, behind: float) -> float:
    """What shows of traffic that runs behind so many seconds of computation."""
    return max(_ENDS * seconds, seconds - behind)
