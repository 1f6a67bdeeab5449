"""A model's score on a benchmark: which answer each item gets, how many are right, and how sure that is.

Decides what counts as the model's answer and what a reader must be told beside the number; leaves items, prompts and
log-probabilities to their modules.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolkit.errors import CheckpointError, DataError, UsageError, nearest
from toolkit.progress import progress
from toolkit.scoring.benchmarks import MODES, Benchmark, size_notes
from toolkit.scoring.encode import Request, request
from toolkit.scoring.hf import LoadedModel, load_model
from toolkit.scoring.items import Item
from toolkit.stats import wilson


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """One item's outcome. `logprobs` decide (nats, by option); `sums` are the cloze answers' undivided likelihoods."""

    id: str
    group: str
    logprobs: tuple[float, ...]
    prediction: str
    gold: str
    correct: bool
    sums: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Score:
    """Accuracy in [0, 1] of one model on one benchmark in one mode, with its 95 % Wilson interval.

    `mean_gold_logprob` is the mean of what decided for the right answers, in nats (per token for cloze by mean).
    `also` holds cloze accuracies by the likelihood that did not decide. `notes` must be shown with the number.
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
    mean_gold_logprob: float
    groups: dict[str, dict[str, float]] = field(default_factory=dict)
    also: dict[str, float] = field(default_factory=dict)
    paper: str | None = None
    seed: int = 0
    bos: bool = False
    device: str = "cpu"
    dtype: str = "float32"
    cut_contexts: int = 0
    cut_prompts: int = 0
    notes: tuple[str, ...] = ()
    predictions: tuple[Prediction, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Everything but the predictions, as JSON takes it."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "predictions"}
        return values | {"ci95": list(self.ci95), "notes": list(self.notes)}


def score(
    *,
    model: Path | str | LoadedModel,
    items: Sequence[Item],
    benchmark: Benchmark,
    mode: str | None = None,
    batch_tokens: int = 8192,
    limit: int | None = None,
    seed: int = 0,
    bos: bool = False,
    name: str | None = None,
) -> Score:
    """Score `model` (an HF folder, or one loaded by `load_model`) on `items` in the benchmark's mode or another.

    letter: the likeliest letter (or yes, no, maybe) as the next token. cloze: the option whose text is likeliest
    after the prompt, by mean or sum over its tokens as the benchmark says. The first of equals wins, and ties are
    counted. `limit` takes that many items at random, drawn by `seed`. Raises UsageError, DataError, CheckpointError.
    """
    mode = mode or benchmark.mode
    if mode not in MODES:
        raise UsageError(f"unknown mode '{mode}'", do=nearest(mode, MODES))
    for what, number in (("limit", limit), ("batch_tokens", batch_tokens)):
        if number is not None and number < 1:
            raise UsageError(f"{what} must be at least 1, not {number}")
    if not items:
        raise DataError(f"no items of benchmark '{benchmark.name}' to score")
    notes = size_notes(benchmark, items)
    if limit is not None and limit < len(items):
        notes.append(f"{limit} of {len(items)} items, drawn at random with seed {seed}")
        items = [items[i] for i in sorted(random.Random(seed).sample(range(len(items)), limit))]
    loaded = model if isinstance(model, LoadedModel) else load_model(model)
    if bos and loaded.bos_id is None:
        raise UsageError("the tokenizer has no beginning-of-sequence token", where=loaded.name, do="leave bos out")

    from toolkit.scoring.engine import answer_logprobs

    asked = [request(loaded, item, mode=mode, instruction=benchmark.instruction, bos=bos) for item in items]
    with progress(f"score {benchmark.name}", total=len(asked), unit="items") as bar:
        tokens = answer_logprobs(loaded, asked, batch_tokens=batch_tokens, advance=bar.advance)
    for item, values in zip(items, tokens, strict=True):
        if not all(math.isfinite(value) for tail in values for value in tail):
            raise CheckpointError(
                f"log-probabilities that are not finite numbers at item '{item.id}'",
                where=loaded.name,
                why="the weights hold NaN or infinite values, or overflow in this precision",
            )

    sums = [tuple(math.fsum(tail) for tail in values) for values in tokens]
    means = [tuple(math.fsum(tail) / len(tail) for tail in values) for values in tokens]
    by = {"mean": means, "sum": sums}
    deciding = by[benchmark.cloze] if mode == "cloze" else sums
    predictions = tuple(
        _prediction(item, values, sums[i] if mode == "cloze" else ())
        for i, (item, values) in enumerate(zip(items, deciding, strict=True))
    )
    correct = sum(p.correct for p in predictions)
    other = {"mean": "sum", "sum": "mean"}[benchmark.cloze]
    also = {other: sum(_best(v) == item.gold for v, item in zip(by[other], items, strict=True)) / len(items)}
    cuts = Counter(r.cut for r in asked)
    return Score(
        model=name or loaded.name,
        benchmark=benchmark.name,
        title=benchmark.title,
        mode=mode,
        accuracy=correct / len(items),
        correct=correct,
        n=len(items),
        chance=math.fsum(1 / len(item.options) for item in items) / len(items),
        ci95=wilson(correct, len(items)),
        mean_gold_logprob=math.fsum(v[item.gold] for v, item in zip(deciding, items, strict=True)) / len(items),
        groups=_groups(predictions),
        also=also if mode == "cloze" else {},
        paper=benchmark.paper,
        seed=seed,
        bos=bos,
        device=loaded.device,
        dtype=loaded.dtype,
        cut_contexts=cuts["context"],
        cut_prompts=cuts["prompt"],
        notes=(*notes, *_reading_notes(loaded, asked, mode, cuts, deciding), *loaded.notes),
        predictions=predictions,
    )


def _best(values: Sequence[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)


def _prediction(item: Item, values: tuple[float, ...], sums: tuple[float, ...]) -> Prediction:
    best = _best(values)
    return Prediction(
        id=item.id,
        group=item.group,
        logprobs=values,
        prediction=item.labels[best],
        gold=item.labels[item.gold],
        correct=best == item.gold,
        sums=sums,
    )


def _groups(predictions: Sequence[Prediction]) -> dict[str, dict[str, float]]:
    n, right = Counter(p.group for p in predictions), Counter(p.group for p in predictions if p.correct)
    if len(n) < 2:
        return {}
    return {name: {"accuracy": right[name] / n[name], "correct": right[name], "n": n[name]} for name in sorted(n)}


def _reading_notes(
    loaded: LoadedModel, asked: Sequence[Request], mode: str, cuts: Counter[str], deciding: Sequence[tuple[float, ...]]
) -> list[str]:
    notes = []
    window = f"the model's window of {loaded.window} tokens"
    if cuts["context"]:
        notes.append(f"contexts longer than {window}, their middle left out: {cuts['context']}")
    if cuts["prompt"]:
        notes.append(f"prompts longer than {window} even without context, their beginning cut: {cuts['prompt']}")
    split = sum(not r.one_token for r in asked) if mode == "letter" else 0
    if split:
        notes.append(f"items whose answers share their first token, judged by all of their tokens: {split}")
    ties = sum(values.count(max(values)) > 1 for values in deciding)
    if ties:
        notes.append(f"items with several equally likely answers, the first taken: {ties}")
    return notes
