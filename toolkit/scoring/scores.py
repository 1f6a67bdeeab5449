"""What a scoring leaves: each item's outcome, the score of a benchmark, and several seeds' together.

Decides the fields and what they mean; leaves how they come about to `evaluate` and `judge`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from toolkit.stats import mean_sd


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """One item's outcome. `prediction` is None where there is none: it counts as wrong, and is not `valid`.

    By answer: `logprobs` decide (nats), `sums` are the cloze answers' undivided likelihoods, `forms` are those of the
    answers' surface forms `form_texts`; of the answers in `bounded` the engine knows only that they are not likelier.
    `texts` is what was generated, `answers` what each text says (None: nothing, for the reason in `why`),
    `agreement` the share of the texts that says `prediction`.
    """

    id: str
    group: str
    prediction: str | None
    gold: str
    correct: bool
    valid: bool = True
    prompt_sha256: str = ""
    logprobs: tuple[float, ...] = ()
    sums: tuple[float, ...] = ()
    forms: tuple[tuple[float, ...], ...] = ()
    form_texts: tuple[tuple[str, ...], ...] = ()
    bounded: tuple[int, ...] = ()
    texts: tuple[str, ...] = ()
    answers: tuple[str | None, ...] = ()
    why: tuple[str, ...] = ()
    agreement: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """As JSON takes it, without fields that have no value."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {k: v for k, v in values.items() if k == "prediction" or (v is not None and v not in ((), ""))} | {
            "group": self.group
        }


@dataclass(frozen=True, kw_only=True)
class Score:
    """Accuracy in [0, 1] of one model on one benchmark in one mode, with 95 % intervals (Wilson, bootstrap).

    `invalid` items had no answer and count as wrong. `mean_gold_logprob` is the mean of what decided for the right
    answers, in nats (per token for cloze by mean). `groups` are told apart in `macro`, their unweighted mean. `also`
    holds cloze accuracies by the likelihood that did not decide. `model_calls` are the prompts that an engine was asked
    in this run, `tokens` went through the model with their padding, and `unique_tokens` had to; `kept` items came from
    the store. `cut_shots` items lost demonstrations to the window. `notes` must be shown with the number.
    """

    model: str
    benchmark: str
    title: str
    mode: str
    accuracy: float
    correct: int
    n: int
    chance: float
    ci95: tuple[float, float]
    ci95_bootstrap: tuple[float, float] | None = None
    mean_gold_logprob: float | None = None
    invalid: int = 0
    groups: dict[str, dict[str, float]] = field(default_factory=dict)
    macro: float | None = None
    also: dict[str, float] = field(default_factory=dict)
    paper: str | None = None
    shots: int = 0
    seed: int = 0
    compat: bool = False
    chat: str = ""
    bos: bool = False
    samples: int | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    agreement: float | None = None
    engine: str = "transformers"
    engine_version: str = ""
    model_sha256: str = ""
    benchmark_sha256: str = ""
    device: str = "cpu"
    dtype: str = "float32"
    batch_tokens: int | None = None
    model_calls: int = 0
    tokens: int = 0
    unique_tokens: int = 0
    kept: int = 0
    cut_shots: int = 0
    cut_contexts: int = 0
    cut_prompts: int = 0
    notes: tuple[str, ...] = ()
    predictions: tuple[Prediction, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Everything but the predictions and what this run took, as JSON takes it: the same whether a run was stopped
        half way or not."""
        left = ("predictions", *WORK)
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in left}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}

    def work(self) -> dict[str, int]:
        """What this run took."""
        return {key: getattr(self, key) for key in WORK}


WORK = ("model_calls", "tokens", "unique_tokens", "kept")
SAME = ("model", "benchmark", "mode", "shots", "compat", "chat", "engine", "model_sha256")
"""What rows of several seeds have in common."""


def over_seeds(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each scoring that was done with several seeds: the mean of their accuracies and its sample standard
    deviation. `rows` are as `Score.as_dict` gives them; others are left out."""
    together: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        if "seeds" not in row:
            together.setdefault(tuple(row.get(key) for key in SAME), []).append(row)
    return [_together(several) for several in together.values() if len({row["seed"] for row in several}) > 1]


def _together(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    first = rows[0]
    mean, sd = mean_sd([row["accuracy"] for row in rows])
    found = {key: first.get(key) for key in (*SAME, "title", "paper", "chance", "temperature", "samples", "n")}
    found |= {"seeds": [row["seed"] for row in rows], "mean": mean, "sd": sd}
    found["invalid"] = sum(row["invalid"] for row in rows)
    if first.get("macro") is not None:
        found["macro"], found["macro_sd"] = mean_sd([row["macro"] for row in rows])
    return found
