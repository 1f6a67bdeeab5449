"""LoRA for a finetuning: NeMo's adapters beside frozen weights, and the whole model that they make in the end.

Decides where the merged weights are written; leaves the adapters, and what a checkpoint of them alone holds, to NeMo.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import nemo_run as run
import torch
from megatron.core import dist_checkpointing, parallel_state
from nemo.collections import llm
from nemo.collections.llm.peft.lora import LoRALinear

from toolkit import files
from toolkit.recipe.schema import Lora
from toolkit.train import seams


def transform(lora: Lora) -> run.Config:
    seams.lora_without_te()
    return run.Config(
        llm.peft.LoRA,
        target_modules=list(lora.modules),
        dim=lora.rank,
        alpha=lora.alpha,
        dropout=lora.dropout,
    )


class Merge(pl.Callback):
    """After the last step `folder` gets a checkpoint of the whole model: each weight with its adapter's product.

    Before that step's own checkpoint is saved: where that is found by a later start, nothing is missing.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_train_batch_end(self, trainer: Any, *_: Any, **__: Any) -> None:
        if trainer.global_step < trainer.max_steps:
            return
        part, first = self.folder.with_name(f"{self.folder.name}.part"), trainer.global_rank == 0
        if first:
            shutil.rmtree(part, ignore_errors=True)
            (part / "weights").mkdir(parents=True)
        torch.distributed.barrier()
        model = trainer.strategy.megatron_parallel
        with merged(model):
            state = {key: value for key, value in model.sharded_state_dict().items() if ".adapter." not in key}
            dist_checkpointing.save(state, str(part / "weights"))
        if first:
            files.replace_folder(part, self.folder)
        torch.distributed.barrier()


@contextlib.contextmanager
def merged(model: Any) -> Iterator[None]:
    """The weights beside adapters hold what both make together, until the end of the block; the adapters stay."""
    before = []
    for module in model.modules():
        if isinstance(module, LoRALinear):
            weight = module.to_wrap.weight
            before.append((weight, weight.data))
            weight.data = (weight.data.float() + product(module.adapter)).to(weight.dtype)
    try:
        yield
    finally:
        for weight, data in before:
            weight.data = data


@torch.no_grad()
def product(adapter: Any) -> torch.Tensor:
    """What an adapter adds to this rank's share of a weight, float32. A collective over the tensor-parallel ranks.

    Of a weight that is cut by rows (qkv, fc1) the inner factor is cut as well, of one cut by columns the outer one
    (nemo/collections/llm/peft/utils.py, ParallelLinearAdapter): that factor is put together first.
    """
    inner, outer = adapter.linear_in.weight.data.float(), adapter.linear_out.weight.data.float()
    if adapter.input_is_parallel:
        outer = _whole(outer)
    else:
        inner = _whole(inner)
    return adapter.alpha / adapter.dim * (outer @ inner)


def _whole(part: torch.Tensor) -> torch.Tensor:
    group = parallel_state.get_tensor_model_parallel_group()
    parts = [torch.empty_like(part) for _ in range(group.size())]
    torch.distributed.all_gather(parts, part.contiguous(), group=group)
    return torch.cat(parts)
