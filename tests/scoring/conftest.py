"""A tokenizer trained here and tiny random models that know nothing, for all scoring tests."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest

from toolkit.scoring import Benchmark, Item

DRUGS = ["Brolax", "Kimoden", "Taprine", "Velusor", "Zandril", "Moprex", "Gadolin", "Ferunol"]
EFFECTS = ["cough", "severe headache", "tremor", "loss of appetite", "itching", "a dry mouth"]
CLOZE = Benchmark(name="cloze", title="Cloze", format="jsonl", mode="cloze")
LETTERS = Benchmark(name="letters", title="Letters", format="jsonl", instruction="Reply with the letter.")


def make_items(n: int, seed: int = 0) -> list[Item]:
    """Letter items that also have a cloze beginning; options of one to several tokens; prompts of several lengths."""
    rng = random.Random(seed)
    items = []
    for i in range(n):
        drug = rng.choice(DRUGS)
        note = "After a meal and with water, as the leaflet says. " * rng.randrange(3)
        items.append(
            Item(
                id=f"q{i}",
                question=f"{note}What may {drug} cause?",
                prompt=f"{note}Among the effects of {drug} is",
                options=tuple(rng.sample(EFFECTS, 4)),
                gold=rng.randrange(4),
                group=rng.choice(["common", "rare"]),
            )
        )
    return items


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("sentencepiece")
    from toolkit import tokenizer

    texts = [
        f"{d} may cause {e}. Question: What may {d} cause?\nAnswer: A B C D yes no maybe"
        for d in DRUGS
        for e in EFFECTS
    ]
    texts += [
        "After a meal and with water, as the leaflet says.",
        "Among the effects of it is",
        "Reply with the letter.",
    ]
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.train(texts, folder, vocab_size=420)
    return folder


def save_llama(folder: Path, tokenizer_folder: Path, *, seed: int = 0, **config: object) -> Path:
    """A random two-layer Llama with grouped queries, its tokenizer beside it."""
    import torch
    import transformers

    shape = dict(vocab_size=420, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
    shape |= dict(num_key_value_heads=2, max_position_embeddings=256, bos_token_id=1, eos_token_id=2)
    torch.manual_seed(seed)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**shape | config, initializer_range=0.2))
    shutil.copytree(tokenizer_folder, folder, dirs_exist_ok=True)
    model.save_pretrained(folder, safe_serialization=True)
    return folder


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Path:
    pytest.importorskip("transformers")
    return save_llama(tmp_path_factory.mktemp("llama"), tokenizer_folder)


@pytest.fixture
def llama_copy(tmp_path: Path, llama: Path) -> Path:
    """The same model in a folder that the test may damage."""
    return Path(shutil.copytree(llama, tmp_path / "model"))


def write_rows(path: Path, rows: list[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
