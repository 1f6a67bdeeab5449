"""A copy of the recipes that a test may damage, with a demo whose values stay as the tests know them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def recipes(tmp_path: Path, repo_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of recipes/ that compose reads instead."""
    folder = tmp_path / "recipes"
    shutil.copytree(repo_root / "recipes", folder)
    shutil.copytree(Path(__file__).resolve().parent / "fixed", folder, dirs_exist_ok=True)
    monkeypatch.setenv("TOOLKIT_RECIPES", str(folder))
    return folder
