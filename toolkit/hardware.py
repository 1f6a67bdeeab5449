"""What GPUs can do: dense bf16 peak and memory by type, from the vendors' data sheets. An unknown type is an error,
never a guess.
"""

from __future__ import annotations

from dataclasses import dataclass

from toolkit.errors import RecipeError, nearest


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """`bf16_tflops` is the dense peak (no sparsity); `memory_gib` what the device reports."""

    title: str
    bf16_tflops: float
    memory_gib: float
    tdp_w: int


GPUS = {
    "a100_40gb_sxm": Gpu(title="A100-40GB SXM", bf16_tflops=312.0, memory_gib=40.0, tdp_w=400),
    "a100_80gb_sxm": Gpu(title="A100-80GB SXM", bf16_tflops=312.0, memory_gib=80.0, tdp_w=400),
    "h100_80gb_sxm": Gpu(title="H100-80GB SXM", bf16_tflops=989.4, memory_gib=80.0, tdp_w=700),
    "h200_141gb_sxm": Gpu(title="H200-141GB SXM", bf16_tflops=989.4, memory_gib=141.0, tdp_w=700),
}


def gpu(name: str) -> Gpu:
    if name not in GPUS:
        raise RecipeError(f"unknown GPU type '{name}'", where="cluster.gpu", do=nearest(name, GPUS))
    return GPUS[name]
