"""What happens beside the training steps: metrics to a file, progress, a heartbeat, and faults of NeMo avoided. When
checkpoints are saved is `saving`'s.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from nemo.lightning.pytorch.callbacks.progress_printer import ProgressPrinter

from toolkit.progress import Progress
from toolkit.train import heartbeat


class SafePrinter(ProgressPrinter):
    """NeMo's progress printer without its collective.

    NeMo keeps the printer on rank 0 alone, and after each step it calls Megatron's timers, an all_gather over all ranks
    (megatron/core/timers.py: get_all_timers_string). The other ranks never join: on gloo the next collective hangs; on
    NCCL too as soon as a timer is registered. A printer that already is among the callbacks is kept, so NeMo adds none.
    """

    def log_megatron_timers(self, timers: Any) -> None:
        return None


class Metrics(pl.Callback):
    """Rank 0 writes one line a step to metrics.jsonl, and shows progress. A resumed run first drops the lines it will
    write again.
    """

    def __init__(self, path: str, steps: int, tokens_per_step: int, label: str) -> None:
        self.path, self.steps, self.tokens_per_step, self.label = Path(path), steps, tokens_per_step, label
        self._progress: Progress | None = None
        self._began = self._lr = 0.0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.global_rank == 0:
            self._drop_from(trainer.global_step)
            self._progress = Progress(self.label, self.steps, "steps", begun=trainer.global_step)
            self._progress.write()

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        self._began = time.monotonic()
        self._lr = trainer.optimizers[0].param_groups[0]["lr"]  # at the step's end the scheduler has moved on

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if self._progress is None:
            return
        values = trainer.callback_metrics
        took, loss = time.monotonic() - self._began, float(values["reduced_train_loss"])
        row = {"step": trainer.global_step, "loss": loss, "lr": self._lr}
        if "grad_norm" in values:
            row["grad_norm"] = float(values["grad_norm"])
        row |= {"tokens": trainer.global_step * self.tokens_per_step, "step_s": round(took, 4)}
        self._write({**row, "tokens_per_s": round(self.tokens_per_step / took, 1)})
        self._progress.at(trainer.global_step, f"loss {loss:.4f}")

    def on_validation_end(self, trainer: Any, *_: Any) -> None:
        if self._progress is not None and "val_loss" in trainer.callback_metrics:
            self._write({"step": trainer.global_step, "valid_loss": float(trainer.callback_metrics["val_loss"])})

    def on_train_end(self, *_: Any) -> None:
        if self._progress is not None:
            self._progress.close()

    def _write(self, row: dict[str, Any]) -> None:
        with open(self.path, "a", encoding="utf-8") as handle:
            handle.write(json.dumps(row) + "\n")

    def _drop_from(self, step: int) -> None:
        """Keep the whole lines up to `step`; an interrupted writer may have left more, and half a line. The validation
        of `step` itself comes again, unless there is nothing left to train.
        """
        kept = []
        if self.path.is_file():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                try:
                    row = json.loads(line)
                except json.JSONDecodeError:
                    continue
                again = "valid_loss" in row and row["step"] == step < self.steps
                if row["step"] <= step and not again:
                    kept.append(line)
        self.path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")


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


class FinetuneResume(pl.Callback):
    """Resuming inside an epoch of `llm.finetune` without repeating data.

    After a resume the "batch" sampler of NeMo's FineTuningDataModule holds only the batches that are left, while
    Lightning goes on counting from those already done: the epoch ends early and begins again at the resume point.
    """

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        trainer.fit_loop.epoch_loop.batch_progress.current.reset()
