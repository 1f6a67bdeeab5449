"""Which shards Megatron's datasets are given, and with which weights, so that each document comes once an epoch.

Decides the lists of paths; leaves the order of the samples to the datasets (`stream`, `order`).

Megatron's own terms (megatron-core 0.15, datasets/blended_megatron_dataset_builder.py, cases 2 and 3 of `build`): one
prefix is read for as many epochs as there are samples to make. Several without weights are read once, each shuffled
within itself and all of them dealt out evenly by their lengths, and no more samples are made than that. Several with
weights are each read for as many epochs as their share of the samples takes. So one epoch of several shards is the
second, which loses of each shard what does not fill its last row; more epochs, and stated weights, are the third.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit.train.job import PretrainJob

_SPARE_BATCHES = 64  # that may be left out of a blend before it begins again


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What NeMo's data module is asked for: prefixes, or weights with each, and samples (None: those of the steps)."""

    paths: tuple[str, ...]
    samples: int | None = None


def training(job: PretrainJob, samples: int) -> Asked:
    """What a training of so many samples asks for. A blend has no more than is asked for, unlike a single shard, and
    batches that are left out need others in their place: so it is asked for the whole epoch, or for some to spare.
    """
    prefixes, spare = job.train_shards, samples + _SPARE_BATCHES * job.train.global_batch
    if len(prefixes) == 1:
        return Asked(paths=(str(prefixes[0]),))
    if job.shard_weights:
        return Asked(paths=_weighted(prefixes, job.shard_weights), samples=spare)
    if any(prefix not in job.shard_facts for prefix in prefixes):
        return Asked(paths=tuple(map(str, prefixes)))
    whole = with_rows(job, prefixes)
    epoch = sum(_rows(job, prefix) for prefix in whole)
    if samples <= epoch:
        return Asked(paths=tuple(map(str, whole)), samples=epoch)
    tokens = [float(job.shard_facts[prefix].tokens) for prefix in prefixes]
    return Asked(paths=_weighted(prefixes, tokens), samples=spare)


def validation(job: PretrainJob) -> tuple[str, ...]:
    """The paths of the validations during a training: by tokens, and again from the start where they are few."""
    prefixes = job.valid_shards
    if len(prefixes) == 1 or any(prefix not in job.shard_facts for prefix in prefixes):
        return tuple(map(str, prefixes))
    return _weighted(prefixes, [float(job.shard_facts[prefix].tokens) for prefix in prefixes])


def with_rows(job: PretrainJob, prefixes: Sequence[Path]) -> list[Path]:
    """Those that hold a whole row: of the others Megatron would make an empty dataset, and refuse to blend it."""
    known = [prefix for prefix in prefixes if prefix not in job.shard_facts or _rows(job, prefix) > 0]
    return known or list(prefixes[:1])


def _rows(job: PretrainJob, prefix: Path) -> int:
    return max(0, (job.shard_facts[prefix].tokens - 1) // job.train.seq_length)  # the last label is the next token


def _weighted(prefixes: Sequence[Path], weights: Sequence[float]) -> tuple[str, ...]:
    pairs = zip(weights, prefixes, strict=True)
    return tuple(word for weight, prefix in pairs for word in (repr(weight), str(prefix)))
