"""Benchmarks, their items and the scores of language models on them. Knows nothing of recipes, runs or reports.

Importing this package is cheap; torch and transformers come in with the first call of `score` or `load_model`.
"""

from __future__ import annotations

from toolkit.scoring import benchmarks, engines, series
from toolkit.scoring.benchmarks import Benchmark
from toolkit.scoring.evaluate import score
from toolkit.scoring.hf import LoadedModel, check_hf, load_model
from toolkit.scoring.items import Item
from toolkit.scoring.output import merge, read, write
from toolkit.scoring.prompts import Prompt, build
from toolkit.scoring.scores import Prediction, Score, over_seeds
from toolkit.scoring.store import Store

__all__ = [
    "Benchmark",
    "Item",
    "LoadedModel",
    "Prediction",
    "Prompt",
    "Score",
    "Store",
    "benchmarks",
    "build",
    "check_hf",
    "engines",
    "load_model",
    "merge",
    "over_seeds",
    "read",
    "score",
    "series",
    "write",
]
