"""The promises of `make demo`, kept on this machine: what the README says comes out of the whole pipeline."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from toolkit.runs import Run, find

pytestmark = pytest.mark.slow
CHANCE = 0.25


def launch(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "toolkit.launch", *words], capture_output=True, text=True, check=False)


def run_to_the_end(root: Path, *words: str) -> Run:
    done = launch(*words, f"runs={root}")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return find("last", root)


def scores(run: Run) -> dict[tuple[str, str], dict[str, Any]]:
    rows = json.loads((run.stage("score") / "scores.json").read_text(encoding="utf-8"))
    return {(row["model"], row["benchmark"]): row for row in rows}


def test_the_demo_teaches_what_its_corpus_says(tmp_path: Path) -> None:
    run = run_to_the_end(tmp_path, "recipe=demo")
    made = scores(run)
    assert abs(made["base", "demo_cloze"]["accuracy"] - CHANCE) <= 0.07
    assert made["pretrained", "demo_cloze"]["accuracy"] >= 0.70
    ranks = sorted((run.stage("pretrain")).glob("rank-*.log"))
    assert len(ranks) == 3, "the pretraining is to run in four processes"
    tuned = [json.loads(line) for line in (run.stage("finetune") / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in tuned if "loss" in row]
    assert sum(losses[-10:]) < sum(losses[:10]), "the loss on the answers must fall"
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert "demo_cloze" in page and "http://" not in page.replace("http://www.w3.org", "")
    assert launch(f"run={run.path}").returncode == 0, "a finished run is gone on with at once"


def test_without_the_facts_in_its_corpus_the_model_stays_at_chance(tmp_path: Path) -> None:
    """The control: the same world, vocabulary and training, but no document states a tested fact."""
    run = run_to_the_end(
        tmp_path,
        "recipe=demo",
        "corpus.sources.world.options.omit_held_out=true",
        "stages=[corpus,base,shards,import,pretrain,export,score]",
        "parallel=tp1_pp1",
        "cluster.devices_per_node=1",
        "score.benchmarks=[demo_cloze]",
    )
    made = scores(run)["pretrained", "demo_cloze"]
    assert abs(made["accuracy"] - CHANCE) <= 0.10, made  # 240 items: more than three standard deviations


def test_real_articles_and_a_real_benchmark_run_to_the_end(tmp_path: Path, shared_data: Path) -> None:
    run = run_to_the_end(
        tmp_path,
        "recipe=demo",
        "corpus=jats",
        f"corpus.sources.papers.path={shared_data / 'pmc_jats'}",
        "stages=[corpus,base,shards,import,pretrain,export,score,report]",
        "score.benchmarks=[pubmedqa]",
        f"score.paths.pubmedqa={shared_data / 'pubmedqa' / 'ori_pqal.json'}",
        "score.limit=50",
        "train.steps=10",
        "train.warmup_steps=2",
        "parallel=tp1_pp1",
        "cluster.devices_per_node=1",
    )
    report = json.loads((run.stage("corpus") / "corpus" / "report.json").read_text(encoding="utf-8"))
    assert (report["in"], report["out"]) == (4, 3)
    text = (run.stage("corpus") / "corpus" / "train.jsonl").read_text(encoding="utf-8")
    assert "PMC3574550" not in text, "the article under a non-commercial licence is set aside"
    assert {model for model, _ in scores(run)} == {"base", "pretrained"}
    assert "PubMedQA" in (run.path / "report.html").read_text(encoding="utf-8")
