"""NeMo's loaders of data, made to give other batches than its own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch


def with_batches(dataloader: Any, batches: Iterable[list[int]]) -> torch.utils.data.DataLoader:
    """A loader like `dataloader` that gives `batches`: lists of indices into its dataset."""
    return torch.utils.data.DataLoader(
        dataloader.dataset,
        batch_sampler=batches,
        num_workers=dataloader.num_workers,
        pin_memory=dataloader.pin_memory,
        persistent_workers=dataloader.persistent_workers,
        collate_fn=dataloader.collate_fn,
    )
