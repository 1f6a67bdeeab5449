"""A folder for packages that are broken on purpose, seen by this process and by every one that it starts."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

Plant = Callable[..., Path]


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plant:
    """`plant(module, code, name=, version=, summary=)`: a package of that code, with metadata where a name is given."""
    folder = tmp_path / "planted"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))

    def make(module: str, code: str, *, name: str = "", version: str = "1.0", summary: str = "") -> Path:
        path = folder.joinpath(*module.split("."))
        path.mkdir(parents=True, exist_ok=True)
        for above in (folder.joinpath(*module.split(".")[:n]) for n in range(1, module.count(".") + 1)):
            (above / "__init__.py").touch()
        (path / "__init__.py").write_text(code, encoding="utf-8")
        if name:
            info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
            info.mkdir()
            words = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nSummary: {summary}\n"
            (info / "METADATA").write_text(words, encoding="utf-8")
        return path

    return make
