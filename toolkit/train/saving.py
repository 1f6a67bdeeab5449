"""When a checkpoint is saved: at intervals, after the last step, and when anybody was asked to stop; which are kept,
and that each was written whole. What is in one, and how it is written, is NeMo's.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from megatron.core.dist_checkpointing.strategies import filesystem_async
from nemo import lightning as nl
from nemo.lightning.ckpt_utils import ckpt_to_dir

from toolkit.errors import Stopped, ToolkitError
from toolkit.train import guards, heartbeat, rows, stopping, stream, together, validation, whole

_STOP, _ROLL_BACK = 1, 2  # the higher wish wins


class StepCheckpoint(nl.ModelCheckpoint):
    """Keeps the newest `keep` checkpoints and, for ever, that of every `keep_every`-th step; and saves the last step,
    after which it validates over the whole set where `valid_full` says so.

    When a rank was asked to stop, all ranks save the step that they have just done and raise `Stopped` together, before
    its validation. When the loss has jumped they raise `RolledBack`, and save nothing.
    """

    def __init__(
        self, folder: str, every: int, keep: int, keep_every: int | None = None, valid_full: bool = False
    ) -> None:
        self.keep_every, self.valid_full = keep_every, valid_full
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
        wish = _agreed(trainer)
        if wish == _ROLL_BACK:
            guards.of(trainer).roll_back(trainer)
        super().on_train_batch_end(trainer, *args, **kwargs)
        if trainer.global_step < trainer.max_steps and wish == _STOP:
            self._save_this_step(trainer)
            together.finish_saving(trainer)
            step = trainer.global_step
            raise Stopped(f"asked to stop; step {step} of {trainer.max_steps} is saved", do="run it again to go on")

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        super().on_train_end(trainer, pl_module)
        self._save_this_step(trainer)
        if self.valid_full:  # once nothing can be lost by it
            together.finish_saving(trainer)
            self._validate_all(trainer, Path(self.dirpath).parent)

    def _validate_all(self, trainer: Any, folder: Path) -> None:
        loss = validation.full(trainer, folder)
        if trainer.global_rank != 0:
            return
        if loss is None:
            print("asked to stop: the validation over the whole set is left out, all else is done", flush=True)
            return
        with contextlib.suppress(ToolkitError, OSError):  # a line that finds no room costs no training
            rows.append(folder / "metrics.jsonl", {"step": trainer.global_step, "valid_loss": loss, "full": True})

    def _save_this_step(self, trainer: Any) -> None:
        if self._last_global_step_saved != trainer.global_step:
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))

    def _save_checkpoint(self, trainer: Any, filepath: str) -> None:
        self._beat(trainer)
        together.finish_saving(trainer)  # one at a time: each is whole, or said not to be, before the next takes room
        stream.record(trainer, filepath)
        super()._save_checkpoint(trainer, filepath)
        self._beat(trainer)

    def _get_finalize_save_checkpoint_callback(self, trainer: Any, filepath: str, global_step: int) -> Any:
        """NeMo calls it when every rank has written, in the background or not; it takes the mark away that says
        unfinished. What cannot be read keeps the mark.
        """
        done = super()._get_finalize_save_checkpoint_callback(trainer, filepath, global_step)

        def looked_at() -> None:
            error = whole.problem(Path(ckpt_to_dir(filepath))) if trainer.global_rank == 0 else None
            if (error := together.hear(error)) is not None:
                raise error
            done()

        return looked_at

    def _remove_checkpoint(self, trainer: Any, filepath: str, override_async: bool = False) -> None:
        if not self._for_ever(filepath):
            super()._remove_checkpoint(trainer, filepath, override_async=override_async)

    def _del_model_without_trainer(self, filepath: str) -> None:
        """At a start, for those of an earlier one that are too many."""
        if not self._for_ever(filepath):
            super()._del_model_without_trainer(filepath)

    def _for_ever(self, filepath: str) -> bool:
        steps = whole.steps_in(Path(filepath))
        return self.keep_every is not None and steps > 0 and steps % self.keep_every == 0

    def _beat(self, trainer: Any) -> None:
        if trainer.global_rank == 0:
            heartbeat.beat(Path(self.dirpath).parent)


def _agreed(trainer: Any) -> int:
    """What any rank wishes: 0, to stop, or to roll back. A collective over all ranks: they see it at the same step."""
    guard = guards.of(trainer)
    rolls_back = guard is not None and guard.wants_rollback
    return together.most(trainer, _ROLL_BACK if rolls_back else int(stopping.asked()))


def _nothing_new() -> Stopped:
    return Stopped("asked to stop before the first step; what was saved earlier is kept", do="run it again to go on")
