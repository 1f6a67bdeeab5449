"""What one training is asked to do, in the recipe's own words. No NeMo here: a stage can build it anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from toolkit.recipe.schema import Cluster, Data, Guard, Lora, Model, Parallel, Train, Watch


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training. `vocab_rows` counts embedding rows with padding.

    `weights` is a checkpoint whose weights alone are taken (continued pretraining); `resume` one of this very training,
    taken whole: weights, optimizer, schedule, position in the data. With neither, training starts from random weights.
    """

    folder: Path
    model: Model
    parallel: Parallel
    train: Train
    data: Data
    cluster: Cluster
    vocab_rows: int
    tokenizer: Path
    weights: Path | None = None
    resume: Path | None = None
    guard: Guard = field(default_factory=Guard)
    watch: Watch = field(default_factory=Watch)

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def tokens_per_step(self) -> int:
        return self.train.global_batch * self.train.seq_length

    @property
    def on_cpu(self) -> bool:
        return self.cluster.device == "cpu"


@dataclass(frozen=True, kw_only=True)
class ShardFacts:
    """What is known of a shard without opening it. `sha256` stands for the content of both its files."""

    subset: str
    tokens: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class PretrainJob(Job):
    """Prefixes of Megatron shards, without .bin/.idx, and what is known of them, by prefix.

    `shard_weights` are shares of the samples, one for each of `train_shards`; empty: each document once an epoch.
    """

    train_shards: tuple[Path, ...]
    valid_shards: tuple[Path, ...]
    shard_weights: tuple[float, ...] = ()
    shard_facts: Mapping[Path, ShardFacts] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class FinetuneJob(Job):
    """`rows` holds training and, unless there is nothing to validate on, validation, as `answers` writes them; loss
    falls on the answers alone. `pack`: a micro-batch's rows stand in one row, and none sees another. `new_tokens`: the
    last so many of the tokenizer were never trained, and begin as the mean of all others. `lora`: adapters alone.
    """

    rows: Path
    pack: bool = False
    new_tokens: int = 0
    lora: Lora | None = None
    tokens_per_row: float | None = None  # without padding

    @property
    def tokens_per_step(self) -> int:
        """On average: rows are as long as they are."""
        if self.tokens_per_row is None:
            return super().tokens_per_step
        return round(self.train.global_batch * self.tokens_per_row)

    @property
    def merged(self) -> Path:
        """With adapters: the checkpoint of the whole model that they make in the end."""
        return self.folder / "merged"
