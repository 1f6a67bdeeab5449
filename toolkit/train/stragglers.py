"""Which rank is slower than those that do the same work: each rank's own time in its forward passes and waiting
for data, compared at times.

All ranks take equally long for a step, since they wait for each other; what a rank does itself tells them apart. Says
so in an event; on GPUs NVIDIA's resiliency extension looks at the kernels besides, where it is installed.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import nemo_run as run
import torch

from toolkit.errors import ToolkitError
from toolkit.train import pace, rows
from toolkit.train.job import Job

_REPORT_S = 300.0
_EVERY_NTH = 10  # step's kernels are looked at
_SLOW = 0.7  # of the fastest GPU's speed in the same kernels


def configs(job: Job) -> list[run.Config]:
    """The callbacks for a training."""
    guard = job.guard
    if not guard.straggler_every:
        return []
    own = run.Config(Stragglers, folder=str(job.folder), every=guard.straggler_every, ratio=guard.straggler_ratio)
    theirs = None if job.on_cpu else _nvidia()
    return [own] if theirs is None else [own, theirs]


class Stragglers(pl.Callback):
    """Every `every` steps all ranks gather one number; rank 0 writes an event when one stands out by `ratio`."""

    def __init__(self, folder: str, every: int, ratio: float) -> None:
        self.folder, self.every, self.ratio = Path(folder), every, ratio
        self._watch = _GpuWatch() if torch.cuda.is_available() else _HostWatch()
        self._data = _HostWatch()
        self._own_s, self._steps = 0.0, 0
        self._hosts: list[str] = []
        self._likes: list[list[int]] = []

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        from megatron.core import parallel_state
        from megatron.core.models.gpt import GPTModel

        for module in trainer.strategy.megatron_parallel.modules():
            if isinstance(module, GPTModel):
                module.register_forward_pre_hook(self._begin)
                module.register_forward_hook(self._end)
        loop = trainer.fit_loop.epoch_loop  # it calls these two around each fetch; on rank 0 `Metrics` listens too
        loop._on_before_fetch = _both(self._data.begin, loop._on_before_fetch)
        loop._on_after_fetch = _both(loop._on_after_fetch, self._data.end)
        here = (socket.gethostname(), parallel_state.get_pipeline_model_parallel_rank())
        known: list[Any] = [here] * trainer.world_size
        if torch.distributed.is_initialized():
            torch.distributed.all_gather_object(known, here)
        self._hosts = [host for host, _ in known]
        replicas = parallel_state.get_data_parallel_world_size(with_context_parallel=True)
        self._likes = pace.likes_of([stage for _, stage in known], replicas)

    def _begin(self, module: Any, _: Any) -> None:
        if module.training:
            self._watch.begin()

    def _end(self, module: Any, *_: Any) -> None:
        if module.training:
            self._watch.end()

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        self._own_s += self._watch.take() + self._data.take()
        self._steps += 1
        if trainer.global_step % self.every:
            return
        mine = torch.tensor([self._own_s / self._steps], device=trainer.strategy.root_device)
        self._own_s, self._steps = 0.0, 0
        found = [mine]
        if torch.distributed.is_initialized():
            found = [torch.zeros_like(mine) for _ in range(trainer.world_size)]
            torch.distributed.all_gather(found, mine)
        if trainer.global_rank == 0:
            self._tell(trainer.global_step, torch.cat(found).tolist())

    def _tell(self, step: int, own_s: list[float]) -> None:
        slow = pace.slowest(own_s, self._likes)
        if slow is None or slow.ratio < self.ratio:
            return
        host = self._hosts[slow.rank]
        row = {"rank": slow.rank, "host": host, "ratio": round(slow.ratio, 3), "own_s": round(slow.own_s, 4)}
        with contextlib.suppress(ToolkitError, OSError):  # a disk that is full has been told of elsewhere
            rows.append(self.folder / "metrics.jsonl", {"step": step, "event": "straggler", **row})
        text = f"rank {slow.rank} on {host} takes {slow.ratio:.2f} times as long as the ranks that do the same"
        print(f"step {step}: {text}", flush=True)


def _both(first: Callable[[], None], then: Callable[[], None]) -> Callable[[], None]:
    def both() -> None:
        first()
        then()

    return both


class _HostWatch:
    """Seconds between `begin` and `end`, by the host's clock: on a CPU the work is done when the call returns."""

    def __init__(self) -> None:
        self._total = self._began = 0.0

    def begin(self) -> None:
        self._began = time.perf_counter()

    def end(self) -> None:
        self._total += time.perf_counter() - self._began

    def take(self) -> float:
        """The seconds since it was last asked."""
        total, self._total = self._total, 0.0
        return total


class _GpuWatch:
    """The same by the GPU's clock. Asked after the step's gradient norm, for which the host has waited already."""

    def __init__(self) -> None:
        self._pairs: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def begin(self) -> None:
        self._pairs.append((torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)))
        self._pairs[-1][0].record()

    def end(self) -> None:
        self._pairs[-1][1].record()

    def take(self) -> float:
        pairs, self._pairs = self._pairs, []
        return sum(begin.elapsed_time(end) for begin, end in pairs) / 1000


def _nvidia() -> run.Config | None:
    """NVIDIA's own detection as a callback of this trainer; None where its package, or CUPTI, is not there."""
    try:
        import nvrx_cupti_module  # noqa: F401
        from nvidia_resiliency_ext.ptl_resiliency import StragglerDetectionCallback
    except ImportError:
        return None

    return run.Config(
        StragglerDetectionCallback,
        report_time_interval=_REPORT_S,
        calc_relative_gpu_perf=True,
        calc_individual_gpu_perf=False,
        num_gpu_perf_scores_to_print=0,  # only of those that are slow
        gpu_relative_perf_threshold=_SLOW,
        gpu_individual_perf_threshold=_SLOW,
        stop_if_detected=False,
        enable_ptl_logging=False,
        profiling_interval=_EVERY_NTH,
    )
