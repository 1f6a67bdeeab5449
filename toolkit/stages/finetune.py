"""Stage finetune: supervised finetuning on a benchmark's training rows, from the pretrained checkpoint, in every
rank.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from pathlib import Path

from toolkit import files, scoring, train
from toolkit.errors import DataError
from toolkit.recipe.schema import Finetune
from toolkit.stages import training
from toolkit.stages.context import Context, Result

_VALID_EVERY_NTH = 20  # of the rows, when the benchmark has no validation file of its own


def run(context: Context) -> Result:
    recipe, asked = context.recipe, context.recipe.finetune
    assert asked is not None
    start = training.weights(context, "pretrain", "import")
    rows = context.folder / "rows"
    if context.rank == 0:
        _write_rows(context, asked, rows)
    _wait_for(rows / "ready.json")
    n_rows = files.read_json(rows / "ready.json")["training"]
    steps = asked.steps or math.ceil(asked.epochs * n_rows / asked.global_batch)
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
        valid_batches=1,
    )
    train.finetune(train.FinetuneJob(**training.fields(context, start=start, settings=settings), rows=rows))
    return training.result(context, rows=n_rows)


def _write_rows(context: Context, asked: Finetune, out: Path) -> None:
    """NeMo's finetuning files: `input` is the scorer's own prompt, `output` the answer that carries the loss."""
    spec = scoring.benchmarks.get(asked.benchmark)
    if asked.path == "world":
        tasks = context.made("corpus", "tasks")
        if tasks is None:
            raise DataError("finetune.path=world needs a corpus of kind world", do="give finetune.path=FILE")
        parts = {
            name: scoring.benchmarks.load(spec, tasks / f"finetune_{short}.jsonl")
            for name, short in (("training", "train"), ("validation", "valid"))
        }
    else:
        items = scoring.benchmarks.load(spec, asked.path)
        held = items[::_VALID_EVERY_NTH]
        parts = {"training": [i for n, i in enumerate(items) if n % _VALID_EVERY_NTH], "validation": held}
    if not all(parts.values()):
        raise DataError(
            "too few rows to finetune on",
            where=asked.path or asked.benchmark,
            do=f"give more than {_VALID_EVERY_NTH} rows",
        )
    parts["test"] = parts["validation"]
    for name, items in parts.items():
        with files.atomic_write(out / f"{name}.jsonl") as handle:
            for item in items:
                row = {
                    "input": scoring.letter_prompt(item, spec.instruction),
                    "output": scoring.letter_answer(item).strip(),
                }
                handle.write(json.dumps(row, ensure_ascii=False) + "\n")
    files.write_json(out / "ready.json", {name: len(items) for name, items in parts.items()})


def _wait_for(path: Path, limit_s: float = 600.0) -> None:
    """Ranks other than 0 wait for the rows; there is no process group yet to make a barrier of."""
    deadline = time.monotonic() + limit_s
    while not path.exists():
        if time.monotonic() > deadline:
            raise DataError("rank 0 has not written the finetuning rows", where=path, do="see rank 0's log")
        time.sleep(0.1)
