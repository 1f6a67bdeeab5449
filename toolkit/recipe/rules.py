"""The rules between a recipe's values: what must divide what, what cannot be combined.

Decides only what is impossible; what is unwise or does not fit in memory is the plan's to say.
"""

from __future__ import annotations

import re

from toolkit.errors import RecipeError, nearest
from toolkit.flops import CONVENTIONS
from toolkit.hardware import gpu
from toolkit.recipe import site
from toolkit.recipe.schema import STAGES, Finetune, Guard, Parallel, Preflight, Recipe, Train

TRAINING_STAGES = ("pretrain", "finetune")


def check(recipe: Recipe, where: str = "") -> None:
    """Raise `RecipeError` for the first rule that does not hold."""
    for stage in recipe.stages:
        if stage not in STAGES:
            raise RecipeError(f"unknown stage '{stage}' in stages", where=where, do=nearest(stage, STAGES))
    if not recipe.stages:
        raise RecipeError("'stages' is empty", where=where, do="name at least one stage")
    _need(
        re.fullmatch(r"[A-Za-z0-9][\w.-]*", recipe.name) is not None,
        f"name {recipe.name!r} cannot begin a folder's name",
        where,
        "use letters, digits, '-', '_' and '.'",
    )
    _positive(recipe, where)
    _layout(recipe, where)
    _train(recipe.train, where)
    _engine(recipe, where)
    _guard(recipe.guard, where)
    _rest(recipe, where)
    _stages(recipe, where)
    site.check(recipe, where)


def _need(ok: bool, what: str, where: str, do: str = "") -> None:
    if not ok:
        raise RecipeError(what, where=where, do=do)


def _positive(recipe: Recipe, where: str) -> None:
    counts = {
        "model": ("layers", "hidden", "ffn", "heads", "kv_heads", "base_vocab", "max_positions"),
        "parallel": ("tp", "pp", "cp", "vp"),
        "train": (
            *("steps", "decay_steps", "seq_length", "micro_batch", "global_batch"),
            *("save_every", "keep", "keep_every", "valid_every", "valid_batches"),
        ),
        "guard": ("spike_steps",),
        "data": ("shard_workers", "shard_parts"),
        "score": ("limit", "batch_tokens"),
        "finetune": ("epochs", "steps", "micro_batch", "global_batch", "seq_length", "save_every", "valid_every"),
        "cluster": ("nodes", "devices_per_node", "time_limit_min"),
    }
    for section, names in counts.items():
        part = getattr(recipe, section)
        for name in names if part is not None else ():
            value = getattr(part, name)
            _need(value is None or value >= 1, f"{section}.{name} is {value}", where, "give 1 or more")


def _layout(recipe: Recipe, where: str) -> None:
    model, par, train = recipe.model, recipe.parallel, recipe.train
    _need(
        model.hidden % model.heads == 0, f"model.heads={model.heads} does not divide model.hidden={model.hidden}", where
    )
    _need(
        model.heads % model.kv_heads == 0,
        f"model.kv_heads={model.kv_heads} does not divide model.heads={model.heads}",
        where,
    )
    _need(model.heads % par.tp == 0, f"parallel.tp={par.tp} does not divide model.heads={model.heads}", where)
    _need(
        model.kv_heads % par.tp == 0,
        f"parallel.tp={par.tp} does not divide model.kv_heads={model.kv_heads} (KV groups)",
        where,
    )
    _need(model.ffn % par.tp == 0, f"parallel.tp={par.tp} does not divide model.ffn={model.ffn}", where)
    _need(
        (model.hidden // model.heads) % 2 == 0,
        f"model.hidden={model.hidden} / model.heads={model.heads} is odd, and rotary positions turn pairs",
        where,
    )
    stages = par.pp * (par.vp or 1)
    _need(
        model.layers % stages == 0,
        f"parallel.pp={par.pp} x vp={par.vp or 1} does not divide model.layers={model.layers}",
        where,
    )
    _need(par.vp is None or par.pp > 1, f"parallel.vp={par.vp} needs parallel.pp={par.pp} above 1", where)
    _need(not par.sequence or par.tp > 1, f"parallel.sequence=true needs parallel.tp={par.tp} above 1", where)
    lengths = {"train": train.seq_length}
    if recipe.finetune is not None:
        lengths["finetune"] = recipe.finetune.seq_length
    for name, length in lengths.items():
        _need(
            length % (2 * par.cp if par.cp > 1 else 1) == 0,
            f"parallel.cp={par.cp} x 2 does not divide {name}.seq_length={length}",
            where,
        )
        _need(
            not par.sequence or length % par.tp == 0,
            f"parallel.tp={par.tp} does not divide {name}.seq_length={length}",
            where,
        )
        _need(
            length <= model.max_positions,
            f"{name}.seq_length={length} is above model.max_positions={model.max_positions}",
            where,
        )
    nodes, per_node = recipe.cluster.nodes, recipe.cluster.devices_per_node
    devices, per_model = nodes * per_node, par.tp * par.pp * par.cp
    _need(
        devices % per_model == 0,
        f"parallel.tp={par.tp} x parallel.pp={par.pp} x parallel.cp={par.cp} = {per_model} does not divide "
        f"cluster.nodes={nodes} x cluster.devices_per_node={per_node} = {devices}",
        where,
        f"make the cluster's devices a multiple of {per_model}",
    )
    dp = devices // per_model
    _batch("train", train, dp, par, where)
    if recipe.finetune is not None:
        _batch("finetune", recipe.finetune, dp, par, where)


def _batch(section: str, asked: Train | Finetune, dp: int, par: Parallel, where: str) -> None:
    micro, total = asked.micro_batch, asked.global_batch
    _need(
        total % (micro * dp) == 0,
        f"{section}.global_batch={total} is not a multiple of {section}.micro_batch={micro} x dp={dp} = {micro * dp}",
        where,
        f"nearest: {max(1, round(total / (micro * dp))) * micro * dp}",
    )
    batches = total // (micro * dp)
    _need(
        par.vp is None or batches % par.pp == 0,
        f"parallel.vp={par.vp} needs micro-batches in multiples of parallel.pp={par.pp}, "
        f"and {section}.global_batch={total} makes {batches}",
        where,
    )


def _train(train: Train, where: str) -> None:
    _need(train.lr > 0, f"train.lr={train.lr} must be above 0", where)
    _need(
        0 <= train.min_lr <= train.lr, f"train.min_lr={train.min_lr} must lie between 0 and train.lr={train.lr}", where
    )
    horizon = train.decay_steps if train.decay_steps is not None else train.steps
    _need(horizon >= train.steps, f"train.decay_steps={horizon} is below train.steps={train.steps}", where)
    _need(
        0 <= train.warmup_steps < horizon,
        f"train.warmup_steps={train.warmup_steps} must lie between 0 and {horizon - 1}",
        where,
    )
    _need(train.seed >= 1, f"train.seed={train.seed} must be 1 or more", where)
    _within("train", train, ("beta1", "beta2"), where, below=1)
    _within("train", train, ("weight_decay", "clip_grad"), where)
    _need(train.eps > 0, f"train.eps={train.eps} must be above 0", where)
    _need(
        train.keep_every is None or train.keep_every % train.save_every == 0,
        f"train.keep_every={train.keep_every} is not a multiple of train.save_every={train.save_every}",
        where,
    )


def _engine(recipe: Recipe, where: str) -> None:
    """What the layers, the GPUs and Megatron's schedules cannot do together."""
    par, train, on_cpu = recipe.parallel, recipe.train, recipe.cluster.device == "cpu"
    local = train.layers == "local" or on_cpu
    without = "cluster.device=cpu, which has no" if on_cpu else "train.layers=local, which has no"
    _need(par.vp != 1, "parallel.vp=1 is no interleaving", where, "give 2 or more, or null")
    _need(
        1 <= par.cuda_connections <= 32,
        f"parallel.cuda_connections={par.cuda_connections} must lie between 1 and 32",
        where,
        "CUDA has no other",
    )
    _need(
        recipe.model.family == "llama2" or recipe.model.extra_tokens == "none",
        f"model.extra_tokens={recipe.model.extra_tokens} does not go with model.family={recipe.model.family}",
        where,
        "its tokenizer.json takes no tokens, but has reserved ones: model.extra_tokens=none",
    )
    _need(not par.tp_overlap or par.sequence, "parallel.tp_overlap=true needs parallel.sequence=true", where)
    for name, asked in (
        ("parallel.tp_overlap=true", par.tp_overlap),
        (f"parallel.cp={par.cp}", par.cp > 1),
        ("train.attention=fused", train.attention == "fused"),
    ):
        _need(not (asked and local), f"{name} does not go with {without} Transformer Engine", where)
    _need(
        par.cp == 1 or train.attention != "unfused",
        f"train.attention=unfused does not go with parallel.cp={par.cp}",
        where,
        "give flash, fused or auto",
    )


def _guard(guard: Guard, where: str) -> None:
    _within("guard", guard, ("bad_steps", "rollbacks", "straggler_every"), where)
    _need(guard.window >= 2, f"guard.window={guard.window} has no median", where, "give 2 or more losses")
    _need(guard.deviations > 0, f"guard.deviations={guard.deviations} must be above 0", where)
    _need(guard.floor > 0, f"guard.floor={guard.floor} must be above 0", where)
    _need(guard.straggler_ratio > 1, f"guard.straggler_ratio={guard.straggler_ratio} must be above 1", where)


def _rest(recipe: Recipe, where: str) -> None:
    for name in ("rope_base", "norm_eps", "init_std"):
        value = getattr(recipe.model, name)
        _need(value > 0, f"model.{name}={value} must be above 0", where)
    _within("corpus", recipe.corpus, ("valid_fraction", "max_bad_fraction"), where, below=1)
    _within("data", recipe.data, ("workers",), where)
    _documents(recipe, where)
    asked = recipe.finetune
    if asked is not None:
        _need(asked.lr > 0, f"finetune.lr={asked.lr} must be above 0", where)
        _need(
            0 <= asked.min_lr <= asked.lr,
            f"finetune.min_lr={asked.min_lr} must lie between 0 and finetune.lr={asked.lr}",
            where,
        )
        _within("finetune", asked, ("warmup_fraction",), where, below=1)
    _device(recipe, where)
    _preflight(recipe.cluster.preflight, where)
    _watch(recipe, where)


def _preflight(asked: Preflight, where: str) -> None:
    for name in ("fraction", "outlier"):
        value = getattr(asked, name)
        _need(value is None or 0 < value <= 1, f"cluster.preflight.{name}={value} must be above 0 and at most 1", where)
    least = {"limit_s": 1, "start_s": 1, "rounds": 1, "size_mib": 1, "dcgm": 0, "idle_mib": 0, "counters": 0}
    least |= {"shm_gib": 0, "scratch_gib": 0, "memlock_gib": 0}
    for name, low in least.items():
        value = getattr(asked, name)
        _need(
            value is None or low <= value < 1e6,
            f"cluster.preflight.{name}={value} must be at least {low}, and a sane number",
            where,
        )
    for name in ("node_gb_s", "pair_gb_s", "all_gb_s"):
        value = getattr(asked, name)
        _need(value is None or 0 < value < 1e6, f"cluster.preflight.{name}={value} must be above 0, in GB/s", where)
    _need(asked.dcgm <= 4, f"cluster.preflight.dcgm={asked.dcgm}: dcgmi diag has levels 1 to 4", where)
    _need(
        asked.driver is None or re.fullmatch(r"\d+(\.\d+)*", asked.driver) is not None,
        f"cluster.preflight.driver={asked.driver!r} is no version of a driver",
        where,
        "write it as nvidia-smi does, in quotes: '550.54.15', or how it begins: '550'",
    )


def _device(recipe: Recipe, where: str) -> None:
    site, model = recipe.cluster, recipe.model
    for key, value in (
        ("cluster.peak_tflops", site.peak_tflops),
        ("cluster.gpu_tdp_w", site.gpu_tdp_w),
        ("model.nominal_parameters", model.nominal_parameters),
    ):
        _need(value is None or value > 0, f"{key}={value} must be above 0", where)
    for name in ("node_overhead", "pue"):
        value = getattr(site, name)
        _need(value is None or value >= 1, f"cluster.{name}={value} must be at least 1", where)
    value = site.kgco2_per_kwh
    _need(value is None or value >= 0, f"cluster.kgco2_per_kwh={value} must be at least 0", where)
    if site.device == "gpu" and site.gpu is not None and site.peak_tflops is None:
        try:
            known = gpu(site.gpu)
        except RecipeError as err:
            raise RecipeError(f"cluster.gpu: {err.what}", where=where, do=err.do) from None
        _need(
            known.bf16_tflops is not None or recipe.train.precision != "bf16",
            f"cluster.gpu={site.gpu}: a {known.title} has no bf16, and train.precision=bf16 asks for it",
            where,
            "train.precision=fp32, or another GPU",
        )


def _watch(recipe: Recipe, where: str) -> None:
    watch = recipe.watch
    _need(watch.power_every_s == 0 or watch.power_every_s >= 1, f"watch.power_every_s={watch.power_every_s} is below 1",
          where, "give 1 or more seconds, or 0 to read no power")  # fmt: skip
    _need(
        watch.mfu != "paper" or recipe.model.nominal_parameters is not None,
        "watch.mfu=paper counts FLOPs by model.nominal_parameters, which is not stated",
        where,
        f"state it, or choose another: {', '.join(name for name in CONVENTIONS if name != 'paper')}",
    )
    for key, word in (
        ("watch.wandb.project", watch.wandb and watch.wandb.project),
        ("watch.wandb.entity", watch.wandb and watch.wandb.entity),
        ("watch.mlflow.experiment", watch.mlflow and watch.mlflow.experiment),
        ("watch.mlflow.tracking_uri", watch.mlflow and watch.mlflow.tracking_uri),
    ):
        _need(word is None or (word != "" and word.isprintable()), f"{key}={word!r} is no name", where)
    uri = (watch.mlflow and watch.mlflow.tracking_uri) or ""
    _need(
        "@" not in uri.partition("://")[2].partition("/")[0],
        "watch.mlflow.tracking_uri holds a user or password, and a recipe is written to the run's folder",
        where,
        "leave it out of the address and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
    )


def _documents(recipe: Recipe, where: str) -> None:
    if not recipe.data.reset_attention:
        return
    _need(
        recipe.data.append_eod,
        "data.reset_attention=true needs data.append_eod=true, for a document ends at its end token",
        where,
    )
    cp = recipe.parallel.cp
    _need(
        cp == 1,
        f"data.reset_attention=true does not go with parallel.cp={cp}, which would have to cut every document alike",
        where,
        "give parallel.cp=1, or data.reset_attention=false",
    )
    packs = recipe.train.layers == "te" and recipe.cluster.device == "gpu"
    _need(
        not (packs and recipe.train.attention == "unfused"),
        "data.reset_attention=true does not go with train.attention=unfused: Transformer Engine cannot pack there",
        where,
        "give train.attention=auto or flash",
    )


def _within(section: str, part: object, names: tuple[str, ...], where: str, below: float | None = None) -> None:
    for name in names:
        value = getattr(part, name)
        ok = value >= 0 and (below is None or value < below)
        limit = "" if below is None else f" and below {below}"
        _need(ok, f"{section}.{name}={value} must be at least 0{limit}", where)


def _stages(recipe: Recipe, where: str) -> None:
    _need(
        "finetune" not in recipe.stages or recipe.finetune is not None,
        "stage finetune needs a 'finetune' section",
        where,
    )
    seen: set[str] = set()
    for stage in recipe.stages:
        _need(stage == "export" or stage not in seen, f"stage '{stage}' stands twice in stages", where)
        if stage == "export":
            _need(
                bool(seen & {*TRAINING_STAGES}) or recipe.inputs.checkpoint is not None,
                "export has no training before it",
                where,
                "put pretrain or finetune before it, or give inputs.checkpoint",
            )
        seen.add(stage)
