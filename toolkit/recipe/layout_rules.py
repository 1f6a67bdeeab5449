"""The rules between a recipe's parallel sizes, its batches and its GPUs: what must divide what.

Decides only what is impossible; what is unwise or does not fit in memory is the plan's to say.
"""

from __future__ import annotations

from toolkit.errors import RecipeError
from toolkit.recipe.schema import Finetune, Parallel, Recipe, Train

TRAINING_STAGES = ("pretrain", "finetune")


def trains(recipe: Recipe) -> bool:
    """Whether the layout matters: the stages that are no training are a process each, on whatever site."""
    return not {*recipe.stages}.isdisjoint(TRAINING_STAGES)


def check_layout(recipe: Recipe, where: str = "") -> None:
    """`rules.check`, for a recipe that held before its layout was changed: sizes in `parallel`, micro-batches,
    recomputation. Raises `RecipeError`.
    """
    _layout(recipe, where)
    _engine(recipe, where)
    _documents(recipe, where)
    if recipe.finetune is not None:
        _packed(recipe, recipe.finetune, where)


def need(ok: bool, what: str, where: str, do: str = "") -> None:
    """Raise `RecipeError` unless it is so."""
    if not ok:
        raise RecipeError(what, where=where, do=do)


def _layout(recipe: Recipe, where: str) -> None:
    model, par, train = recipe.model, recipe.parallel, recipe.train
    need(
        model.hidden % model.heads == 0, f"model.heads={model.heads} does not divide model.hidden={model.hidden}", where
    )
    need(
        model.heads % model.kv_heads == 0,
        f"model.kv_heads={model.kv_heads} does not divide model.heads={model.heads}",
        where,
    )
    need(model.heads % par.tp == 0, f"parallel.tp={par.tp} does not divide model.heads={model.heads}", where)
    need(
        model.kv_heads % par.tp == 0,
        f"parallel.tp={par.tp} does not divide model.kv_heads={model.kv_heads} (KV groups)",
        where,
    )
    need(model.ffn % par.tp == 0, f"parallel.tp={par.tp} does not divide model.ffn={model.ffn}", where)
    need(
        (model.hidden // model.heads) % 2 == 0,
        f"model.hidden={model.hidden} / model.heads={model.heads} is odd, and rotary positions turn pairs",
        where,
    )
    stages = par.pp * (par.vp or 1)
    need(
        model.layers % stages == 0,
        f"parallel.pp={par.pp} x vp={par.vp or 1} does not divide model.layers={model.layers}",
        where,
    )
    need(par.vp is None or par.pp > 1, f"parallel.vp={par.vp} needs parallel.pp={par.pp} above 1", where)
    need(not par.sequence or par.tp > 1, f"parallel.sequence=true needs parallel.tp={par.tp} above 1", where)
    lengths = {"train": train.seq_length}
    if recipe.finetune is not None:
        lengths["finetune"] = recipe.finetune.seq_length
    for name, length in lengths.items():
        need(
            length % (2 * par.cp if par.cp > 1 else 1) == 0,
            f"parallel.cp={par.cp} x 2 does not divide {name}.seq_length={length}",
            where,
        )
        need(
            not par.sequence or length % par.tp == 0,
            f"parallel.tp={par.tp} does not divide {name}.seq_length={length}",
            where,
        )
        need(
            length <= model.max_positions,
            f"{name}.seq_length={length} is above model.max_positions={model.max_positions}",
            where,
        )
    if trains(recipe):
        _devices(recipe, where)


def _devices(recipe: Recipe, where: str) -> None:
    par = recipe.parallel
    nodes, per_node = recipe.cluster.nodes, recipe.cluster.devices_per_node
    devices, per_model = nodes * per_node, par.tp * par.pp * par.cp
    need(
        devices % per_model == 0,
        f"parallel.tp={par.tp} x parallel.pp={par.pp} x parallel.cp={par.cp} = {per_model} does not divide "
        f"cluster.nodes={nodes} x cluster.devices_per_node={per_node} = {devices}",
        where,
        f"make the cluster's devices a multiple of {per_model}",
    )
    need(
        recipe.cluster.device == "cpu" or nodes == 1 or per_node % par.tp == 0 or par.tp % per_node == 0,
        f"parallel.tp={par.tp} does not divide cluster.devices_per_node={per_node}, so that tensor ranks of some "
        "groups would sit on two nodes",
        where,
        "give a parallel.tp that divides the GPUs of a node",
    )
    dp = devices // per_model
    if "pretrain" in recipe.stages:
        _batch("train", recipe.train, dp, par, where)
    if "finetune" in recipe.stages and recipe.finetune is not None:
        _batch("finetune", recipe.finetune, dp, par, where)


def _batch(section: str, asked: Train | Finetune, dp: int, par: Parallel, where: str) -> None:
    micro, total = asked.micro_batch, asked.global_batch
    need(
        total % (micro * dp) == 0,
        f"{section}.global_batch={total} is not a multiple of {section}.micro_batch={micro} x dp={dp} = {micro * dp}",
        where,
        f"nearest: {max(1, round(total / (micro * dp))) * micro * dp}",
    )
    batches = total // (micro * dp)
    need(
        par.vp is None or batches % par.pp == 0,
        f"parallel.vp={par.vp} needs micro-batches in multiples of parallel.pp={par.pp}, "
        f"and {section}.global_batch={total} makes {batches}",
        where,
    )


def _engine(recipe: Recipe, where: str) -> None:
    """What the layers, the GPUs and Megatron's schedules cannot do together."""
    par, train, on_cpu = recipe.parallel, recipe.train, recipe.cluster.device == "cpu"
    local = train.layers == "local" or on_cpu
    without = "cluster.device=cpu, which has no" if on_cpu else "train.layers=local, which has no"
    need(par.vp != 1, "parallel.vp=1 is no interleaving", where, "give 2 or more, or null")
    need(
        1 <= par.cuda_connections <= 32,
        f"parallel.cuda_connections={par.cuda_connections} must lie between 1 and 32",
        where,
        "CUDA has no other",
    )
    need(
        recipe.model.family == "llama2" or recipe.model.extra_tokens == "none",
        f"model.extra_tokens={recipe.model.extra_tokens} does not go with model.family={recipe.model.family}",
        where,
        "Llama 3 is trained with its own vocabulary, which has reserved tokens: model.extra_tokens=none",
    )
    need(not par.tp_overlap or par.sequence, "parallel.tp_overlap=true needs parallel.sequence=true", where)
    for name, asked in (
        ("parallel.tp_overlap=true", par.tp_overlap),
        (f"parallel.cp={par.cp}", par.cp > 1),
        ("train.attention=fused", train.attention == "fused"),
    ):
        need(not (asked and local), f"{name} does not go with {without} Transformer Engine", where)
    need(
        par.cp == 1 or train.attention != "unfused",
        f"train.attention=unfused does not go with parallel.cp={par.cp}",
        where,
        "give flash, fused or auto",
    )


def _documents(recipe: Recipe, where: str) -> None:
    if not recipe.data.reset_attention:
        return
    need(
        recipe.data.append_eod,
        "data.reset_attention=true needs data.append_eod=true, for a document ends at its end token",
        where,
    )
    cp = recipe.parallel.cp
    need(
        cp == 1,
        f"data.reset_attention=true does not go with parallel.cp={cp}, which would have to cut every document alike",
        where,
        "give parallel.cp=1, or data.reset_attention=false",
    )
    packs = recipe.train.layers == "te" and recipe.cluster.device == "gpu"
    need(
        not (packs and recipe.train.attention == "unfused"),
        "data.reset_attention=true does not go with train.attention=unfused: Transformer Engine cannot pack there",
        where,
        "give train.attention=auto or flash",
    )


def _packed(recipe: Recipe, asked: Finetune, where: str) -> None:
    on_gpu = recipe.cluster.device == "gpu"
    unfused = recipe.train.attention == "unfused" and recipe.train.layers == "te" and on_gpu
    bad = {f"parallel.cp={recipe.parallel.cp}": recipe.parallel.cp > 1, "train.attention=unfused": unfused}
    for what, asked_for in bad.items():
        clash = asked.pack and asked_for and "finetune" in recipe.stages
        need(not clash, f"finetune.pack=true does not go with {what}", where, "give finetune.pack=false")
