"""The page's sections as plain values for the template: score tables, training figures, stage rows.

Decides what each shows and what it says when its stage has not run; how it looks is the template's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from toolkit.report import figures, speed, words
from toolkit.report.paper import Landmarks, key, landmarks, tables
from toolkit.report.record import MODELS, Curve, Record, Score, Stage
from toolkit.report.settings import lookup, positive, step_tokens
from toolkit.report.values import clock, count, duration, number, percent, plain, science, text

_GROUPS = 60
_ROWS = 12
_EVENTS = 50


def score_table(index: int, table: list[Score]) -> dict[str, Any]:
    marks = landmarks(next((score.paper for score in table if score.paper), None))
    base = next((score for score in table if score.model == "base"), None)
    rows = []
    for score in table:
        change, sure = "", ""
        if base is not None and score is not base:
            change = f"{100 * (score.accuracy - base.accuracy):+.1f} points".replace("-", "\u2212")
            sure = words.judgement(base, score)
        rows.append(
            {
                "model": text(score.model, 60),
                "css": score.model if score.model in MODELS else "other",
                "accuracy": percent(score.accuracy),
                "interval": f"{100 * score.low:.1f} to {100 * score.high:.1f} %" if score.low is not None else "\u2013",
                "counts": f"{score.correct:,} / {score.n:,}" if None not in (score.correct, score.n) else _n(score.n),
                "invalid": f"{score.invalid:,} not readable" if score.invalid else "",
                "sd": f"\u00b1 {100 * score.sd:.2g} over {score.seeds} seeds" if score.sd is not None else "",
                "change": change,
                "sure": sure,
            }
        )
    claimed = next((score.paper for score in table if score.paper), None)
    return {
        "figure": figures.scores(table, marks, f"score{index}"),
        "mode": table[0].mode + (f", {table[0].shots}-shot" if table[0].shots else ""),
        "benchmark": table[0].benchmark,
        "chance": next((percent(score.chance) for score in table if score.chance is not None), None),
        "rows": rows,
        "published": _published(marks),
        "paper_notes": marks.notes if marks else (),
        "no_column": f"The paper's tables have no column '{text(claimed, 40)}'." if claimed and not marks else "",
        "notes": list(dict.fromkeys(note for score in table for note in score.notes))[:20],
        "groups": _groups(table, marks),
    }


def _published(marks: Landmarks | None) -> dict[str, Any] | None:
    """The paper's numbers as one row for each table and mode, one column for each model."""
    if marks is None:
        return None
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for row in marks.published:
        spread = f" \u00b1 {100 * row.spread:.3g}" if row.spread is not None else ""
        cells.setdefault((row.table, row.mode), {})[row.model] = f"{percent(row.accuracy)}{spread}"
    models = list(dict.fromkeys(row.model for row in marks.published))
    rows = [(table, mode, [found.get(model, "\u2013") for model in models]) for (table, mode), found in cells.items()]
    return {"models": models, "rows": rows}


def _n(n: int | None) -> str:
    return "\u2013" if n is None else f"{n:,} questions"


def _groups(table: list[Score], marks: Landmarks | None) -> dict[str, Any] | None:
    """Accuracy by group, the run's models first, then the paper's columns where it has the same groups."""
    names = list(dict.fromkeys(name for score in table for name in score.groups))
    if not names:
        return None
    shared = marks is not None and any(key(name) in marks.groups for name in names)
    heads = marks.heads if marks and shared else ()
    rows = []
    for name in names[:_GROUPS]:
        size = next((score.groups[name][1] for score in table if name in score.groups), None)
        own = [percent(score.groups[name][0]) if name in score.groups else "\u2013" for score in table]
        paper = (
            [percent(cell) for cell in marks.groups.get(key(name), (None,) * len(heads))] if marks and shared else []
        )
        rows.append((text(name.replace("_", " "), 80), "\u2013" if size is None else f"{size:,}", own + paper))
    return {
        "models": [text(score.model, 40) for score in table],
        "heads": heads,
        "rows": rows,
        "more": max(0, len(names) - _GROUPS),
    }


def training(record: Record, curve: Curve, stage: str, what: str) -> dict[str, Any]:
    # Finetuning is short: its loss is what a reader wants, the rest would repeat the pretraining's figures.
    full = stage == "pretrain"
    small = [("lr", "Learning rate", 960, "")]
    if full:
        small += [("grad_norm", "Gradient norm", 470, ""), ("tokens_per_s", "Tokens per second", 470, "tokens/s")]
    parts = [
        figures.column(curve, name, f"{stage}-{name}", title=title, wide=wide, unit=unit)
        for name, title, wide, unit in small
    ]
    section = "train" if full else "finetune"
    used = speed.utilization(record.recipe, curve, section, record.root / "recipe.yaml")
    consumed, no_energy = speed.power(record.recipe, curve)
    return {
        "id": stage,
        "speed": speed.table(record.recipe, curve, used),
        "mfu": {"against": used.against, "why": used.why},
        "energy": consumed,
        "no_energy": no_energy,
        "events": _events(curve),
        "what": what,
        "loss": figures.loss(curve, f"{stage}-loss", what),
        "rate": parts[0],
        "small": [part for part in parts[1:] if part is not None],
        "rows": _samples(curve),
        "absent": absent(record, stage, "metrics"),
    }


def _events(curve: Curve) -> dict[str, Any]:
    """The newest first, with their details in words."""
    rows = []
    for step, what, details in curve.events[: -_EVENTS - 1 : -1]:
        told = [f"{text(name.replace('_', ' '), 24)} {_brief(value)}" for name, value in list(details.items())[:6]]
        rows.append((f"{step:,}", what, ", ".join(told)))
    return {"rows": rows, "more": max(0, len(curve.events) - _EVENTS)}


def _samples(curve: Curve) -> list[tuple[str, ...]]:
    """A dozen evenly spaced steps, the first and the last among them, and the validations: the charts as numbers."""
    steps, last = curve.steps, len(curve.steps) - 1
    chosen = {steps[round(i * last / (_ROWS - 1))] for i in range(_ROWS)} if steps else set()
    valid = [step for step, _ in curve.column("valid_loss")]
    chosen |= {valid[round(i * (len(valid) - 1) / (_ROWS - 1))] for i in range(_ROWS)} if valid else set()
    names = ("loss", "valid_loss", "lr", "grad_norm", "tokens_per_s")
    columns = [dict(curve.column(name)) for name in names]
    shown = []
    for step in sorted(chosen):
        values = [number(values.get(step)) if step in values else "" for values in columns]
        cells = [_cell(show, value) for show, value in zip((plain, plain, science, plain, count), values, strict=True)]
        shown.append((f"{step:,}", *cells))
    return shown


def _cell(show: Callable[[float], str], value: float | str | None) -> str:
    return "\u2013" if value == "" else "not finite" if value is None else show(value)


def landmarks_70b(record: Record) -> dict[str, Any] | None:
    """The paper's loss and speed, only beside a model of the 70B's shape: they mean nothing for another."""
    if (lookup(record.recipe, "model.layers"), lookup(record.recipe, "model.hidden")) != (80, 8192):
        return None
    loss, speed, tokens = tables()["loss_70b"], tables()["speed_70b"], step_tokens(record.recipe)
    valid, rows = record.pretrain.finite("valid_loss"), []
    for billions, value in loss["points"].items():
        here = "\u2013"
        if tokens and valid:
            step, got = min(valid, key=lambda point: abs(point[0] * tokens - billions * 1e9))
            if abs(step * tokens - billions * 1e9) <= 0.1 * billions * 1e9:
                here = f"{plain(got)} at {count(step * tokens)}"
        rows.append((f"{billions} B", f"{value:.3f}", here))
    gpus = (positive(record.recipe, "cluster.nodes") or 0) * (positive(record.recipe, "cluster.devices_per_node") or 0)
    return {"rows": rows, "loss": loss["name"], "speed": speed, "gpus": int(gpus) or None}


def stage_rows(stages: tuple[Stage, ...]) -> list[dict[str, Any]]:
    """Rows with where a stage lies in the run's time, in hundredths of it, for the small bars."""
    begins = [stage.started for stage in stages if stage.started and stage.ended]
    ends = [stage.ended for stage in stages if stage.started and stage.ended]
    first, last = min(begins, default=None), max(ends, default=None)
    span = (last - first).total_seconds() if first and last else 0.0
    rows = []
    for stage in stages:
        own, bar = stage.stage == "report" and stage.state != "failed", None
        if span > 0 and stage.started and stage.ended and stage.ended >= stage.started:
            left = 100 * (stage.started - first).total_seconds() / span
            bar = (f"{left:.2f}", f"{max(0.6, 100 * (stage.ended - stage.started).total_seconds() / span):.2f}")
        rows.append(
            {
                "id": stage.id,
                "kind": stage.stage if stage.stage != stage.id else "",
                "state": "done" if own else stage.state,
                "state_words": "this page" if own else stage.state,
                "started": clock(stage.started) if stage.started else "",
                "duration": duration(stage.elapsed_s),
                "attempts": _attempts(stage),
                "bar": bar,
                "result": [(name, _brief(value)) for name, value in list(stage.result.items())[:6]],
            }
        )
    return rows


def _attempts(stage: Stage) -> str:
    if len(stage.attempts) < 2:
        return ""
    states = ", ".join(text(state, 20) for state in stage.attempts[:6])
    more = ", \u2026" if len(stage.attempts) > 6 else ""
    return f"{len(stage.attempts)} attempts: {states}{more}"


def _brief(value: Any) -> str:
    real = number(value)
    if real is not None:
        return f"{int(real):,}" if real == int(real) else plain(real)
    if isinstance(value, float):
        return "not finite"
    if isinstance(value, (dict, list)):
        return f"{len(value)} entries"
    return text(value, 60)


def absent(record: Record, stage: str, what: str) -> str:
    """Why a stage's figures are not on the page, in one sentence."""
    stages = {item.stage: item.state for item in record.stages}
    if stage not in stages:
        known = "This recipe has no" if record.recipe.get("stages") else "This folder knows no"
        return f"{known} {stage} stage, so there are no {what} here."
    return {
        "done": f"The {stage} stage is done, but its folder holds no {what} that can be read.",
        "running": f"The {stage} stage is running; its {what} will be here when there are some.",
        "failed": f"The {stage} stage stopped before there were any {what}.",
        "waiting": f"The {stage} stage has not run yet; its {what} will be here afterwards.",
    }[stages[stage]]
