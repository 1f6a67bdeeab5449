"""One rank of a training, for tests: `worker.py SPEC.json`. Runs what the stages run, with what a test wants changed.

SPEC: recipe (path of a resolved recipe.yaml), shards, folder, weights or resume, tp, pp, train ({field: value}),
rows (finetuning instead of pretraining), ask ({step, rank, signals}: that rank sends them to itself within that step),
group (true: to its whole process group), workers (processes that read data), background (true: checkpoints are
written in the background, as on a GPU).
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from toolkit import train
from toolkit.errors import Stopped
from toolkit.recipe import load
from toolkit.stages import training
from toolkit.train import seams, stopping


def ask(step: int, rank: int, signals: list[str], group: bool = False) -> None:
    seams.install_nemo()  # before NeMo is imported
    from toolkit.train import callbacks

    before = callbacks.Metrics.on_train_batch_start

    def on_train_batch_start(self: Any, trainer: Any, *args: Any) -> None:
        before(self, trainer, *args)
        if trainer.global_step + 1 == step and trainer.global_rank == rank:
            for name in signals:
                if group:  # by another process: what a rank has forked does end when the rank itself says so
                    kill = ["kill", "-s", name.removeprefix("SIG"), "--", f"-{os.getpgid(0)}"]
                    subprocess.run(kill, check=False, start_new_session=True)
                else:
                    os.kill(os.getpid(), signal.Signals[name])

    callbacks.Metrics.on_train_batch_start = on_train_batch_start


def write_in_background() -> None:
    seams.install_nemo()
    from toolkit.train import cpu

    before = cpu.override

    def override(recipe: Any) -> None:
        before(recipe)
        recipe.trainer.strategy.ckpt_async_save = True

    cpu.override = override


def main() -> int:
    stopping.install()
    spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if "ask" in spec:
        ask(**spec["ask"])
    if spec.get("background"):
        write_in_background()
    recipe, shards = load(Path(spec["recipe"])), Path(spec["shards"])
    start = Path(spec.get("resume") or spec["weights"])
    world = spec["tp"] * spec["pp"] * spec.get("dp", 1)
    common = {
        "folder": Path(spec["folder"]),
        "model": recipe.model,
        "parallel": dataclasses.replace(recipe.parallel, tp=spec["tp"], pp=spec["pp"], **spec.get("parallel", {})),
        "train": dataclasses.replace(recipe.train, **spec.get("train", {})),
        "data": dataclasses.replace(recipe.data, workers=spec.get("workers", 0)),
        "cluster": dataclasses.replace(recipe.cluster, devices_per_node=world),
        "vocab_rows": training.vocab_rows(start),
        "tokenizer": shards / "tokenizer",
        "weights": None if spec.get("resume") else start,
        "resume": start if spec.get("resume") else None,
    }
    try:
        if "rows" in spec:
            train.finetune(train.FinetuneJob(**common, rows=Path(spec["rows"])))
        else:
            parts = {f"{part}_shards": (shards / part,) for part in ("train", "valid")}
            train.pretrain(train.PretrainJob(**common, **parts))
    except Stopped as err:
        print(f"stopped: {err}", flush=True)
        return err.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
