"""Stage finetune: supervised finetuning on training rows of benchmarks, from the pretrained checkpoint, in every rank.

Decides how many steps, and what follows takes of it; leaves the rows to `tuning_rows` and the training to `train`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import time
from pathlib import Path
from typing import Any

from toolkit import files, train
from toolkit.errors import CheckpointError, DataError
from toolkit.recipe.schema import Finetune
from toolkit.stages import training, tuning_rows
from toolkit.stages.context import Context, Result, inputs

TOKENIZER, ROWS_NOTED = "tokenizer", "trained-on.json"


def run(context: Context) -> Result:
    recipe, asked = context.recipe, context.recipe.finetune
    assert asked is not None
    start = training.weights(context, "pretrain", "import")
    rows, words = context.folder / "rows", context.folder / TOKENIZER
    made_of = _made_of(context, asked)
    if context.rank == 0:
        sources = tuning_rows.Sources(asked=asked, world=context.made("corpus", "tasks"), scored=recipe.score.paths)
        tuning_rows.make(
            sources, base=context.tokenizer(), out=rows, words=words, seed=recipe.train.seed, made_of=made_of
        )
        same_rows(context.folder, rows, resumes=training.resume_from(context) is not None)
    made = _wait_for(rows / tuning_rows.READY, made_of)
    validates = made["validation"]["rows"] > 0
    steps = steps_of(asked, made["training"]["rows"])
    settings = dataclasses.replace(
        recipe.train,
        steps=steps,
        decay_steps=None,
        warmup_steps=int(asked.warmup_fraction * steps),
        lr=asked.lr,
        min_lr=asked.min_lr,
        micro_batch=asked.micro_batch,
        global_batch=asked.global_batch,
        seq_length=asked.seq_length,
        save_every=asked.save_every,
        valid_every=asked.valid_every,
        valid_batches=asked.valid_batches if validates else 0,
        valid_full=recipe.train.valid_full and validates,
    )
    job = train.FinetuneJob(
        **{**training.fields(context, start=start, settings=settings), "tokenizer": words},
        rows=rows,
        pack=asked.pack,
        new_tokens=made["new_tokens"],
        lora=asked.lora if asked.peft == "lora" else None,
        tokens_per_row=made["training"]["tokens"] / made["training"]["rows"],
    )
    train.finetune(job)
    counts = {name: made["training"][name] for name in ("rows", "cut", "left_out", "answer_tokens")}
    result = training.result(context, **counts)
    if context.rank != 0:
        return result
    outputs, figures = {**result.outputs, "tokenizer": words}, dict(result.figures)
    if job.lora is not None:
        outputs |= {"adapter": outputs["checkpoint"], "checkpoint": job.merged}  # what follows takes the whole model
        figures.pop("mfu", None)  # no convention counts adapters
    return Result(outputs=outputs, figures=figures)


def steps_of(asked: Finetune, rows: int) -> int:
    """Optimizer steps: those stated, or the epochs' over so many rows, rounded up to `steps_multiple`."""
    if asked.steps is not None:
        return asked.steps
    steps = math.ceil(asked.epochs * rows / asked.global_batch)
    return math.ceil(steps / asked.steps_multiple) * asked.steps_multiple


def same_rows(folder: Path, rows: Path, *, resumes: bool) -> None:
    """Note what is trained on; a training that goes on must find the same. Raises `CheckpointError`."""
    now = {path.name: files.sha256_file(path) for path in sorted(rows.glob("training.*"))}
    noted = folder / ROWS_NOTED
    if resumes and noted.is_file() and files.read_json(noted) != now:
        raise CheckpointError(
            "the finetuning rows are not those that the checkpoint was trained on",
            where=folder,
            why="the training files, or what words them, have changed since",
            do="restore them, or begin a new run",
        )
    files.write_json(noted, now)


def _made_of(context: Context, asked: Finetune) -> str:
    """What the rows follow from: the recipe, what earlier stages made and the files from outside."""
    told = {"recipe": dataclasses.asdict(asked), "inputs": inputs(context.run, context.step)}
    told["scored"] = dict(context.recipe.score.paths)
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _wait_for(path: Path, made_of: str, limit_s: float = 3600.0) -> dict[str, Any]:
    """Ranks other than 0 wait for the rows; there is no process group yet to make a barrier of."""
    deadline = time.monotonic() + limit_s
    while True:
        if path.is_file() and (told := files.read_json(path)).get("made_of") == made_of:
            return dict(told)
        if time.monotonic() > deadline:
            raise DataError("rank 0 has not written the finetuning rows", where=path, do="see rank 0's log")
        time.sleep(0.1)
