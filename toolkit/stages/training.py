"""What the two training stages share: where to resume, where weights come from, what the curve says at the end."""

from __future__ import annotations

import dataclasses
import math
import shutil
import statistics
from pathlib import Path
from typing import Any

from toolkit import checkpoint, energy, flops, hardware
from toolkit.errors import CheckpointError
from toolkit.plan import room
from toolkit.plan.layout import shape
from toolkit.recipe.schema import Recipe, Train
from toolkit.stages.context import Context, Result
from toolkit.train import rows as lines

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
    rows = vocab_rows(start)
    if context.rank == 0:
        make_sure_of_room(context, settings, rows)
    return {
        "folder": context.folder,
        "model": recipe.model,
        "parallel": recipe.parallel,
        "train": settings,
        "guard": recipe.guard,
        "watch": recipe.watch,
        "data": recipe.data,
        "cluster": recipe.cluster,
        "vocab_rows": rows,
        "tokenizer": context.tokenizer(),
        "weights": start,
        "resume": resume_from(context),
    }


def make_sure_of_room(context: Context, settings: Train, rows: int) -> None:
    """Before the first step: raise `PlanRefused` when the checkpoints do not fit, warn when they will not for ever."""
    recipe, folder = context.recipe, context.folder / CHECKPOINTS
    model = dataclasses.replace(shape(recipe), vocab=rows)
    in_background = settings.async_save and recipe.cluster.device == "gpu"
    asked = room.room(model, settings, recipe.parallel, recipe.guard, in_background=in_background)
    there = [path for path in folder.glob("step=*") if not _for_ever(path, settings.keep_every)]
    taken = sum(file.stat().st_size for path in there for file in path.rglob("*") if file.is_file())
    free = shutil.disk_usage(context.folder).free
    warning = room.check(asked, settings, where=context.folder, free_bytes=free, there_bytes=taken)
    if warning:
        print(warning, flush=True)


def _for_ever(path: Path, keep_every: int | None) -> bool:
    step = checkpoint.step_of(path)
    return keep_every is not None and step is not None and (step + 1) % keep_every == 0


def result(context: Context, **figures: Any) -> Result:
    """The newest checkpoint, the metrics and what they say; nothing from ranks other than 0."""
    if context.rank != 0:
        return Result(outputs={})
    made, metrics = resume_from(context), context.folder / "metrics.jsonl"
    if made is None:
        raise CheckpointError("training ended without a complete checkpoint", where=context.folder / CHECKPOINTS)
    told = {**figures, **curve(metrics)}
    if "tokens_per_s" in told:
        asked = context.recipe.finetune if context.step.stage == "finetune" else context.recipe.train
        told |= speed(metrics, context.recipe, told["tokens_per_s"], asked.seq_length)
    return Result(outputs={"checkpoint": made, "metrics": metrics}, figures=told)


def vocab_rows(path: Path) -> int:
    """Rows of the embedding in a checkpoint, padding included; a model that restores it must have as many."""
    for tensor in checkpoint.inspect(path).tensors:
        if tensor.name.endswith("word_embeddings.weight") and "optimizer" not in tensor.name:
            return int(tensor.dims[0])
    raise CheckpointError("no embedding in this checkpoint", where=path, do="give a Megatron checkpoint of a GPT model")


def curve(path: Path) -> dict[str, Any]:
    """First and last loss, last validation loss and median tokens/s of metrics.jsonl; damaged lines are passed over."""
    rows = _rows(path)
    steps, valid = [r for r in rows if "loss" in r], [r for r in rows if "valid_loss" in r]
    figures: dict[str, Any] = {}
    if steps:
        figures = {"steps": steps[-1]["step"], "first_loss": steps[0]["loss"], "last_loss": steps[-1]["loss"]}
    if valid:
        figures["valid_loss"] = valid[-1]["valid_loss"]
    rates = [rate for r in steps if (rate := _number(r.get("tokens_per_s"))) is not None]
    return figures | ({"tokens_per_s": round(statistics.median(rates), 1)} if rates else {})


def speed(path: Path, recipe: Recipe, tokens_per_s: float, seq_length: int) -> dict[str, Any]:
    """Tokens/s of one device, MFU under every convention by name, and energy, as far as the recipe and the power files
    tell. An MFU above 1 is no figure: the log says so, and the page stops there.
    """
    site = recipe.cluster
    devices = site.nodes * site.devices_per_node
    figures: dict[str, Any] = {"tokens_per_s_device": round(tokens_per_s / devices, 2)}
    kind = site.gpu if site.device == "gpu" else None
    peak = hardware.peak_tflops(kind, site.peak_tflops)
    if peak is not None:
        needed = flops.by_convention(shape(recipe), seq_length, recipe.model.nominal_parameters)
        used = {name: round(flops.mfu(tokens_per_s, devices, peak, each), 4) for name, each in needed.items()}
        if max(used.values()) <= 1:
            figures["mfu"] = used
        else:
            print(f"no MFU: {max(used.values()):.2f} cannot be, so {peak:g} TFLOP/s a device are wrong", flush=True)
    measured = energy.measured_w(path.parent / "power")
    watts = measured if measured is not None else hardware.tdp_w(kind, site.gpu_tdp_w)
    rows = _rows(path)
    clock = max((s for r in rows if (s := _number(r.get("elapsed_s"))) is not None), default=None)
    if watts is not None and clock is not None:
        taken = energy.account(
            device_kwh=energy.device_kwh(watts=watts, devices=devices, hours=clock / 3600),
            node_overhead=site.node_overhead,
            pue=site.pue,
            kgco2_per_kwh=site.kgco2_per_kwh,
        )
        told = {"power_w": watts, "device_kwh": taken.device_kwh, "kwh": taken.kwh, "kgco2": taken.kgco2}
        rounded = {name: float(f"{value:.6g}") for name, value in told.items() if value is not None}
        figures["energy"] = {**rounded, "power_is": "measured" if measured is not None else "the stated limit"}
    return figures


def _rows(path: Path) -> list[dict[str, Any]]:
    """Steps and validations; events are passed over."""
    return [row for row in lines.read(path) if "event" not in row and isinstance(row.get("step"), int)]


def _number(value: Any) -> float | None:
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if good else None
