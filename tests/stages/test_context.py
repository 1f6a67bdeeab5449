"""What a stage reads decides whether it runs again: earlier stages' outputs, the recipe, files from outside."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from toolkit.errors import RunError
from toolkit.plan import Step, steps
from toolkit.runs import Run, record_done
from toolkit.stages.context import Context, inputs

Make = Callable[..., Run]


def step(run: Run, ident: str) -> Step:
    return next(s for s in steps(run.recipe) if s.id == ident)


def finish(run: Run, ident: str, name: str, content: str = "x") -> Path:
    """Pretend that a stage has made one file."""
    path = run.stage(ident) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    record_done(
        run, ident, stage=ident, started=0.0, inputs={}, outputs={name: path}, result={}
    )  # fmt: skip
    return path


@pytest.mark.parametrize(
    ("stage", "key", "overrides"),
    [
        ("corpus", "corpus.sources.notes.path", []),
        ("base", "inputs.corpus", []),
        ("shards", "inputs.corpus", []),
        ("shards", "model.base", []),
        ("import", "model.base", []),
        ("pretrain", "inputs.shards", []),
        ("pretrain", "inputs.checkpoint", []),
        ("finetune", "inputs.checkpoint", []),
        ("finetune", "finetune.path", []),
        ("export", "inputs.checkpoint", []),
        ("export", "inputs.shards", []),
        ("export", "model.base", []),
        ("score", "model.base", []),
        ("score", "score.paths.demo_cloze", ["score.benchmarks=[demo_cloze]"]),
    ],
)
def test_a_change_outside_the_run_is_noticed(
    make: Make, tmp_path: Path, stage: str, key: str, overrides: list[str]
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("1")
    given = [] if key in [o.partition("=")[0] for o in overrides] else [f"{key}='{outside}'"]
    also = [] if stage != "export" or key == "inputs.checkpoint" else [f"inputs.checkpoint='{tmp_path / 'other'}'"]
    run = make([stage], *overrides, *given, *also)
    first = inputs(run, step(run, stage))
    assert key in first and inputs(run, step(run, stage)) == first
    (outside / "file").write_text("12")
    second = inputs(run, step(run, stage))
    assert second[key] != first[key] and {**second, key: ""} == {**first, key: ""}
    os.utime(outside / "file", ns=(1, 1))
    assert inputs(run, step(run, stage))[key] != second[key]
    (outside / "file").unlink()
    (outside / "renamed").write_text("1")
    assert inputs(run, step(run, stage))[key] not in (first[key], second[key])


def test_what_is_not_outside_is_no_input(make: Make) -> None:
    run = make(["corpus", "base", "shards", "import", "pretrain", "score"])  # model.base=make, score.paths=world
    for ident in ("corpus", "base", "shards", "import", "pretrain"):
        finish(run, ident, "out")
    assert not any("model.base" in inputs(run, s) or "score.paths" in str(inputs(run, s)) for s in steps(run.recipe))


def test_what_earlier_stages_made_is_an_input(make: Make) -> None:
    run = make(["corpus", "base", "shards"])
    finish(run, "corpus", "corpus", "one")
    finish(run, "base", "hf")
    first = inputs(run, step(run, "shards"))
    assert {"recipe.yaml", "corpus/corpus", "base/hf"} == first.keys()
    finish(run, "corpus", "corpus", "two")
    second = inputs(run, step(run, "shards"))
    assert second["corpus/corpus"] != first["corpus/corpus"] and second["base/hf"] == first["base/hf"]
    with open(run.path / "recipe.yaml", "a") as recipe:
        recipe.write("# changed\n")
    assert inputs(run, step(run, "shards"))["recipe.yaml"] != first["recipe.yaml"]


def test_a_stage_before_its_turn(make: Make) -> None:
    run = make(["corpus", "base"])
    with pytest.raises(RunError, match="stage corpus has left no done.json"):
        inputs(run, step(run, "base"))
    with pytest.raises(RunError, match="stage corpus has not made 'corpus'"):
        Context(run=run, step=step(run, "base")).made("corpus", "corpus")


def test_the_nearest_earlier_output_is_taken(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make(["corpus", "base", "shards"])
    made = finish(run, "corpus", "corpus")
    context = Context(run=run, step=step(run, "shards"))
    assert context.made("corpus", "corpus") == made
    assert context.made("import", "checkpoint") is None  # no such stage in this run
    with pytest.raises(RunError, match="has not made 'tasks'"):
        context.made("corpus", "tasks")
    assert context.folder == run.stage("shards") and context.layout.vocab == 317
    monkeypatch.delenv("RANK", raising=False)
    assert context.rank == 0
    monkeypatch.setenv("RANK", "3")
    assert context.rank == 3
