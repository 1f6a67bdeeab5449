"""What one GPU computes in one layer for one micro-batch, in seconds: matrix products, attention, and the kernels that
are bound by memory. Counts FLOPs and bytes from the shape; how the parts make a step is `speed`'s.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from toolkit.hardware import Gpu
from toolkit.plan.calibrated import Params
from toolkit.plan.setup import HOPPER, Setup

_A100 = 312.0  # dense bf16 TFLOP/s
# Of the rate of products, what flash attention reaches at 4,096 causal tokens and 128 a head, forward and backward
# together: A100 arXiv 2307.08691, figure 5. Chosen, not derived: the same for H100 with kernels of its own, since
# DGX Cloud's step times come out better so than with 0.5, and Megatron-LM's only a little worse.
_FLASH = 0.6
# Of bf16: fp8 less its casts, chosen for the least bias on 27 fp8 rows of NVIDIA's recipes for DGX Cloud, of NeMo and
# of Megatron-Bridge, which are in no table here; fp32 as TF32.
_PRECISION = {"bf16": 1.0, "fp16": 1.0, "fp8": 1.65, "fp32": 0.5}
# Streaming multiprocessors by the first letters of a title (data sheets and architecture papers).
_SMS = (("A100", 108), ("H100", 132), ("H200", 132), ("GH200", 132), ("B200", 148), ("V100", 80))
_TILES = ((256, 128, 1.0), (128, 256, 1.0), (128, 128, 1.05))  # rows, columns, cost: as cuBLAS has them
_ALIGNED = 8  # elements of 16 bits: 16 bytes, below which tensor cores are not used
_PLAIN = 1 / 16  # of the tensor cores' rate, without them: 19.5 of 312 TFLOP/s on A100; found on BigScience's odd heads
# From Hopper on, a product's kernels stay on the GPU and write one tile while they compute the next (CUTLASS's
# ping-pong kernels): so much of what they read and write besides is behind the product. The share is chosen as that of
# `speed`'s collectives; that Ampere has none of it was chosen too, with all of `measurements` and MEDITRON in view.
_BEHIND = 0.7
_BLOCKED_S = 20e-6  # from the end of a kernel to the next one's start when the host waits for each
_KERNELS_FORWARD, _KERNELS_BACKWARD, _KERNELS_SUM = 35, 65, 24  # of a layer of Megatron's GPT, and to add gradients


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Seconds of one layer and one micro-batch on one GPU, without communication."""

    forward: float
    backward: float
    attention: float  # the core's share of `forward`: what selective recomputation does again
    attention_backward: float
    accumulate: float  # adding the gradients to those of earlier micro-batches


def best_share(gpu: Gpu) -> float:
    """Of the peak, what the largest bf16 products reach: 0.869 on A100 SXM and 0.80 on H100 SXM (271.2 and 792.1
    TFLOP/s, Bekman's "Machine Learning Engineering", maximum achievable matmul FLOPS); between and beyond by a power.
    """
    peak = gpu.bf16_tflops or _A100
    return 0.869 * min(1.0, _A100 / peak) ** 0.0717


@lru_cache(maxsize=1 << 16)
def _covered(sms: int, rows: int, columns: int) -> float:
    """Elements that are computed for so many: whole tiles, in whole waves over the GPU's multiprocessors."""
    best = math.inf
    for height, width, cost in _TILES:
        tiles = -(-rows // height) * -(-columns // width)
        waves = -(-tiles // sms) * sms if sms else tiles
        best = min(best, waves * height * width * cost)
    return best


class Rates:
    """What the machine of a setup gives: seconds of a product, bytes a second of its memory."""

    def __init__(self, setup: Setup, params: Params) -> None:
        gpu = setup.gpu
        peak = gpu.bf16_tflops or _A100
        self.sms = next((count for name, count in _SMS if gpu.title.startswith(name)), 0)
        self.bf16 = peak * 1e12 * best_share(gpu) * params.matmul
        self.rate = self.bf16 * _PRECISION[setup.precision]
        self.fill = params.fill * (peak / (self.sms or 108)) / (_A100 / 108)  # a time, so more elements on a faster GPU
        self.memory = gpu.memory_gb_s * 1e9 * params.memory

    def product(self, rows: int, columns: int, inner: int) -> float:
        """Seconds of a matrix product in the precision of the layers."""
        return 2 * _covered(self.sms, rows, columns) * (inner + self.fill) / self.rate


def layer(s: Setup, rates: Rates, params: Params) -> Layer:
    """Bytes below are counted kernel by kernel and given for each element of what they are multiplied with: bf16
    activations, read and written once by each kernel.
    """
    shape, tp, product = s.shape, s.tp, rates.product
    hidden, tokens = shape.hidden, s.seq * s.micro_batch // s.cp
    kv = shape.kv_heads * shape.head_dim
    up = shape.ffn * (2 if s.gated else 1) // tp
    matrices = (((hidden + 2 * kv) // tp, hidden), (hidden, hidden // tp), (up, hidden), (hidden, shape.ffn // tp))
    forward = backward_data = backward_weight = 0.0
    for out, inner in matrices:
        forward += product(tokens, out, inner)
        backward_data += product(tokens, inner, out)
        backward_weight += product(out, inner, tokens)
    core_forward, core_backward = _attention(s, rates, tokens)
    light_forward, light_backward = _elementwise(s, tokens)
    host_forward, host_backward = params.layer_s, 2 * params.layer_s
    if s.launch_blocking:
        host_forward += _BLOCKED_S * _KERNELS_FORWARD
        host_backward += _BLOCKED_S * (_KERNELS_BACKWARD + (0 if s.fused_accumulation else _KERNELS_SUM))
    return Layer(
        forward=forward + core_forward + light_forward / rates.memory + host_forward,
        backward=backward_data + backward_weight + core_backward + light_backward / rates.memory + host_backward,
        attention=core_forward,
        attention_backward=core_backward,
        accumulate=s.layer_matrices / tp * _bytes_to_add(s) / rates.memory,
    )


def _attention(s: Setup, rates: Rates, tokens: int) -> tuple[float, float]:
    """Scores and values, forward and backward. Without flash attention the matrix of scores goes through memory: 8
    bytes of each score forward and 14 backward (scores written, softmax read and written, read again), and 5 more for
    dropout with its mask, each way; and all of it is computed, the half above the diagonal too.
    """
    flops = 4 * tokens * s.seq * s.shape.hidden / s.tp
    # Round the ring of context ranks, each further part of the keys has its output corrected and added in fp32, and
    # backward its gradients of queries, keys and values.
    parts = tokens * s.shape.hidden / s.tp * (s.cp - 1) / rates.memory
    if s.flash_attention:
        forward = flops / 2 / (rates.bf16 * _FLASH)
        return forward + 16 * parts, 2.5 * forward + 36 * parts
    scores = s.shape.heads / s.tp * s.seq * tokens
    dropped = 5 if s.dropout else 0
    seconds = flops / (rates.bf16 if s.shape.head_dim % _ALIGNED == 0 else rates.bf16 * _PLAIN)
    return (
        seconds + scores * (8 + dropped) / rates.memory + 16 * parts,
        2 * seconds + scores * (14 + dropped) / rates.memory + 36 * parts,
    )


def _elementwise(s: Setup, tokens: int) -> tuple[float, float]:
    """Bytes of norms, residuals and dropout (on every tensor rank whole, unless the sequence is split), of the
    activation, and of what stands between the products and attention.

    Not fused is the Llama of plain PyTorch, as the ports of 2023 to Megatron had it: norms and rotary positions in fp32
    by single operations, keys and values expanded to all heads. Counted on the public code of epfLLM's Megatron-LLM;
    strided and broadcast operands, which are read at about half the rate, count twice.
    """
    hidden, tp = s.shape.hidden, s.tp
    whole = tokens * hidden / (tp if s.sequence_parallel else 1)
    activation = tokens * s.shape.ffn / tp
    heads = tokens * (hidden + 2 * s.shape.kv_heads * s.shape.head_dim) / tp
    if not s.fused:
        heads = tokens * hidden / tp
        return 92 * whole + 14 * activation + 160 * heads, 180 * whole + 40 * activation + 190 * heads
    dropped = 2 if s.dropout else 0
    if s.gated:
        return (18 + dropped) * whole + 6 * activation + 8 * heads, (38 + dropped) * whole + 10 * activation + 8 * heads
    return (18 + dropped) * whole + 4 * activation + 4 * heads, (38 + dropped) * whole + 8 * activation + 4 * heads


def _bytes_to_add(s: Setup) -> float:
    """Of each parameter and micro-batch. Fused: the product reads and writes the fp32 sum where it would have written
    bf16, from Hopper on mostly behind its own main loop. DeepSpeed's bf16 optimizer casts to fp32 (6) and adds (12);
    Megatron of 2021 adds in 16 bits (6), after zeros.
    """
    if s.deepspeed:
        return 18
    if not s.fused_accumulation:
        return 8
    return 6 * (1 - _BEHIND) if (s.gpu.bf16_tflops or 0) >= HOPPER else 6


def head(s: Setup, rates: Rates) -> float:
    """Seconds of output head and loss on the last stage, forward and backward, for one micro-batch. Megatron's loss
    casts logits to fp32 and takes maximum, difference, exponential, sum and quotient one by one: 52 bytes of each.
    The head stays in bf16 where the layers are in fp8, which Transformer Engine has for its own layers alone.
    """
    tokens, hidden, rows = s.seq * s.micro_batch // s.cp, s.shape.hidden, s.vocab_padded // s.tp
    products = rates.product(tokens, rows, hidden) + rates.product(tokens, hidden, rows)
    products += rates.product(rows, hidden, tokens)
    if s.precision == "fp8":
        products *= rates.rate / rates.bf16
    return products + tokens * rows * 52 / rates.memory
