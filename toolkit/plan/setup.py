"""A training as its speed and memory depend on it: shape, batch, layout, software and machine in one value, made from a
recipe or from a line of published measurements. Computes nothing but what follows from these by counting.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from toolkit import hardware
from toolkit.errors import RecipeError, UsageError, nearest
from toolkit.models import Shape, padded_vocab
from toolkit.plan.layout import shape as shape_of
from toolkit.recipe.schema import Recipe

Recompute = Literal["none", "selective", "full"]
Precision = Literal["bf16", "fp16", "fp8", "fp32"]
_GPUS_PER_NODE = 8
_MOST_GPUS, _MOST_LAYERS = 10_000_000, 100_000


@dataclass(frozen=True, kw_only=True)
class Setup:
    """One training step of a dense decoder. Batches count sequences, `vp` is the number of model chunks on a pipeline
    rank, `nic_gbps` that of one NIC (Gbit/s, one direction), `nics` those of a node.

    The rest are properties of the software, none of a source: `fused` has norms, rotary positions and gating in one
    kernel each (Transformer Engine; Megatron's GPT kernels), `deepspeed` is its pipeline engine, which sends whole
    activations from every tensor rank, without overlap, adds gradients up in kernels of their own, and reduces them
    whole where Megatron's distributed optimizer scatters them.
    """

    shape: Shape  # `vocab` without padding
    gated: bool = True  # three matrices in the feed-forward block instead of two
    tied: bool = False  # embedding and head are one matrix
    seq: int
    micro_batch: int
    global_batch: int
    tp: int = 1
    pp: int = 1
    vp: int = 1
    cp: int = 1
    dp: int
    sequence_parallel: bool = False
    recompute: Recompute = "none"
    distributed_optimizer: bool = True
    flash_attention: bool = True
    fused: bool = True
    deepspeed: bool = False
    fused_accumulation: bool = True  # products of weight gradients add to the sum themselves
    overlap_backward: bool = True  # the tensor ranks' reductions of the backward pass run behind weight gradients
    precision: Precision = "bf16"
    gpu: hardware.Gpu
    gpus_per_node: int = _GPUS_PER_NODE
    nics: int
    nic_gbps: float
    grad_reduce_bytes: int = 4  # of one gradient where it is reduced
    fp32_sum: bool = False  # DeepSpeed's bf16 optimizer: gradients are added up in fp32, beside their own 16 bits
    overlap_dp: bool = False  # gradients and parameters travel while others are computed
    overlap_tp: bool = False  # tensor-parallel communication in pieces behind matrix products
    overlap_p2p: bool = False  # sends between stages run behind the other chunks of an interleaved pipeline
    dropout: bool = False
    launch_blocking: bool = False  # CUDA_LAUNCH_BLOCKING=1: the host waits for every kernel

    def __post_init__(self) -> None:
        counts = ("seq", "micro_batch", "global_batch", "tp", "pp", "vp", "cp", "dp", "gpus_per_node")
        for name in counts:
            _least(name, getattr(self, name), 1)
        for name in ("layers", "hidden", "ffn", "heads", "kv_heads", "vocab"):
            _least(name, getattr(self.shape, name), 1)
        if self.world > _MOST_GPUS or self.shape.layers > _MOST_LAYERS:
            raise UsageError(f"{self.shape.layers:,} layers on {self.world:,} GPUs are out of range")
        if self.nodes > 1:
            _least("nics", self.nics, 1)
            if not 0 < self.nic_gbps < 1e5:
                raise UsageError(f"nic_gbps={self.nic_gbps} is no rate of a NIC, in Gbit/s")
        if self.gpu.bf16_tflops is None or not 0 < self.gpu.bf16_tflops < 1e6:
            raise UsageError(f"{self.gpu.title} has no peak to plan with", do="state cluster.peak_tflops=N")
        chunks = self.pp * self.vp  # of a layer each, where embedding and head have one too (Llama 3 405B)
        if chunks > self.shape.layers and (self.pp == 1 or (self.shape.layers + 2) % chunks):
            raise UsageError(f"pp={self.pp} x vp={self.vp} are more than layers={self.shape.layers}")
        if self.tp > self.shape.heads:
            raise UsageError(f"tp={self.tp} is more than heads={self.shape.heads}")
        if self.micro_batch * self.dp > self.global_batch:
            raise UsageError(f"global_batch={self.global_batch} is below micro_batch={self.micro_batch} x dp={self.dp}")

    @property
    def world(self) -> int:
        """GPUs."""
        return self.tp * self.pp * self.cp * self.dp

    @property
    def nodes(self) -> int:
        return -(-self.world // self.gpus_per_node)

    @property
    def micro_batches(self) -> int:
        """Of one data rank in a step; rounded up where a published batch does not divide."""
        return -(-self.global_batch // (self.micro_batch * self.dp))

    @property
    def tokens(self) -> int:
        """Of one step."""
        return self.global_batch * self.seq

    @property
    def vocab_padded(self) -> int:
        return padded_vocab(self.shape.vocab, self.tp)

    @property
    def layer_matrices(self) -> int:
        """Parameters of one layer's matrices, over all tensor ranks."""
        s = self.shape
        attention = 2 * s.hidden * s.hidden + 2 * s.hidden * s.kv_heads * s.head_dim
        return attention + (3 if self.gated else 2) * s.hidden * s.ffn

    @property
    def stage_layers(self) -> tuple[int, ...]:
        """Layers of each pipeline rank. Where the number does not divide, embedding and head count as a layer each if
        that makes it even (BLOOM: 70 on 12 ranks; Llama 3 405B: 126 on 16), else later ranks have one less.
        """
        layers, pp = self.shape.layers, self.pp
        if layers % pp and (layers + 2) % pp == 0:
            each = (layers + 2) // pp
            return (each - 1, *[each] * (pp - 2), each - 1)
        return tuple(layers // pp + (rank < layers % pp) for rank in range(pp))

    @property
    def nic_gb_s(self) -> float:
        """GB/s that one GPU's share of its node's NICs carries, one direction; infinite within one node."""
        if self.nodes == 1:
            return math.inf
        return self.nics * self.nic_gbps / 8 / min(self.gpus_per_node, self.world)


def of(recipe: Recipe) -> Setup:
    """The pretraining of a recipe for GPUs. Raises `RecipeError` where it is for none, or its GPU or fabric is not
    known.
    """
    par, train, cluster = recipe.parallel, recipe.train, recipe.cluster
    if cluster.device != "gpu":
        raise RecipeError(
            f"cluster.device={cluster.device} has no GPU", where=recipe.name, do="the plan of speed is for GPUs"
        )
    found = hardware.described(
        cluster.gpu,
        peak_tflops=cluster.peak_tflops,
        memory_gib=cluster.gpu_memory_gib,
        memory_gb_s=cluster.gpu_memory_gb_s,
        nvlink_gb_s=cluster.gpu_nvlink_gb_s,
        tdp_w=cluster.gpu_tdp_w,
    )
    if cluster.nodes < 1 or cluster.devices_per_node < 1:
        raise RecipeError(
            f"cluster.nodes={cluster.nodes} x devices_per_node={cluster.devices_per_node} are no GPUs",
            where=recipe.name,
        )
    world = cluster.nodes * cluster.devices_per_node
    each = par.tp * par.pp * par.cp
    if each < 1 or world % each:
        raise RecipeError(
            f"tp={par.tp} x pp={par.pp} x cp={par.cp} = {each} does not divide {world} GPUs", where=recipe.name
        )
    nics, rate = cluster.nics, cluster.nic_gbps
    if nics is None or rate is None:
        if cluster.nodes > 1 and found.nic_gbps is None:
            raise RecipeError(
                f"nobody knows which fabric joins {cluster.nodes} nodes of {found.title}",
                where=recipe.name,
                do="state cluster.nics=N of a node and cluster.nic_gbps=N of each",
            )
        nics, rate = nics or cluster.devices_per_node, rate or found.nic_gbps or 0.0
    transformer_engine = train.layers == "te"
    return Setup(
        shape=shape_of(recipe),
        seq=train.seq_length,
        micro_batch=train.micro_batch,
        global_batch=train.global_batch,
        tp=par.tp,
        pp=par.pp,
        vp=par.vp or 1,
        cp=par.cp,
        dp=world // each,
        sequence_parallel=par.sequence,
        recompute=par.recompute,
        distributed_optimizer=par.distributed_optimizer,
        flash_attention=train.attention in ("flash", "fused") or (train.attention == "auto" and transformer_engine),
        fused=transformer_engine,
        precision=train.precision,
        gpu=found,
        gpus_per_node=cluster.devices_per_node,
        nics=nics,
        nic_gbps=float(rate),
        overlap_dp=par.overlap and par.distributed_optimizer,
        overlap_tp=par.tp_overlap,
        overlap_p2p=par.vp is not None,
        launch_blocking=cluster.nccl.env.get("CUDA_LAUNCH_BLOCKING") == "1",
    )


# What is publicly known of the machines and the software behind published rows, where it is not what the vendor sells
# as a whole; facts of the sites, none of their speeds.
# S1, S2  Megatron-LM of early 2021 (arXiv 2104.04473), before fused gradient accumulation and asynchronous reductions
# S4, S5  Jean Zay: four 100 Gb Omni-Path links a node; Megatron-DeepSpeed's ZeRO-1 with bf16, CUDA_LAUNCH_BLOCKING=1
#         against hangs (BigScience's chronicles and launch script of tr11-176B-ml). S5, from 28 February 2022 on, with
#         the optimizer that adds up gradients in fp32: 4 bytes of each parameter, "not sharded"
# S6      Megatron-DeepSpeed on Selene (arXiv 2201.11990)
# S8      one 200 Gb NIC a node (arXiv 2311.16079, section 3)
SOFTWARE = ("megatron", "megatron-2021", "deepspeed")
SITES: Mapping[str, Mapping[str, str]] = {
    "S1": {"software": "megatron-2021"},
    "S2": {"software": "megatron-2021"},
    "S4": {"nics": "4", "nic_gbps": "100", "software": "deepspeed", "zero": "1", "launch_blocking": "1"},
    "S5": {
        **{"nics": "4", "nic_gbps": "100", "software": "deepspeed", "zero": "1", "launch_blocking": "1"},
        "fp32_sum": "1",
    },
    "S6": {"software": "deepspeed"},
    "S8": {"nics": "1", "nic_gbps": "200"},
}
_RECOMPUTE: Mapping[str, Recompute] = {"full": "full", "sel": "selective", "selective": "selective", "none": "none"}
_DESCRIBED = ("peak_tflops", "gpu_memory_gib", "gpu_memory_gb_s", "gpu_nvlink_gb_s")
_DESCRIBE = f"Describe one that is not known by the columns {', '.join(_DESCRIBED)}."
HOPPER = 700.0  # dense bf16 TFLOP/s; GPUs with as many are of Hopper's time or later
NEEDED = ("gpu", "n_gpu", "layers", "hidden", "ffn", "heads", "vocab", "seq", "tp", "pp", "gbs")


def of_row(row: Mapping[str, str]) -> Setup:
    """The training behind a line of measurements, from the columns that are there.

    What a line does not state is taken as it was for its kind: Hopper and later have flash attention, a distributed
    optimizer and overlap (Megatron-core of 2024); an A100 has them only for gated models or sequences of 4,096 and
    more, and then flash attention alone, with Llama's norms and gates in plain PyTorch (the ports of 2023); without
    full recomputation tensor ranks split the sequence (arXiv 2205.05198). The fabric is that of the vendor's own
    servers. An empty `mbs` is 1 with a pipeline, whose bubble it keeps small, and else 2 if that divides: the middle
    of NVIDIA's recipes for the H100, which have 1, 2 and 4, and nearer to Megatron-LM's table than 4; an empty `vp`
    there makes chunks of four layers. Optional columns say otherwise: `cp nics nic_gbps gpus_per_node precision flash
    fused software zero sequence_parallel overlap_dp overlap_tp overlap_p2p grad_reduce_bytes fp32_sum
    fused_accumulation overlap_backward launch_blocking dropout tied`; a GPU that is not known is described by
    `peak_tflops gpu_memory_gib gpu_memory_gb_s gpu_nvlink_gb_s`.

    Raises `UsageError`, which names the column and its value.
    """
    stated = {name: value for name, value in row.items() if name and value not in ("", None)}
    stated = {**SITES.get(str(stated.get("src", "")).strip(), {}), **stated}
    lacking = [name for name in NEEDED if name not in stated]
    if lacking:
        raise UsageError(f"no value for {', '.join(lacking)}", do=f"needed columns: {', '.join(NEEDED)}")

    def number(name: str, default: int | None = None) -> int:
        if name not in stated and default is not None:
            return default
        value = _count(name, stated[name])
        _least(name, value, 1)
        return value

    def flag(name: str, default: bool) -> bool:
        if name not in stated:
            return default
        text = str(stated[name]).strip().lower()
        if text not in ("0", "1", "true", "false", "yes", "no"):
            raise UsageError(f"{name}={stated[name]!r} is neither 1 nor 0")
        return text in ("1", "true", "yes")

    gpu, ampere = _gpu(stated)
    again = str(stated.get("recompute", "none")).strip().lower()
    recompute = _RECOMPUTE.get(again)
    if recompute is None:
        raise UsageError(f"recompute={stated['recompute']!r}", do=nearest(again, _RECOMPUTE))
    precision: Any = str(stated.get("precision", "bf16")).strip().lower()
    if precision not in get_args(Precision):
        raise UsageError(f"precision={stated['precision']!r}", do=nearest(precision, get_args(Precision)))
    gated, seq, tp, pp = flag("gated", False), number("seq"), number("tp"), number("pp")
    cp = number("cp", 1)
    per_model, n_gpu = tp * pp * cp, number("n_gpu")
    dp = number("dp", max(1, n_gpu // per_model))
    if per_model * dp != n_gpu:
        raise UsageError(f"n_gpu={n_gpu} is not tp={tp} x pp={pp} x cp={cp} x dp={dp} = {per_model * dp}")
    micro, vp = number("mbs", 0), number("vp", 0)
    micro = micro or (2 if pp == 1 and number("gbs") % (2 * dp) == 0 else 1)
    vp = vp or (1 if ampere else _chunks(number("layers"), pp, number("gbs") // (dp * micro)))
    flash = flag("flash", not ampere or gated or seq >= 4096)
    software = str(stated.get("software", "megatron")).strip().lower()
    if software not in SOFTWARE:
        raise UsageError(f"software={stated['software']!r} is not known", do=nearest(software, SOFTWARE))
    deepspeed, early = software == "deepspeed", software != "megatron"
    zero = flag("zero", not ampere)
    heads = number("heads")
    per_node = number("gpus_per_node", _GPUS_PER_NODE)
    rate = stated.get("nic_gbps", gpu.nic_gbps or 100.0)
    return Setup(
        shape=Shape(
            layers=number("layers"),
            hidden=number("hidden"),
            ffn=number("ffn"),
            heads=heads,
            kv_heads=number("kv_heads", heads),
            vocab=number("vocab"),
        ),
        gated=gated,
        tied=flag("tied", ampere and not gated),
        seq=seq,
        micro_batch=micro,
        global_batch=number("gbs"),
        tp=tp,
        pp=pp,
        vp=vp,
        cp=cp,
        dp=dp,
        sequence_parallel=flag("sequence_parallel", recompute != "full" and tp > 1),
        recompute=recompute,
        distributed_optimizer=zero,
        flash_attention=flash,
        fused=flag("fused", not (ampere and gated)),
        deepspeed=deepspeed,
        fused_accumulation=flag("fused_accumulation", not early),
        overlap_backward=flag("overlap_backward", not early),
        precision=precision,
        gpu=gpu,
        gpus_per_node=per_node,
        nics=number("nics", per_node),
        nic_gbps=_rate("nic_gbps", rate),
        grad_reduce_bytes=number("grad_reduce_bytes", 4 if deepspeed or (ampere and gated) else 2),
        fp32_sum=flag("fp32_sum", False),
        overlap_dp=flag("overlap_dp", not ampere),
        overlap_tp=flag("overlap_tp", not ampere),
        overlap_p2p=flag("overlap_p2p", not ampere and vp > 1),
        dropout=flag("dropout", ampere and not gated),
        launch_blocking=flag("launch_blocking", False),
    )


def _gpu(stated: Mapping[str, Any]) -> tuple[hardware.Gpu, bool]:
    """The GPU of a line, and whether it is of Ampere's generation or before."""
    text = str(stated["gpu"]).strip()
    given = {name: _rate(name, stated[name]) for name in _DESCRIBED if name in stated}
    for name, value in given.items():
        if not value:
            raise UsageError(f"{name}={stated[name]!r} must be above 0")
    try:
        kind = _gpu_named(text)
    except UsageError:
        if not {*_DESCRIBED[:3]} <= set(given):
            raise
        kind = text
    rates = {name.removeprefix("gpu_"): value for name, value in given.items()}
    gpu = hardware.described(kind, **rates) if given else hardware.GPUS[kind]
    old = kind.startswith(("a", "v", "l4")) if kind in hardware.GPUS else (gpu.bf16_tflops or 0) < HOPPER
    return gpu, old


def _gpu_named(text: str) -> str:
    """A key of `hardware.GPUS` for it, or for a name such as A100, A100-40GB, H100 SXM and, of a driver, NVIDIA
    A100-SXM4-80GB; the chip alone is the one with links and, of an A100, with 80 GB.
    """
    found = re.findall(r"[a-z0-9]+", text.lower())
    words = [re.sub(r"^sxm\d$", "sxm", word) for word in found if word not in ("nvidia", "dgx", "hgx")]
    if "_".join(words) in hardware.GPUS:
        return "_".join(words)
    wanted = {word for part in words[1:] for word in (part, f"{part}gb")}
    kinds = [kind for kind in hardware.GPUS if words and kind.split("_")[0] == words[0]]
    if not kinds or not all({part, f"{part}gb"} & {w for kind in kinds for w in kind.split("_")} for part in words[1:]):
        raise UsageError(f"unknown gpu={text!r}", do=hardware.near("_".join(words), _DESCRIBE))
    usual = {"80gb": 1, "sxm": 2}
    return max(kinds, key=lambda kind: sum(3 * (w in wanted) + usual.get(w, 0) / 4 for w in kind.split("_")))


def _chunks(layers: int, pp: int, batches: int) -> int:
    """Of four layers each, as NVIDIA's recipes for Llama 3 70B have it (pp 4, vp 5)."""
    return max(1, -(-layers // pp) // 4) if pp > 1 and batches % pp == 0 else 1


def _least(name: str, value: int, least: int) -> None:
    if not value >= least:
        raise UsageError(f"{name}={value} must be at least {least}")


def _count(name: str, text: Any) -> int:
    value = _rate(name, text)
    if value != int(value):
        raise UsageError(f"{name}={text!r} is no whole number")
    return int(value)


def _rate(name: str, text: Any) -> float:
    try:
        value = float(text)
    except (TypeError, ValueError):
        raise UsageError(f"{name}={text!r} is no number") from None
    if not math.isfinite(value) or not 0 <= value < 1e15:
        raise UsageError(f"{name}={text!r} is out of range")
    return value
