"""GPU memory of a training by kind, for every pipeline stage: counted tensor by tensor from the layout, and a few
constants for what no tensor explains. Knows no recipe and no site; whether a launch is refused is decided elsewhere.

Activations follow Korthikanti et al. (arXiv 2205.05198) with grouped queries, gated feed-forward blocks, flash
attention, context parallelism and interleaved stages. The constants are `python -m toolkit.plan.fit_memory`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from toolkit.hardware import Gpu
from toolkit.plan import parameters
from toolkit.plan.setup import Setup

GIB = 2**30
KINDS = ("weights", "gradients", "optimizer", "activations", "logits", "buffers", "overhead")


@dataclass(frozen=True, kw_only=True)
class Constants:
    """What is no tensor of the model. `base_gib`: the CUDA context with its kernels, workspaces of cuBLAS, and NCCL's
    communicators; stated, not fitted. `fragmentation`: what PyTorch's allocator holds and does not use, as a share of
    the memory that comes and goes. `deepspeed_gib`: what DeepSpeed's engine keeps beside, its flat copies for reducing
    gradients and gathering weights.
    """

    base_gib: float = 3.0
    fragmentation: float = 0.12
    deepspeed_gib: float = 7.3


CONSTANTS = Constants()


@dataclass(frozen=True, kw_only=True)
class Memory:
    """GiB (2^30 bytes) on one GPU of pipeline stage `pp_rank` at its fullest; `parts` by `KINDS` add up to `gib`."""

    parts: Mapping[str, float]
    gib: float
    pp_rank: int


def limit_gib(gpu: Gpu) -> float:
    """What a training can use: the driver keeps about a hundredth of the memory for itself (an A100-80GB offers 79.2
    GiB), and the last hundredth or two of it is in no piece that is large enough.
    """
    return 0.975 * gpu.memory_gib


def fits(setup: Setup) -> bool:
    return worst(setup).gib <= limit_gib(setup.gpu)


def worst(setup: Setup, constants: Constants = CONSTANTS) -> Memory:
    """Of the stage that needs most. Micro batches in flight fall from stage to stage, so it is the first one, the first
    of those with the most layers, or the last one, which has the logits.
    """
    layers = setup.stage_layers
    ranks = sorted({0, layers.index(max(layers)), setup.pp - 1})
    return max(_of_stages(setup, ranks, constants), key=lambda memory: memory.gib)


def per_stage(setup: Setup, constants: Constants = CONSTANTS) -> list[Memory]:
    return _of_stages(setup, range(setup.pp), constants)


def _of_stages(setup: Setup, ranks: Iterable[int], constants: Constants) -> list[Memory]:
    weights, gradients, optimizer = state_bytes(setup)
    saved, making = layer_bytes(setup)
    comes_and_goes = (1 + constants.fragmentation) / GIB
    buffers = buffer_bytes(setup) * comes_and_goes + (constants.deepspeed_gib if setup.deepspeed else 0.0)
    found = []
    for rank in ranks:
        held = parameters.of_setup(setup, rank).total / GIB
        parts = {
            "weights": weights * held,
            "gradients": gradients * held,
            "optimizer": optimizer * held,
            "activations": (layers_in_flight(setup, rank) * saved + making) * comes_and_goes,
            "logits": logits_bytes(setup) * comes_and_goes if rank == setup.pp - 1 else 0.0,
            "buffers": buffers,
            "overhead": constants.base_gib,
        }
        found.append(Memory(parts=parts, gib=sum(parts.values()), pp_rank=rank))
    return found


def state_bytes(setup: Setup) -> tuple[float, float, float]:
    """Bytes of weights, gradients and optimizer for each parameter of a rank.

    Megatron sums gradients in fp32 and its optimizer has a master copy and two moments in fp32, which a distributed
    optimizer shares out over data and context ranks. DeepSpeed's ZeRO-1 keeps gradients as 16 bit, and where its bf16
    optimizer adds them up in fp32 these sums besides. Training in fp32
    needs no master copy, but for the distributed optimizer, whose shards are copies. fp8 keeps bf16 weights, and each
    matrix in fp8 twice, once transposed.
    """
    exact = setup.precision == "fp32"
    weights = {"fp32": 4.0, "fp8": 4.0}.get(setup.precision, 2.0)
    gradients = 4.0 if exact else 2.0 if setup.deepspeed else float(setup.grad_reduce_bytes)
    if setup.deepspeed and setup.fp32_sum:
        gradients += 4.0
    states = 8.0 + (4.0 if not exact or setup.distributed_optimizer else 0.0)
    if setup.distributed_optimizer:
        states /= setup.dp * setup.cp
    return weights, gradients, states


def layers_in_flight(setup: Setup, pp_rank: int) -> float:
    """Layers times micro batches whose activations a stage holds at once.

    One forward, one backward: stage i of p holds min(micro batches, p - i), and DeepSpeed the result of its last layer
    besides, which Megatron frees once it is sent. Interleaved (arXiv 2104.04473): 2 (p - i - 1) + (v - 1) p + 1 chunks,
    each of a v-th of its layers.
    """
    layers, pp, vp = setup.stage_layers[pp_rank], setup.pp, setup.vp
    if vp == 1:
        return (layers + (setup.deepspeed and pp > 1)) * min(setup.micro_batches, pp - pp_rank)
    chunks = min(setup.micro_batches * vp, 2 * (pp - pp_rank - 1) + (vp - 1) * pp + 1)
    return layers * chunks / vp


def layer_bytes(setup: Setup) -> tuple[float, float]:
    """Bytes that one layer keeps of one micro batch from its forward to its backward pass, and those that come on top,
    once, while a backward pass recomputes.
    """
    tokens = setup.seq * setup.micro_batch / setup.cp
    everything, core = tokens * _token_bytes(setup), tokens * _score_bytes(setup)
    if setup.recompute == "none":
        return everything + core, 0.0
    if setup.recompute == "selective":
        return everything, core
    kept = tokens * _input_bytes(setup)
    return kept, everything + core - kept


def _wide(setup: Setup) -> int:
    """Bytes of an activation."""
    return 4 if setup.precision == "fp32" else 2


def _along(setup: Setup) -> int:
    """Tensor ranks among which what lies between tensor-parallel blocks is shared out."""
    return setup.tp if setup.sequence_parallel else 1


def _input_bytes(setup: Setup) -> float:
    """Of one token at the entrance of a layer."""
    return _wide(setup) * setup.shape.hidden / _along(setup)


def _token_bytes(setup: Setup) -> float:
    """Of one token, all that a layer's backward pass reads but for attention's scores.

    Between the tensor-parallel blocks: inputs and outputs of both norms; in plain PyTorch (`fused` false) each norm of
    a Llama has an fp32 copy of its input, its result before the weight and after it. Masks of two dropouts. Inside:
    queries, keys and values; of rotary positions the turned queries and keys besides, the values being a part of the
    undivided product; attention's result. A gated block keeps gate and up, and their product; unfused silu(gate) too.
    """
    wide, hidden, ffn, tp = _wide(setup), setup.shape.hidden, setup.shape.ffn, setup.tp
    kv = setup.shape.kv_heads * setup.shape.head_dim
    linear = 1 if setup.precision == "fp8" else wide  # what a matrix product keeps of its input
    plain = setup.gated and not setup.fused
    between = 2 * ((4 + 2 * wide) if plain else (wide + linear)) * hidden
    if setup.dropout:
        between += 2 * hidden
    qkv = hidden + 2 * kv
    if setup.gated:
        # Ports in plain PyTorch repeat keys and values for every head, and copy the result into the order of the next.
        qkv = qkv + hidden + kv if setup.fused else 3 * hidden + hidden
    inside = wide * qkv + linear * hidden
    if setup.gated:
        inside += (2 * wide + linear) * ffn if setup.fused else 4 * wide * ffn
    else:
        inside += (wide + linear) * ffn
    return between / _along(setup) + inside / tp


def _score_bytes(setup: Setup) -> float:
    """Of one token, attention's scores: none with flash attention, else after softmax, and where there is dropout its
    mask and its result.
    """
    if setup.flash_attention:
        return 0.0
    each = 2 * _wide(setup) + 1 if setup.dropout else _wide(setup)
    return each * setup.shape.heads * setup.seq / setup.tp


def logits_bytes(setup: Setup) -> float:
    """Of the last stage: logits as the product leaves them, their fp32 copy, and their exponentials; and the last
    norm's input and output.
    """
    tokens, wide = setup.seq * setup.micro_batch / setup.cp, _wide(setup)
    each = 2 * 4 + (wide if wide < 4 else 0)
    return tokens * (each * setup.vocab_padded / setup.tp + 2 * wide * setup.shape.hidden / _along(setup))


def buffer_bytes(setup: Setup) -> float:
    """What one layer's backward pass has in hand: the gathered input and the gradients of input and output, and inside
    the block those of the feed-forward's; and what overlapped tensor parallelism gathers into.
    """
    tokens, wide = setup.seq * setup.micro_batch / setup.cp, _wide(setup)
    hidden, ffn = setup.shape.hidden, setup.shape.ffn
    gathered = 4 * hidden if setup.overlap_tp else 2 * hidden
    return tokens * wide * (gathered + (3 if setup.gated else 2) * ffn / setup.tp)
