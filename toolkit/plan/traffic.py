"""What one GPU sends in a step, in seconds: to its tensor ranks, to the next pipeline stage, to its data ranks. Counts
bytes and the rates of the links they take; what of it shows in a step is `speed`'s.
"""

from __future__ import annotations

from toolkit.plan.calibrated import Params
from toolkit.plan.setup import Setup

_BF16 = 2
_COLLECTIVE_S = 30e-6  # from its call to its first byte, for one collective within a node


def link(s: Setup, params: Params) -> float:
    """Bytes a second of one GPU within its node, one direction."""
    both = s.gpu.nvlink_gb_s or s.gpu.pcie_gb_s or 32.0
    return both / 2 * 1e9 * params.link


def nic(s: Setup, params: Params) -> float:
    """Bytes a second of one GPU's share of the NICs, one direction. Where GPUs share NICs, less of it gets through: not
    each has one on its own switch.
    """
    own = s.nics >= min(s.gpus_per_node, s.world)
    return s.nic_gb_s * 1e9 * params.network * (1.0 if own else params.shared)


def between(s: Setup, params: Params, stride: int, size: int) -> float:
    """Bytes a second of a GPU in a ring over `size` ranks that are `stride` apart. A ring leaves a node once, however
    many of its ranks are on that node, so these have their NICs together.
    """
    here = max(1, s.gpus_per_node // stride)  # ranks of the group on one node
    if size <= here:
        return link(s, params)
    return min(link(s, params), nic(s, params) * min(here, size))


def all_reduce(s: Setup, params: Params) -> float:
    """Of one micro-batch's activations over the tensor ranks; split into gather and scatter it takes the same bytes."""
    if s.tp == 1:
        return 0.0
    tokens = s.seq * s.micro_batch // s.cp
    calls = 2 if s.sequence_parallel else 1
    rate = between(s, params, 1, s.tp)
    return 2 * (s.tp - 1) / s.tp * tokens * s.shape.hidden * _BF16 / rate + calls * _COLLECTIVE_S


def context(s: Setup, params: Params) -> float:
    """Keys and values of a layer round the ring of context ranks, forward; backward takes twice that."""
    if s.cp == 1:
        return 0.0
    each = 2 * s.shape.kv_heads * s.shape.head_dim * s.seq * s.micro_batch // s.cp / s.tp * _BF16
    return (s.cp - 1) * (each / between(s, params, s.tp, s.cp) + _COLLECTIVE_S)


def stage_to_stage(s: Setup, params: Params) -> float:
    """Of one micro-batch: activations on and gradients back, for each chunk of the model; each tensor rank sends its
    share. DeepSpeed splits the activations alone.
    """
    if s.pp == 1:
        return 0.0
    elements = s.micro_batch * s.seq // s.cp * s.shape.hidden
    share = (1 + 1 / s.tp) if s.deepspeed else 2 / s.tp
    rate = between(s, params, s.tp * s.cp * s.dp, s.pp)
    return s.vp * share * elements * _BF16 / rate


def reduction(s: Setup, params: Params, parameters: float) -> tuple[float, float]:
    """Of the gradients of so many parameters over the data ranks, and of the parameters back: (before, after) the
    optimizer's step. Without a distributed optimizer all of it is before.
    """
    size = s.dp * s.cp
    if size == 1:
        return 0.0, 0.0
    seconds = (size - 1) / size * parameters / between(s, params, s.tp, size)
    whole = 1 if s.distributed_optimizer and not s.deepspeed else 2
    return whole * s.grad_reduce_bytes * seconds, (_BF16 * seconds if s.distributed_optimizer else 0.0)


def tied(s: Setup, params: Params) -> float:
    """Of the embedding's gradient between first and last stage, where they share it."""
    if not s.tied or s.pp == 1:
        return 0.0
    rate = between(s, params, s.tp * s.cp * s.dp, s.pp)
    return s.vocab_padded * s.shape.hidden / s.tp * s.grad_reduce_bytes / rate
