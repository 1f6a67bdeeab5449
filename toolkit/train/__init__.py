"""Training on NeMo and Megatron-core: the only package that knows their names. Everything heavy is imported inside
the job.
"""

from toolkit.train.job import FinetuneJob, Job, PretrainJob, ShardFacts

__all__ = ["FinetuneJob", "Job", "PretrainJob", "ShardFacts", "finetune", "pretrain"]


def pretrain(job: PretrainJob) -> None:
    """Train with `llm.pretrain`. Call it in every rank, with torch.distributed's environment variables set."""
    from toolkit.train import engine

    engine.pretrain(job)


def finetune(job: FinetuneJob) -> None:
    """Train with `llm.finetune`, loss on the answers alone. Call it in every rank."""
    from toolkit.train import engine

    engine.finetune(job)
