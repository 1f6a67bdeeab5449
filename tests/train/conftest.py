"""A small prepared run (corpus, base, shards, import), and trainings started from it, for the tests of this folder."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.train.forks import Forks
from toolkit.cluster.ranks import run_ranks
from toolkit.recipe import compose
from toolkit.runs import Run, create
from toolkit.submit import execute

STEPS = 30
SMALL = (
    *("train.steps=30", "train.warmup_steps=3", "train.save_every=10", "train.valid_every=15", "train.keep=10"),
    *("train.micro_batch=2", "train.global_batch=8"),
)
WORKER = Path(__file__).with_name("worker.py")


def launch(root: Path, *overrides: str) -> Run:
    recipe = compose("demo", [f"runs={root}", *SMALL, *overrides]).recipe
    run = create(recipe, command=["pytest"], plan={})
    execute(run, quiet=True)
    return run


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that has everything a training needs; its base was imported with the padding of tp=2."""
    return launch(tmp_path_factory.mktemp("prepared"), "stages=[corpus,base,shards,import]")


@dataclass(frozen=True, kw_only=True)
class Trained:
    folder: Path

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]

    @property
    def losses(self) -> dict[int, float]:
        return {row["step"]: row["loss"] for row in self.rows if "loss" in row}

    def checkpoint(self, steps: int) -> Path:
        """The checkpoint after `steps` steps; NeMo numbers them from 0."""
        return self.folder / "checkpoints" / f"step={steps - 1}"

    @property
    def valid_losses(self) -> dict[int, float]:
        return {row["step"]: row["valid_loss"] for row in self.rows if "valid_loss" in row}


Start = Callable[..., Trained]


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """The process that has NeMo imported and forks ranks; it starts while others are at work."""
    made = Forks(tmp_path_factory.mktemp("forks") / "log")
    yield made
    made.close()


@pytest.fixture(scope="session")
def start(forks: Forks, prepared: Run) -> Start:
    """`start(folder, tp=, pp=, ...)` trains in a folder of its own; it fails when a rank ends otherwise than by
    `code`. With `fresh=True` each rank is a process that imports everything itself.
    """

    def run(
        folder: Path, *, tp: int = 1, pp: int = 1, dp: int = 1, code: int = 0, fresh: bool = False, **spec: Any
    ) -> Trained:
        folder.mkdir(parents=True, exist_ok=True)
        if "resume" in spec:
            spec["resume"] = str(spec["resume"])
        spec = {
            "recipe": str(prepared.path / "recipe.yaml"),
            "shards": str(prepared.stage("shards") / "shards"),
            "weights": str(prepared.stage("import") / "checkpoint"),
            "folder": str(folder),
            "tp": tp,
            "pp": pp,
            "dp": dp,
            **spec,
        }
        (folder / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
        ranks = run_ranks if fresh else forks.run_ranks
        ended = ranks(
            [sys.executable, str(WORKER), str(folder / "spec.json")], processes=tp * pp * dp, folder=folder, threads=1
        )
        tail = (folder / "log").read_text(encoding="utf-8", errors="replace")[-3000:]
        assert ended == code, tail
        return Trained(folder=folder)

    return run


@pytest.fixture(scope="session")
def single(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """30 uninterrupted steps in one process; checkpoints after 10, 20 and 30."""
    return start(tmp_path_factory.mktemp("single"))


@pytest.fixture(scope="session")
def parallel(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """30 uninterrupted steps at tp=2, pp=2 with the distributed optimizer; checkpoints after 10, 20 and 30."""
    return start(tmp_path_factory.mktemp("parallel"), tp=2, pp=2)
