"""What GPUs can do: dense bf16 peak, memory, power and links by type, from the vendor's data sheets. An unknown type is
an error, never a guess; a recipe may state the values of a type that is not here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from toolkit.errors import RecipeError, nearest


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """`bf16_tflops` is the dense peak of the tensor cores: half of the figure "with sparsity" that data sheets print
    large; None where the device has no bf16. `tdp_w` is the highest default power limit. GB/s count 1e9 bytes.
    """

    title: str
    bf16_tflops: float | None
    memory_gib: float
    memory_gb_s: float  # of its memory, reading and writing together
    tdp_w: int
    nvlink_gb_s: float | None = None  # of one GPU, both directions together, where all GPUs of a node are joined by it
    pcie_gb_s: float | None = None  # of one GPU, both directions together
    nic_gbps: float | None = None  # of the fabric for each GPU, one direction, in the vendor's own server of eight


def _a100(title: str, memory_gib: float, memory_gb_s: float, tdp_w: int, *, sxm: bool) -> Gpu:
    """Data sheet "NVIDIA A100 Tensor Core GPU" (2021). DGX A100's (2020): a 200 Gb ConnectX-6 for each GPU."""
    return Gpu(
        title=title, bf16_tflops=312.0, memory_gib=memory_gib, memory_gb_s=memory_gb_s, tdp_w=tdp_w,
        nvlink_gb_s=600.0 if sxm else None, pcie_gb_s=64.0, nic_gbps=200.0 if sxm else None,
    )  # fmt: skip


def _hopper(title: str, memory_gib: float, memory_gb_s: float, tdp_w: int, *, tflops: float = 989.4, sxm: bool) -> Gpu:
    """Data sheets "NVIDIA H100 Tensor Core GPU" (2022; NVL: 2024), "NVIDIA H200" (2024) and "NVIDIA GH200 Grace Hopper
    Superchip" (2024). DGX H100's and H200's: a 400 Gb ConnectX-7 for each GPU.
    """
    return Gpu(
        title=title, bf16_tflops=tflops, memory_gib=memory_gib, memory_gb_s=memory_gb_s, tdp_w=tdp_w,
        nvlink_gb_s=900.0 if sxm else None, pcie_gb_s=128.0, nic_gbps=400.0 if sxm else None,
    )  # fmt: skip


def _v100(title: str, memory_gib: float, tdp_w: int, *, sxm: bool) -> Gpu:
    """Data sheet "NVIDIA V100" (2020). DGX-1's (2017): four 100 Gb NICs for eight GPUs."""
    return Gpu(
        title=title, bf16_tflops=None, memory_gib=memory_gib, memory_gb_s=900.0, tdp_w=tdp_w,
        nvlink_gb_s=300.0 if sxm else None, pcie_gb_s=32.0, nic_gbps=50.0 if sxm else None,
    )  # fmt: skip


GPUS = {
    "a100_40gb_sxm": _a100("A100-40GB SXM", 40.0, 1555.0, 400, sxm=True),
    "a100_80gb_sxm": _a100("A100-80GB SXM", 80.0, 2039.0, 400, sxm=True),
    "a100_40gb_pcie": _a100("A100-40GB PCIe", 40.0, 1555.0, 250, sxm=False),
    "a100_80gb_pcie": _a100("A100-80GB PCIe", 80.0, 1935.0, 300, sxm=False),
    "h100_80gb_sxm": _hopper("H100-80GB SXM", 80.0, 3350.0, 700, sxm=True),
    "h100_80gb_pcie": _hopper("H100-80GB PCIe", 80.0, 2000.0, 350, tflops=756.5, sxm=False),
    "h100_94gb_nvl": _hopper("H100-94GB NVL", 94.0, 3900.0, 400, tflops=835.5, sxm=False),
    "h200_141gb_sxm": _hopper("H200-141GB SXM", 141.0, 4800.0, 700, sxm=True),
    "h200_141gb_nvl": _hopper("H200-141GB NVL", 141.0, 4800.0, 600, tflops=835.5, sxm=False),
    # Grace Hopper's limit is that of the whole module, CPU and memory included.
    "gh200_96gb": _hopper("GH200-96GB", 96.0, 4000.0, 1000, sxm=True),
    "gh200_144gb": _hopper("GH200-144GB", 144.0, 4900.0, 1000, sxm=True),
    # Data sheet "NVIDIA DGX B200" (2025): 64 TB/s and 400 Gb ConnectX-7 for its eight.
    "b200_180gb_sxm": Gpu(
        title="B200-180GB SXM", bf16_tflops=2250.0, memory_gib=180.0, memory_gb_s=8000.0, tdp_w=1000,
        nvlink_gb_s=1800.0, pcie_gb_s=128.0, nic_gbps=400.0,
    ),
    # Each from the data sheet of its name: 2021, 2020, 2023, 2023.
    "a30": Gpu(title="A30", bf16_tflops=165.0, memory_gib=24.0, memory_gb_s=933.0, tdp_w=165, pcie_gb_s=64.0),
    "a40": Gpu(title="A40", bf16_tflops=149.7, memory_gib=48.0, memory_gb_s=696.0, tdp_w=300, pcie_gb_s=64.0),
    "l4": Gpu(title="L4", bf16_tflops=121.0, memory_gib=24.0, memory_gb_s=300.0, tdp_w=72, pcie_gb_s=64.0),
    "l40s": Gpu(title="L40S", bf16_tflops=362.05, memory_gib=48.0, memory_gb_s=864.0, tdp_w=350, pcie_gb_s=64.0),
    "v100_16gb_sxm": _v100("V100-16GB SXM2", 16.0, 300, sxm=True),
    "v100_32gb_sxm": _v100("V100-32GB SXM2", 32.0, 300, sxm=True),
    "v100_32gb_pcie": _v100("V100-32GB PCIe", 32.0, 250, sxm=False),
}  # fmt: skip

STATE_IT = "for a type that is not known state its dense bf16 peak, cluster.peak_tflops=N, and cluster.gpu_tdp_w=N"
DESCRIBE = "describe one that is not known: cluster.peak_tflops=N cluster.gpu_memory_gib=N cluster.gpu_memory_gb_s=N"


def near(name: str, otherwise: str) -> str:
    """The nearest known type, or all of them, and what to do where it is none of them."""
    hint = nearest(name, GPUS)
    return f"{hint}{'' if hint.endswith('?') else '.'} {otherwise[0].upper()}{otherwise[1:]}"


def gpu(name: str) -> Gpu:
    """Raises `RecipeError` for an unknown type."""
    if name not in GPUS:
        raise RecipeError(f"unknown GPU type '{name}'", where="cluster.gpu", do=near(name, STATE_IT))
    return GPUS[name]


def described(
    name: str | None,
    *,
    peak_tflops: float | None = None,
    memory_gib: float | None = None,
    memory_gb_s: float | None = None,
    nvlink_gb_s: float | None = None,
    tdp_w: float | None = None,
) -> Gpu:
    """The GPU that a site states, value by value instead of its type's; of a type that is not known the peak, memory
    and its bandwidth have to be stated, and links that are not are taken to be PCIe's. Raises `RecipeError` for one
    without a peak, or for what is lacking of an unknown one.
    """
    known = GPUS.get(name or "")
    if known is None:
        needed = {"peak_tflops": peak_tflops, "gpu_memory_gib": memory_gib, "gpu_memory_gb_s": memory_gb_s}
        lacking = [f"cluster.{key}" for key, value in needed.items() if value is None]
        if lacking:
            what = "no GPU type is stated" if name is None else f"unknown GPU type '{name}'"
            why = f"not stated: {', '.join(lacking)}"
            do = near(name, DESCRIBE) if name else f"give cluster.gpu=TYPE, one of toolkit/hardware.py. {DESCRIBE}"
            raise RecipeError(what, where="cluster.gpu", why=why, do=do)
        known = Gpu(
            title=name or "GPU", bf16_tflops=None, memory_gib=memory_gib or 0, memory_gb_s=memory_gb_s or 0,
            tdp_w=0, pcie_gb_s=64.0,
        )  # fmt: skip
    peak = peak_tflops if peak_tflops is not None else known.bf16_tflops
    if peak is None:
        raise RecipeError(
            f"a {known.title} has no bf16, so there is no peak to plan with",
            where="cluster.gpu",
            do="cluster.peak_tflops=N states the dense TFLOP/s of the precision that is trained in",
        )
    return replace(
        known,
        bf16_tflops=peak,
        memory_gib=memory_gib if memory_gib is not None else known.memory_gib,
        memory_gb_s=memory_gb_s if memory_gb_s is not None else known.memory_gb_s,
        nvlink_gb_s=nvlink_gb_s if nvlink_gb_s is not None else known.nvlink_gb_s,
        tdp_w=round(tdp_w) if tdp_w is not None else known.tdp_w,
    )


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
