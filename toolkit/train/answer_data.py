"""A finetuning's batches: NeMo's data module for it, on rows that are token ids already.

Decides which rows make a global batch, and that a training that goes on repeats and misses none; leaves the tensors to
`answer_tensors`, and how packed rows are kept apart to `documents`.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from nemo.collections.llm.gpt.data.fine_tuning import FineTuningDataModule
from nemo.lightning.data import WrappedDataLoader
from nemo.lightning.pytorch.plugins import MegatronDataSampler

from toolkit.errors import CheckpointError
from toolkit.train import answers
from toolkit.train.answer_tensors import MULTIPLE, Example, deal, packed, padded
from toolkit.train.loading import with_batches


class AnswerData(FineTuningDataModule):
    """`dataset_root` holds training and, where there is one, validation. `multiple`: rows are padded to one of it.

    `packed`: one row for each micro-batch. `steps` are those of the training.
    """

    def __init__(self, *, steps: int, packed: bool, multiple: int = MULTIPLE, **given: Any) -> None:
        super().__init__(**given)
        self.steps, self.packed, self.multiple = steps, packed, multiple

    def setup(self, stage: str) -> None:
        self.data_sampler = StepSampler(self)

    def prepare_data(self) -> None:
        return None

    def train_dataloader(self) -> Any:
        rows = answers.read(Path(self.dataset_root) / "training")
        return self._create_dataloader(Shuffled(rows, self.seed), mode="train")

    def val_dataloader(self) -> Any:
        return self._create_dataloader(self.validation_rows(), mode="validation")

    def validation_rows(self) -> Any:
        """All rows to validate on, once, with rows of no answer behind them until the last global batch is whole."""
        rows = answers.read(Path(self.dataset_root) / "validation")
        return Filled(rows, self.global_batch_size)

    def _create_dataloader(self, dataset: Any, mode: str, **_: Any) -> Any:
        self.init_global_step = self.data_sampler.init_global_step = self.trainer.global_step
        return WrappedDataLoader(
            mode=mode,
            dataset=dataset,
            num_workers=self.num_workers,
            pin_memory=self.pin_memory,
            persistent_workers=self.persistent_workers,
            collate_fn=self.collate,
        )

    def collate(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """This rank's share of a global batch, of which NeMo cuts the micro-batches: rows of one length."""
        pad = int(self.tokenizer.pad_id)
        dealt = deal(examples, len(examples) // self.micro_batch_size)
        if not self.packed:  # NeMo cuts them in this order: the micro-batches are those of packed rows
            return padded(list(itertools.chain(*dealt)), pad=pad, multiple=self.multiple)
        return packed(dealt, pad=pad, multiple=self.multiple)


class Shuffled(torch.utils.data.Dataset):
    """Rows by their position in the training: epoch after epoch, each in an order of its own."""

    def __init__(self, rows: answers.Rows, seed: int) -> None:
        self.rows, self.seed = rows, seed

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> Example:
        return self.rows[answers.at(position, len(self.rows), self.seed)]


class Filled(torch.utils.data.Dataset):
    """Rows in their own order, and as many behind them as make a whole number of batches; those have no loss."""

    def __init__(self, rows: answers.Rows, multiple: int) -> None:
        self.rows, self.length = rows, math.ceil(len(rows) / multiple) * multiple

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, number: int) -> Example:
        if number < len(self.rows):
            return self.rows[number]
        ids, _ = self.rows[0]
        return ids, len(ids)


class StepSampler(MegatronDataSampler):
    """Each rank's rows of a step by the step's number alone: a training that goes on repeats and misses none."""

    def __init__(self, data: AnswerData) -> None:
        super().__init__(
            seq_len=data.seq_length,
            micro_batch_size=data.micro_batch_size,
            global_batch_size=data.global_batch_size,
            dataloader_type="batch",
        )
        self.steps, self.packed = data.steps, data.packed

    def transform_dataloader(self, dataloader: Any, consumed_samples: int = 0) -> Any:
        from megatron.core import parallel_state

        training = getattr(dataloader, "mode", "train") == "train"
        done = self._done() if training else 0
        batches = StepBatches(
            begin=done,
            end=self.steps + 1 if training else len(dataloader.dataset) // self.global_batch_size,
            endless=training,
            global_batch=self.global_batch_size,
            rank=parallel_state.get_data_parallel_rank(),
            dp=parallel_state.get_data_parallel_world_size(),
        )
        return with_batches(dataloader, batches)

    def _done(self) -> int:
        """The steps that are done already. Raises `CheckpointError` when they were of another batch."""
        done, loaded = self.init_global_step, self.init_consumed_samples
        if done and loaded and loaded != done * self.global_batch_size:
            raise CheckpointError(
                f"after {done} steps the checkpoint had read {loaded} rows, and with "
                f"finetune.global_batch={self.global_batch_size} it would be {done * self.global_batch_size}",
                do="resume with the global batch that it was trained with",
            )
        return done

    def compute_consumed_samples(self, steps_since_resume: int = 0) -> int:
        return (self.init_global_step + steps_since_resume) * self.global_batch_size

    def on_megatron_step_start(self, step: Any) -> Any:
        step = super().on_megatron_step_start(step)
        # What goes from one pipeline stage to the next is one long row.
        return dataclasses.replace(step, micro_batch_size=1) if self.packed else step


class StepBatches:
    """A batch sampler for torch's DataLoader: of each global batch the rows of one data-parallel rank.

    Rows follow each other by position in the training (`answers.at`). `endless`: steps go on behind `end`, which is
    then only what Lightning is told, so that no epoch of its own ends before.
    """

    def __init__(self, *, begin: int, end: int, endless: bool, global_batch: int, rank: int, dp: int) -> None:
        self.begin, self.end, self.endless = begin, end, endless
        self.global_batch, self.rank, self.dp = global_batch, rank, dp

    def of(self, step: int) -> list[int]:
        """Positions of a step, counted from 0."""
        first = step * self.global_batch
        return list(range(first + self.rank, first + self.global_batch, self.dp))

    def __iter__(self) -> Iterator[list[int]]:
        steps = itertools.count(self.begin) if self.endless else range(self.begin, self.end)
        return (self.of(step) for step in steps)

    def __len__(self) -> int:
        return self.end
