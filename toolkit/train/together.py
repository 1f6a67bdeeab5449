"""What all ranks of a training do as one: hear what rank 0 says, see what any of them wishes, end what is under way."""

from __future__ import annotations

from typing import Any

import torch


def hear(value: Any) -> Any:
    """Rank 0's `value`, on every rank. A collective over all ranks."""
    if not torch.distributed.is_initialized():
        return value
    said = [value]
    torch.distributed.broadcast_object_list(said, src=0)
    return said[0]


def most(trainer: Any, wish: int) -> int:
    """The highest `wish` of any rank. A collective over all ranks, and on a GPU a wait for it."""
    told = torch.tensor([wish], device=trainer.strategy.root_device)
    if torch.distributed.is_initialized():
        torch.distributed.all_reduce(told, op=torch.distributed.ReduceOp.MAX)
    return int(told.item())


def finish_saving(trainer: Any) -> None:
    """Wait for checkpoints that are still being written in the background; a synchronous writer has none."""
    finalize = getattr(trainer.strategy.checkpoint_io, "maybe_finalize_save_checkpoint", None)
    if finalize is not None:
        finalize(blocking=True)
