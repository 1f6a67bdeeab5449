"""The dry run as people see it, in golden files: `UPDATE_GOLDEN=1 pytest tests/plan/test_show.py` refreshes them."""

from __future__ import annotations

import difflib
import os
import sys
from pathlib import Path

import pytest

from toolkit.cluster.submission import preview
from toolkit.plan import missing_inputs
from toolkit.plan.show import plan_text
from toolkit.recipe import compose

GOLDEN = Path(__file__).resolve().parent.parent / "golden"


def text(name: str, *overrides: str) -> str:
    composed = compose(name, overrides)
    return plan_text(composed, missing_inputs(composed.recipe))


def scripts(root: Path, name: str, *overrides: str) -> str:
    """What sbatch would get for every job, without what belongs to this machine."""
    here = {sys.executable: "PYTHON", f"{Path.cwd()}/runs/": "/RUNS/", str(root): "/TOOLKIT"}
    made = "\n".join(f"job {job.key}\n\n{text}" for job, text in preview(compose(name, overrides).recipe))
    for own, said in here.items():
        made = made.replace(own, said)
    return made


def compare(path: Path, now: str) -> None:
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(now, encoding="utf-8")
    kept = path.read_text(encoding="utf-8") if path.is_file() else ""
    diff = difflib.unified_diff(kept.splitlines(), now.splitlines(), str(path.name), "now", lineterm="")
    assert kept == now, "\n".join(["", *diff, "as it should be? UPDATE_GOLDEN=1 pytest tests/plan/test_show.py"])


@pytest.mark.parametrize("name", ["demo", "pretrain_7b", "pretrain_70b", "pretrain_8b", "pretrain_llama3_70b"])
def test_golden(name: str) -> None:
    compare(GOLDEN / f"dry_run_{name}.txt", text(name) + "\n")


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("sbatch_pretrain_7b.txt", ["pretrain_7b"]),
        ("sbatch_pretrain_70b.txt", ["pretrain_70b"]),
        ("sbatch_demo_slurm_dev.txt", ["demo", "cluster=slurm_dev"]),
    ],
)
def test_golden_scripts(file: str, words: list[str], repo_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repo_root)
    compare(GOLDEN / file, scripts(repo_root, *words))


def test_golden_files_belong_to_no_machine(repo_root: Path) -> None:
    for path in GOLDEN.glob("*.txt"):
        kept = path.read_text(encoding="utf-8")
        assert str(repo_root) not in kept and str(Path.home()) not in kept and "/tmp" not in kept


def test_the_70b_says_what_it_is() -> None:
    shown = text("pretrain_70b")
    for said in (
        *("128 GPUs on 16 nodes", "tp 8  pp 8  cp 1  dp 2", "23,000 steps", "2,097,152 tokens a step"),
        *("vocabulary 32,017 padded to 32,768", "128 micro-batches a step", "48.23B tokens"),
    ):
        assert said in shown


def test_the_7b_says_what_it_is() -> None:
    shown = text("pretrain_7b")
    assert "64 GPUs on 8 nodes" in shown and "dp 16" in shown and "10 micro-batches a step" in shown


def test_where_a_value_comes_from() -> None:
    lines = text("demo", "train.lr=1e-4", "train.min_lr=0", "finetune.epochs=9").splitlines()
    row = {line.split()[0]: line.split(maxsplit=2)[1:] for line in lines if line.startswith("  ") and "." in line}
    assert row["train.lr"] == ["0.0001", "command line"]
    assert row["train.steps"] == ["400", "train/demo.yaml"]
    assert row["cluster.nodes"] == ["1", "cluster/local.yaml"]
    assert row["parallel.cp"] == ["1", "default"]
    assert row["finetune.epochs"] == ["9", "command line"]  # shown because it was asked for
    assert "finetune.lr" not in row


def test_a_value_below_a_mapping_is_shown() -> None:
    shown = text("demo", "corpus.sources.world.options.entities=20", "score.paths.demo_cloze=/x")
    assert "corpus.sources.world.options.entities 20" in shown.replace("   ", " ").replace("  ", " ")
    assert "score.paths.demo_cloze" in shown and "/x" in shown
