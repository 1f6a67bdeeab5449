"""Running a training in this rank: seams first, then NeMo's recipe, then go."""

from __future__ import annotations

import os
import sys
import time
from importlib.util import find_spec
from typing import Any

from toolkit.errors import MissingPackage, PlanRefused
from toolkit.train import loggers, order
from toolkit.train.job import FinetuneJob, Job, PretrainJob

_LET_RANK_0_SPEAK_S = 3.0  # whoever started the ranks takes all down with the first


def pretrain(job: PretrainJob) -> None:
    plan = order.agree(job, write=int(os.environ.get("RANK", "0")) == 0)  # before the minutes that imports take
    _prepare(job)
    from toolkit.train.nemo_recipe import pretrain_recipe

    _go(pretrain_recipe(job, plan), job)


def finetune(job: FinetuneJob) -> None:
    _prepare(job)
    from toolkit.train.nemo_recipe import finetune_recipe

    _go(finetune_recipe(job), job)


def environment(job: Job) -> dict[str, str]:
    """What CUDA reads once, when a process first uses it: on this host, under srun and in an image alike."""
    return {"CUDA_DEVICE_MAX_CONNECTIONS": str(job.parallel.cuda_connections)}


def _prepare(job: Job) -> None:
    import warnings

    loggers.check(job.watch)
    os.environ.update(environment(job))
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
    elif find_spec("transformer_engine") is None:
        if job.train.layers == "te":
            raise MissingPackage(
                "transformer_engine is not installed here",
                where="train.layers=te",
                do="use an image that has it, or train.layers=local",
            )
        seams.without_te()


def _go(recipe: Any, job: Job) -> None:
    import fiddle

    from toolkit.train import stopping

    try:
        fiddle.build(recipe)()
    except BaseException as err:  # torch's CheckpointException is no Exception
        _explain(err, job)
        raise
    finally:
        stopping.renew()  # Lightning's teardown puts back the handlers that Python knows of


def _explain(err: BaseException, job: Job) -> None:
    """Raise what a checkpoint that could not be written means to the user; return when it was something else."""
    from toolkit.train import whole

    first = int(os.environ.get("RANK", "0")) == 0
    error = whole.could_not_save(err, job.checkpoints, clean=first)
    if error is None:
        return
    if not first and not whole.knows_why(err):
        print(f"{error.what}; rank 0 says why", flush=True)
        time.sleep(_LET_RANK_0_SPEAK_S)
        sys.exit(error.exit_code)
    raise error from err
