"""The paper's learning rate: linear warm-up, then a cosine over a horizon that may lie beyond the last step."""

from __future__ import annotations

from typing import Any

from nemo.lightning.pytorch.optim.lr_scheduler import CosineAnnealingScheduler


class HorizonCosine(CosineAnnealingScheduler):
    """NeMo's cosine with a horizon of its own.

    MegatronStrategy.setup (nemo/lightning/pytorch/strategies/megatron_strategy.py:522) overwrites the scheduler's
    `max_steps` by the trainer's; MEDITRON's cosine spans two epochs and the run stops after one, so the horizon is
    put back before the schedule is made.
    """

    def __init__(self, horizon_steps: int, warmup_steps: int, min_lr: float) -> None:
        super().__init__(max_steps=horizon_steps, warmup_steps=warmup_steps, constant_steps=0, min_lr=min_lr)
        self.horizon_steps = horizon_steps

    def scheduler(self, model: Any, optimizer: Any) -> Any:
        self.max_steps = self.horizon_steps
        return super().scheduler(model, optimizer)
