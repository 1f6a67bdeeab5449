"""The shape of a resolved recipe: frozen dataclasses, one per group, with the defaults that every recipe shares.

Decides names, types and units of the values; the rules between values are in `rules`, reading and composing in
`compose`. A value of `None` means "not stated": the stage that needs it says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from toolkit.cleaning import Decontamination, Duplicates, Filters

STAGES = (
    *("corpus", "base", "shards", "import", "preflight", "pretrain", "export", "finetune", "score", "report"),
    "night",
)


@dataclass(frozen=True, kw_only=True)
class Model:
    """A Llama shape and where its weights come from. `base` is an HF folder, or `make`: a small random one."""

    name: str
    family: Literal["llama2", "llama3"] = "llama2"
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
    nominal_parameters: float | None = None  # the size in the model's name, 70e9: the paper's count of FLOPs


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
    tp_overlap: bool = False  # tensor-parallel communication behind matrix products; Transformer Engine does it
    recompute: Literal["none", "selective", "full"] = "none"
    cuda_connections: int = 1  # CUDA_DEVICE_MAX_CONNECTIONS; 1 keeps communication ahead of what overlaps it


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
    layers: Literal["te", "local"] = "te"  # Transformer Engine's, or Megatron's own; a CPU has the latter alone
    attention: Literal["auto", "flash", "fused", "unfused"] = "auto"  # auto: what the layers find best
    save_every: int = 500
    keep: int = 2  # newest checkpoints kept
    keep_every: int | None = None  # the checkpoint of every n-th step is kept for ever besides
    async_save: bool = True  # on GPUs: written while the training goes on
    valid_every: int = 500
    valid_batches: int = 8
    valid_full: bool = True  # after the last step, over all of the validation set once
    seed: int = 1234


@dataclass(frozen=True, kw_only=True)
class Guard:
    """When a training helps itself, and when it stops: updates that are no numbers, losses that jump, slow ranks."""

    bad_steps: int = 3  # updates skipped in a row, because loss or gradients are NaN or infinite; one more is the end
    spike: Literal["none", "warn", "rollback"] = "warn"  # rollback: begin before it again, without its batches
    window: int = 128  # the last losses, of which the median is taken
    deviations: float = 6.0  # above the median, in robust standard deviations (1.4826 x MAD), is a spike
    floor: float = 0.02  # least standard deviation, as a share of the median
    spike_steps: int = 3  # spikes in a row before it is rolled back
    rollbacks: int = 3  # then the next one is the end
    straggler_every: int = 100  # steps between looks at the time of each rank; 0 never looks
    straggler_ratio: float = 1.3  # to the median of its likes: from there on a rank is told of


@dataclass(frozen=True, kw_only=True)
class Data:
    """How documents become training sequences."""

    append_eod: bool = True
    reset_attention: bool = False
    workers: int = 0  # loader processes per rank
    shard_workers: int = 1  # tokenizing processes
    shard_parts: int = 1  # jobs that tokenize a share of the corpus' files each, where jobs can run side by side
    weights: Mapping[str, float] = field(default_factory=dict)  # shares of subsets; none: each document once an epoch
    check_shards: Literal["changed", "all"] = "changed"  # which of them are read whole before a training


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a subset comes from: files or folders, the `kind` that names their reader, and `options` of that."""

    kind: Literal["pmc", "jats", "s2orc", "abstracts", "guidelines", "replay", "jsonl", "world"]  # jats is pmc
    path: str | None = None
    paths: tuple[str, ...] = ()  # further ones
    options: Mapping[str, Any] = field(default_factory=dict)
    license: str | None = None  # of documents that state none
    valid_fraction: float | None = None  # else 0.05 of guidelines, none of replay, and the corpus's of the others

    @property
    def given(self) -> tuple[str, ...]:
        """All of its files and folders."""
        return (*(() if self.path is None else (self.path,)), *self.paths)


@dataclass(frozen=True, kw_only=True)
class Decontaminate(Decontamination):
    """What is done about documents that hold questions of benchmarks, and which those are: name -> file."""

    benchmarks: Mapping[str, str] = field(default_factory=dict)  # none: those of `score.paths`


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Where documents come from, and what stays of them. `sources` is keyed by subset."""

    sources: Mapping[str, Source] = field(default_factory=dict)
    valid_fraction: float = 0.03
    max_bad_fraction: float = 0.01  # of a source's rows
    workers: int = 1  # processes of each job
    tasks: int = 1  # jobs that read a share of the files each, where jobs can run side by side
    markup: Literal["plain", "tags"] = "plain"  # tags: the paper's tokens around citations, figures, tables, formulas
    tables: Literal["caption", "text"] = "caption"
    upsample: bool = False  # the paper's trial: papers that weigh more stand in the corpus several times
    filters: Filters = field(default_factory=Filters)
    duplicates: Duplicates = field(default_factory=Duplicates)
    decontaminate: Decontaminate = field(default_factory=Decontaminate)


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What earlier stages would have made, given from outside when they are not part of this recipe."""

    corpus: str | None = None  # folder with train/*.jsonl.zst and valid/*.jsonl.zst, or train.jsonl and valid.jsonl
    shards: str | None = None  # folder with blend.json (or train.bin/.idx and valid.bin/.idx) and tokenizer/
    checkpoint: str | None = None  # Megatron distributed checkpoint


@dataclass(frozen=True, kw_only=True)
class Lora:
    """Low-rank adapters beside frozen weights. `modules` are Megatron's names."""

    rank: int = 16
    alpha: int = 32  # the adapter's share is alpha / rank
    dropout: float = 0.0
    modules: tuple[Literal["linear_qkv", "linear_proj", "linear_fc1", "linear_fc2"], ...] = (
        *("linear_qkv", "linear_proj", "linear_fc1", "linear_fc2"),
    )


@dataclass(frozen=True, kw_only=True)
class Finetune:
    """Supervised finetuning on training rows of benchmarks, loss on the answers alone; the rest of the training is the
    `train` section's.
    """

    benchmark: str  # or several, with weights: medqa+medmcqa*0.5
    path: str | None = None  # rows; `world` takes those of the corpus stage
    paths: Mapping[str, str] = field(default_factory=dict)  # of each benchmark, where there are several
    target: Literal["letter", "cot"] = "letter"  # cot: the row's explanation, and then the letter
    format: Literal["plain", "messages", "template"] = "plain"  # messages: MEDITRON's, with two more tokens
    template: str | None = None  # for format=template: HF folder, tokenizer_config.json or .jinja file
    system: str = ""  # what a system message says, also in the exported template; none where empty
    pack: bool = False  # a micro-batch's rows one behind the other instead of padded, none seeing another
    peft: Literal["none", "lora"] = "none"
    lora: Lora = field(default_factory=Lora)
    held_out: int = 640  # rows to validate on, at most a twentieth; 0 trains on all of them and validates on none
    epochs: int = 3
    steps: int | None = None  # instead of epochs
    steps_multiple: int = 1  # epochs end at the next multiple of so many steps; the paper's finetunings: 10
    lr: float = 2e-5
    min_lr: float = 2e-6
    warmup_fraction: float = 0.1
    micro_batch: int = 4
    global_batch: int = 64
    seq_length: int = 2048
    save_every: int = 800
    valid_every: int = 100
    valid_batches: int = 1


@dataclass(frozen=True, kw_only=True)
class Score:
    """What to score. `paths` gives the file of a benchmark; `world` takes that of the corpus stage."""

    benchmarks: tuple[str, ...] = ()
    paths: Mapping[str, str] = field(default_factory=dict)
    train_paths: Mapping[str, str] = field(default_factory=dict)  # of demonstrations, where not beside `paths`
    modes: tuple[Literal["letter", "cloze", "cot", "sc_cot"], ...] = ()  # none: each benchmark's own
    shots: int = 0  # demonstrations before each question
    seeds: tuple[int, ...] = (0,)  # of their draw and of samples; the paper's are 1234, 432 and 32
    samples: int = 5  # of sc_cot (MEDITRON paper, section 4.3)
    temperature: float = 0.8  # of these
    max_tokens: int = 1024  # that a text with reasoning may have
    paper_compat: bool = False  # the released code's ways, where they are others
    engine: Literal["transformers", "vllm"] = "transformers"
    limit: int | None = None
    batch_tokens: int = 16384


@dataclass(frozen=True, kw_only=True)
class Gate:
    """When a checkpoint counts as worse than that of the last good night: both by so much and beyond chance."""

    min_drop: float = 0.01  # of accuracy, a fraction
    alpha: float = 0.05  # of the paired test, over all benchmarks together


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """Who is told when scores are worse, when something could not be scored or compared, or when a night broke off.
    Addresses that are secret stay in the environment.
    """

    webhook_env: str | None = None  # the environment variable that holds an http(s) address, which gets JSON by POST
    mail: tuple[str, ...] = ()  # addresses that `sendmail` is given a message for
    sendmail: str = "sendmail"  # or a path; the option -t is added
    always: bool = False  # after every night, good ones too


@dataclass(frozen=True, kw_only=True)
class Due:
    """A checkpoint that a night scores, as `python -m toolkit.night run` found it. `series` names its training in the
    history; `config` and `tokenizer` are the HF model's that it is exported as.
    """

    path: str
    series: str
    step: int
    config: str
    tokenizer: str
    vocab: int | None = None


@dataclass(frozen=True, kw_only=True)
class Night:
    """What is scored night by night: checkpoints of the trainings that `watch` names, as soon as they are whole."""

    watch: tuple[str, ...] = ()  # run folders, or folders of checkpoints; * and ? stand for any characters
    history: str = "nights"  # folder of scores, verdicts and pages, which all nights share
    gate: Gate = field(default_factory=Gate)
    hooks: Hooks = field(default_factory=Hooks)
    tries: int = 3  # nights that a checkpoint which cannot be scored is tried again
    most: int = 16  # checkpoints of one night, the newest of each training first; the rest waits for the next
    checkpoints: tuple[Due, ...] = ()  # filled in by `python -m toolkit.night run`


@dataclass(frozen=True, kw_only=True)
class Small:
    """What a job takes that is one process on one node, such as shards, export and report; None is the site's own."""

    partition: str | None = None  # else that of the training jobs
    cpus: int | None = None
    mem_gib: int | None = None
    devices: int = 0  # GPUs of a job that scores
    time_limit_min: int | None = None
    array_parallelism: int = 32  # tasks of one array that run at once
    sbatch: Mapping[str, Any] | None = None  # further options of sbatch instead of the cluster's own


@dataclass(frozen=True, kw_only=True)
class Alive:
    """How a training job on Slurm survives time limits, preemption, dead nodes and hangs."""

    signal_before_s: int = 600  # USR2 this long before the time limit; a checkpoint must fit into it
    hang_s: float = 1800.0  # no step, validation batch or save for so long is a hang
    start_s: float = 3600.0  # the same before the first step: imports, restoring, indexing of the data
    idle_attempts: int = 3  # attempts in a row without a newer checkpoint, then the job fails
    strikes: int = 2  # failures of a node, then the run excludes it
    look_s: float = 600.0  # each node, before the ranks: its image and its fabric; one that says nothing is excluded


@dataclass(frozen=True, kw_only=True)
class Apptainer:
    """How a site starts images."""

    command: str = "apptainer"  # or singularity, or a path
    binds: tuple[str, ...] = ()  # as --bind takes them; the run's folder and what the recipe names are bound anyway
    options: tuple[str, ...] = ()  # further options of `apptainer exec`, such as --unsquash
    local: str | None = None  # folder on each node's own disk that SIFs are copied to before they are started


@dataclass(frozen=True, kw_only=True)
class Preflight:
    """What a preflight asks of each node and of the way between them. Rates are bus bandwidths of an all-reduce, GB/s
    (1e9 bytes). `None` is computed: from the GPUs' links, the NICs that were found, or by the device.
    """

    bandwidth: bool = True  # each node alone, pairs of nodes, all of them; else nothing is measured
    fraction: float = 0.8  # of what is expected; below it is a fault
    node_gb_s: float | None = None  # expected of one node's GPUs
    pair_gb_s: float | None = None  # of two nodes
    all_gb_s: float | None = None  # of all nodes
    outlier: float | None = None  # of what its likes reach, a fault too: 0.7 on GPUs, 0.1 on CPUs
    rounds: int | None = None  # of pairs, each node with another partner: all pairs up to 16 nodes, 8 rounds beyond
    size_mib: int | None = None  # largest message: 1024 on GPUs, 8 on CPUs
    limit_s: float = 60.0  # for one test, which is given up then
    start_s: float = 300.0  # for all ranks to load torch
    idle_mib: int = 2048  # of a GPU's memory that may be in use before the job
    shm_gib: float | None = None  # least size of /dev/shm: 1 on GPUs, 0 on CPUs
    scratch_gib: float = 10.0  # least room in cluster.scratch
    memlock_gib: float | None = None  # least memory that may be locked, where there is RDMA; else a warning
    driver: str | None = None  # the GPU driver's version, or how it begins: 550
    dcgm: int = 0  # `dcgmi diag -r N` on each node, 1 to 4; 0 does without
    counters: int = 10  # errors that a NIC's port may count meanwhile; a link that goes down is always a fault


@dataclass(frozen=True, kw_only=True)
class Nccl:
    """What a site tells NCCL of its fabric beyond what each node's /sys tells. `None` leaves it to NCCL."""

    required: bool = True  # NCCL_NET=IB: without the fabric a job ends at once, instead of going on over sockets
    hca: tuple[str, ...] = ()  # the fabric's ports, mlx5_0 or mlx5_0:1, instead of those that are detected
    sockets: tuple[str, ...] = ()  # interfaces for NCCL's and gloo's sockets, instead of the one that is detected
    gid: Literal["nccl", "detected"] = "nccl"  # detected: its index is written down, for NCCL before 2.21
    gid_index: int | None = None  # NCCL_IB_GID_INDEX, whatever is detected
    traffic_class: int | None = None  # NCCL_IB_TC, DSCP x 4; as the NICs and switches have it
    service_level: int | None = None  # NCCL_IB_SL
    qps: int | None = None  # NCCL_IB_QPS_PER_CONNECTION
    timeout: int | None = None  # NCCL_IB_TIMEOUT, 4.096 us x 2^timeout; longer lives through flaps of a link
    retry: int | None = None  # NCCL_IB_RETRY_CNT
    gdr_level: Literal["LOC", "PIX", "PXB", "PHB", "SYS"] | None = None  # NCCL_NET_GDR_LEVEL
    cross_nic: int | None = None  # NCCL_CROSS_NIC; 0 where rails have switches of their own
    ucx: bool = False  # UCX_NET_DEVICES as well
    env: Mapping[str, str] = field(default_factory=dict)  # further variables, as they are; NCCL_NET where not required


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A site: where jobs run and on what."""

    name: str
    executor: Literal["local", "slurm"] = "local"
    device: Literal["cpu", "gpu"] = "gpu"
    nodes: int = 1
    devices_per_node: int = 8  # GPUs, or training processes on a CPU
    gpu: str | None = None  # a key of toolkit.hardware.GPUS
    peak_tflops: float | None = None  # dense bf16 TFLOP/s of one device, instead of its type's
    gpu_tdp_w: float | None = None  # watts of one device at its limit, instead of its type's
    gpu_memory_gib: float | None = None  # of one device, instead of its type's
    gpu_memory_gb_s: float | None = None  # bandwidth of that memory, GB/s, instead of its type's
    gpu_nvlink_gb_s: float | None = None  # of one device, both directions together, instead of its type's
    calibration: str | None = None  # file of `python -m toolkit.plan calibrate`: how fast this site is
    node_overhead: float | None = None  # power of a node over that of its GPUs
    pue: float | None = None  # power of the building over that of its nodes
    kgco2_per_kwh: float | None = None  # of the site's electricity
    price_per_gpu_hour: float | None = None
    currency: str = "USD"  # of the price
    max_gpu_hours: float | None = None  # what is left of the allocation: a plan that needs more is refused
    ask_gpu_hours: float = 1000.0  # a launch on a terminal asks before it takes more
    disk_gb_s: float | None = None  # all nodes together write a checkpoint so fast; else 1 GB/s a node
    failures_per_gpu_hour: float | None = None  # else what was published of Llama 3: 419 in 54 days of 16,384 GPUs
    restart_min: float = 10.0  # from a failure to the first step again, without reading the checkpoint
    gres: str | None = None  # the GPUs' type as this Slurm calls it: gpus-per-node=TYPE:N; `none` asks for no GPUs
    cpus_per_device: int | None = None
    mem_gib: int | None = None  # per node; 0 takes all of it
    exclusive: bool = False  # training jobs share no node
    nics: int | None = None  # of the fabric, per node
    nic_gbps: int | None = None  # of one NIC
    fabric: Literal["none", "roce", "infiniband"] = "none"
    nccl: Nccl = field(default_factory=Nccl)
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    time_limit_min: int | None = None
    small: Small = field(default_factory=Small)
    alive: Alive = field(default_factory=Alive)
    apptainer: Apptainer = field(default_factory=Apptainer)
    preflight: Preflight = field(default_factory=Preflight)
    modules: tuple[str, ...] = ()  # module load NAME, in order
    scratch: str | None = None  # node-local folder, TMPDIR of the jobs; may name $SLURM_JOB_ID or $USER
    sbatch: Mapping[str, Any] = field(default_factory=dict)  # further options of sbatch: {constraint: a100}


@dataclass(frozen=True, kw_only=True)
class Wandb:
    """Weights & Biases. Its key comes from the environment alone: WANDB_API_KEY."""

    project: str
    entity: str | None = None
    mode: Literal["online", "offline"] = "online"  # offline writes below the stage's folder, for `wandb sync`


@dataclass(frozen=True, kw_only=True)
class Mlflow:
    """MLflow. Its secrets come from the environment alone: MLFLOW_TRACKING_TOKEN or _USERNAME and _PASSWORD."""

    experiment: str
    tracking_uri: str | None = None  # else MLFLOW_TRACKING_URI, or a file below the stage's folder


@dataclass(frozen=True, kw_only=True)
class Watch:
    """Where a training's figures go besides metrics.jsonl, and how its speed and power are told."""

    tensorboard: bool = True
    wandb: Wandb | None = None
    mlflow: Mlflow | None = None
    mfu: Literal["6n", "6n_causal", "6n_full", "paper"] = "6n_causal"  # the main convention; the page shows all
    power_every_s: float = 10.0  # between two readings of the GPUs' power; 0 reads none


@dataclass(frozen=True, kw_only=True)
class Container:
    """What the payload runs in: an Apptainer image, or (`runtime: none`) an environment of the host."""

    runtime: Literal["none", "apptainer"] = "none"
    image: str | None = None  # a SIF file or a sandbox folder
    python: str | None = None  # in the image: python3; without one: the Python that runs the launcher


@dataclass(frozen=True, kw_only=True)
class Published:
    """What was published of the training that a recipe repeats, for a plan to show beside what it predicts."""

    source: str
    gpus: int
    tokens: float | None = None  # that it trained on
    tokens_per_s: float | None = None
    hours: float | None = None
    gpu_hours: float | None = None
    gpu_w: float | None = None  # with which its carbon was counted, and
    node_overhead: float | None = None
    pue: float | None = None
    kgco2_per_kwh: float | None = None
    kgco2: float | None = None
    fused: bool = True  # its software had norms, rotary positions and gates in one kernel each
    distributed_optimizer: bool = True
    micro_batches: tuple[int, ...] = ()  # of which it says whether they fit


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
    guard: Guard = field(default_factory=Guard)
    data: Data = field(default_factory=Data)
    corpus: Corpus = field(default_factory=Corpus)
    inputs: Inputs = field(default_factory=Inputs)
    finetune: Finetune | None = None
    score: Score = field(default_factory=Score)
    night: Night | None = None
    cluster: Cluster
    container: Container = field(default_factory=Container)
    watch: Watch = field(default_factory=Watch)
    published: Published | None = None
    runs: str = "runs"  # folder of run folders
