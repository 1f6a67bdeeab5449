"""Running a training in this rank: seams first, then NeMo's recipe, then go."""

from __future__ import annotations

from typing import Any

from toolkit.errors import PlanRefused
from toolkit.train.job import FinetuneJob, Job, PretrainJob


def pretrain(job: PretrainJob) -> None:
    _prepare(job)
    from toolkit.train.nemo_recipe import pretrain_recipe

    _go(pretrain_recipe(job))


def finetune(job: FinetuneJob) -> None:
    _prepare(job)
    from toolkit.train.nemo_recipe import finetune_recipe

    _go(finetune_recipe(job))


def _prepare(job: Job) -> None:
    import warnings

    warnings.filterwarnings("ignore", category=FutureWarning)
    import torch

    from toolkit.train import seams

    if not job.on_cpu and not torch.cuda.is_available():
        raise PlanRefused(
            "no GPU is visible to this process",
            where=f"cluster={job.cluster.name}",
            do="run it where the GPUs are, or choose cluster=local for this machine's CPU",
        )
    job.checkpoints.mkdir(parents=True, exist_ok=True)
    if job.on_cpu:
        seams.install_nemo()


def _go(recipe: Any) -> None:
    import fiddle

    from toolkit.train import stopping

    try:
        fiddle.build(recipe)()
    finally:
        stopping.renew()  # Lightning's teardown puts back the handlers that Python knows of
