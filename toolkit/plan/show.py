"""The plan as text: the run's layout, its stages, and the values that matter with the file or argument each comes
from.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from toolkit.plan.layout import layout
from toolkit.plan.promise import Promise
from toolkit.plan.stages import steps
from toolkit.recipe import Recipe
from toolkit.recipe.compose import Composed
from toolkit.recipe.layout_rules import trains

_SHOWN = [
    "model.name",
    "model.base",
    "model.layers",
    "model.hidden",
    "model.heads",
    "model.kv_heads",
    "parallel.tp",
    "parallel.pp",
    "parallel.cp",
    "parallel.sequence",
    "parallel.recompute",
    "parallel.distributed_optimizer",
    "train.steps",
    "train.decay_steps",
    "train.warmup_steps",
    "train.seq_length",
    "train.micro_batch",
    "train.global_batch",
    "train.lr",
    "train.min_lr",
    "train.beta1",
    "train.beta2",
    "train.eps",
    "train.weight_decay",
    "train.clip_grad",
    "train.precision",
    "train.save_every",
    "train.seed",
    "data.append_eod",
    "data.reset_attention",
    "cluster.name",
    "cluster.nodes",
    "cluster.devices_per_node",
    "cluster.partition",
    "cluster.time_limit_min",
    "container.runtime",
    "container.image",
    "runs",
]


def plan_values(recipe: Recipe, missing: Sequence[tuple[str, str]], found: Promise | None = None) -> dict[str, Any]:
    """What plan.json keeps; without a promise where nothing could be predicted."""
    return {
        "recipe": recipe.name,
        "layout": dataclasses.asdict(layout(recipe)),
        "stages": [dataclasses.asdict(step) for step in steps(recipe)],
        "missing": [{"key": key, "why": why} for key, why in missing],
        "promise": found and found.as_dict(),
    }


def plan_text(composed: Composed, missing: Sequence[tuple[str, str]]) -> str:
    recipe, facts = composed.recipe, layout(composed.recipe)
    unit = "GPUs" if recipe.cluster.device == "gpu" else "processes"
    lines = [f"{recipe.name}: {recipe.title}", ""]
    keys = _SHOWN
    if trains(recipe):
        lines += [
            f"  {facts.world:,} {unit} on {facts.nodes} {'node' if facts.nodes == 1 else 'nodes'}   "
            f"tp {facts.tp}  pp {facts.pp}  cp {facts.cp}  dp {facts.dp}   {facts.layers_per_stage} layers a stage",
            f"  {facts.parameters:,} parameters   vocabulary {facts.vocab:,} padded to {facts.vocab_padded:,}",
            f"  {recipe.train.steps:,} steps   {facts.tokens_per_step:,} tokens a step"
            f"   {facts.micro_batches} micro-batches a step   {_tokens(facts.total_tokens)} tokens",
            "",
        ]
    else:
        keys = [key for key in _SHOWN if not key.startswith(("parallel.", "train."))]
    lines.append("stages")
    for number, step in enumerate(steps(recipe), 1):
        ranks = f"{step.processes} processes" if step.processes > 1 else "1 process"
        lines.append(f"  {number:>2} {step.id:<16} {ranks:<14} {step.what}")
    lines += ["", "values                                                  from"]
    lines += [f"  {key:<31} {_show(_get(recipe, key)):<22} {composed.where(key)}" for key in keys]
    shown = set(keys)
    lines += [
        f"  {key:<31} {_show(_get(recipe, key)):<22} {where}"
        for key, where in composed.origin.items()
        if where == "command line" and key not in shown
    ]
    if missing:
        lines += ["", "to be stated before it can run"] + [f"  {key:<31} {why}" for key, why in missing]
    return "\n".join(lines)


def _tokens(count: int) -> str:
    return f"{count / 1e9:,.2f}B" if count >= 10**8 else f"{count / 1e6:,.2f}M"


def _get(recipe: object, key: str) -> object:
    value = recipe
    for name in key.split("."):
        value = value.get(name) if isinstance(value, dict) else getattr(value, name, None)
    return value


def _show(value: object) -> str:
    if isinstance(value, float) and (abs(value) < 1e-3 or abs(value) >= 1e6) and value:
        return f"{value:.10g}"
    if isinstance(value, bool):
        return str(value).lower()
    return "-" if value is None else str(value)
