"""What the two training stages share: where to resume, where weights come from, what the curve says at the end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from toolkit import checkpoint
from toolkit.errors import CheckpointError
from toolkit.recipe.schema import Train
from toolkit.stages.context import Context, Result

CHECKPOINTS = "checkpoints"


def resume_from(context: Context) -> Path | None:
    """The newest complete checkpoint that an earlier attempt of this stage left, and word of those passed over."""
    folder = context.folder / CHECKPOINTS
    if not folder.is_dir():
        return None
    try:
        found = checkpoint.latest(folder)
    except CheckpointError as err:
        if context.rank == 0 and any(folder.iterdir()):
            print(f"no checkpoint to resume from: {err}", flush=True)
        return None
    if context.rank == 0:
        for path in sorted(folder.iterdir()):
            if path.is_dir() and (checkpoint.step_of(path) or 0) > (checkpoint.step_of(found) or 0):
                print(f"passed over {path.name}: {checkpoint.incomplete_reason(path)}", flush=True)
    return found


def weights(context: Context, *kinds: str) -> Path:
    """The checkpoint that this training starts from: an earlier stage's, or the one given."""
    for kind in kinds:
        made = context.made(kind, "checkpoint")
        if made is not None:
            return made
    return Path(str(context.recipe.inputs.checkpoint))


def fields(context: Context, *, start: Path, settings: Train) -> dict[str, Any]:
    """What every training job of a recipe has in common, whichever stage asks for it."""
    recipe = context.recipe
    if reason := checkpoint.incomplete_reason(start):
        raise CheckpointError("the checkpoint to start from is not complete", where=start, why=reason)
    return {
        "folder": context.folder,
        "model": recipe.model,
        "parallel": recipe.parallel,
        "train": settings,
        "data": recipe.data,
        "cluster": recipe.cluster,
        "vocab_rows": vocab_rows(start),
        "tokenizer": context.tokenizer(),
        "weights": start,
        "resume": resume_from(context),
    }


def result(context: Context, **figures: Any) -> Result:
    """The newest checkpoint, the metrics and what they say; nothing from ranks other than 0."""
    if context.rank != 0:
        return Result(outputs={})
    made, metrics = resume_from(context), context.folder / "metrics.jsonl"
    if made is None:
        raise CheckpointError("training ended without a complete checkpoint", where=context.folder / CHECKPOINTS)
    return Result(outputs={"checkpoint": made, "metrics": metrics}, figures={**figures, **curve(metrics)})


def vocab_rows(path: Path) -> int:
    """Rows of the embedding in a checkpoint, padding included; a model that restores it must have as many."""
    for tensor in checkpoint.inspect(path).tensors:
        if tensor.name.endswith("word_embeddings.weight") and "optimizer" not in tensor.name:
            return int(tensor.dims[0])
    raise CheckpointError("no embedding in this checkpoint", where=path, do="give a Megatron checkpoint of a GPT model")


def curve(path: Path) -> dict[str, Any]:
    """First and last loss, last validation loss, and median tokens/s of metrics.jsonl."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    steps, valid = [r for r in rows if "loss" in r], [r for r in rows if "valid_loss" in r]
    speeds = sorted(r["tokens_per_s"] for r in steps)
    figures = {"steps": steps[-1]["step"], "first_loss": steps[0]["loss"], "last_loss": steps[-1]["loss"]}
    if valid:
        figures["valid_loss"] = valid[-1]["valid_loss"]
    return {**figures, "tokens_per_s": speeds[len(speeds) // 2]}
