"""One rank of a training as NeMo and Megatron-core build it on the meta device, and what can be read from it.

Goes NeMo's own way from the recipe's objects to parallel state, model chunks, gradient buffers and optimizer, as far as
the first step; `instantiate` decides which ranks.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any

import fiddle
import torch
import torch.distributed as dist
from lightning.pytorch.trainer.states import TrainerFn
from megatron.core import num_microbatches_calculator as micro_batches
from megatron.core import parallel_state
from nemo.collections import llm  # noqa: F401 - before the callback, which imports it in turn
from nemo.lightning.pytorch.callbacks import megatron_comm_overlap
from nemo.lightning.pytorch.plugins import MegatronDataSampler
from nemo.lightning.pytorch.strategies.utils import init_model_parallel, setup_parallel_ranks
from torch.testing._internal.distributed.fake_pg import FakeStore

from toolkit.train import engine, layers, nemo_recipe
from toolkit.train.job import PretrainJob

_DATA = ("micro_batch_size", "global_batch_size", "seed", "num_workers")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Built:
    """The objects of one rank: Lightning's trainer with NeMo's strategy, and NeMo's wrapped model chunks."""

    job: PretrainJob
    rank: int
    recipe: Any
    callbacks: tuple[str, ...]
    trainer: Any
    chunks: tuple[Any, ...]


@contextlib.contextmanager
def rank(job: PretrainJob, number: int) -> Iterator[Built]:
    """Build rank `number`; its parallel state is the process's until the end of the block."""
    size = job.cluster.nodes * job.cluster.devices_per_node
    recipe, callbacks = _recipe(job)
    local = number % job.cluster.devices_per_node
    told = {"RANK": number, "WORLD_SIZE": size, "LOCAL_RANK": local, "MASTER_ADDR": "localhost", "MASTER_PORT": 1}
    before, quiet, hook = dict(os.environ), logging.root.manager.disable, sys.excepthook
    logging.disable(logging.WARNING)
    os.environ.update({name: str(value) for name, value in told.items()}, **engine.environment(job))
    dist.init_process_group("fake", rank=number, world_size=size, store=FakeStore())
    parallel = None
    try:
        trainer, model, optim = (fiddle.build(part) for part in (recipe.trainer, recipe.model, recipe.optim))
        optim.connect(model)
        strategy = trainer.strategy
        # What Trainer.fit does up to the first batch, without data, loggers and checkpoints.
        trainer.state.fn, model.trainer = TrainerFn.FITTING, trainer
        strategy.connect(model)
        strategy.cluster_environment.set_world_size(size)
        strategy.cluster_environment.set_global_rank(number)
        setup_parallel_ranks(strategy)
        init_model_parallel(model)
        for callback in trainer.callbacks:
            if isinstance(callback, megatron_comm_overlap.MegatronCommOverlapCallback):
                callback.setup(trainer, model, "fit")
        model.configure_model()
        strategy.setup_megatron_parallel(trainer)
        parallel = strategy.megatron_parallel
        _sampler(recipe, number)
        yield Built(job=job, rank=number, recipe=recipe, callbacks=callbacks, trainer=trainer, chunks=tuple(parallel))
    finally:
        if parallel is not None:
            parallel.teardown_ddp()
        micro_batches.destroy_num_microbatches_calculator()
        parallel_state.destroy_model_parallel()
        dist.destroy_process_group()
        sys.excepthook = hook  # a process group's puts its rank before each line, once for each rank so far
        logging.disable(quiet)
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def _recipe(job: PretrainJob) -> tuple[Any, tuple[str, ...]]:
    """The training's own objects, with what a host without GPUs lacks stood in for, and the names of its callbacks."""
    recipe = nemo_recipe.pretrain_recipe(job)
    config, trainer = recipe.model.config, recipe.trainer
    if job.train.layers == "te" and not job.on_cpu:
        config.transformer_layer_spec = layers.counted
    config.apply_rope_fusion = False
    config.init_model_with_meta_device, config.use_cpu_initialization = True, False
    recipe.model.tokenizer = None  # the rows are given
    trainer.accelerator = "cpu"
    trainer.strategy.use_gloo_process_groups = False
    overlap = megatron_comm_overlap.MegatronCommOverlapCallback
    names = tuple(fiddle.get_callable(callback).__name__ for callback in trainer.callbacks)
    trainer.callbacks = [c for c in trainer.callbacks if fiddle.get_callable(c) is overlap]
    # It looks for Transformer Engine and for the GPU's generation; A100 and H100 are asked for the same.
    megatron_comm_overlap.HAVE_TE = True
    torch.cuda.get_device_capability = lambda *_: (8, 0)
    return recipe, names


def _sampler(recipe: Any, number: int) -> None:
    data = recipe.data
    MegatronDataSampler(
        seq_len=data.seq_length, micro_batch_size=data.micro_batch_size, global_batch_size=data.global_batch_size
    ).setup(number)


def look(made: Built) -> dict[str, Any]:
    """Place, parameters, layers and optimizer of this rank, as counted in the objects."""
    models = [_inner(chunk) for chunk in made.chunks]
    params = [param for model in models for param in model.parameters()]
    sharded = sum(p.numel() for p in params if getattr(p, "tensor_model_parallel", False))
    count = sum(p.numel() for p in params)
    updated = [p for inner in _optimizers(made) for group in inner.param_groups for p in group["params"]]
    return {
        "rank": made.rank,
        "tp": parallel_state.get_tensor_model_parallel_rank(),
        "pp": parallel_state.get_pipeline_model_parallel_rank(),
        "cp": parallel_state.get_context_parallel_rank(),
        "dp": parallel_state.get_data_parallel_rank(),
        "parameters": count,
        "sharded": sharded,
        "repeated": count - sharded,
        "layers": [[layer.layer_number - 1 for layer in model.decoder.layers] for model in models],
        "embedding": any(model.pre_process for model in models),
        "head": any(model.post_process for model in models),
        "gradient_buffer": sum(buffer.numel for chunk in made.chunks for buffer in chunk.buffers),
        "buckets": sum(len(buffer.buckets) for chunk in made.chunks for buffer in chunk.buffers),
        "optimizer_shard": sum(p.numel() for p in updated),
        "devices": sorted({p.device.type for p in params}),
    }


def of_rank_0(made: Built) -> dict[str, Any]:
    state = parallel_state
    groups = {
        "tp": state.get_tensor_model_parallel_group(),
        "pp": state.get_pipeline_model_parallel_group(),
        "cp": state.get_context_parallel_group(),
        "dp": state.get_data_parallel_group(),
    }
    return {
        "micro_batches": micro_batches.get_num_microbatches(),
        "groups": {name: dist.get_process_group_ranks(group) for name, group in groups.items()},
        "built": values(made),
    }


def values(made: Built) -> dict[str, dict[str, Any]]:
    """Fields of the built objects, by object; types, functions and enumerations by name."""
    chunk, strategy, data = _inner(made.chunks[0]), made.trainer.strategy, made.recipe.data
    optimizers = strategy.optimizers[0].mcore_optimizer
    first = getattr(optimizers, "chained_optimizers", [optimizers])[0]
    layer = chunk.decoder.layers[0]
    group = next(iter(first.optimizer.param_groups))
    scheduler = strategy.lightning_module.optim.lr_scheduler
    return {
        "model": {
            **_fields(chunk.config),
            "class": type(chunk.config).__name__,
            "core": type(layer.self_attention.core_attention).__name__,
            "vocab_rows": chunk.vocab_size,
            "positions": chunk.max_sequence_length,
            "norm_eps": layer.input_layernorm.eps,
            "param_dtypes": sorted({_plain(p.dtype) for p in chunk.parameters()}),
        },
        "ddp": {
            **_fields(made.chunks[0].module.ddp_config),
            "grad_dtypes": sorted({_plain(b.grad_dtype) for b in made.chunks[0].buffers}),
        },
        "optimizer": {
            **_fields(first.config),
            "class": type(first).__name__,
            "group": {name: _plain(value) for name, value in group.items() if name != "params"},
            "shard_dtypes": sorted({_plain(p.dtype) for g in first.optimizer.param_groups for p in g["params"]}),
        },
        "schedule": {name: _plain(value) for name, value in vars(scheduler).items() if not name.startswith("_")},
        "strategy": {
            **_fields(strategy.parallelism),
            **{name: _plain(value) for name, value in vars(strategy).items() if not name.startswith("_")},
        },
        "trainer": {
            "callbacks": list(made.callbacks),
            "max_steps": made.trainer.max_steps,
            "nodes": made.trainer.num_nodes,
            "devices": made.trainer.num_devices,
            "val_check_interval": made.trainer.val_check_interval,
            "limit_val_batches": made.trainer.limit_val_batches,
            "world": strategy.cluster_environment.world_size(),
        },
        "precision": {
            "precision": str(strategy.precision_plugin.precision),
            **_fields(strategy.precision_plugin.dtype_config),
        },
        # These are built with the data: from the recipe's object, as the training would.
        "data": {name: _plain(getattr(data, name)) for name in _DATA},
        "checkpoints": {
            name: _plain(value) for name, value in made.recipe.log.ckpt.__arguments__.items() if name != "folder"
        },
        "environment": {**engine.environment(made.job), **{n: v for n, v in os.environ.items() if n[:5] == "NVTE_"}},
    }


def _optimizers(made: Built) -> Iterator[Any]:
    """torch's optimizers, which hold what this rank updates."""
    for wrapped in made.trainer.strategy.optimizers:
        made_by_megatron = wrapped.mcore_optimizer
        yield from (one.optimizer for one in getattr(made_by_megatron, "chained_optimizers", [made_by_megatron]))


def _inner(chunk: Any) -> Any:
    """Megatron's GPTModel inside NeMo's module, the gradient buffers and the conversion to 16 bits."""
    model = chunk.module
    while hasattr(model, "module"):
        model = model.module
    return model


def _fields(config: Any) -> dict[str, Any]:
    return {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def _plain(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.name
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple) and all(isinstance(one, int | float | str) for one in value):
        return list(value)
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    return getattr(value, "__name__", type(value).__name__)
