"""Guards of a training: updates that are no numbers are skipped, a loss that jumps is told of or rolled back.

Decides what is skipped, when it has been too often, and where a rollback begins; that all ranks end together is left
to `saving`, starting them again to whoever started them.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from toolkit import files
from toolkit.errors import Diverged, RolledBack, ToolkitError
from toolkit.recipe.schema import Guard as Limits
from toolkit.train import order, rows, spikes, together, whole

ROLLBACKS, BAD_BATCH, ASIDE = "rollbacks.json", "bad_batch.json", "spiked"


class Guard(pl.Callback):
    """Sits between the gradients and the update. Must stand behind `Metrics`, which drops the rows of steps that come
    again, and has waited for the step's figures. `can_skip`: the data can leave batches out; without that a spike is
    only told of.
    """

    def __init__(self, folder: str, limits: Limits, can_skip: bool) -> None:
        self.folder, self.limits = Path(folder), limits
        self.rolls_back = limits.spike == "rollback" and can_skip
        self.window = spikes.Window(limits)  # of rank 0
        self.skipped = False  # in this step
        self.in_a_row = 0
        self.wants_rollback = False  # rank 0 alone sees the loss
        self._sees_gradients = False
        self._loss: torch.Tensor | None = None
        self._norm: float | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        known = rows.read(self._metrics) if trainer.global_rank == 0 else []
        self.window, skipped = spikes.recall(self.limits, known)
        self.in_a_row = together.hear(skipped)
        self._see_loss(trainer.strategy)
        self._sees_gradients = False

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        if not self._sees_gradients:  # adapters, and what updates them, are made when the first epoch starts
            self._see_gradients(trainer, trainer.strategy.optimizers[0].mcore_optimizer)
            self._sees_gradients = True

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        """After `Metrics` has waited for the step's figures."""
        if self.skipped:
            self._note_skipped(trainer)
        else:
            self.in_a_row = 0
            if trainer.global_rank == 0 and self.limits.spike != "none":
                self._look(trainer.global_step, float(self._loss))

    def roll_back(self, trainer: Any) -> None:
        """On all ranks, when rank 0 wishes it. Raises `RolledBack`, or `Diverged` when it has been done too often."""
        together.finish_saving(trainer)
        error = None
        if trainer.global_rank == 0:
            try:
                error = self._prepare_rollback(trainer.global_step)
            except ToolkitError as err:
                error = err
        raise together.hear(error)

    def _see_loss(self, strategy: Any) -> None:
        """NeMo has the loss on the last pipeline stage, averaged over all data, and sends it to rank 0; elsewhere it is
        0. The scheduler of the learning rate counts the optimizer's steps, so that is left as it is.
        """
        step = strategy.training_step

        def training_step(*args: Any, **kwargs: Any) -> Any:
            self._norm, self.skipped = None, False
            out = step(*args, **kwargs)
            self._loss = (out["loss"] if isinstance(out, dict) else out).detach()
            return out

        strategy.training_step = training_step

    def _see_gradients(self, trainer: Any, optimizer: Any) -> None:
        """Megatron's optimizer takes the norm of all gradients over all ranks, clips, then calls
        `step_with_ready_grads` (megatron/core/optimizer/optimizer.py). Leaving that out is what it does itself when
        fp16 overflows. The norm is on the host by then, and equal on all ranks that update the same weights.
        """
        for part in getattr(optimizer, "chained_optimizers", [optimizer]):
            part.get_main_grads_for_grad_norm = self._with_loss(part.get_main_grads_for_grad_norm)
        optimizer.get_grad_norm = self._kept(optimizer.get_grad_norm)
        if hasattr(optimizer, "clip_grad_norm"):
            optimizer.clip_grad_norm = self._kept(optimizer.clip_grad_norm)
        update = optimizer.step_with_ready_grads

        def step_with_ready_grads() -> bool:
            norm = self._norm if self._norm is not None else optimizer.get_grad_norm()  # none is taken without clipping
            self.skipped = not math.isfinite(norm)
            if not self.skipped:
                return update()
            trainer.skipped_step = trainer.global_step + 1  # for `Metrics`; the step is counted when this returns
            return False

        optimizer.step_with_ready_grads = step_with_ready_grads

    def _with_loss(self, gradients: Callable[[], list[torch.Tensor]]) -> Callable[[], list[torch.Tensor]]:
        """The norm also becomes NaN when the loss alone is no number: 0 x loss is added to one element, which leaves a
        healthy norm as it is to the last bit, and asks nothing of the host.
        """

        def with_loss() -> list[torch.Tensor]:
            found = gradients()
            if found and self._loss is not None:
                first = found[0].view(-1)[:1]
                first.add_((self._loss * 0).to(first.dtype))
            return found

        return with_loss

    def _kept(self, norm: Callable[..., float]) -> Callable[..., float]:
        def kept(*args: Any) -> float:
            self._norm = float(norm(*args))
            return self._norm

        return kept

    @property
    def _metrics(self) -> Path:
        return self.folder / "metrics.jsonl"

    def _event(self, step: int, event: str, text: str, **details: Any) -> None:
        with contextlib.suppress(ToolkitError, OSError):  # a disk that is full has been told of elsewhere
            rows.append(self._metrics, {"step": step, "event": event, **details})
        print(f"step {step}: {text}", flush=True)

    def _note_skipped(self, trainer: Any) -> None:
        self.in_a_row += 1
        step, limit = trainer.global_step, self.limits.bad_steps
        if trainer.global_rank == 0:
            loss = float(self._loss)
            what = "its loss is no number" if not math.isfinite(loss) else "its gradients are no numbers"
            known = loss if math.isfinite(loss) else None
            self._event(step, "skipped", f"skipped, {what}", why=what, loss=known, in_a_row=self.in_a_row)
        if self.in_a_row > limit:
            together.finish_saving(trainer)
            raise together.hear(self._diverged(trainer) if trainer.global_rank == 0 else None)

    def _diverged(self, trainer: Any) -> ToolkitError:
        step = trainer.global_step
        steps = range(step - self.in_a_row + 1, step + 1)
        try:
            batches = [order.describe_batch(trainer, s) for s in steps]
            files.write_json(self.folder / BAD_BATCH, {"step": step, "batches": batches})
        except ToolkitError as err:
            return err
        return Diverged(
            f"loss or gradients were no numbers in {self.in_a_row} steps in a row, up to step {step}",
            where=self.folder,
            why=f"batch of step {step}: {_samples(batches[-1])}; guard.bad_steps={self.limits.bad_steps}",
            do=f"look at these samples ({BAD_BATCH}), lower train.lr, or leave the batches out ({order.SKIPS}); the "
            "weights are those before the first of these steps, and earlier checkpoints are kept",
        )

    def _look(self, step: int, loss: float) -> None:
        seen = self.window.see(step, loss)
        if not seen.spike:
            return
        if self.window.in_a_row == 1:
            told = {"loss": loss, "median": round(seen.median, 6), "limit": round(seen.limit, 6)}
            text = f"the loss has jumped to {loss:.4f} from a median of {seen.median:.4f}"
            self._event(step, "spike", text, **told)
        self.wants_rollback = self.rolls_back and self.window.in_a_row >= self.limits.spike_steps

    def _prepare_rollback(self, step: int) -> ToolkitError:
        onset, path = self.window.onset, self.folder / ROLLBACKS
        before = files.read_json(path) if path.is_file() else []
        if len(before) >= self.limits.rollbacks:
            return Diverged(
                f"the loss has jumped again at step {onset}, after {len(before)} rollbacks",
                where=self.folder,
                why=f"guard.rollbacks={self.limits.rollbacks}; {ROLLBACKS} says when and where to",
                do="lower train.lr, look at the data, or set guard.spike=warn to train through it",
            )
        batches = step - onset + 1
        kept = set_aside(self.folder, onset)
        order.add_skip(self.folder, onset, batches)
        now = {"at": round(time.time(), 3), "onset": onset, "step": step, "back_to": kept, "batches": batches}
        files.write_json(path, [*before, now])
        text = f"the loss has jumped at step {onset}: going back to step {kept}, without {batches} batches"
        self._event(step, "rollback", text, onset=onset, back_to=kept, batches=batches)
        return RolledBack(text, where=self.folder)


def of(trainer: Any) -> Guard | None:
    """The guard of this training."""
    return next((callback for callback in trainer.callbacks if isinstance(callback, Guard)), None)


def set_aside(folder: Path, onset: int) -> int:
    """Move checkpoints that have seen step `onset` to `folder`/spiked, in place of what an earlier rollback put there;
    returns the steps in the newest of the others, 0 when none is left.
    """
    checkpoints, aside = folder / "checkpoints", folder / ASIDE
    found = {steps: path for path in checkpoints.glob("step=*") if path.is_dir() and (steps := whole.steps_in(path))}
    late = [path for steps, path in found.items() if steps >= onset]
    if late:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
    for path in late:
        path.rename(aside / path.name)
    return max((steps for steps in found if steps < onset), default=0)


def _samples(batch: dict[str, Any]) -> str:
    if "samples" not in batch:
        return "its samples are not known"
    first, last = batch["samples"]
    documents = batch.get("documents") or []
    some = ", ".join(map(str, documents[:10])) + (f" and {len(documents) - 10} more" if len(documents) > 10 else "")
    return f"samples {first} to {last}" + (f", documents {some}" if documents else "")
