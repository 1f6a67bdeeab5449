"""NeMo's own recipe objects (`run.Partial` of llm.pretrain and llm.finetune) from a `Job`, value by value.

Starts from NeMo's shipped llama2_7b recipes, so that what the recipe does not state is what NeMo's people chose. What
a CPU needs differently is in `cpu`.
"""

from __future__ import annotations

import math
from typing import Any

import nemo_run as run
import torch
from lightning.fabric.plugins.environments import LightningEnvironment
from megatron.core.distributed import DistributedDataParallelConfig
from megatron.core.optimizer import OptimizerConfig
from megatron.core.transformer.enums import AttnBackend
from nemo import lightning as nl
from nemo.collections import llm
from nemo.collections.llm.gpt.model.llama import Llama3Config
from nemo.lightning.pytorch.callbacks.megatron_comm_overlap import MegatronCommOverlapCallback
from nemo.lightning.pytorch.optim import MegatronOptimizerModule

from toolkit import tokenizer as tokenizers
from toolkit.errors import CheckpointError
from toolkit.train import (
    adapters,
    answer_data,
    blending,
    callbacks,
    cpu,
    documents,
    guards,
    layers,
    metrics,
    new_tokens,
    order,
    saving,
    stragglers,
    stream,
)
from toolkit.train.job import FinetuneJob, Job, PretrainJob
from toolkit.train.schedule import HorizonCosine
from toolkit.train.tokenizer import NemoTokenizer

_CONFIGS = {
    "llama2_7b": llm.Llama2Config7B,
    "llama2_13b": llm.Llama2Config13B,
    "llama2_70b": llm.Llama2Config70B,
    "llama3_8b": llm.Llama3Config8B,
    "llama3_70b": llm.Llama3Config70B,
}
_FAMILIES = {"llama2": llm.LlamaConfig, "llama3": Llama3Config}  # neither scales rotary positions
_ATTENTION = {name: AttnBackend[name] for name in ("auto", "flash", "fused", "unfused")}


def pretrain_recipe(job: PretrainJob, plan: order.Order | None = None) -> run.Partial:
    """`plan` is what `order.agree` found; without one, the order of a training that begins."""
    recipe = llm.llama2_7b.pretrain_recipe(
        dir=str(job.folder), name="nemo", num_nodes=job.cluster.nodes, num_gpus_per_node=job.cluster.devices_per_node
    )
    recipe.data = pretrain_data(job, plan if plan is not None else order.plan(job))
    _common(recipe, job, label="pretrain")
    documents.configure(recipe.model.config, job)
    return recipe


def pretrain_data(job: PretrainJob, plan: order.Order) -> run.Config:
    """The data alone, of which `composition` shows the batches."""
    train, asked, valid = job.train, blending.training(job, plan.samples), list(blending.validation(job))
    return run.Config(
        stream.OrderedData,
        plan=plan,
        steps=train.steps,
        packed=documents.way(job) == "pack",
        masked=documents.way(job) == "mask",
        one_epoch=[str(prefix) for prefix in blending.with_rows(job, job.valid_shards)],
        paths={
            "train": list(asked.paths),
            "validation": valid,
            "test": list(valid),
        },
        num_train_samples=asked.samples,
        split=None,
        seq_length=train.seq_length,
        micro_batch_size=train.micro_batch,
        global_batch_size=train.global_batch,
        num_workers=job.data.workers,
        persistent_workers=job.data.workers > 0,
        reset_position_ids=job.data.reset_attention,
        reset_attention_mask=job.data.reset_attention,
        eod_mask_loss=False,
        seed=train.seed,
        index_mapping_dir=str(job.folder / "index"),
        tokenizer=run.Config(NemoTokenizer, folder=str(job.tokenizer)),
    )


def finetune_recipe(job: FinetuneJob) -> run.Partial:
    train = job.train
    recipe = llm.llama2_7b.finetune_recipe(
        dir=str(job.folder),
        name="nemo",
        num_nodes=job.cluster.nodes,
        num_gpus_per_node=job.cluster.devices_per_node,
        peft_scheme=None,
        seq_length=train.seq_length,
    )
    par = job.parallel
    recipe.data = run.Config(
        answer_data.AnswerData,
        steps=train.steps,
        packed=job.pack,
        multiple=math.lcm(answer_data.MULTIPLE, par.tp if par.sequence else 1, 2 * par.cp if par.cp > 1 else 1),
        dataset_root=str(job.rows),
        seq_length=train.seq_length,
        micro_batch_size=train.micro_batch,
        global_batch_size=train.global_batch,
        num_workers=job.data.workers,
        persistent_workers=job.data.workers > 0,
        seed=train.seed,
        tokenizer=run.Config(NemoTokenizer, folder=str(job.tokenizer)),
    )
    _common(recipe, job, label="finetune")
    documents.configure(recipe.model.config, job)
    if job.lora is not None:
        recipe.peft = adapters.transform(job.lora)
        recipe.trainer.callbacks.append(run.Config(adapters.Merge, folder=str(job.merged)))
    # Of frozen weights no checkpoint knows anything: a training of adapters begins with them each time.
    if job.new_tokens and (job.resume is None or job.lora is not None):
        recipe.trainer.callbacks.append(run.Config(new_tokens.NewTokens, end=_vocabulary(job), count=job.new_tokens))
    return recipe


def _vocabulary(job: FinetuneJob) -> int:
    """Tokens of the tokenizer, for which the checkpoint must have rows. Raises `CheckpointError`."""
    known = tokenizers.load(job.tokenizer).vocab_size
    if known > job.vocab_rows:
        raise CheckpointError(
            f"the tokenizer has {known} tokens, and the checkpoint's embedding {job.vocab_rows} rows",
            where=job.weights,
            why="new tokens take rows that the import padded the vocabulary with",
            do="choose a finetune.format without new tokens, or import with a larger padded vocabulary",
        )
    return known


def _common(recipe: run.Partial, job: Job, *, label: str) -> None:
    recipe.model = run.Config(
        llm.LlamaModel, config=_model(job), tokenizer=run.Config(NemoTokenizer, folder=str(job.tokenizer))
    )
    recipe.optim = _optimizer(job)
    recipe.resume = _resume(job)
    recipe.log = run.Config(
        nl.NeMoLogger,
        log_dir=str(job.folder),
        name="nemo",
        use_datetime_version=False,
        ckpt=run.Config(
            saving.StepCheckpoint,
            folder=str(job.checkpoints),
            every=job.train.save_every,
            keep=job.train.keep,
            keep_every=job.train.keep_every,
            valid_full=job.train.valid_full,
        ),
    )
    _trainer(recipe.trainer, job, label)
    _strategy(recipe.trainer.strategy, job)
    if job.on_cpu:
        cpu.override(recipe)


def _model(job: Job) -> run.Config:
    model, par = job.model, job.parallel
    config = run.Config(
        _CONFIGS.get(model.name, _FAMILIES[model.family]),
        num_layers=model.layers,
        hidden_size=model.hidden,
        ffn_hidden_size=model.ffn,
        num_attention_heads=model.heads,
        num_query_groups=model.kv_heads,
        seq_length=job.train.seq_length,
        rotary_base=model.rope_base,
        layernorm_epsilon=model.norm_eps,
        vocab_size=job.vocab_rows,
        attention_backend=_ATTENTION[job.train.attention],
        # What NeMo's MegatronCommOverlapCallback sets: interleaved stages overlap their messages, others batch them.
        overlap_p2p_comm=par.pp > 1 and par.vp is not None,
        batch_p2p_comm=par.pp > 1 and par.vp is None,
    )
    if (spec := _layers(job)) is not None:
        config.transformer_layer_spec = spec
        for fusion in layers.OF_OTHERS:
            setattr(config, fusion, False)
    if par.recompute != "none":
        config.recompute_granularity = par.recompute
    if par.recompute == "full":
        config.recompute_method, config.recompute_num_layers = "uniform", 1
    return config


def _layers(job: Job) -> Any:
    """None: NeMo's own choice, which is Transformer Engine's layers."""
    if job.train.layers == "te" and not job.on_cpu:
        return None
    # On a CPU, where nothing is gained by it, `auto` stays with the code that Megatron tests its kernels against.
    if job.train.attention == "unfused" or (job.on_cpu and job.train.attention == "auto"):
        return layers.unfused
    return layers.flash_within_documents if documents.way(job) == "mask" else layers.flash


def _optimizer(job: Job) -> run.Config:
    train = job.train
    config = run.Config(
        OptimizerConfig,
        optimizer="adam",
        lr=train.lr,
        weight_decay=train.weight_decay,
        adam_beta1=train.beta1,
        adam_beta2=train.beta2,
        adam_eps=train.eps,
        clip_grad=train.clip_grad,
        bf16=train.precision == "bf16",
        use_distributed_optimizer=job.parallel.distributed_optimizer,
        overlap_param_gather=_gathers_behind(job),
    )
    horizon = train.decay_steps if train.decay_steps is not None else train.steps
    schedule = run.Config(HorizonCosine, horizon_steps=horizon, warmup_steps=train.warmup_steps, min_lr=train.min_lr)
    return run.Config(MegatronOptimizerModule, config=config, lr_scheduler=schedule)


def _resume(job: Job) -> run.Config | None:
    if job.resume is not None:
        return run.Config(nl.AutoResume, resume_from_path=str(job.resume))
    if job.weights is not None:
        restore = run.Config(
            nl.RestoreConfig, path=str(job.weights), load_model_state=True, load_optim_state=False, load_artifacts=False
        )
        return run.Config(nl.AutoResume, restore_config=restore)
    return None


def _trainer(trainer: Any, job: Job, label: str) -> None:
    train = job.train
    trainer.max_steps = train.steps
    # Counted over all steps: else a resume counts from its own start, and raises when fewer are left than the interval.
    trainer.check_val_every_n_epoch = None
    trainer.val_check_interval = min(train.valid_every, train.steps)
    trainer.limit_val_batches = train.valid_batches  # 0: there is nothing to validate on
    trainer.limit_test_batches = 0 if label == "finetune" else 1
    trainer.num_sanity_val_steps = 0
    trainer.default_root_dir = str(job.folder)
    trainer.logger = False  # the metrics callback writes; Lightning would add a folder of its own
    trainer.log_every_n_steps = 1
    trainer.callbacks = [
        run.Config(callbacks.SafePrinter),
        metrics.config(job, label),
        run.Config(callbacks.Heartbeat, folder=str(job.folder)),
        run.Config(callbacks.ValidationOnResume),
        run.Config(guards.Guard, folder=str(job.folder), limits=job.guard, can_skip=label == "pretrain"),
        *stragglers.configs(job),
    ]
    if job.parallel.tp_overlap:
        trainer.callbacks.append(_tensor_overlap(job))
    dtype = torch.bfloat16 if train.precision == "bf16" else torch.float32
    precision = run.Config(
        nl.MegatronMixedPrecision,
        precision="bf16-mixed" if train.precision == "bf16" else "32",
        params_dtype=dtype,
        pipeline_dtype=dtype,
        autocast_enabled=False,
        grad_reduce_in_fp32=True,
    )
    # Ranks are told by the environment. Inside a Slurm job Lightning would take Slurm's numbers instead, and requeue
    # the job by itself on USR1.
    trainer.plugins = [precision, run.Config(LightningEnvironment)]


def _strategy(strategy: Any, job: Job) -> None:
    par = job.parallel
    strategy.tensor_model_parallel_size = par.tp
    strategy.pipeline_model_parallel_size = par.pp
    strategy.virtual_pipeline_model_parallel_size = par.vp
    strategy.context_parallel_size = par.cp
    strategy.sequence_parallel = par.sequence
    strategy.pipeline_dtype = torch.bfloat16 if job.train.precision == "bf16" else torch.float32
    strategy.ckpt_async_save = job.train.async_save
    strategy.ckpt_parallel_load = True
    # The default format of the optimizer's state ties it to the layout; this one can be read at any.
    strategy.ckpt_optim_fully_reshardable = True
    strategy.ddp = run.Config(
        DistributedDataParallelConfig,
        use_distributed_optimizer=par.distributed_optimizer,
        check_for_nan_in_grad=False,  # one rank alone would end by it; the guard sees it in the norm, on all at once
        grad_reduce_in_fp32=True,
        overlap_grad_reduce=par.overlap,
        overlap_param_gather=_gathers_behind(job),
        align_param_gather=_gathers_behind(job) and par.vp is not None,  # chunks in step
        average_in_collective=True,
    )


def _gathers_behind(job: Job) -> bool:
    return job.parallel.overlap and job.parallel.distributed_optimizer


def _tensor_overlap(job: Job) -> run.Config:
    """NeMo's callback makes Transformer Engine's buffers; the rest of what it would decide is given as decided here."""
    par = job.parallel
    return run.Config(
        MegatronCommOverlapCallback,
        tp_comm_overlap=True,
        overlap_grad_reduce=par.overlap,
        overlap_param_gather=_gathers_behind(job),
        align_param_gather=_gathers_behind(job) and par.vp is not None,
    )
