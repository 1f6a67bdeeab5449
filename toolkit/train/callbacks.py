"""What happens beside the training steps: a heartbeat, and faults of NeMo avoided. What is measured is `metrics`', when
checkpoints are saved `saving`'s.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from nemo.lightning.pytorch.callbacks.progress_printer import ProgressPrinter

from toolkit.train import heartbeat
from toolkit.train.metrics import Metrics

__all__ = ["Heartbeat", "Metrics", "SafePrinter", "ValidationOnResume"]


class SafePrinter(ProgressPrinter):
    """NeMo's progress printer without its collective.

    NeMo keeps the printer on rank 0 alone, and after each step it calls Megatron's timers, an all_gather over all ranks
    (megatron/core/timers.py: get_all_timers_string). The other ranks never join: on gloo the next collective hangs; on
    NCCL too as soon as a timer is registered. A printer that already is among the callbacks is kept, so NeMo adds none.
    """

    def log_megatron_timers(self, timers: Any) -> None:
        return None


class Heartbeat(pl.Callback):
    """Rank 0 touches `folder`/heartbeat whenever the training got on; around saves `StepCheckpoint` does."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def beat(self, trainer: Any, *_: Any, **__: Any) -> None:
        if trainer.global_rank == 0:
            heartbeat.beat(self.folder)

    on_train_start = on_train_batch_end = on_validation_batch_end = on_validation_end = beat


class ValidationOnResume(pl.Callback):
    """A training that goes on from a checkpoint validates at the steps at which it would have without the break.

    Checkpoints are saved before the validation that is due at the same step; NeMo's epoch loop skips it after a resume
    (nemo/lightning/pytorch/trainer.py: NoValOnRestartTrainingLoop). And Lightning takes it for one that was broken off,
    and goes on at the batch where the one before it had ended.
    """

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        loop = trainer.fit_loop.epoch_loop
        loop.skip_val_on_restart = loop.val_loop.restarting = False
