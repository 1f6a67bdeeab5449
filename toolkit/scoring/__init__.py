"""Benchmarks, their items and the scores of Hugging Face models on them. Knows nothing of recipes, runs or reports.

Importing this package is cheap; torch and transformers come in with the first call of `score` or `load_model`.
"""

from __future__ import annotations

from toolkit.scoring import benchmarks
from toolkit.scoring.benchmarks import Benchmark
from toolkit.scoring.evaluate import Prediction, Score, score
from toolkit.scoring.hf import LoadedModel, check_hf, load_model
from toolkit.scoring.items import Item
from toolkit.scoring.output import merge, read, write
from toolkit.scoring.prompts import cloze_prompt, letter_answer, letter_prompt

__all__ = [
    "Benchmark",
    "Item",
    "LoadedModel",
    "Prediction",
    "Score",
    "benchmarks",
    "check_hf",
    "cloze_prompt",
    "letter_answer",
    "letter_prompt",
    "load_model",
    "merge",
    "read",
    "score",
    "write",
]
