from __future__ import annotations

import json
from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.fixture
def pmc() -> Path:
    folder = SHARED / "pmc_jats"
    if not folder.is_dir():
        pytest.skip("../shared/data/pmc_jats is absent")
    return folder


@pytest.fixture
def jsonl(tmp_path):
    """Write rows (objects, or bytes as they are) to a file and return its path."""

    def write(*rows: object, name: str = "in.jsonl") -> Path:
        lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
        path = tmp_path / name
        path.write_bytes(b"".join(line + b"\n" for line in lines))
        return path

    return write
