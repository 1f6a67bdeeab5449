"""A test for each fault of the stack that the toolkit works around, so that none comes back unseen."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.train.conftest import STEPS, Start, Trained
from toolkit.runs import Run

pytestmark = pytest.mark.slow


def test_resuming_at_the_same_layout_is_exact(start: Start, parallel: Trained, tmp_path: Path) -> None:
    """Catches the distributed optimizer's silent fault on load: one step counter shared by all parameters."""
    resumed = start(tmp_path, tp=2, pp=2, resume=parallel.checkpoint(10))
    assert resumed.losses == {step: loss for step, loss in parallel.losses.items() if step > 10}


def test_loaded_optimizer_states_count_their_own_steps(start: Start, parallel: Trained, tmp_path: Path) -> None:
    """The same fault looked at directly, at dp=2, where the optimizer's state is really divided."""
    first = start(tmp_path / "first", dp=2, train={"steps": 4, "save_every": 2, "warmup_steps": 0})
    resumed = start(
        tmp_path / "resumed", dp=2, resume=first.checkpoint(2), train={"steps": 4, "save_every": 2, "warmup_steps": 0}
    )
    assert resumed.losses == {step: loss for step, loss in first.losses.items() if step > 2}


def ranks_of(run: Run) -> dict[int, int]:
    """Rank -> pid of the pretraining processes of `run`."""
    found = {}
    for proc in Path("/proc").glob("[0-9]*"):
        try:
            words = (proc / "cmdline").read_bytes().split(b"\0")
            environ = dict(item.split(b"=", 1) for item in (proc / "environ").read_bytes().split(b"\0") if b"=" in item)
            leads = os.getpgid(int(proc.name)) == int(proc.name)  # not what a rank has forked
        except OSError:
            continue
        if leads and b"toolkit.stages" in words and str(run.path).encode() in words and b"pretrain" in words:
            found[int(environ[b"RANK"])] = int(proc.name)
    return found


def kill_at(run: Run, step: int, ranks: tuple[int, ...]) -> threading.Thread:
    """SIGKILL `ranks` as soon as the metrics have reached `step`."""

    def watch() -> None:
        metrics, deadline = run.stage("pretrain") / "metrics.jsonl", time.monotonic() + 400
        while time.monotonic() < deadline:
            if metrics.is_file() and f'"step": {step},' in metrics.read_text(encoding="utf-8"):
                pids = ranks_of(run)
                for rank in ranks:
                    os.kill(pids[rank], signal.SIGKILL)
                return
            time.sleep(0.05)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def test_a_pretraining_that_was_killed_ends_as_if_nothing_had_happened(
    prepared: Run, single: Trained, tmp_path: Path
) -> None:
    """Through the launcher's own executor. Ranks that are killed one by one: tests/train/test_slurm.py."""
    from tests.train.conftest import SMALL
    from toolkit.errors import ToolkitError
    from toolkit.recipe import compose
    from toolkit.runs import create
    from toolkit.submit import execute

    given = [
        *("stages=[pretrain]", "parallel=tp1_pp1", "cluster.devices_per_node=1"),
        f"inputs.shards={prepared.stage('shards') / 'shards'}",
        f"inputs.checkpoint={prepared.stage('import') / 'checkpoint'}",
    ]
    run = create(compose("demo", [f"runs={tmp_path}", *SMALL, *given]).recipe, command=["pytest"], plan={})
    killer = kill_at(run, 24, (0,))
    with pytest.raises(ToolkitError, match="pretrain failed"):
        execute(run, quiet=True)
    killer.join(5)
    assert not killer.is_alive()
    execute(run, quiet=True)
    assert Trained(folder=run.stage("pretrain")).losses == single.losses
    jobs = json.loads((run.path / "jobs.json").read_text(encoding="utf-8"))
    assert [a["state"] for a in jobs["stages"][0]["attempts"]] == ["FAILED", "COMPLETED"]


def test_an_unfinished_checkpoint_is_passed_over(parallel: Trained, tmp_path: Path) -> None:
    """The newest checkpoint with a file cut short is not resumed from; the one before is."""
    import shutil

    from toolkit import checkpoint

    folder = tmp_path / "checkpoints"
    shutil.copytree(parallel.folder / "checkpoints", folder)
    assert checkpoint.latest(folder).name == f"step={STEPS - 1}"
    victim = max((folder / f"step={STEPS - 1}" / "weights").glob("*.distcp"), key=lambda p: p.stat().st_size)
    with open(victim, "r+b") as handle:
        handle.truncate(victim.stat().st_size // 2)
    assert checkpoint.latest(folder).name == "step=19"
