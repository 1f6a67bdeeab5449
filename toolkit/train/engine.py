"""Running a training in this rank: seams first, then NeMo's recipe, then go."""

from __future__ import annotations

from typing import Any

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
    from toolkit.train import seams

    job.checkpoints.mkdir(parents=True, exist_ok=True)
    if job.on_cpu:
        seams.install_nemo()


def _go(recipe: Any) -> None:
    import fiddle

    fiddle.build(recipe)()
