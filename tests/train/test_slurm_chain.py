"""`sbatch slurm/pretrain_70b.sh` with a tiny model: from a login node that has the light core alone, real training on
four nodes and everything that follows it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.slurm.conftest import Slurm, slurm, slurm_packages  # noqa: F401  fixtures
from toolkit.runs import Run

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def login_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that holds env/host.lock and nothing else."""
    venv = tmp_path_factory.mktemp("login") / "venv"
    done = subprocess.run(
        [ROOT / "env" / "setup", "--group", "host", "--venv", venv], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return venv / "bin" / "python"


def test_the_script_trains_and_its_chain_ends_well(
    slurm: Slurm,  # noqa: F811
    prepared: Run,
    login_python: Path,
    tmp_path: Path,
) -> None:
    tasks = prepared.stage("corpus") / "tasks"
    words = [
        *("cluster=slurm_dev", "container=none", f"container.python={sys.executable}", f"runs={tmp_path / 'runs'}"),
        *("model=llama_demo", "parallel=tp2_pp2", "train=demo", "train.steps=8", "train.warmup_steps=1"),
        *("train.global_batch=32", "train.valid_every=8", "train.valid_full=false"),
        *("finetune.steps=3", "finetune.seq_length=128"),
        *("finetune.benchmark=demo_letters_trained", f"finetune.path={tasks / 'finetune_train.jsonl'}"),
        *("finetune.micro_batch=8", "finetune.global_batch=16", "score.limit=20"),
        *("score.benchmarks=[demo_cloze]", f"score.paths={{demo_cloze: {tasks / 'cloze.jsonl'}}}"),
        *(f"model.base={prepared.stage('base') / 'hf'}", f"inputs.shards={prepared.stage('shards') / 'shards'}"),
        f"inputs.checkpoint={prepared.stage('import') / 'checkpoint'}",
    ]
    size = ["--nodes=4", "--ntasks-per-node=1", "--gpus-per-node=0", "--mem=0", "--cpus-per-task=1"]
    job = slurm.out(
        "env", f"MEDITRON_PYTHON={login_python}", f"MEDITRON_ROOT={ROOT}",
        "sbatch", "--parsable", f"--output={tmp_path}/job.out", *size, ROOT / "slurm" / "pretrain_70b.sh", *words,
    )  # fmt: skip
    slurm.wait(lambda: slurm.job(job)["JobState"] not in ("PENDING", "CONFIGURING"), 120)

    def said() -> str:
        logs = [
            tmp_path / "job.out",
            *sorted(tmp_path.glob("runs/*/jobs/*.out")),
            *tmp_path.glob("runs/*/stages/*/log"),
        ]
        return "\n".join(f"{p}:\n{p.read_text(errors='replace')[-2000:]}" for p in logs if p.is_file())

    slurm.wait(lambda: not slurm.out("squeue", "--noheader", "--format=%i"), 420)
    (run,) = (tmp_path / "runs").glob(f"pretrain_70b-*-j{job}")
    rows = json.loads((run / "jobs.json").read_text(encoding="utf-8"))["stages"]
    stages = ["pretrain", "export-pretrain", "finetune", "export-finetune", "score", "report"]
    assert [row["id"] for row in rows] == stages, said()
    states = {entry["id"]: slurm.job(entry["id"])["JobState"] for row in rows for entry in row["jobs"]}
    assert set(states.values()) == {"COMPLETED"}, f"{states}\n{said()}"
    assert all((run / "stages" / stage / "done.json").is_file() for stage in stages)
    scores = json.loads((run / "stages" / "score" / "scores.json").read_text(encoding="utf-8"))
    assert {row["model"] for row in scores} == {"base", "pretrained", "finetuned"}
    assert "demo_cloze" in (run / "report.html").read_text(encoding="utf-8")
    check_login_verbs(slurm, login_python, run, tmp_path)


def check_login_verbs(slurm: Slurm, python: Path, run: Path, tmp_path: Path) -> None:  # noqa: F811
    """What a login node is for, with neither torch nor numpy there."""

    def ask(*words: str) -> str:
        done = slurm.run("env", f"PYTHONPATH={ROOT}", python, "-m", *words, check=False)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    assert slurm.run(python, "-c", "import torch", check=False).returncode != 0
    assert "steps 8 " in ask("toolkit.runs", "show", str(run))
    assert "done" in ask("toolkit.runs", "list", "--root", str(run.parent))
    assert "attempt 1 of pretrain: COMPLETED" in ask("toolkit.runs", "logs", str(run), "pretrain", "--job")
    assert "stage export-pretrain" in ask("toolkit.runs", "logs", str(run), "export-pretrain", "--job")
    assert "nothing" in ask("toolkit.launch", f"run={run}").lower()
    assert "#SBATCH --nodes=16" in ask("toolkit.launch", "recipe=pretrain_70b", "--dry-run")
    there = ["recipe=demo", "cluster=slurm_dev", "stages=[corpus]", f"runs={tmp_path / 'more'}"]
    ask("toolkit.launch", *there, f"container.python={sys.executable}", "--wait")
    made = next((tmp_path / "more").glob("demo-*"))
    assert (made / "stages" / "corpus" / "done.json").is_file()
