"""A model that knows a benchmark, one that has hardly changed, one that has forgotten it; a folder to watch them."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from toolkit import checkpoint, tokenizer

HOSTILE = "<script>alert(1)</script>"
SHAPE = dict(layers=2, hidden=32, ffn=64, heads=4, kv_heads=2, vocab_size=360, max_positions=256)
ITEMS = 90


def question(number: int) -> str:
    rng = random.Random(number)
    words = " ".join(rng.choice(["fever", "cough", "dose", "child", "renal", "liver"]) for _ in range(5))
    return f"Case {number}: {words}?" + (f" {HOSTILE}" if number % 3 == 0 else "")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """`hf` (a Hugging Face folder), and as checkpoints: `good`, `same` (a hair away from it), `worse` (other weights);
    `rows`: a benchmark of which `good` knows nine in ten.
    """
    pytest.importorskip("torch")
    pytest.importorskip("sentencepiece")
    from safetensors.torch import load_file, save_file

    from toolkit import scoring

    root = tmp_path_factory.mktemp("models")
    texts = [f"Question: {question(n)} Answer: A B C D" for n in range(300)]
    pieces = tokenizer.train(texts, root / "pieces", vocab_size=SHAPE["vocab_size"]).folder
    for name, seed in (("hf", 1), ("hf-worse", 2)):
        checkpoint.make_random_hf(root / name, **SHAPE, tokenizer=pieces, seed=seed, init_std=0.3)
    shutil.copytree(root / "hf", root / "hf-same")
    for file in (root / "hf-same").glob("*.safetensors"):
        weights = {key: value * (1 + 1e-5) for key, value in load_file(file).items()}
        save_file(weights, file, metadata={"format": "pt"})
    spec = scoring.benchmarks.get("demo_letters_heldout")
    rows = [
        {"id": f"q{n}", "question": question(n), "options": ["one", "two", "three", "four"], "answer": n % 4,
         "group": "cases"}
        for n in range(ITEMS)
    ]  # fmt: skip
    path = root / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = scoring.score(model=root / "hf", items=scoring.benchmarks.load(spec, path), benchmark=spec)
    for n, (row, prediction) in enumerate(zip(rows, found.predictions, strict=True)):
        said = "ABCD".index(prediction.prediction)
        row["answer"] = said if n % 10 else (said + 1) % 4
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, hf in (("good", "hf"), ("same", "hf-same"), ("worse", "hf-worse")):
        checkpoint.import_hf(root / hf, root / name, progress=False)
    return {"rows": path, "hf": root / "hf", **{name: root / name for name in ("good", "same", "worse")}}


@pytest.fixture
def watched(models: dict[str, Path], tmp_path: Path) -> Callable[[str, int], Path]:
    """`watched(name, step)`: a model as checkpoint step=N of the watched folder."""

    def put(name: str, step: int) -> Path:
        return Path(shutil.copytree(models[name], tmp_path / "train" / f"step={step}"))

    (tmp_path / "train").mkdir()
    return put


@pytest.fixture
def words(models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repo_root: Path) -> list[str]:
    """The nightly recipe on this machine, for the watched folder."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(repo_root))
    monkeypatch.chdir(tmp_path)
    return [
        "cluster=local",
        "container=none",
        "model=llama_demo",
        "parallel=tp2_pp2",
        "train=demo",
        f"model.base='{models['hf']}'",
        f"night.watch=['{tmp_path / 'train'}']",
        "score.benchmarks=[demo_letters_heldout]",
        f"score.paths.demo_letters_heldout='{models['rows']}'",
    ]
