"""A run's recipe names files from outside by absolute paths."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit.recipe import absolute, compose


def test_paths_from_outside_become_absolute_and_words_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = ["corpus=jats", "corpus.sources.papers.path=articles", "score.paths.demo_cloze=../cloze.jsonl"]
    recipe = absolute(compose("demo", [*given, "inputs.shards=shards", "model.base=hf"]).recipe)
    assert recipe.corpus.sources["papers"].path == str(tmp_path / "articles")
    assert recipe.score.paths["demo_cloze"] == str(tmp_path.parent / "cloze.jsonl")
    assert recipe.score.paths["demo_letters_trained"] == "world"
    assert recipe.inputs.shards == str(tmp_path / "shards")
    assert recipe.model.base == str(tmp_path / "hf")
    assert recipe.inputs.checkpoint is None
    assert recipe.runs == str(tmp_path / "runs")


@pytest.mark.parametrize("path", ["runs/x/step=99", "/a=b/c=d=", "=", "step=99-last"])
def test_a_path_may_hold_an_equals_sign(path: str) -> None:
    for sign in ("", "+", "++"):
        assert compose("demo", [f"{sign}inputs.checkpoint={path}"]).recipe.inputs.checkpoint == path
    assert compose("demo", [f'inputs.checkpoint="{path}"']).recipe.inputs.checkpoint == path


def test_a_made_base_is_no_path() -> None:
    assert absolute(compose("demo").recipe).model.base == "make"
