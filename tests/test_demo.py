"""The promises of `make demo`, kept on this machine: what the README says comes out of the whole pipeline."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.containers.conftest import apptainer, cpu_image  # noqa: F401  fixtures
from tests.slurm.conftest import Slurm, slurm, slurm_packages  # noqa: F401  fixtures
from toolkit.cluster import attempts
from toolkit.corpus import zlines
from toolkit.runs import Run, find

pytestmark = pytest.mark.slow
CHANCE = 0.25
ROOT = Path(__file__).resolve().parents[1]


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


@pytest.fixture
def site(request: pytest.FixtureRequest) -> tuple[Slurm, list[str]] | None:
    """Slurm, and what a recipe is told to run there in the CPU image; None where this machine has not both."""
    try:
        cluster = request.getfixturevalue("slurm")
        command, image = request.getfixturevalue("apptainer"), request.getfixturevalue("cpu_image")
    except pytest.skip.Exception:
        return None
    words = ["cluster=slurm_dev", "container=cpu", f"container.image={image}", f"cluster.apptainer.command={command}"]
    return cluster, words


def test_without_the_facts_in_its_corpus_the_model_stays_at_chance(
    tmp_path: Path, site: tuple[Slurm, list[str]] | None
) -> None:
    """The control: the same world, vocabulary and training, but no document states a tested fact. Where there is a
    Slurm and an image, it goes through these, and is asked to stop in the middle.
    """
    words = ["recipe=demo", "corpus.sources.world.options.omit_held_out=true", "score.benchmarks=[demo_cloze]"]
    words += ["stages=[corpus,base,shards,import,pretrain,export,score]"]
    if site is None:
        run = run_to_the_end(tmp_path, *words, "parallel=tp1_pp1", "cluster.devices_per_node=1")
    else:
        run = through_the_image(*site, tmp_path, words)
    made = scores(run)["pretrained", "demo_cloze"]
    assert abs(made["accuracy"] - CHANCE) <= 0.10, made  # 240 items: more than three standard deviations


def through_the_image(cluster: Slurm, where: list[str], root: Path, words: list[str]) -> Run:
    """Four ranks on four nodes, each in a container; USR2 halfway, and the job goes on by itself."""
    done = cluster.run(
        "env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "toolkit.launch", *words, *where, f"runs={root}", "--json",
        timeout=180,
    )  # fmt: skip
    told = json.loads(done.stdout)
    run, jobs = find(told["run"]), {job["key"]: job["id"] for job in told["jobs"]}
    training, last = jobs["pretrain"], told["jobs"][-1]["id"]

    def over(job: str) -> bool:
        return cluster.job(job)["JobState"] not in ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING")

    def said() -> str:
        logs = [*(run.path / "jobs").glob("*.out"), *run.path.glob("stages/*/*log")]
        return "\n".join(f"{p}:\n{p.read_text(errors='replace')[-2000:]}" for p in sorted(logs))

    def steps() -> list[dict[str, Any]]:
        path = run.stage("pretrain") / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        return [row for line in lines if line.endswith("}") and "loss" in (row := json.loads(line))]

    half = run.recipe.train.steps // 2
    cluster.wait(lambda: len(steps()) >= half or over(training), 1200)
    assert not over(training), said()
    cluster.run("scancel", "--batch", "--signal=USR2", training)
    cluster.wait(lambda: over(last), 1800)
    assert cluster.job(last)["JobState"] == "COMPLETED", said()
    first, second = attempts.read(run.stage("pretrain"))
    assert (first.state, second.state) == ("STOPPED", "COMPLETED") and second.restart == 1, said()
    assert first.reached == first.step_to == second.step_from and half <= (first.step_to or 0) < 2 * half
    rows = steps()
    assert [row["step"] for row in rows] == list(range(1, 2 * half + 1)), "each step once, none trained twice"
    seam = first.step_to or 0
    before, after = (
        statistics.mean(row["loss"] for row in rows[a:b]) for a, b in ((seam - 10, seam), (seam, seam + 10))
    )
    assert abs(after - before) < 0.1 * (rows[0]["loss"] - before), "it goes on where it was, with weights and optimizer"
    manifest = json.loads((run.path / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["image"]["kind"] == "sif" and len(manifest["image"]["sha256"]) == 64
    return run


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
    parts = (run.stage("corpus") / "corpus").glob("*/papers-*.jsonl.zst")
    kept = {zlines.loads(line)["id"] for part in parts for line in zlines.lines(part)}
    assert kept and "PMC3574550" not in kept, "the article under a non-commercial licence is set aside"
    assert {model for model, _ in scores(run)} == {"base", "pretrained"}
    assert "PubMedQA" in (run.path / "report.html").read_text(encoding="utf-8")
