"""What a training's speed and health are at each step: measured in rank 0, written to metrics.jsonl and to the loggers.
Decides what counts as a step's time and as waiting for data; how lines are kept is `rows`', what reads power `power`'s.
"""

from __future__ import annotations

import dataclasses
import resource
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import nemo_run as run
import torch

from toolkit import flops, hardware
from toolkit.models import EXTRA_TOKENS, Shape
from toolkit.progress import Progress
from toolkit.recipe.schema import Watch
from toolkit.train import guards, loggers, power, rows
from toolkit.train.job import FinetuneJob, Job
from toolkit.train.rows import append

__all__ = ["Metrics", "append", "config"]


def config(job: Job, label: str) -> run.Config:
    """The callback for a training, with what its speed is measured against."""
    model, site = job.model, job.cluster
    shape = Shape(
        layers=model.layers,
        hidden=model.hidden,
        ffn=model.ffn,
        heads=model.heads,
        kv_heads=model.kv_heads,
        vocab=model.base_vocab + EXTRA_TOKENS[model.extra_tokens],
    )
    # A CPU has no peak that its vendor states; nor is a GPU's type of any meaning there.
    peak = hardware.peak_tflops(None if job.on_cpu else site.gpu, site.peak_tflops)
    needed = flops.per_token(shape, job.train.seq_length, job.watch.mfu, model.nominal_parameters)
    told = ("model", "parallel", "train", "data", "cluster")
    return run.Config(
        Metrics,
        folder=str(job.folder),
        steps=job.train.steps,
        tokens_per_step=job.tokens_per_step,
        label=label,
        devices=site.nodes * site.devices_per_node,
        peak_tflops=peak,
        flops_per_token=None if isinstance(job, FinetuneJob) and job.lora else needed,  # no convention counts adapters
        watch=job.watch,
        settings={name: dataclasses.asdict(getattr(job, name)) for name in told},
    )


class Metrics(pl.Callback):
    """One line a step in `folder`/metrics.jsonl, by rank 0: step, loss, lr, grad_norm, tokens (so far), step_s, data_s,
    tokens_per_s, tokens_per_s_device, mfu, memory_gib (highest, on GPUs) or rss_gib (on CPUs), power_w (mean of a GPU
    of this node), elapsed_s (over all attempts), skipped (true, when the update was). One more for a validation, with
    valid_loss.

    `step_s` runs from the end of a step to the end of the next; where a validation or a save lies between the two, from
    the beginning of the step itself. `data_s` is the part of it in which this rank waited for its data loader.
    `flops_per_token` and `peak_tflops` (of one device) give the MFU; without them there is none.
    """

    def __init__(
        self,
        folder: str,
        steps: int,
        tokens_per_step: int,
        label: str,
        devices: int = 1,
        flops_per_token: float | None = None,
        peak_tflops: float | None = None,
        watch: Watch | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder, self.path = Path(folder), Path(folder) / "metrics.jsonl"
        self.steps, self.tokens_per_step, self.label, self.devices = steps, tokens_per_step, label, devices
        self.flops_per_token, self.peak_tflops = flops_per_token, peak_tflops
        self.watch, self.settings = watch or Watch(), settings or {}
        self._born = time.monotonic()
        self._progress: Progress | None = None
        self._loggers: loggers.Loggers | None = None
        self._power: power.Sampler | None = None
        self._guard: guards.Guard | None = None
        self._kept = rows.Kept()
        self._began = self._waited = self._waiting_since = self._lr = 0.0
        self._ended: float | None = None
        self._resumed_at = -1
        self._warned = False

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        on_gpu = trainer.strategy.root_device.type == "cuda"
        if trainer.local_rank == 0 and on_gpu and self.watch.power_every_s and (nvml := power.library()) is not None:
            self._power = power.Sampler(nvml, self.folder, trainer.node_rank, self.watch.power_every_s)
            self._power.start()
        if trainer.global_rank != 0:
            return
        self._guard = guards.of(trainer)
        self._resumed_at = trainer.global_step
        self._kept = rows.drop_from(self.path, trainer.global_step, self.steps)
        self._loggers = loggers.start(self.watch, self.folder, self.settings, begun=trainer.global_step)
        self._progress = Progress(self.label, self.steps, "steps", begun=trainer.global_step)
        self._progress.write()
        # Lightning calls these two around each fetch (lightning/pytorch/loops/training_epoch_loop.py), wherever in a
        # step it happens: NeMo hands the iterator to Megatron, which takes micro-batches in the midst of its schedule.
        loop = trainer.fit_loop.epoch_loop
        loop._on_before_fetch, loop._on_after_fetch = self._fetch_begins, self._fetch_ends

    def _fetch_begins(self) -> None:
        self._waiting_since = time.perf_counter()

    def _fetch_ends(self) -> None:
        self._waited += time.perf_counter() - self._waiting_since

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        if self._ended is None:
            self._waited = 0.0
        self._began = time.perf_counter() if self._ended is None else self._ended
        self._lr = trainer.optimizers[0].param_groups[0]["lr"]  # at the step's end the scheduler has moved on

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if self._progress is None:
            return
        values = trainer.callback_metrics
        loss = float(values["reduced_train_loss"])  # on a GPU this waits for the step: no other wait is added
        skipped = self._guard is not None and self._guard.skipped
        norm = float(values["grad_norm"]) if "grad_norm" in values and not skipped else None
        self._ended = now = time.perf_counter()
        took = now - self._began
        row: dict[str, Any] = {"step": trainer.global_step, "loss": loss, "lr": self._lr}
        row |= {} if norm is None else {"grad_norm": norm}
        row |= {"tokens": trainer.global_step * self.tokens_per_step, "step_s": round(took, 4)}
        row |= {"data_s": round(self._waited, 4), **self._speed(self.tokens_per_step / took), **self._memory(trainer)}
        if self._power is not None and self._power.latest_w is not None:
            row["power_w"] = self._power.latest_w
        row["elapsed_s"] = self._elapsed_s()
        self._waited = 0.0
        self._write(row | ({"skipped": True} if skipped else {}))
        self._progress.at(trainer.global_step, f"loss {loss:.4f}")

    def _elapsed_s(self) -> float:
        """Of this attempt and those before it, from the making of the trainer on."""
        return round(self._kept.elapsed_s + time.monotonic() - self._born, 1)

    def _speed(self, rate: float) -> dict[str, float]:
        told = {"tokens_per_s": round(rate, 1), "tokens_per_s_device": round(rate / self.devices, 2)}
        if self.flops_per_token is not None and self.peak_tflops is not None:
            share = flops.mfu(rate, self.devices, self.peak_tflops, self.flops_per_token)
            if share <= 1:  # else the GPU's type or peak is wrong, and the figure means nothing
                told["mfu"] = round(share, 4)
        return told

    def _memory(self, trainer: Any) -> dict[str, float]:
        if trainer.strategy.root_device.type == "cuda":
            return {"memory_gib": round(torch.cuda.max_memory_allocated() / 2**30, 3)}
        return {"rss_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3)}  # Linux counts KiB

    def on_validation_start(self, trainer: Any, *_: Any) -> None:
        self._ended = None

    def on_save_checkpoint(self, trainer: Any, *_: Any) -> None:
        self._ended = None

    def on_validation_end(self, trainer: Any, *_: Any) -> None:
        if self._progress is not None and "val_loss" in trainer.callback_metrics:
            # The one of the step that was gone on from is in the loggers already.
            told = self._kept.validated and trainer.global_step == self._resumed_at
            row = {"step": trainer.global_step, "valid_loss": float(trainer.callback_metrics["val_loss"])}
            self._write(row, log=not told)

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Not at the training's end: the last save and the last validation come after that."""
        self._close(trainer, limit_s=60.0)

    def on_exception(self, trainer: Any, *_: Any) -> None:
        self._close(trainer, limit_s=10.0)

    def _close(self, trainer: Any, limit_s: float) -> None:
        if self._power is not None:
            self._power.end()
        if self._progress is not None:
            self._write({"step": trainer.global_step, "elapsed_s": self._elapsed_s()}, log=False)
            self._progress.close()
        if self._loggers is not None:
            self._loggers.close(limit_s)
        self._power = self._loggers = self._progress = None

    def _write(self, row: dict[str, Any], log: bool = True) -> None:
        try:
            rows.append(self.path, row)
        except Exception as err:
            if not self._warned:
                print(f"warning: {err}. The training goes on; its metrics are not complete", flush=True)
            self._warned = True
        if log and self._loggers is not None:
            self._loggers.write(row["step"], {k: float(v) for k, v in row.items() if k not in ("step", "elapsed_s")})
