"""When a checkpoint is saved: at intervals, after the last step, and when anybody was asked to stop. What is in one,
and how it is written, is NeMo's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from megatron.core.dist_checkpointing.strategies import filesystem_async
from nemo import lightning as nl

from toolkit.errors import Stopped
from toolkit.train import heartbeat, stopping


class StepCheckpoint(nl.ModelCheckpoint):
    """Keeps the newest `keep` checkpoints, and always one of the last step. When a rank was asked to stop, all ranks
    save the step that they have just done and raise `Stopped` together, before its validation.
    """

    def __init__(self, folder: str, every: int, keep: int) -> None:
        super().__init__(
            dirpath=folder,
            filename="{step}",
            monitor="step",
            mode="max",
            save_top_k=keep,
            save_last=False,
            every_n_train_steps=every,
            save_on_train_epoch_end=False,
            save_optim_on_train_end=True,
            always_save_context=False,
        )

    def setup(self, trainer: Any, *args: Any, **kwargs: Any) -> None:
        super().setup(trainer, *args, **kwargs)
        # The first save starts a process that all saves talk to (megatron/core/dist_checkpointing/strategies/
        # filesystem_async.py:55). A signal to the whole process group would end it, and the save that is asked for.
        with stopping.unheard():
            filesystem_async._get_write_results_queue()
        if _agreed(trainer):  # before the minutes that loading a large checkpoint takes
            raise _nothing_new()

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        super().on_train_start(trainer, pl_module)
        # Lightning has put a handler of its own around ours; it would raise in this rank alone.
        stopping.renew()
        trainer._signal_connector.received_sigterm = False
        if trainer.global_step < trainer.max_steps and _agreed(trainer):
            raise _nothing_new()

    def on_train_batch_end(self, trainer: Any, *args: Any, **kwargs: Any) -> None:
        super().on_train_batch_end(trainer, *args, **kwargs)
        if trainer.global_step < trainer.max_steps and _agreed(trainer):
            self._save_this_step(trainer)
            _finish_saving(trainer)
            step = trainer.global_step
            raise Stopped(f"asked to stop; step {step} of {trainer.max_steps} is saved", do="run it again to go on")

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        super().on_train_end(trainer, pl_module)
        self._save_this_step(trainer)

    def _save_this_step(self, trainer: Any) -> None:
        if self._last_global_step_saved != trainer.global_step:
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))

    def _save_checkpoint(self, trainer: Any, filepath: str) -> None:
        self._beat(trainer)
        super()._save_checkpoint(trainer, filepath)
        self._beat(trainer)

    def _beat(self, trainer: Any) -> None:
        if trainer.global_rank == 0:
            heartbeat.beat(Path(self.dirpath).parent)


def _agreed(trainer: Any) -> bool:
    """Whether any rank was asked to stop. A collective over all ranks: they see the request at the same step."""
    told = torch.tensor([int(stopping.asked())], device=trainer.strategy.root_device)
    if torch.distributed.is_initialized():
        torch.distributed.all_reduce(told, op=torch.distributed.ReduceOp.MAX)
    return bool(told.item())


def _finish_saving(trainer: Any) -> None:
    """Wait for checkpoints that are still being written in the background; a synchronous writer has none."""
    finalize = getattr(trainer.strategy.checkpoint_io, "maybe_finalize_save_checkpoint", None)
    if finalize is not None:
        finalize(blocking=True)


def _nothing_new() -> Stopped:
    return Stopped("asked to stop before the first step; what was saved earlier is kept", do="run it again to go on")
