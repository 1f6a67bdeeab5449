"""The layout and the hyperparameters that matter, picked from a resolved recipe, with what follows from them.

Decides which keys a reader wants first; the page prints the whole recipe below them.
"""

from __future__ import annotations

from typing import Any

from toolkit.report.values import count, number, science

_ROWS = {
    "Model": [
        ("shape", "model.name"),
        ("base weights", "model.base"),
        ("layers", "model.layers"),
        ("hidden size", "model.hidden"),
        ("feed-forward size", "model.ffn"),
        ("heads", "model.heads"),
        ("KV heads", "model.kv_heads"),
        ("base vocabulary", "model.base_vocab"),
        ("added tokens", "model.extra_tokens"),
    ],
    "Layout": [
        ("tensor parallel (tp)", "parallel.tp"),
        ("pipeline parallel (pp)", "parallel.pp"),
        ("context parallel (cp)", "parallel.cp"),
        ("data parallel (dp)", "parallel.dp"),
        ("sequence parallel", "parallel.sequence"),
        ("recompute", "parallel.recompute"),
        ("cluster", "cluster.name"),
        ("nodes", "cluster.nodes"),
        ("devices per node", "cluster.devices_per_node"),
        ("device", "cluster.device"),
    ],
    "Pretraining": [
        ("steps", "train.steps"),
        ("sequence length", "train.seq_length"),
        ("micro batch", "train.micro_batch"),
        ("global batch", "train.global_batch"),
        ("peak learning rate", "train.lr"),
        ("lowest learning rate", "train.min_lr"),
        ("warm-up steps", "train.warmup_steps"),
        ("cosine horizon", "train.decay_steps"),
        ("weight decay", "train.weight_decay"),
        ("gradient clipping", "train.clip_grad"),
        ("precision", "train.precision"),
        ("seed", "train.seed"),
    ],
    "Finetuning": [
        ("rows of", "finetune.benchmark"),
        ("epochs", "finetune.epochs"),
        ("steps", "finetune.steps"),
        ("sequence length", "finetune.seq_length"),
        ("global batch", "finetune.global_batch"),
        ("peak learning rate", "finetune.lr"),
        ("lowest learning rate", "finetune.min_lr"),
        ("warm-up fraction", "finetune.warmup_fraction"),
    ],
}
_SMALL = {"lr", "min_lr"}


def lookup(recipe: dict[str, Any], key: str) -> Any:
    value: Any = recipe
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def positive(recipe: dict[str, Any], key: str) -> float | None:
    value = number(lookup(recipe, key))
    return value if value is not None and value > 0 else None


def data_parallel(recipe: dict[str, Any]) -> int | None:
    """As stated, else devices / (tp x pp x cp); None where they are unknown or do not divide."""
    stated = positive(recipe, "parallel.dp")
    if stated:
        return int(stated)
    sizes = [
        positive(recipe, key) for key in ("cluster.nodes", "cluster.devices_per_node", "parallel.tp", "parallel.pp")
    ]
    if None in sizes:
        return None
    nodes, each, tp, pp = sizes
    dp = nodes * each / (tp * pp * (positive(recipe, "parallel.cp") or 1))
    return int(dp) if dp >= 1 and dp == int(dp) else None


def step_tokens(recipe: dict[str, Any], section: str = "train") -> float | None:
    """Tokens of one optimizer update: global batch x sequence length."""
    batch, length = positive(recipe, f"{section}.global_batch"), positive(recipe, f"{section}.seq_length")
    return batch * length if batch and length else None


def settings(recipe: dict[str, Any]) -> list[tuple[str, list[tuple[str, Any]]]]:
    """[(heading, [(label, value)])]; what the recipe does not state is left out."""
    out = []
    for heading, rows in _ROWS.items():
        found: list[tuple[str, Any]] = []
        for label, key in rows:
            value = data_parallel(recipe) if key == "parallel.dp" else lookup(recipe, key)
            if value is None or isinstance(value, (dict, list)):
                continue
            if key.rpartition(".")[2] in _SMALL and number(value) is not None:
                value = science(value)
            elif isinstance(value, bool):
                value = "yes" if value else "no"
            elif isinstance(value, int):
                value = f"{value:,}" if abs(value) < 10**15 and label != "seed" else str(value)[:40]
            found.append((label, value))
        if heading == "Pretraining" and found and step_tokens(recipe):
            found.insert(4, ("tokens per step", count(step_tokens(recipe))))
        if found:
            out.append((heading, found))
    return out
