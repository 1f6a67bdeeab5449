"""What a requeue costs: a training on four nodes of the one-machine Slurm is told to stop, saves, and goes on.

The peer is the same job's own first start, in the same run: what a restart costs on top of it is this toolkit's and
Slurm's. Slurm's own delay before a requeued job starts (cred_expire, 120 s by default, 5 s here) is shown by itself.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SLURM_DEV = ROOT / "env" / "slurm-dev" / "slurm-dev"
ROUNDS = 3
sys.path.insert(0, str(ROOT))


def main() -> int:
    if any(shutil.which(name) is None for name in ("sbatch", "slurmctld", "munged")):
        print("requeue: Slurm's packages are not installed (env/setup --system), nothing measured")
        return 0
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/tmp") as folder:
        state, runs = Path(folder) / "s", Path(folder) / "runs"
        subprocess.run([SLURM_DEV, "up", "--state", state], check=True, stdout=subprocess.DEVNULL)
        os.environ["SLURM_CONF"] = str(state / "etc" / "slurm.conf")
        try:
            measure(runs)
        finally:
            subprocess.run([SLURM_DEV, "down", "--state", state], check=True, stdout=subprocess.DEVNULL)
    return 0


def measure(runs: Path) -> None:
    prepared = launch(runs, "stages=[corpus,base,shards,import]") / "stages"
    submitted = time.time()
    given = [
        f"inputs.shards={prepared / 'shards' / 'shards'}",
        f"inputs.checkpoint={prepared / 'import' / 'checkpoint'}",
    ]
    run = launch(
        runs, "cluster=slurm_dev", "stages=[pretrain]", "train.save_every=1000", "train.valid_every=1000", *given
    )
    job = json.loads((run / "jobs.json").read_text())["stages"][0]["jobs"][0]["id"]
    folder = run / "stages" / "pretrain"
    first = wait_for_step(folder, 1)
    cold = first - submitted
    print(f"first start: {cold:.1f} s from submission to the first step")
    costs = []
    for number in range(1, ROUNDS + 1):
        wait_for_step(folder, last_step(folder) + 3)
        asked = time.time()
        subprocess.run(["scancel", "--batch", "--signal=USR2", job], check=True)
        until(lambda n=number: len(attempts(folder)) > n)
        before, after = attempts(folder)[number - 1 : number + 1]
        stepped = wait_for_step(folder, before["step_to"] + 1)
        parts = {
            "signal to saved and ended": before["ended"] - asked,
            "Slurm's delay": after["started"] - before["ended"],
            "start to first new step": stepped - after["started"],
        }
        costs.append(stepped - asked)
        told = "  ".join(f"{name} {seconds:.1f} s" for name, seconds in parts.items())
        lost = (before["reached"] or 0) - before["step_to"]
        print(
            f"requeue {number}: {costs[-1]:.1f} s from signal to first new step ({told}); steps trained twice: {lost}"
        )
    best, middle = min(costs), statistics.median(costs)
    print(f"ratio to the first start: best {best / cold:.2f}x, median {middle / cold:.2f}x")
    subprocess.run(["scancel", job], check=True)


def launch(runs: Path, *words: str) -> Path:
    command = [sys.executable, "-m", "toolkit.launch", "recipe=demo", f"runs={runs}", "--json", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise SystemExit(done.stdout + done.stderr)
    return Path(json.loads(done.stdout)["run"])


def attempts(folder: Path) -> list[dict]:
    try:
        return json.loads((folder / "attempts.json").read_text(encoding="utf-8"))["attempts"]
    except (OSError, ValueError):
        return []


def last_step(folder: Path) -> int:
    from toolkit.runs.peek import last_rows

    rows = last_rows(folder / "metrics.jsonl")
    return rows[-1]["step"] if rows else 0


def wait_for_step(folder: Path, step: int) -> float:
    """When the step was there, seconds since 1970."""
    until(lambda: last_step(folder) >= step)
    return time.time()


def until(ready: Callable[[], bool], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise SystemExit("waited in vain")
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
