"""A small run of the first stages: a corpus of its own, a tiny tokenizer, no training."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from toolkit.recipe import compose
from toolkit.runs import Run, create

WORDS = ("fever", "cough", "dose", "daily", "child", "adult", "renal", "liver", "oral", "after", "before", "with")


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """A JSONL corpus of 90 short documents, no two alike."""
    path = tmp_path / "notes.jsonl"
    with open(path, "w", encoding="utf-8") as lines:
        for number in range(90):
            words = [WORDS[(number * 7 + place * (number % 5 + 1)) % len(WORDS)] for place in range(40)]
            lines.write(json.dumps({"text": f"Note {number}: {' '.join(words)} {number * 31}."}) + "\n")
    return path


@pytest.fixture
def arguments(notes: Path, runs_root: Path) -> list[str]:
    """Overrides of the demo: these notes as corpus, and a vocabulary that they can fill."""
    return [
        f"runs='{runs_root}'",
        "~corpus.sources.world",
        f"+corpus.sources.notes={{kind: jsonl, path: '{notes}'}}",
        "corpus.valid_fraction=0.2",
        "model.base_vocab=300",
    ]


@pytest.fixture
def make(arguments: list[str], repo_root: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """`make(stages, *overrides)`: a run of these stages, not started."""
    monkeypatch.setenv("PYTHONPATH", str(repo_root))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def made(stages: Sequence[str], *overrides: str) -> Run:
        recipe = compose("demo", [*arguments, f"stages=[{','.join(stages)}]", *overrides]).recipe
        return create(recipe, command=["python", "-m", "toolkit.launch", "recipe=demo"], plan={})

    return made
