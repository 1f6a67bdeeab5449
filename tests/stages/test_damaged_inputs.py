"""Damaged input to a stage stops the run with the input's own error, before anything is trained or converted."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from toolkit.errors import CheckpointError, DataError, ShardError
from toolkit.runs import Run
from toolkit.submit import execute

pytestmark = pytest.mark.slow
Make = Callable[..., Run]


@pytest.fixture
def prepared(make: Make) -> Run:
    run = make(["corpus", "base", "shards", "import"])
    execute(run, quiet=True)
    return run


def pretraining(make: Make, prepared: Run) -> Run:
    shards, checkpoint = prepared.stage("shards") / "shards", prepared.stage("import") / "checkpoint"
    return make(["pretrain"], f"inputs.shards='{shards}'", f"inputs.checkpoint='{checkpoint}'")


def cut(path: Path) -> None:
    with open(path, "r+b") as handle:
        handle.truncate(path.stat().st_size - 7)


@pytest.mark.parametrize("name", ["train/*.bin", "train/*.idx", "valid/*.bin"])
def test_a_truncated_shard_is_not_trained_on(make: Make, prepared: Run, name: str) -> None:
    run = pretraining(make, prepared)
    cut(next((prepared.stage("shards") / "shards").glob(name)))
    with pytest.raises(ShardError, match="expected .* bytes, found"):
        execute(run, quiet=True)
    assert not (run.stage("pretrain") / "metrics.jsonl").exists()


def test_a_checkpoint_cut_short_is_not_started_from(make: Make, prepared: Run) -> None:
    run = pretraining(make, prepared)
    cut(max((prepared.stage("import") / "checkpoint" / "weights").glob("*.distcp"), key=lambda p: p.stat().st_size))
    with pytest.raises(CheckpointError, match="distcp"):
        execute(run, quiet=True)


@pytest.mark.parametrize("damage", ["no weights", "no config", "truncated", "no tokenizer"])
def test_a_damaged_base_model_is_not_imported(make: Make, prepared: Run, tmp_path: Path, damage: str) -> None:
    base = tmp_path / "hf"
    shutil.copytree(prepared.stage("base") / "hf", base)
    if damage == "truncated":
        cut(base / "model.safetensors")
    else:
        names = {"no weights": "model.safetensors", "no config": "config.json", "no tokenizer": "tokenizer.model"}
        (base / names[damage]).unlink()
    run = make(["corpus", "shards", "import"], f"model.base='{base}'")
    with pytest.raises((CheckpointError, DataError), match="hf"):
        execute(run, quiet=True)
    assert not (run.stage("import") / "checkpoint").exists()


def test_a_corpus_that_is_not_there(make: Make, tmp_path: Path) -> None:
    run = make(["corpus"], f"corpus.sources.notes.path='{tmp_path / 'nothing.jsonl'}'")
    with pytest.raises(DataError, match="nothing.jsonl"):
        execute(run, quiet=True)


def test_a_corpus_without_a_document(make: Make, notes: Path) -> None:
    notes.write_text("", encoding="utf-8")
    with pytest.raises(DataError, match="notes"):
        execute(make(["corpus"]), quiet=True)
