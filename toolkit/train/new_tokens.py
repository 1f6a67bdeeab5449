"""Rows of the embedding and the output head for tokens that no training has seen: they begin as the mean of the others.

Decides their values once, before the first step of a training that does not go on from its own checkpoint. What stands
there otherwise is padding, which training has pushed away from everything that is ever said.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import lightning.pytorch as pl
import torch


class NewTokens(pl.Callback):
    """The last `count` of `end` tokens are new."""

    def __init__(self, end: int, count: int) -> None:
        self.end, self.count = end, count

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        for weight in vocabulary_weights(trainer.strategy.megatron_parallel):
            begin(weight, end=self.end, count=self.count)
        for optimizer in trainer.strategy.optimizers:
            optimizer.mcore_optimizer.reload_model_params()  # its own copies, in fp32


def vocabulary_weights(chunks: Any) -> Iterator[torch.nn.Parameter]:
    """Of this rank's model: the embedding's and the output head's weight, where they are."""
    for name, parameter in chunks.named_parameters():
        if name.endswith(("word_embeddings.weight", "output_layer.weight")):
            yield parameter


@torch.no_grad()
def begin(weight: torch.nn.Parameter, *, end: int, count: int) -> None:
    """Give rows `end - count` to `end` of a weight [rows of this tensor-parallel rank, hidden] the mean of those before
    them. A collective over the tensor-parallel ranks, each of which has its share of the rows.
    """
    from megatron.core import parallel_state

    first = parallel_state.get_tensor_model_parallel_rank() * weight.shape[0]
    known = max(0, min(weight.shape[0], end - count - first))
    total = weight[:known].double().sum(dim=0)
    torch.distributed.all_reduce(total, group=parallel_state.get_tensor_model_parallel_group())
    low, high = (max(0, min(weight.shape[0], row - first)) for row in (end - count, end))
    weight[low:high] = (total / (end - count)).to(weight.dtype)
