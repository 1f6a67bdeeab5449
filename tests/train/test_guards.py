"""Faults planted in real trainings: numbers that are none, a loss that jumps, a slow rank, a disk that fills."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.train.conftest import WORKER, Start, Trained
from toolkit import checkpoint
from toolkit.errors import Diverged, RolledBack
from toolkit.runs import Run
from toolkit.train import order, whole

pytestmark = pytest.mark.slow
SHORT = {"steps": 8, "warmup_steps": 0, "save_every": 4, "valid_every": 8, "valid_batches": 1}


def events(trained: Trained, event: str) -> list[dict[str, Any]]:
    return [row for row in trained.rows if row.get("event") == event]


def test_an_update_of_one_ranks_nan_is_skipped_on_all_and_a_slow_rank_is_named(start: Start, tmp_path: Path) -> None:
    """Rank 1 of two data-parallel ones has the NaN; both keep weights and optimizer as they were, and go on. The
    weights of the two would differ from then on if one of them had taken the step: their validation loss would too.
    """
    faulty = start(
        tmp_path,
        dp=2,
        train=SHORT | {"keep": 1, "keep_every": 4},
        guard={"straggler_every": 4, "bad_steps": 2},
        plant=[
            {"kind": "nan", "step": 3, "steps": 2, "rank": 1},
            {"kind": "stall", "step": 5, "steps": 4, "rank": 1, "by": 0.5},
        ],
    )
    skipped = events(faulty, "skipped")
    assert [(row["step"], row["in_a_row"]) for row in skipped] == [(3, 1), (4, 2)]
    assert "gradients" in skipped[0]["why"]
    steps = {row["step"]: row for row in faulty.rows if "lr" in row}
    assert [s for s, row in steps.items() if row.get("skipped")] == [3, 4]
    assert list(steps) == list(range(1, 9)) and "grad_norm" not in steps[3] and steps[5]["grad_norm"] > 0
    assert len({row["lr"] for row in steps.values()}) == 8, "the schedule goes on in steps that are skipped"
    slow = [row for row in events(faulty, "straggler") if row["step"] == 8]
    assert [(row["rank"], row["ratio"] > 1.3) for row in slow] == [(1, True)]
    assert slow[0]["host"] and slow[0]["own_s"] > 0.4
    # keep=1, and every 4th for ever: both are there, and whole.
    assert [checkpoint.incomplete_reason(faulty.checkpoint(steps)) for steps in (4, 8)] == [None, None]


def test_weights_and_optimizer_are_untouched_by_a_skipped_update(start: Start, tmp_path: Path) -> None:
    """All updates from the third on are skipped: the checkpoints after the second and the fourth step are equal."""
    faulty = start(
        tmp_path,
        code=Diverged.exit_code,
        train=SHORT | {"save_every": 2, "keep": 5},
        guard={"bad_steps": 2},
        plant=[{"kind": "loss", "step": 3, "steps": 9}],
    )
    told = (faulty.folder / "log").read_text(encoding="utf-8")
    assert "loss or gradients were no numbers in 3 steps in a row, up to step 5" in told
    assert "samples 32 to 39" in told and "Traceback" not in told
    bad = json.loads((faulty.folder / "bad_batch.json").read_text(encoding="utf-8"))
    assert [batch["step"] for batch in bad["batches"]] == [3, 4, 5]
    assert bad["batches"][0]["samples"] == [16, 23] and bad["batches"][0]["documents"]
    rows = {row["step"]: row for row in faulty.rows if "lr" in row}
    assert rows[3]["loss"] is None and rows[3]["skipped"]
    diff = checkpoint.diff(faulty.checkpoint(2), faulty.checkpoint(4))
    assert diff.equal, diff
    optimizer = [weights_of(faulty.checkpoint(steps)) for steps in (2, 4)]
    assert optimizer[0] == optimizer[1]


@pytest.mark.parametrize("background", [False, True])
def test_a_checkpoint_that_was_not_written_whole_is_an_error_and_not_counted(
    start: Start, tmp_path: Path, background: bool
) -> None:
    fault = {"plant": [{"kind": "cut", "step": 4}], "background": background}
    stopped = start(tmp_path, code=1, train=SHORT | {"steps": 6, "save_every": 2}, **fault)
    told = (stopped.folder / "log").read_text(encoding="utf-8")
    assert "the checkpoint that was just written is not whole" in told and "bytes of at least" in told
    assert "Traceback" not in told
    assert checkpoint.latest(stopped.folder / "checkpoints").name == "step=1"
    reason = checkpoint.incomplete_reason(stopped.folder / "checkpoints" / "step=3")
    assert reason is not None and "did not end" in reason
    for name in ("common.pt", "metadata.json", ".metadata"):
        path = stopped.checkpoint(2) / "weights" / name
        kept = path.read_bytes()
        path.write_bytes(b"")
        assert name in whole.problem(stopped.checkpoint(2)).why
        path.write_bytes(kept)
    assert whole.problem(stopped.checkpoint(2)) is None
    (stopped.checkpoint(2) / "weights" / ".metadata").write_bytes(b"no pickle")
    assert "cannot be read" in whole.problem(stopped.checkpoint(2)).why


def weights_of(path: Path) -> dict[str, str]:
    """SHA-256 of every tensor of a checkpoint, the optimizer's among them."""
    import hashlib

    import torch
    from torch.distributed.checkpoint import FileSystemReader
    from torch.distributed.checkpoint.state_dict_loader import _load_state_dict_from_keys

    assert isinstance(FileSystemReader(path / "weights").read_metadata().storage_data, dict)
    state = _load_state_dict_from_keys(checkpoint_id=str(path / "weights"))
    flat: dict[str, str] = {}

    def walk(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                walk(f"{name}/{key}", item)
        elif isinstance(value, torch.Tensor):
            flat[name] = hashlib.sha256(value.detach().contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()

    walk("", state)
    assert len(flat) > 20
    return flat


def test_a_spike_is_rolled_back_and_its_batches_left_out(
    start: Start, prepared: Run, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Four ranks, of which rank 0 alone sees the loss. It jumps at step 7, a checkpoint of step 8 is saved before that
    counts as a spike, and is set aside; started again by the stage's own entry, the training goes on from step 6,
    without the batches of steps 7 to 9, and ends.
    """
    forks = request.getfixturevalue("forks")
    from toolkit.plan import steps
    from toolkit.runs import create
    from toolkit.stages.entry import enter

    given = ["stages=[pretrain]", f"inputs.shards={prepared.stage('shards') / 'shards'}"]
    given += [f"inputs.checkpoint={prepared.stage('import') / 'checkpoint'}", f"runs={tmp_path}"]
    from toolkit.recipe import compose

    run = create(compose("demo", given).recipe, command=["pytest"], plan={})
    step = steps(run.recipe)[0]
    folder, codes = run.stage(step.id), []
    spec = {
        "recipe": str(run.path / "recipe.yaml"),
        "shards": str(prepared.stage("shards") / "shards"),
        "weights": str(prepared.stage("import") / "checkpoint"),
        "folder": str(folder),
        "tp": 2,
        "pp": 2,
        "newest": True,
        "train": SHORT | {"steps": 10, "save_every": 2, "valid_every": 10},
        "guard": {"spike": "rollback", "window": 16, "spike_steps": 3},
        "plant": [{"kind": "spike", "step": 7, "steps": 3, "by": 4.0}],
    }

    def ranks(run: Run, step: Any, words: Any) -> int:
        (folder / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
        codes.append(
            forks.run_ranks([sys.executable, str(WORKER), str(folder / "spec.json")], processes=4, folder=folder)
        )
        return codes[-1]

    assert enter(run, step, ranks) == 0, (folder / "log").read_text(encoding="utf-8")[-3000:]
    assert codes == [RolledBack.exit_code, 0]
    trained = Trained(folder=folder)
    assert order.read_skips(folder) == (order.Skip(step=7, batches=3),)
    assert [(row["onset"], row["back_to"], row["batches"]) for row in events(trained, "rollback")] == [(7, 6, 3)]
    assert list(trained.losses) == list(range(1, 11))
    assert max(trained.losses.values()) < 12, "no row of the spike is left"
    assert not events(trained, "spike"), "its steps were undone"
    assert [path.name for path in (folder / "spiked").iterdir()] == ["step=7"]
    assert checkpoint.incomplete_reason(trained.checkpoint(10)) is None
    assert json.loads((folder / "rollbacks.json").read_text(encoding="utf-8"))[0]["back_to"] == 6


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 70 MB; two checkpoints of 30 MB fit, three do not."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=70m", "none", folder], capture_output=True).returncode:
        pytest.skip("may not mount a small tmpfs here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize("background", [False, True])
def test_a_disk_that_fills_during_a_checkpoint_is_said_and_room_made_lets_it_go_on(
    start: Start, disk: Path, background: bool
) -> None:
    settings = {"dp": 2, "train": SHORT | {"save_every": 2, "keep": 5}, "background": background}
    stopped = start(disk / "run", code=1, **settings)
    told = (stopped.folder / "log").read_text(encoding="utf-8")
    assert "error: " in told and "no room for a checkpoint" in told
    assert "Traceback" not in told
    if not background:  # there Megatron has rank 0 look at the results alone: the other may see its end before its word
        assert "Traceback" not in (stopped.folder / "rank-1.log").read_text(encoding="utf-8")
    assert {path.name for path in (stopped.folder / "checkpoints").iterdir()} == {"step=1", "step=3"}
    newest = checkpoint.latest(stopped.folder / "checkpoints")
    assert newest.name == "step=3"
    subprocess.run(["mount", "-o", "remount,size=200m", disk], check=True)
    ended = start(stopped.folder, resume=newest, **settings)
    assert checkpoint.latest(ended.folder / "checkpoints").name == "step=7"
    assert list(ended.losses) == list(range(1, 9))
