"""NeMo's pretraining data in the order that `order` states: which sample stands at a position, and who reads it.

Decides how NeMo's datasets and sampler are made to follow that order, also where NeMo's own would end or begin again;
leaves the samples, and how they are shuffled, to Megatron's datasets.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from nemo.collections import llm
from nemo.lightning.ckpt_utils import ckpt_to_dir
from nemo.lightning.pytorch.plugins import MegatronDataSampler

from toolkit.errors import CheckpointError
from toolkit.train import order
from toolkit.train.loading import with_batches
from toolkit.train.order import Order

_EDGE = 1 << 20


class OrderedData(llm.PreTrainingDataModule):
    """Pretraining data that goes on at the step's own place in the stream, whatever was left out before it.

    `plan` is the `Order`, `steps` those of this training. `masked` has each sample carry a mask of its documents;
    `packed` says that each micro-batch's documents are packed into one row (`documents`). `one_epoch` are the shards
    of the validation after the last step, where they are not all of `paths`.
    """

    def __init__(
        self,
        *,
        plan: Order,
        steps: int,
        packed: bool = False,
        masked: bool = False,
        one_epoch: Sequence[str] = (),
        **given: Any,
    ) -> None:
        super().__init__(**given)
        self.one_epoch = list(one_epoch)
        self.plan, self.create_attention_mask = plan, masked  # NeMo would make masks wherever it finds no TE
        self.data_sampler = StepSampler(plan=plan, steps=steps, micro_batch=self.micro_batch_size, packed=packed)

    def build(self, trainer_max_steps: int, *args: Any, **kwargs: Any) -> None:
        """As many samples as the first start asked for, however many steps this one has: the shuffle depends on it."""
        remove_broken_indices(self.index_mapping_dir)
        steps = {**kwargs, "trainer_max_steps": self.plan.samples // self.plan.global_batch}
        super().build(*args, **steps)
        found = digest(self._train_ds)
        if self.plan.stream not in ("", found):
            raise CheckpointError(
                "the data's order is not the checkpoint's, though seed, sizes and shards are",
                why=f"the samples' shuffle has the hash {found}, and had {self.plan.stream}; "
                "this version of Megatron or numpy may shuffle otherwise, or the middle of an index was changed",
                do="resume with the versions and the shards that it was trained with",
            )
        self.plan = self.data_sampler.plan = dataclasses.replace(self.plan, stream=found)

    def reconfigure_limit_batches(self) -> None:
        super().reconfigure_limit_batches()
        # NeMo counts samples here and batches there, and would begin the stream again when they run out.
        self.trainer.limit_train_batches = 1.0

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.data_sampler.loaded = int(state_dict["consumed_samples"])


class StepSampler(MegatronDataSampler):
    """NeMo's sampler for validation; for training each rank's positions, step after step."""

    def __init__(self, *, plan: Order, steps: int, micro_batch: int, packed: bool = False) -> None:
        super().__init__(seq_len=plan.seq_length, micro_batch_size=micro_batch, global_batch_size=plan.global_batch)
        self.plan, self.steps, self.packed = plan, steps, packed
        self.loaded: int | None = None  # samples that the checkpoint's training had consumed

    def transform_dataloader(self, dataloader: Any, consumed_samples: int = 0) -> Any:
        if getattr(dataloader, "mode", "train") != "train":
            return super().transform_dataloader(dataloader, consumed_samples)
        from megatron.core import parallel_state

        batches = StepBatches(
            plan=self.plan,
            done=self._begin(),
            steps=self.steps,
            micro_batch=self.micro_batch_size,
            rank=parallel_state.get_data_parallel_rank(),
            dp=parallel_state.get_data_parallel_world_size(),
            length=len(dataloader.dataset),
        )
        return with_batches(dataloader, batches)

    def _begin(self) -> int:
        """The steps already done. A checkpoint that knows nothing of its order says how many samples it had read."""
        done = self.init_global_step
        expected = order.consumed(done, self.plan.global_batch, self.plan.skips)
        if self.loaded not in (None, expected):
            raise CheckpointError(
                f"after {done} steps the checkpoint had consumed {self.loaded} samples, and with "
                f"train.global_batch={self.plan.global_batch} it would be {expected}",
                do="resume with the global batch that it was trained with",
            )
        return done

    def compute_consumed_samples(self, steps_since_resume: int = 0) -> int:
        steps = self.init_global_step + steps_since_resume
        return order.consumed(steps, self.plan.global_batch, self.plan.skips)

    def on_megatron_step_start(self, step: Any) -> Any:
        step = super().on_megatron_step_start(step)
        if not self.packed:
            return step
        # What goes from one pipeline stage to the next is one long row (megatron/core/pipeline_parallel/schedules.py,
        # get_tensor_shapes).
        return dataclasses.replace(step, seq_length=self.seq_len * self.micro_batch_size, micro_batch_size=1)


class StepBatches:
    """A batch sampler for torch's DataLoader: one rank's micro-batches from step `done` + 1 on, without end.

    Behind the last sample of a dataset (`length`) the stream begins again: batches that were left out cost no steps.
    """

    def __init__(
        self, *, plan: Order, done: int, steps: int, micro_batch: int, rank: int, dp: int, length: int
    ) -> None:
        self.plan, self.done, self.steps, self.length = plan, done, steps, length
        self.place = {"rank": rank, "dp": dp, "micro_batch": micro_batch}

    def of(self, step: int) -> list[list[int]]:
        """The dataset's indices for one step, one list a micro-batch."""
        batches = order.positions(step, global_batch=self.plan.global_batch, skips=self.plan.skips, **self.place)
        return [[at % self.length for at in batch] for batch in batches]

    def __iter__(self) -> Iterator[list[int]]:
        for step in itertools.count(self.done + 1):
            yield from self.of(step)

    def __len__(self) -> int:
        # In micro-batches, as Lightning counts them; one step more than there are, so that no epoch ends before.
        return (self.steps + 1) * (self.plan.global_batch // (self.place["micro_batch"] * self.place["dp"]))


def describe(trainer: Any, step: int) -> dict[str, Any]:
    """`order.describe_batch`."""
    data = trainer.datamodule
    if not isinstance(data, OrderedData):
        return {"step": step}
    first = order.first_sample(step, data.plan.global_batch, data.plan.skips)
    last = first + data.plan.global_batch - 1
    length, found = len(data._train_ds), {}
    for at in range(first, last + 1):
        found |= dict.fromkeys(_documents(data._train_ds, at % length))
    return {"step": step, "samples": [first, last], "documents": list(found)}


def record(trainer: Any, filepath: str) -> None:
    """Write the order beside the weights of the checkpoint that is about to be saved at `filepath`. On rank 0."""
    if trainer.global_rank == 0 and isinstance(trainer.datamodule, OrderedData):
        order.write(ckpt_to_dir(filepath), trainer.datamodule.plan, steps=trainer.global_step)


def _documents(dataset: Any, index: int) -> list[str]:
    """The documents of a sample: those between its first and its last (GPTDataset, BlendedDataset of such)."""
    if hasattr(dataset, "datasets"):
        return _documents(dataset.datasets[dataset.dataset_index[index]], int(dataset.dataset_sample_index[index]))
    row = dataset.shuffle_index[index]
    begin, end = int(dataset.sample_index[row][0]), int(dataset.sample_index[row + 1][0])
    name = Path(dataset.dataset_path).name
    return [f"{name}:{int(document)}" for document in dataset.document_index[begin : end + 1]]


def digest(dataset: Any) -> str:
    """A hash of the order that a GPTDataset, or a BlendedDataset of such, gives its samples: of each of its index
    arrays the length and the first and last MiB.
    """
    found = hashlib.sha256()
    for name in ("document_index", "sample_index", "shuffle_index", "dataset_index", "dataset_sample_index"):
        array = getattr(dataset, name, None)
        if array is not None:
            rows = max(1, _EDGE // array[:1].nbytes)
            found.update(f"{name} {array.dtype.str} {array.shape}".encode())
            found.update(array[:rows].tobytes() + array[-rows:].tobytes())
    for part in getattr(dataset, "datasets", ()):
        found.update(digest(part).encode())
    return found.hexdigest()


def remove_broken_indices(folder: str | None) -> None:
    """Remove index files that a rank 0 that was killed left cut short: Megatron reads them as they are, for ever."""
    import numpy as np

    if folder is None or (torch.distributed.is_initialized() and torch.distributed.get_rank() != 0):
        return
    for path in Path(folder).glob("*.npy"):
        try:
            np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
