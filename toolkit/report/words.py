"""What a run amounts to, in words: its state, the one-line verdict, how sure a difference is. Formats no page."""

from __future__ import annotations

import math
from typing import Any

from toolkit.report.record import MODELS, Curve, Record, Score
from toolkit.report.values import percent, plain, text

AFTER = {"pretrained": "continued pretraining", "finetuned": "finetuning"}


def state(record: Record) -> tuple[str, str]:
    """(done | running | failed | waiting, the same in words). The report itself does not count: it is being made."""
    stages = [stage for stage in record.stages if stage.stage != "report"]
    done = sum(stage.state == "done" for stage in stages)
    of = f"{done} of {len(stages)} stages done"
    for kind, words in (("failed", "stopped in"), ("running", "running, in")):
        there = [stage.id for stage in stages if stage.state == kind]
        if there:
            return kind, f"{words} {text(there[0], 60)} ({of})"
    if not stages:
        return "waiting", "nothing is known of its stages"
    if done == len(stages):
        return "done", "finished"
    return ("running", f"unfinished, {of}") if done else ("waiting", "not started")


def running(record: Record) -> bool:
    """Whether a stage is at work, so that the page will change by itself."""
    return any(stage.state == "running" for stage in record.stages if stage.stage != "report")


def tables(record: Record) -> list[list[Score]]:
    """Scores by benchmark, mode and shots in the order of the file, each table's models from base to finetuned."""
    found: dict[tuple[str, str, int], list[Score]] = {}
    for score in record.scores:
        found.setdefault((score.benchmark, score.mode, score.shots), []).append(score)
    rank = {model: index for index, model in enumerate(MODELS)}
    return [sorted(scores, key=lambda score: rank.get(score.model, len(rank))) for scores in found.values()]


def difference(before: Score, after: Score) -> tuple[float, float] | None:
    """95 % interval of the difference of two accuracies from their own intervals (Newcombe 1998, method 10).

    It takes the two samples for independent. They are the same questions, so the true interval is mostly narrower.
    """
    if None in (before.low, before.high, after.low, after.high):
        return None
    change = after.accuracy - before.accuracy
    low = change - math.hypot(after.accuracy - after.low, before.high - before.accuracy)
    high = change + math.hypot(after.high - after.accuracy, before.accuracy - before.low)
    return low, high


def judgement(before: Score, after: Score) -> str:
    bounds = difference(before, after)
    if bounds is None:
        return ""
    if bounds[0] > 0:
        return "a rise beyond sampling error"
    return "a fall beyond sampling error" if bounds[1] < 0 else "no clear difference: within sampling error"


def verdict(record: Record) -> tuple[str, str]:
    """(the one line, a sentence on how far to trust it), from the scores, else from the loss, else from the state."""
    for scores in tables(record):
        by_model = {score.model: score for score in scores}
        base, later = by_model.get("base"), [by_model[model] for model in AFTER if model in by_model]
        if base is None or not later:
            continue
        new = base.mode and base.mode.lower() not in base.title.lower()
        mode = f"{text(base.mode, 20)} accuracy" if new else "accuracy"
        steps = ", ".join(f"{percent(score.accuracy)} after {AFTER[score.model]}" for score in later)
        chance = f"; chance is {_short(base.chance)}" if base.chance is not None else ""
        sure = judgement(base, later[0])
        size = f" ({base.n:,} questions)" if base.n else ""
        doubt = f"From base to {later[0].model}: {sure}{size}." if sure else ""
        return f"{text(base.title, 70)}: {mode} {percent(base.accuracy)} \u2192 {steps}{chance}", doubt
    for curve, name in ((record.finetune, "finetuning"), (record.pretrain, "pretraining")):
        ends = first_and_last(curve)
        if ends:
            line = f"Loss of {name} {plain(ends[0])} \u2192 {plain(ends[1])} over {ends[2]:,} steps"
            return line, "There are no scores of a base and a trained model to compare yet."
    if record.preflight:
        return preflight(record.preflight), ""
    return "Nothing has been trained or scored yet", ""


def preflight(told: dict[str, Any]) -> str:
    """What a preflight.json amounts to, in one line."""
    lists = {key: told[key] if isinstance(told.get(key), list) else [] for key in ("nodes", "faults", "exclude")}
    count, faults = len(lists["nodes"]), lists["faults"]
    exclude = [text(name, 60) for name in lists["exclude"]]
    on = f"{count} node{'s' if count != 1 else ''}"
    if not faults:
        return f"{on} looked at, no fault found."
    left = f" To be left out: {', '.join(exclude[:12])}{', and more' if len(exclude) > 12 else ''}." if exclude else ""
    return f"{len(faults)} fault{'s' if len(faults) != 1 else ''} found on {on}.{left}"


def _short(chance: float) -> str:
    return f"{100 * chance:.3g} %"


def first_and_last(curve: Curve, window: int = 10) -> tuple[float, float, int] | None:
    """Mean loss of the first and last few steps (a tenth of them, at most `window`), and the number of steps."""
    values = [value for _, value in curve.finite("loss")]
    if not values:
        return None
    few = max(1, min(window, len(values) // 10))
    return sum(values[:few]) / few, sum(values[-few:]) / few, len(curve.steps)
