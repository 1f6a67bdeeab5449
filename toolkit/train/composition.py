"""What the first batches of a training are made of, source by source, without training: NeMo's data module is built as
the training builds it, and asked which shard each sample of its stream comes from.

Decides how that is counted; leaves the order to `order` and `stream`, which a training follows too.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from toolkit.train import order
from toolkit.train.job import PretrainJob


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The global batch of step `step` (from 1): how many of its rows are of each subset's shards. A row has
    `train.seq_length` tokens, all of one shard.
    """

    step: int
    rows: Mapping[str, int]


def of(job: PretrainJob, *, batches: int, skips: Sequence[order.Skip] = ()) -> tuple[Batch, ...]:
    """The first `batches` global batches of the training, `skips` left out of its stream.

    Builds Megatron's indices of all the shards, as the training does, in a folder that is removed. Raises `ShardError`
    for shards that cannot be read. To be called in a process of its own: the seams replace names of torch.
    """
    from toolkit.train import seams

    seams.install_nemo()
    with tempfile.TemporaryDirectory(prefix="composition-") as folder, _alone(Path(folder)):
        data = build(replace(job, folder=Path(folder)), replace(order.plan(job), skips=tuple(skips)))
        return tuple(count(data, job, step) for step in range(1, batches + 1))


def build(job: PretrainJob, plan: order.Order) -> Any:
    """The training's data module with its datasets."""
    import fiddle

    from toolkit.train.nemo_recipe import pretrain_data

    data = fiddle.build(pretrain_data(job, plan))
    train = job.train
    data.trainer = SimpleNamespace(
        max_steps=train.steps,
        val_check_interval=min(train.valid_every, train.steps),
        limit_val_batches=train.valid_batches,
        limit_test_batches=1,
        global_step=0,
    )
    data.setup()
    return data


def count(data: Any, job: PretrainJob, step: int) -> Batch:
    """One batch of a data module that `build` made."""
    plan, dataset = data.plan, data._train_ds
    first = order.first_sample(step, plan.global_batch, plan.skips)
    found: Counter[str] = Counter()
    for at in range(first, first + plan.global_batch):
        found[_subset(dataset, at % len(dataset), job)] += 1
    return Batch(step=step, rows=dict(sorted(found.items())))


def _subset(dataset: Any, index: int, job: PretrainJob) -> str:
    if hasattr(dataset, "datasets"):  # a BlendedDataset
        dataset = dataset.datasets[dataset.dataset_index[index]]
    prefix = Path(dataset.dataset_path)
    facts = job.shard_facts.get(prefix)
    return facts.subset if facts is not None else prefix.name


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """A process group of one: Megatron's datasets ask which rank writes their indices."""
    import torch

    begun = not torch.distributed.is_initialized()
    if begun:
        torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
    try:
        yield
    finally:
        if begun:
            torch.distributed.destroy_process_group()
