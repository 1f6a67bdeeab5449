"""What one training is asked to do, in the recipe's own words. No NeMo here: a stage can build it anywhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from toolkit.recipe.schema import Cluster, Data, Guard, Model, Parallel, Train, Watch


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
    def on_cpu(self) -> bool:
        return self.cluster.device == "cpu"


@dataclass(frozen=True, kw_only=True)
class PretrainJob(Job):
    """Prefixes of Megatron shards, without .bin/.idx."""

    train_shards: tuple[Path, ...]
    valid_shards: tuple[Path, ...]


@dataclass(frozen=True, kw_only=True)
class FinetuneJob(Job):
    """`rows` holds training.jsonl and validation.jsonl of `{"input": ..., "output": ...}`; loss falls on the output
    alone.
    """

    rows: Path
