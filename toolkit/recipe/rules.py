"""The rules between a recipe's values: what is out of range, what cannot be combined. Of layouts: `layout_rules`.

Decides only what is impossible; what is unwise or does not fit in memory is the plan's to say.
"""

from __future__ import annotations

import re

from toolkit import mixture
from toolkit.errors import RecipeError, nearest
from toolkit.flops import CONVENTIONS
from toolkit.hardware import gpu
from toolkit.recipe import site
from toolkit.recipe.layout_rules import TRAINING_STAGES, check_layout, need
from toolkit.recipe.schema import STAGES, Finetune, Guard, Night, Preflight, Recipe, Score, Train


def check(recipe: Recipe, where: str = "") -> None:
    """Raise `RecipeError` for the first rule that does not hold."""
    for stage in recipe.stages:
        if stage not in STAGES:
            raise RecipeError(f"unknown stage '{stage}' in stages", where=where, do=nearest(stage, STAGES))
    if not recipe.stages:
        raise RecipeError("'stages' is empty", where=where, do="name at least one stage")
    need(
        re.fullmatch(r"[A-Za-z0-9][\w.-]*", recipe.name) is not None,
        f"name {recipe.name!r} cannot begin a folder's name",
        where,
        "use letters, digits, '-', '_' and '.'",
    )
    _positive(recipe, where)
    check_layout(recipe, where)
    _train(recipe.train, where)
    _guard(recipe.guard, where)
    _rest(recipe, where)
    _stages(recipe, where)
    site.check(recipe, where)


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
        "corpus": ("workers", "tasks"),
        "score": ("limit", "batch_tokens", "samples", "max_tokens"),
        "finetune": (
            *("epochs", "steps", "steps_multiple", "micro_batch", "global_batch", "seq_length"),
            *("save_every", "valid_every", "valid_batches"),
        ),
        "cluster": ("nodes", "devices_per_node", "time_limit_min"),
    }
    for section, names in counts.items():
        part = getattr(recipe, section)
        for name in names if part is not None else ():
            value = getattr(part, name)
            need(value is None or value >= 1, f"{section}.{name} is {value}", where, "give 1 or more")


def _train(train: Train, where: str) -> None:
    need(train.lr > 0, f"train.lr={train.lr} must be above 0", where)
    need(
        0 <= train.min_lr <= train.lr, f"train.min_lr={train.min_lr} must lie between 0 and train.lr={train.lr}", where
    )
    horizon = train.decay_steps if train.decay_steps is not None else train.steps
    need(horizon >= train.steps, f"train.decay_steps={horizon} is below train.steps={train.steps}", where)
    need(
        0 <= train.warmup_steps < horizon,
        f"train.warmup_steps={train.warmup_steps} must lie between 0 and {horizon - 1}",
        where,
    )
    need(train.seed >= 1, f"train.seed={train.seed} must be 1 or more", where)
    _within("train", train, ("beta1", "beta2"), where, below=1)
    _within("train", train, ("weight_decay", "clip_grad"), where)
    need(train.eps > 0, f"train.eps={train.eps} must be above 0", where)
    need(
        train.keep_every is None or train.keep_every % train.save_every == 0,
        f"train.keep_every={train.keep_every} is not a multiple of train.save_every={train.save_every}",
        where,
    )


def _guard(guard: Guard, where: str) -> None:
    _within("guard", guard, ("bad_steps", "rollbacks", "straggler_every"), where)
    need(guard.window >= 2, f"guard.window={guard.window} has no median", where, "give 2 or more losses")
    need(guard.deviations > 0, f"guard.deviations={guard.deviations} must be above 0", where)
    need(guard.floor > 0, f"guard.floor={guard.floor} must be above 0", where)
    need(guard.straggler_ratio > 1, f"guard.straggler_ratio={guard.straggler_ratio} must be above 1", where)


def _rest(recipe: Recipe, where: str) -> None:
    for name in ("rope_base", "norm_eps", "init_std"):
        value = getattr(recipe.model, name)
        need(value > 0, f"model.{name}={value} must be above 0", where)
    _within("corpus", recipe.corpus, ("valid_fraction", "max_bad_fraction"), where, below=1)
    _within("data", recipe.data, ("workers",), where)
    _corpus(recipe, where)
    _weights(recipe, where)
    asked = recipe.finetune
    if asked is not None:
        need(asked.lr > 0, f"finetune.lr={asked.lr} must be above 0", where)
        need(
            0 <= asked.min_lr <= asked.lr,
            f"finetune.min_lr={asked.min_lr} must lie between 0 and finetune.lr={asked.lr}",
            where,
        )
        _within("finetune", asked, ("warmup_fraction",), where, below=1)
        _finetune(recipe, asked, where)
    _night(recipe.night, where)
    _score(recipe.score, where)
    _device(recipe, where)
    _preflight(recipe.cluster.preflight, where)
    _watch(recipe, where)


def _finetune(recipe: Recipe, asked: Finetune, where: str) -> None:
    parts = mixture.parse(asked.benchmark, where or "finetune.benchmark")
    need(
        len(parts) == 1 or asked.path in (None, "world"),
        f"finetune.path is one file, and finetune.benchmark={asked.benchmark} are {len(parts)} benchmarks",
        where,
        f"give finetune.paths={{{', '.join(f'{name}: FILE' for name in parts)}}}",
    )
    for name in asked.paths:
        need(name in parts, f"finetune.paths.{name}: finetune.benchmark does not name it", where, nearest(name, parts))
    need(asked.held_out >= 0, f"finetune.held_out={asked.held_out} must be at least 0", where)
    need(
        (asked.format == "template") == (asked.template is not None),
        f"finetune.template={asked.template} does not go with finetune.format={asked.format}",
        where,
        "format=template needs a template, and the others have none",
    )
    need(
        asked.format != "plain" or not asked.system,
        "finetune.system needs a format with messages",
        where,
        "give finetune.format=messages or template",
    )
    lora = asked.lora
    for name in ("rank", "alpha"):
        need(getattr(lora, name) >= 1, f"finetune.lora.{name} is {getattr(lora, name)}", where, "give 1 or more")
    _within("finetune.lora", lora, ("dropout",), where, below=1)
    need(bool(lora.modules), "finetune.lora.modules is empty", where, "name at least one")


def _score(asked: Score, where: str) -> None:
    need(asked.shots >= 0, f"score.shots={asked.shots} must be at least 0", where)
    need(0 <= asked.temperature <= 10, f"score.temperature={asked.temperature} must be from 0 to 10", where)
    for name in ("seeds", "modes"):
        values = getattr(asked, name)
        twice = [value for i, value in enumerate(values) if value in values[:i]]
        need(not twice, f"score.{name} has {twice and twice[0]} twice", where, "name each once")
    need(bool(asked.seeds), "score.seeds is empty", where, "give one or more")
    chance = asked.shots > 0 or "sc_cot" in asked.modes
    need(
        chance or len(asked.seeds) == 1,
        f"score.seeds has {len(asked.seeds)} seeds, and nothing is drawn by them",
        where,
        "give score.shots or score.modes=[sc_cot], or one seed",
    )
    for name in asked.train_paths:
        what = f"score.train_paths.{name}: score.benchmarks does not name it"
        need(name in asked.benchmarks, what, where, nearest(name, asked.benchmarks))


def _night(night: Night | None, where: str) -> None:
    if night is None:
        return
    gate, hooks = night.gate, night.hooks
    for name in ("tries", "most"):
        value = getattr(night, name)
        need(value >= 1, f"night.{name} is {value}", where, "give 1 or more")
    need(0 <= gate.min_drop < 1, f"night.gate.min_drop={gate.min_drop} must be at least 0 and below 1", where)
    need(0 < gate.alpha < 1, f"night.gate.alpha={gate.alpha} must lie between 0 and 1", where)
    need(
        hooks.webhook_env is None or re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", hooks.webhook_env) is not None,
        "night.hooks.webhook_env is no name of an environment variable",  # and maybe a secret
        where,
        "set the address in a variable of the environment, and name the variable here",
    )
    for address in hooks.mail:
        need(
            re.fullmatch(r"[^\s@,;<>\"-][^\s@,;<>\"]*@[^\s@,;<>\"]+", address) is not None and address.isprintable(),
            f"night.hooks.mail: {address!r} is no address",
            where,
            "write name@host",
        )
    series = r"[A-Za-z0-9_][\w.-]*"
    for due in night.checkpoints:
        need(re.fullmatch(series, due.series) is not None, f"night.checkpoints: {due.series!r} is no series", where)


def _preflight(asked: Preflight, where: str) -> None:
    for name in ("fraction", "outlier"):
        value = getattr(asked, name)
        need(value is None or 0 < value <= 1, f"cluster.preflight.{name}={value} must be above 0 and at most 1", where)
    least = {"limit_s": 1, "start_s": 1, "rounds": 1, "size_mib": 1, "dcgm": 0, "idle_mib": 0, "counters": 0}
    least |= {"shm_gib": 0, "scratch_gib": 0, "memlock_gib": 0}
    for name, low in least.items():
        value = getattr(asked, name)
        need(
            value is None or low <= value < 1e6,
            f"cluster.preflight.{name}={value} must be at least {low}, and a sane number",
            where,
        )
    for name in ("node_gb_s", "pair_gb_s", "all_gb_s"):
        value = getattr(asked, name)
        need(value is None or 0 < value < 1e6, f"cluster.preflight.{name}={value} must be above 0, in GB/s", where)
    need(asked.dcgm <= 4, f"cluster.preflight.dcgm={asked.dcgm}: dcgmi diag has levels 1 to 4", where)
    need(
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
        ("cluster.gpu_memory_gib", site.gpu_memory_gib),
        ("cluster.gpu_memory_gb_s", site.gpu_memory_gb_s),
        ("cluster.gpu_nvlink_gb_s", site.gpu_nvlink_gb_s),
        ("cluster.disk_gb_s", site.disk_gb_s),
        ("cluster.max_gpu_hours", site.max_gpu_hours),
        ("model.nominal_parameters", model.nominal_parameters),
    ):
        need(value is None or value > 0, f"{key}={value} must be above 0", where)
    for name in ("node_overhead", "pue"):
        value = getattr(site, name)
        need(value is None or value >= 1, f"cluster.{name}={value} must be at least 1", where)
    for name in ("kgco2_per_kwh", "price_per_gpu_hour", "ask_gpu_hours", "failures_per_gpu_hour", "restart_min"):
        value = getattr(site, name)
        need(value is None or value >= 0, f"cluster.{name}={value} must be at least 0", where)
        need(value is None or value < 1e9, f"cluster.{name}={value} is no sane number", where, "give less than 1e9")
    for name in ("peak_tflops", "gpu_memory_gib", "gpu_memory_gb_s", "gpu_nvlink_gb_s", "disk_gb_s"):
        value = getattr(site, name)
        sane = value is None or 1e-3 <= value < 1e6
        need(sane, f"cluster.{name}={value} is no sane number", where, "give 0.001 or more, and less than 1e6")
    need(
        re.fullmatch(r"\S{1,8}", site.currency) is not None and site.currency.isprintable(),
        f"cluster.currency={site.currency!r} is no currency",
        where,
        "write it as CHF, EUR or USD",
    )
    _published(recipe, where)
    if site.device == "gpu" and site.gpu is not None and site.peak_tflops is None:
        try:
            known = gpu(site.gpu)
        except RecipeError as err:
            raise RecipeError(f"cluster.gpu: {err.what}", where=where, do=err.do) from None
        need(
            known.bf16_tflops is not None or recipe.train.precision != "bf16",
            f"cluster.gpu={site.gpu}: a {known.title} has no bf16, and train.precision=bf16 asks for it",
            where,
            "train.precision=fp32, or another GPU",
        )


def _published(recipe: Recipe, where: str) -> None:
    told = recipe.published
    for name in () if told is None else ("gpus", "tokens", "tokens_per_s", "hours", "gpu_hours", "gpu_w"):
        value = getattr(told, name)
        need(value is None or value > 0, f"published.{name}={value} must be above 0", where)
    for size in () if told is None else told.micro_batches:
        need(size >= 1, f"published.micro_batches has {size}", where, "give 1 or more")
    for name in () if told is None else ("node_overhead", "pue"):
        value = getattr(told, name)
        need(value is None or value >= 1, f"published.{name}={value} must be at least 1", where)


def _watch(recipe: Recipe, where: str) -> None:
    watch = recipe.watch
    need(watch.power_every_s == 0 or watch.power_every_s >= 1, f"watch.power_every_s={watch.power_every_s} is below 1",
          where, "give 1 or more seconds, or 0 to read no power")  # fmt: skip
    need(
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
        need(word is None or (word != "" and word.isprintable()), f"{key}={word!r} is no name", where)
    uri = (watch.mlflow and watch.mlflow.tracking_uri) or ""
    need(
        "@" not in uri.partition("://")[2].partition("/")[0],
        "watch.mlflow.tracking_uri holds a user or password, and a recipe is written to the run's folder",
        where,
        "leave it out of the address and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
    )


def _corpus(recipe: Recipe, where: str) -> None:
    for name, source in recipe.corpus.sources.items():
        key = f"corpus.sources.{name}"
        need(
            re.fullmatch(r"[A-Za-z0-9][\w.-]*", name) is not None,
            f"{key}: '{name}' cannot begin a file's name",
            where,
            "use letters, digits, '-', '_' and '.'",
        )
        if source.valid_fraction is not None:
            _within(key, source, ("valid_fraction",), where, below=1)


def _weights(recipe: Recipe, where: str) -> None:
    weights = recipe.data.weights
    for name, value in weights.items():
        need(0 <= value < float("inf"), f"data.weights.{name}={value} must be at least 0, and finite", where)
    need(
        not weights or any(weights.values()),
        "data.weights leaves every subset out",
        where,
        "give one of them a weight above 0, or none at all: each document once an epoch",
    )


def _within(section: str, part: object, names: tuple[str, ...], where: str, below: float | None = None) -> None:
    for name in names:
        value = getattr(part, name)
        ok = value >= 0 and (below is None or value < below)
        limit = "" if below is None else f" and below {below}"
        need(ok, f"{section}.{name}={value} must be at least 0{limit}", where)


def _stages(recipe: Recipe, where: str) -> None:
    need(
        "finetune" not in recipe.stages or recipe.finetune is not None,
        "stage finetune needs a 'finetune' section",
        where,
    )
    need("night" not in recipe.stages or recipe.night is not None, "stage night needs a 'night' section", where)
    need(
        "night" not in recipe.stages or len(recipe.stages) == 1,
        "stage night goes alone: it exports and scores by itself",
        where,
        "give stages=[night]",
    )
    seen: set[str] = set()
    for stage in recipe.stages:
        need(stage == "export" or stage not in seen, f"stage '{stage}' stands twice in stages", where)
        if stage == "export":
            need(
                bool(seen & {*TRAINING_STAGES}) or recipe.inputs.checkpoint is not None,
                "export has no training before it",
                where,
                "put pretrain or finetune before it, or give inputs.checkpoint",
            )
        seen.add(stage)
