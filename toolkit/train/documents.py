"""Attention that ends where a document ends (`data.reset_attention`, `finetune.pack`): by a mask, or by packing.

Decides which of the two a training takes and makes its batches; that document ends are what `<EOD>` marks is decided
by Megatron's datasets, and the attention itself is the layers'.

Rotary positions are relative: Megatron's embedding numbers a row from 0 and reads no position ids, and within a
document that is the same as numbering each document from 0, but for rounding. Packed, each is numbered from 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
from megatron.core import parallel_state
from megatron.core.packed_seq_params import PackedSeqParams
from nemo.collections.llm.gpt.model.base import gpt_data_step, gpt_forward_step

from toolkit.train.answer_tensors import apart
from toolkit.train.job import FinetuneJob, Job


def way(job: Job) -> Literal["across", "mask", "pack"]:
    """`across`: attention crosses documents. Transformer Engine's flash attention reads no mask, so there they are
    packed; other layers take a mask.
    """
    if not (job.pack if isinstance(job, FinetuneJob) else job.data.reset_attention):
        return "across"
    return "mask" if job.on_cpu or job.train.layers == "local" else "pack"


def configure(config: Any, job: Job) -> None:
    """Set what the model's configuration needs for this training's way."""
    chosen = way(job)
    if chosen == "pack":
        config.data_step_fn, config.forward_step_fn = packed_data_step, forward_step
    elif job.on_cpu or job.train.layers == "local":
        config.data_step_fn, config.forward_step_fn = gpt_data_step, forward_step
    if chosen == "mask" and isinstance(job, FinetuneJob):
        config.data_step_fn = masked_data_step
    if chosen == "mask":
        config.masked_softmax_fusion = False  # that kernel is causal and reads no mask


def document_starts(position_ids: torch.Tensor) -> torch.Tensor:
    """Cumulative lengths, int32 [documents + 1], of the documents in rows [b, s] put one behind the other.

    Position ids begin at 0 in each row and behind each `<EOD>`; a row's border is a document's border too.
    """
    flat = position_ids.reshape(-1)
    starts = (flat == 0).nonzero().reshape(-1)
    return torch.cat([starts, starts.new_tensor([flat.numel()])]).to(torch.int32)


def packed_data_step(dataloader_iter: Iterator[Any], use_mtp: bool = False) -> dict[str, Any]:
    """NeMo's `gpt_data_step`, with the micro-batch's rows put into one, [1, b x s], and where its documents start.

    Each stage of a pipeline takes what it needs; where documents start they all need. Context parallelism would have
    to cut each document by itself; the recipe's rules refuse it.
    """
    batch = next(dataloader_iter)
    if isinstance(batch, tuple) and len(batch) == 3:
        batch = batch[0]
    starts = document_starts(batch["position_ids"])
    wanted: set[str] = set()
    if parallel_state.is_pipeline_first_stage() or use_mtp:
        wanted |= {"tokens", "position_ids"}
    if parallel_state.is_pipeline_last_stage():
        wanted |= {"labels", "loss_mask"}
    made: dict[str, Any] = dict.fromkeys(("tokens", "position_ids", "labels", "loss_mask"))
    for name in wanted:
        made[name] = batch[name].reshape(1, -1).cuda(non_blocking=True)
    made["longest"] = int(starts.diff().max())  # known here, on the host; asking the GPU for it would wait for it
    made["starts"] = starts.cuda(non_blocking=True)
    return made


def masked_data_step(dataloader_iter: Iterator[Any], use_mtp: bool = False) -> dict[str, Any]:
    """NeMo's `gpt_data_step` for packed examples, with the mask that keeps them apart: of one micro-batch at a time."""
    batch = next(dataloader_iter)
    if isinstance(batch, tuple) and len(batch) == 3:
        batch = batch[0]
    return gpt_data_step(iter([{**batch, "attention_mask": apart(batch["position_ids"])}]), use_mtp)


def forward_step(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    """NeMo's `gpt_forward_step`, packed where the batch is. Without a mask attention is causal in every layer that the
    toolkit uses; NeMo would allow that with Transformer Engine alone, and have each sample carry s x s booleans.
    """
    if "starts" not in batch:
        return gpt_forward_step(model, {"attention_mask": None, **batch})
    packed = PackedSeqParams(
        qkv_format="thd",
        cu_seqlens_q=batch["starts"],
        cu_seqlens_kv=batch["starts"],
        max_seqlen_q=batch["longest"],
        max_seqlen_kv=batch["longest"],
    )
    return model(
        input_ids=batch["tokens"],
        position_ids=batch["position_ids"],
        attention_mask=None,
        labels=batch["labels"],
        packed_seq_params=packed,
    )
