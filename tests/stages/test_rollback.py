"""A training that was rolled back is started again at once, by whoever started its ranks; any other end is an end."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from toolkit.errors import Diverged, PlanRefused, RolledBack, Stopped
from toolkit.plan import Step, steps
from toolkit.recipe import compose
from toolkit.runs import Run, create
from toolkit.stages import training
from toolkit.stages.entry import enter


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run of one training, not started."""
    for name in ("shards", "start"):
        (tmp_path / name).mkdir()
    given = [f"runs='{tmp_path}'", "stages=[pretrain]", f"inputs.shards='{tmp_path}/shards'"]
    given += [f"inputs.checkpoint='{tmp_path}/start'", "train.steps=1000", "train.save_every=100"]
    return create(compose("demo", given).recipe, command=["python", "-m", "toolkit.launch", "recipe=demo"], plan={})


@pytest.mark.parametrize(
    "ends",
    [
        (RolledBack.exit_code, RolledBack.exit_code, 0),
        (RolledBack.exit_code, Stopped.exit_code),
        (RolledBack.exit_code, Diverged.exit_code),
        (137,),
    ],
)
def test_only_a_rollback_starts_the_ranks_again(run: Run, ends: tuple[int, ...]) -> None:
    """The stage's lock is held throughout, and no start finds the error of the one before."""
    step = steps(run.recipe)[0]
    folder, found = run.stage(step.id), []

    def start(run: Run, step: Step, words: Sequence[str]) -> int:
        found.append(sorted(path.name for path in folder.glob("*.json")))
        (folder / "error-2.json").write_text("{}", encoding="utf-8")
        return ends[len(found) - 1]

    assert enter(run, step, start) == ends[-1]
    assert found == [["inputs.json"]] * len(ends)
    log = folder / "log"
    assert (log.read_text(encoding="utf-8").count("rolled back") if log.exists() else 0) == len(ends) - 1


def context(run: Run, rank: int = 0) -> Any:
    step = steps(run.recipe)[0]
    run.stage(step.id).mkdir(parents=True, exist_ok=True)
    return SimpleNamespace(recipe=run.recipe, folder=run.stage(step.id), rank=rank)


def test_a_training_whose_checkpoints_do_not_fit_is_refused_before_it_begins(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The demo's model has 1,787,008 parameters and more with padding, at 16 bytes: 30 MB; two are kept."""
    here, rows = context(run), 4352

    def free(count: int) -> Callable[..., Any]:
        return lambda path: SimpleNamespace(free=count)

    monkeypatch.setattr("toolkit.stages.training.shutil.disk_usage", free(80_000_000))
    with pytest.raises(PlanRefused, match=r"3 checkpoints of 29\.9 MB need 89\.8 MB, and there is room for 80\.0 MB"):
        training.make_sure_of_room(here, run.recipe.train, rows)
    earlier = here.folder / "checkpoints" / "step=99" / "weights"
    earlier.mkdir(parents=True)
    (earlier / "__0_0.distcp").write_bytes(b"\0" * 20_000_000)  # will make room for the next
    training.make_sure_of_room(here, run.recipe.train, rows)
    assert capsys.readouterr().out == ""
    ever = dataclasses.replace(run.recipe.train, keep_every=100)
    with pytest.raises(PlanRefused):  # and this one will not
        training.make_sure_of_room(here, ever, rows)
    monkeypatch.setattr("toolkit.stages.training.shutil.disk_usage", free(200_000_000))
    training.make_sure_of_room(here, ever, rows)
    assert "warning: train.keep_every=100 keeps 10 checkpoints for ever" in capsys.readouterr().out
