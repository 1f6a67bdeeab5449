"""What GPUs can do: dense bf16 peak, memory, power and links by type, from the vendor's data sheets. An unknown type is
an error, never a guess; a recipe may state the values of a type that is not here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from toolkit.errors import RecipeError, nearest


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """`bf16_tflops` is the dense peak of the tensor cores: half of the figure "with sparsity" that data sheets print
    large; None where the device has no bf16. `tdp_w` is the highest default power limit.
    """

    title: str
    bf16_tflops: float | None
    memory_gib: float
    tdp_w: int
    nvlink_gb_s: float | None = None  # of one GPU, both directions together, where all GPUs of a node are joined by it
    pcie_gb_s: float | None = None  # of one GPU, both directions together


# NVIDIA's data sheets: A100 (2021), A30, A40, H100 (2022; NVL: 2024), H200 (2024), GH200 (2024), B200 (2025), L4,
# L40S, V100 (2020).
GPUS = {
    "a100_40gb_sxm": Gpu(
        title="A100-40GB SXM", bf16_tflops=312.0, memory_gib=40.0, tdp_w=400, nvlink_gb_s=600.0, pcie_gb_s=64.0
    ),
    "a100_80gb_sxm": Gpu(
        title="A100-80GB SXM", bf16_tflops=312.0, memory_gib=80.0, tdp_w=400, nvlink_gb_s=600.0, pcie_gb_s=64.0
    ),
    "a100_40gb_pcie": Gpu(title="A100-40GB PCIe", bf16_tflops=312.0, memory_gib=40.0, tdp_w=250, pcie_gb_s=64.0),
    "a100_80gb_pcie": Gpu(title="A100-80GB PCIe", bf16_tflops=312.0, memory_gib=80.0, tdp_w=300, pcie_gb_s=64.0),
    "a30": Gpu(title="A30", bf16_tflops=165.0, memory_gib=24.0, tdp_w=165, pcie_gb_s=64.0),
    "a40": Gpu(title="A40", bf16_tflops=149.7, memory_gib=48.0, tdp_w=300, pcie_gb_s=64.0),
    "h100_80gb_sxm": Gpu(
        title="H100-80GB SXM", bf16_tflops=989.4, memory_gib=80.0, tdp_w=700, nvlink_gb_s=900.0, pcie_gb_s=128.0
    ),
    "h100_80gb_pcie": Gpu(title="H100-80GB PCIe", bf16_tflops=756.5, memory_gib=80.0, tdp_w=350, pcie_gb_s=128.0),
    "h100_94gb_nvl": Gpu(title="H100-94GB NVL", bf16_tflops=835.5, memory_gib=94.0, tdp_w=400, pcie_gb_s=128.0),
    "h200_141gb_sxm": Gpu(
        title="H200-141GB SXM", bf16_tflops=989.4, memory_gib=141.0, tdp_w=700, nvlink_gb_s=900.0, pcie_gb_s=128.0
    ),
    "h200_141gb_nvl": Gpu(title="H200-141GB NVL", bf16_tflops=835.5, memory_gib=141.0, tdp_w=600, pcie_gb_s=128.0),
    # Grace Hopper's limit is that of the whole module, CPU and memory included.
    "gh200_96gb": Gpu(
        title="GH200-96GB", bf16_tflops=989.4, memory_gib=96.0, tdp_w=1000, nvlink_gb_s=900.0, pcie_gb_s=128.0
    ),
    "gh200_144gb": Gpu(
        title="GH200-144GB", bf16_tflops=989.4, memory_gib=144.0, tdp_w=1000, nvlink_gb_s=900.0, pcie_gb_s=128.0
    ),
    "b200_180gb_sxm": Gpu(
        title="B200-180GB SXM", bf16_tflops=2250.0, memory_gib=180.0, tdp_w=1000, nvlink_gb_s=1800.0, pcie_gb_s=128.0
    ),
    "l4": Gpu(title="L4", bf16_tflops=121.0, memory_gib=24.0, tdp_w=72, pcie_gb_s=64.0),
    "l40s": Gpu(title="L40S", bf16_tflops=362.05, memory_gib=48.0, tdp_w=350, pcie_gb_s=64.0),
    "v100_16gb_sxm": Gpu(
        title="V100-16GB SXM2", bf16_tflops=None, memory_gib=16.0, tdp_w=300, nvlink_gb_s=300.0, pcie_gb_s=32.0
    ),
    "v100_32gb_sxm": Gpu(
        title="V100-32GB SXM2", bf16_tflops=None, memory_gib=32.0, tdp_w=300, nvlink_gb_s=300.0, pcie_gb_s=32.0
    ),
    "v100_32gb_pcie": Gpu(title="V100-32GB PCIe", bf16_tflops=None, memory_gib=32.0, tdp_w=250, pcie_gb_s=32.0),
}

STATE_IT = "for a type that is not known state its dense bf16 peak, cluster.peak_tflops=N, and cluster.gpu_tdp_w=N"


def gpu(name: str) -> Gpu:
    """Raises `RecipeError` for an unknown type."""
    if name not in GPUS:
        hint = nearest(name, GPUS)
        raise RecipeError(f"unknown GPU type '{name}'", where="cluster.gpu", do=f"{hint} {STATE_IT}".strip())
    return GPUS[name]


def peak_tflops(name: str | None, stated: float | None = None) -> float | None:
    """Dense bf16 TFLOP/s of one device: as stated, else of its type; None where there is no type, or no bf16 in it."""
    if stated is not None:
        return stated
    return None if name is None else gpu(name).bf16_tflops


def tdp_w(name: str | None, stated: float | None = None) -> float | None:
    """Watts of one device at its limit: as stated, else of its type if that is known."""
    if stated is not None:
        return stated
    return float(GPUS[name].tdp_w) if name in GPUS else None


# Bus bandwidth of an all-reduce over a node's 8 GPUs, as published for DGX and HGX of a generation; the lower end. Of
# the H100's links it is more than one direction carries, for the switch adds up on the way (NVLink SHARP).
_PUBLISHED_GB_S = {"a100": 230.0, "h100": 460.0, "h200": 460.0}
_OF_ONE_DIRECTION = 230.0 / 300.0  # what the A100's figure is of its links


def node_bus_gb_s(name: str | None, gpus: int) -> float | None:
    """Bus bandwidth, GB/s, that an all-reduce over the `gpus` GPUs of one node should reach; None where nobody can
    tell: one GPU, an unknown type, or GPUs that are joined by PCIe, in ways that differ from server to server.
    """
    found = GPUS.get(name or "")
    if found is None or found.nvlink_gb_s is None or gpus < 2:
        return None
    published = _PUBLISHED_GB_S.get(str(name).partition("_")[0])
    if published is not None and gpus == 8:
        return published
    return _OF_ONE_DIRECTION * found.nvlink_gb_s / 2


def is_gpu(name: str, product: str, memory_mib: int | None) -> bool:
    """Whether a driver's name of a product, such as `NVIDIA A100-SXM4-80GB`, and its memory are those of type `name`.

    True for a type that is not known here: a recipe may state the values of one.
    """
    wanted = GPUS.get(name)
    if wanted is None:
        return True
    words = set(re.findall(r"[A-Z0-9]+", product.upper()))
    chip, _, form = name.upper().partition("_")
    if chip not in words:
        return False
    # An H100 or later on a baseboard says nothing of its form; cards and pairs of cards do.
    apart = {"SXM": {"PCIE", "NVL"}, "PCIE": {"NVL"}, "NVL": {"PCIE"}}.get(form.rpartition("_")[2], set())
    on_board = any(word.startswith("SXM") for word in words)
    if words & apart or (on_board and not form.endswith("SXM")):
        return False
    return memory_mib is None or abs(memory_mib / 1024 / wanted.memory_gib - 1) <= 0.1
