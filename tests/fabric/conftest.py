"""A node's fabric from a made-up tree, for every test here."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fabric import trees
from toolkit.fabric import Fabric, detect

Seen = Callable[..., Fabric]
QUICK = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In memory where that is possible: a tree is some hundred small files."""
    with tempfile.TemporaryDirectory(dir=QUICK) as folder:
        yield Path(folder)


@pytest.fixture
def seen(tmp_path: Path) -> Seen:
    """`seen(trees.meditron, state="1: DOWN")`: build the tree, detect it as node01 (or `node`)."""

    def build(make: Callable[..., trees.Tree], node: str = "node01", **changes: object) -> Fabric:
        tree = make(tmp_path / f"{make.__name__}-{node}", **changes)
        return detect(tree.sys, proc=tree.proc, node=node)

    return build
