"""The shape of a resolved recipe: frozen dataclasses, one per group, with the defaults that every recipe shares.

Decides names, types and units of the values; the rules between values are in `rules`, reading and composing in
`compose`. A value of `None` means "not stated": the stage that needs it says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

STAGES = ("corpus", "base", "shards", "import", "pretrain", "export", "finetune", "score", "report")


@dataclass(frozen=True, kw_only=True)
class Model:
    """A Llama shape and where its weights come from. `base` is an HF folder, or `make`: a small random one."""

    name: str
    family: Literal["llama2"] = "llama2"
    base: str | None = None
    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    base_vocab: int  # pieces of the base tokenizer
    extra_tokens: Literal["meditron", "none"] = "meditron"  # 17 rows: 5 control and 12 corpus tags
    new_rows: Literal["copy_last", "mean"] = "copy_last"  # how added embedding rows start
    max_positions: int = 4096
    rope_base: float = 10000.0
    norm_eps: float = 1e-5
    init_std: float = 0.02  # for base=make


@dataclass(frozen=True, kw_only=True)
class Parallel:
    """Parallel sizes as counts of ranks. dp follows from the cluster's GPUs (or processes)."""

    tp: int = 1
    pp: int = 1
    cp: int = 1
    vp: int | None = None  # virtual stages per pipeline rank
    sequence: bool = False
    distributed_optimizer: bool = True
    overlap: bool = True  # gradient reduction and parameter gathering behind computation
    recompute: Literal["none", "selective", "full"] = "none"


@dataclass(frozen=True, kw_only=True)
class Train:
    """One training: optimizer, schedule, batch, saving. Steps count optimizer updates; batches count sequences."""

    steps: int
    seq_length: int
    micro_batch: int
    global_batch: int
    lr: float
    min_lr: float = 0.0
    warmup_steps: int = 0
    decay_steps: int | None = None  # the cosine's horizon; beyond `steps` the run stops on the way down
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-5
    weight_decay: float = 0.1
    clip_grad: float = 1.0
    precision: Literal["bf16", "fp32"] = "bf16"
    save_every: int = 500
    keep: int = 2  # newest checkpoints kept
    valid_every: int = 500
    valid_batches: int = 8
    seed: int = 1234


@dataclass(frozen=True, kw_only=True)
class Data:
    """How documents become training sequences."""

    append_eod: bool = True
    reset_attention: bool = False
    workers: int = 0  # loader processes per rank
    shard_workers: int = 1  # tokenizing processes


@dataclass(frozen=True, kw_only=True)
class Source:
    kind: Literal["world", "jats", "jsonl"]
    path: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Where documents come from. `sources` is keyed by subset."""

    sources: Mapping[str, Source] = field(default_factory=dict)
    valid_fraction: float = 0.03
    max_bad_fraction: float = 0.01
    allow_noncommercial: bool = False


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What earlier stages would have made, given from outside when they are not part of this recipe."""

    corpus: str | None = None  # folder with train.jsonl and valid.jsonl
    shards: str | None = None  # folder with train.bin/.idx, valid.bin/.idx and tokenizer/
    checkpoint: str | None = None  # Megatron distributed checkpoint


@dataclass(frozen=True, kw_only=True)
class Finetune:
    """Supervised finetuning on a benchmark's training rows; the rest of the training is the `train` section's."""

    benchmark: str
    path: str | None = None  # rows; `world` takes those of the corpus stage
    epochs: int = 3
    steps: int | None = None  # instead of epochs
    lr: float = 2e-5
    min_lr: float = 2e-6
    warmup_fraction: float = 0.1
    micro_batch: int = 4
    global_batch: int = 64
    seq_length: int = 2048
    save_every: int = 800
    valid_every: int = 100


@dataclass(frozen=True, kw_only=True)
class Score:
    """What to score. `paths` gives the file of a benchmark; `world` takes that of the corpus stage."""

    benchmarks: tuple[str, ...] = ()
    paths: Mapping[str, str] = field(default_factory=dict)
    limit: int | None = None
    batch_tokens: int = 16384


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A site: where jobs run and on what."""

    name: str
    executor: Literal["local", "slurm"] = "local"
    device: Literal["cpu", "gpu"] = "gpu"
    nodes: int = 1
    devices_per_node: int = 8  # GPUs, or training processes on a CPU
    gpu: str | None = None  # a key of toolkit.hardware.GPUS
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    time_limit_min: int | None = None


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything a job reads. `stages` run in this order; an export takes the model of the nearest training before
    it.
    """

    name: str
    title: str
    stages: tuple[str, ...]
    model: Model
    parallel: Parallel
    train: Train
    data: Data = field(default_factory=Data)
    corpus: Corpus = field(default_factory=Corpus)
    inputs: Inputs = field(default_factory=Inputs)
    finetune: Finetune | None = None
    score: Score = field(default_factory=Score)
    cluster: Cluster
    runs: str = "runs"  # folder of run folders
