"""Small models that the checkpoint tests share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from toolkit import checkpoint, files

SMALL = {
    "layers": 3, "hidden": 32, "ffn": 48, "heads": 4, "kv_heads": 2, "vocab_size": 100, "max_positions": 64, "seed": 7,
    "tokenizer": None,
}  # fmt: skip


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a tokenizer folder; nothing here looks into them."""
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "tokenizer.model").write_bytes(b"\x0a\x05model")
    files.write_json(folder / "tokenizer_config.json", {"tokenizer_class": "LlamaTokenizer"})
    files.write_json(folder / "special_tokens_map.json", {"eos_token": "</s>"})
    files.write_json(folder / "added_tokens.json", {"<EOD>": 100})
    (folder / "corpus.txt").write_text("not a tokenizer file")
    return folder


@pytest.fixture(scope="session")
def _model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An HF folder and its import; tests must not change them."""
    root = tmp_path_factory.mktemp("model")
    checkpoint.make_random_hf(root / "hf", **SMALL)
    checkpoint.import_hf(root / "hf", root / "imported", progress=False)
    return root / "hf", root / "imported"


@pytest.fixture(scope="session")
def hf_folder(_model: tuple[Path, Path]) -> Path:
    return _model[0]


@pytest.fixture(scope="session")
def imported(_model: tuple[Path, Path]) -> Path:
    return _model[1]


def read_all(folder: Path) -> dict[str, Any]:
    """Every tensor of an HF folder, by the safetensors package (an implementation that is not ours)."""
    from safetensors import safe_open

    out = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as handle:
            out.update({name: handle.get_tensor(name) for name in handle.keys()})  # noqa: SIM118 - no mapping
    return out
