"""What an engine told of an item becomes the item's outcome: the likeliest answer, or the one that texts arrive at.

Decides what counts as the model's answer; leaves what texts say to `extract`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from toolkit.scoring import extract, released
from toolkit.scoring.benchmarks import Benchmark
from toolkit.scoring.encode import Request
from toolkit.scoring.engines import Told
from toolkit.scoring.items import Item
from toolkit.scoring.scores import Prediction


def row(request: Request, prompt_sha256: str, told: Told | Sequence[str]) -> dict[str, Any]:
    """What is kept of an item: all that `prediction` needs besides the item itself."""
    found: dict[str, Any] = {"id": request.item.id, "prompt_sha256": prompt_sha256}
    if isinstance(told, Told):
        found["forms"] = [[request.ask.forms[place] for place in several] for several in request.places]
        found["logprobs"] = [[list(told.logprobs[place]) for place in several] for several in request.places]
        found["bounded"] = [[place in told.bounded for place in several] for several in request.places]
    else:
        found["texts"] = list(told)
    left_out = {"dropped": request.dropped, "cut": request.cut, "whole": request.whole}
    return found | {key: value for key, value in left_out.items() if value}


def prediction(
    item: Item, kept: Mapping[str, Any], *, benchmark: Benchmark, mode: str, compat: bool = False, shots: int = 0
) -> Prediction:
    """The outcome of an item from what was kept of it. The first of equally likely answers wins."""
    if "texts" in kept:
        return _spoken(item, kept, compat=compat, shots=shots)
    forms = [[math.fsum(tokens) for tokens in several] for several in kept["logprobs"]]
    if mode == "cloze":
        counts = [len(several[0]) for several in kept["logprobs"]]
        sums = [several[0] for several in forms]
        means = [total / count for total, count in zip(sums, counts, strict=True)]
        values, more = means if benchmark.cloze == "mean" else sums, {"sums": tuple(sums)}
        bounded: tuple[int, ...] = ()
    else:
        pairs = list(zip(forms, kept["bounded"], strict=True))
        values = [_summed(several, flags) for several, flags in pairs]
        bounded = tuple(i for i, (_, flags) in enumerate(pairs) if all(flags))
        told = {"form_texts": tuple(map(tuple, kept["forms"])), "forms": tuple(map(tuple, forms))}
        more = told | {"bounded": bounded}
    best = max(range(len(values)), key=values.__getitem__)
    valid = len(bounded) < len(values) and not (compat and mode == "letter" and not _released(item.labels[best]))
    return Prediction(
        id=item.id,
        group=item.group,
        prediction=item.labels[best] if valid else None,
        gold=item.labels[item.gold],
        correct=valid and best == item.gold,
        valid=valid,
        prompt_sha256=kept["prompt_sha256"],
        logprobs=tuple(values),
        **more,
    )


def cloze_means(kept: Mapping[str, Any]) -> dict[str, list[float]]:
    """By norm, each cloze answer's likelihood."""
    sums = [math.fsum(several[0]) for several in kept["logprobs"]]
    counts = [len(several[0]) for several in kept["logprobs"]]
    return {"sum": sums, "mean": [total / count for total, count in zip(sums, counts, strict=True)]}


def _summed(forms: Sequence[float], bounded: Sequence[bool]) -> float:
    """log of the sum of the forms' probabilities. Forms that are only bounded count where there is no other."""
    known = [value for value, only in zip(forms, bounded, strict=True) if not only] or [max(forms)]
    top = max(known)
    return top + math.log(math.fsum(math.exp(value - top) for value in known)) if math.isfinite(top) else top


def _released(label: str) -> bool:
    """Whether the scorer released with the MEDITRON paper takes it for an answer; it does not take "maybe"."""
    return label.lower() in released.VALID


def _spoken(item: Item, kept: Mapping[str, Any], *, compat: bool, shots: int) -> Prediction:
    texts = tuple(kept["texts"])
    if compat:
        said = [released.answer(t, cot=True, few_shot=shots > 0, words=not item.listed) for t in texts]
        by_name = {label.lower(): label for label in item.labels}
        answers = tuple(by_name.get(one) if one in released.VALID else None for one in said)
        voted = released.vote(said)
        label = by_name.get(voted) if voted in released.VALID else None
        agreement = said.count(voted) / len(said)
        why: tuple[str, ...] = ()
    else:
        found = [extract.extract(t, labels=item.labels, options=item.options, question=item.question) for t in texts]
        answers, why = tuple(one.label for one in found), tuple(one.why for one in found)
        vote = extract.vote(found)
        label, agreement = vote.label, vote.agreement
    return Prediction(
        id=item.id,
        group=item.group,
        prediction=label,
        gold=item.labels[item.gold],
        correct=label == item.labels[item.gold],
        valid=label is not None,
        prompt_sha256=kept["prompt_sha256"],
        texts=texts,
        answers=answers,
        why=why if any(why) else (),
        agreement=agreement if len(texts) > 1 else None,
    )
