"""The validation after the last step: over all of the validation set, once, weighted by tokens.

Decides which samples that is, and how a last batch that is not full is filled up; the interval validations are
Lightning's, over their few batches.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from nemo.lightning._strategy_lib import _sync_from_last_pipeline_stage
from nemo.lightning.megatron_parallel import MaskedTokenLossReduction
from torch.utils.data import default_collate

from toolkit.train import heartbeat, stopping, stream, together


class Padded(torch.utils.data.Dataset):
    """A dataset of which the last batch is whole: what is added counts for nothing in the loss."""

    def __init__(self, dataset: Any, multiple: int) -> None:
        self.dataset, self.length = dataset, -(-len(dataset) // multiple) * multiple
        self.collate_fn = getattr(dataset, "collate_fn", default_collate)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        if index < len(self.dataset):
            return self.dataset[index]
        sample = self.dataset[0]
        return {**sample, "loss_mask": torch.zeros_like(sample["loss_mask"])}


class Sums(MaskedTokenLossReduction):
    """NeMo's loss without the division: the sum, and the tokens that it is of, over all data-parallel ranks."""

    def reduce(self, losses_reduced_per_micro_batch: Any) -> torch.Tensor:
        from megatron.core import parallel_state

        total = (
            torch.vstack([one["loss_sum_and_ub_size"] for one in losses_reduced_per_micro_batch]).double().sum(dim=0)
        )
        torch.distributed.all_reduce(total, group=parallel_state.get_data_parallel_group(with_context_parallel=True))
        return total


def full(trainer: Any, folder: Path) -> float | None:
    """The mean loss of a token of the validation set, on every rank; None when one was asked to stop meanwhile. A
    collective over all of them.
    """
    data, strategy = trainer.datamodule, trainer.strategy
    batches = _batches(data)
    total = torch.zeros(2, dtype=torch.float64, device=strategy.root_device)
    with _validating(trainer):
        source = ((batch, at, 0) for at, batch in enumerate(strategy.process_dataloader(batches)))  # as Lightning's do
        for _ in range(-(-len(batches.dataset) // data.global_batch_size)):
            with strategy.precision_plugin.val_step_context():
                found = strategy.megatron_parallel.validation_step(source, loss_reduction=Sums())
            total += found if found.numel() == 2 else torch.zeros_like(total)  # where it is not the last stage
            if trainer.global_rank == 0:
                heartbeat.beat(folder)
            if together.most(trainer, int(stopping.asked())):
                return None
    _sync_from_last_pipeline_stage(total, broadcast=True)
    return float(total[0] / total[1])


def _batches(data: Any) -> Any:
    """A loader of all validation samples in whole global batches."""
    pretraining = isinstance(data, stream.OrderedData)
    dataset = Padded(_one_epoch(data), data.global_batch_size) if pretraining else data.validation_rows()
    return data._create_dataloader(dataset, mode="validation")


def _one_epoch(data: stream.OrderedData) -> Any:
    """Every sample of the validation shards once; that of the interval validations repeats or ends where they do."""
    from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder

    config = data.gpt_dataset_config
    # Without weights: with them the shards' shares would be of samples that are asked for, and none are.
    config.blend_per_split = [None, (data.one_epoch or config.blend_per_split[1][0], None), None]
    sizes = [0, None, 0]
    return BlendedMegatronDatasetBuilder(data.dataset_cls, sizes, is_built_on_rank=lambda: True, config=config).build()[
        1
    ]


@contextlib.contextmanager
def _validating(trainer: Any) -> Iterator[None]:
    """As in Lightning's own validation; NeMo's sampler must not log, for which it is too late."""
    sampler, chunks = trainer.datamodule.data_sampler, trainer.strategy.megatron_parallel
    before = sampler.output_log
    sampler.output_log, trainer.validating = False, True
    chunks.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        chunks.train()
        sampler.output_log, trainer.training = before, True
