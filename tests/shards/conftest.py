"""Tokenizers trained on invented text, and text that is hard on every part of the way to a shard."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from toolkit import tokenizer as tokenizers

NASTY = [
    "The dose is 12.5 mg/kg.",
    " ",
    "\n\n",
    "[bib_ref] Dose of it, Smith [/bib_ref] and [table][table]\n[fig",
    "literal </s> and <s> and <EOD> and <0x0A>",
    "é e\u0301 ﬁ β-blocker 😀👩‍⚕️ 漢字 \u00a0\u200b\ufeff",
    "tabs\tand   runs  of spaces\r\nand CRLF",
    "nul \0 inside",
    "x" * 20_000,
    "\u2028 a line separator that is no line end",
]


def invented_texts(count: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    words = ["".join(rng.choices("abcdefghijklmnop", k=rng.randint(1, 8))) for _ in range(2000)]
    weights = [1 / (i + 1) for i in range(len(words))]
    return [
        f"# Dose\n\n{' '.join(rng.choices(words, weights, k=rng.randint(5, 60)))}, {rng.randint(1, 999)} mg."
        for _ in range(count)
    ]


def write_rows(path: Path, texts: list[str], **more: object) -> Path:
    path.write_bytes(b"".join(json.dumps({"text": text, **more}).encode() + b"\n" for text in texts))
    return path


@pytest.fixture(scope="session")
def base(tmp_path_factory) -> Path:
    """A tokenizer folder of 600 tokens without added ones."""
    pytest.importorskip("sentencepiece")
    out = tmp_path_factory.mktemp("tokenizers") / "base"
    return tokenizers.train(invented_texts(500), out, vocab_size=600).folder


@pytest.fixture(scope="session")
def meditron(base) -> Path:
    """The same with MEDITRON's 17 tokens: 617."""
    return tokenizers.extend(base, base.parent / "meditron").folder


@pytest.fixture(scope="session")
def huge(base) -> Path:
    """The same with so many tokens that ids need more than 16 bits."""
    return tokenizers.extend(base, base.parent / "huge", ["<EOD>", *(f"<x{i}>" for i in range(65_500))]).folder
