"""One rank of a training, for tests: `worker.py SPEC.json`. Runs what the stages run, with what a test wants changed.

SPEC: recipe (path of a resolved recipe.yaml), shards, folder, weights or resume, tp, pp, train ({field: value}),
rows (finetuning instead of pretraining; then also pack_rows, new_tokens and lora ({field: value})), tokenizer (else
the shards'), ask ({step, rank, signals}: that rank sends them to itself within that step), group (true: to its whole
process group), config ({field: value} of Megatron's model), workers (processes that read data), background (true:
checkpoints are written in the background, as on a GPU), data ({field: value}), record (true: each rank writes position
and shard of the training samples that it reads to read-RANK.txt), dump (true: each rank of the last pipeline stage
writes the micro-batches that it computes the loss of, to KIND-RANK-NUMBER.npz), pack (true: documents are packed, as on
a GPU), guard ({field: value}), plant ([what `plant` takes]), newest (true: goes on from the newest checkpoint in the
folder, if there is one).
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from toolkit.train import stopping  # nothing heavy here: each rank's writer of checkpoints imports this file anew


def ask(step: int, rank: int, signals: list[str], group: bool = False) -> None:
    from toolkit.train import seams

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
    from toolkit.train import seams

    seams.install_nemo()
    from toolkit.train import cpu

    before = cpu.override

    def override(recipe: Any) -> None:
        before(recipe)
        recipe.trainer.strategy.ckpt_async_save = True

    cpu.override = override


def record(folder: Path) -> None:
    from toolkit.train import seams

    seams.install_nemo()
    from megatron.core.datasets.blended_dataset import BlendedDataset
    from megatron.core.datasets.gpt_dataset import GPTDataset

    one, several, out = GPTDataset.__getitem__, BlendedDataset.__getitem__, folder / f"read-{os.environ['RANK']}.txt"
    positions: list[int] = []  # in the blend that is being read, if one is

    def of_blend(self: Any, index: int) -> Any:
        positions.append(index)
        try:
            return several(self, index)
        finally:
            positions.pop()

    def of_one(self: Any, index: int) -> Any:
        if self.index_split.name == "train":
            with open(out, "a", encoding="utf-8") as handle:
                handle.write(f"{positions[-1] if positions else index} {Path(self.dataset_path).name}\n")
        return one(self, index)

    GPTDataset.__getitem__, BlendedDataset.__getitem__ = of_one, of_blend


def dump(folder: Path) -> None:
    from toolkit.train import seams

    seams.install_nemo()
    import numpy as np
    from nemo.lightning import megatron_parallel

    reduction, count = megatron_parallel.MaskedTokenLossReduction, [0]
    forward = reduction.forward

    def seen(self: Any, batch: Any, losses: Any) -> Any:
        kind = type(self).__name__ if type(self) is not reduction else "valid" if self.validation_step else "train"
        arrays = {name: batch[name] for name in ("tokens", "labels", "loss_mask", "position_ids")}
        there = {name: array.detach().numpy() for name, array in arrays.items() if array is not None}
        name = f"{kind}-{os.environ['RANK']}-{count[0]:04}.npz"
        np.savez(folder / name, losses=losses.detach().float().numpy(), **there)
        count[0] += 1
        return forward(self, batch, losses)

    reduction.forward = seen


def configure(values: dict[str, Any]) -> None:
    from toolkit.train import seams

    seams.install_nemo()
    from toolkit.train import cpu

    before = cpu.override

    def override(recipe: Any) -> None:
        before(recipe)
        for name, value in values.items():
            setattr(recipe.model.config, name, value)

    cpu.override = override


def plant(kind: str, step: int, steps: int = 1, rank: int = 0, by: float = 0.0) -> None:
    """From `step` on, for `steps` steps, a fault: `nan` in a gradient of `rank`; a loss (`loss`) that is infinite; a
    `spike`, the loss `by` times as high; a `stall`, `by` seconds in each forward pass of `rank`; or a `cut`, a file of
    the checkpoint that is written after `step` cut short. A spike stays with the batches that it was in: what is left
    out of the stream takes it along.
    """
    from toolkit.train import seams

    seams.install_nemo()
    from megatron.core.models.gpt import GPTModel
    from nemo.lightning import megatron_parallel

    from toolkit.train import guards, order, whole

    now = {"hit": False, "model": None}
    start, loss, forward = guards.Guard.on_train_batch_start, megatron_parallel.masked_token_loss, GPTModel.forward

    def on_train_batch_start(self: Any, trainer: Any, *args: Any) -> None:
        at = trainer.global_step + 1
        if kind == "spike":
            at = order.first_sample(at, trainer.datamodule.plan.global_batch, trainer.datamodule.plan.skips)
            at = at // trainer.datamodule.plan.global_batch + 1
        now["hit"] = step <= at < step + steps and (trainer.global_rank == rank or kind in ("loss", "spike"))
        if now["model"] is None:
            now["model"] = trainer.strategy.megatron_parallel
            first = next(iter(now["model"].parameters()))
            first.register_hook(lambda grad: grad * float("nan") if now["hit"] and kind == "nan" else grad)
        start(self, trainer, *args)

    def masked_token_loss(*args: Any) -> Any:
        total, count = loss(*args)
        if now["hit"] and kind == "loss":
            total = total + float("inf")  # of a constant: the gradients are as they were
        return (total * by if now["hit"] and kind == "spike" else total), count

    def slow_forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        if now["hit"] and kind == "stall":
            time.sleep(by)
        return forward(self, *args, **kwargs)

    problem = whole.problem

    def cut(path: Path) -> Any:
        if kind == "cut" and whole.steps_in(path) == step:
            victim = max((path / "weights").glob("*.distcp"), key=lambda file: file.stat().st_size)
            os.truncate(victim, victim.stat().st_size // 2)
        return problem(path)

    whole.problem = cut
    guards.Guard.on_train_batch_start = on_train_batch_start
    megatron_parallel.masked_token_loss = masked_token_loss
    GPTModel.forward = slow_forward


def _tuning(spec: dict[str, Any]) -> dict[str, Any]:
    from toolkit.recipe.schema import Lora

    given = {"pack": spec.get("pack_rows", False), "new_tokens": spec.get("new_tokens", 0)}
    return given | ({"lora": Lora(**spec["lora"])} if "lora" in spec else {})


def main() -> int:
    stopping.install()
    from toolkit import train
    from toolkit.errors import RolledBack, Stopped, ToolkitError
    from toolkit.recipe import load
    from toolkit.stages import training
    from toolkit.stages.pretrain import shards_of

    spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if "ask" in spec:
        ask(**spec["ask"])
    if "config" in spec:
        configure(spec["config"])
    if spec.get("background"):
        write_in_background()
    if spec.get("pack"):
        from toolkit.train import seams

        seams.install_nemo()
        from packed import pack  # beside this file

        pack()
    for fault in spec.get("plant", []):
        plant(**fault)
    if spec.get("dump"):
        dump(Path(spec["folder"]))
    if spec.get("record"):
        record(Path(spec["folder"]))
    recipe, shards = load(Path(spec["recipe"])), Path(spec["shards"])
    if spec.get("newest") and (found := sorted(Path(spec["folder"]).glob("checkpoints/step=*"))):
        spec["resume"] = max(found, key=lambda path: int(path.name.removeprefix("step=")))
    start = Path(spec.get("resume") or spec["weights"])
    world = spec["tp"] * spec["pp"] * spec.get("dp", 1)
    common = {
        "folder": Path(spec["folder"]),
        "model": recipe.model,
        "parallel": dataclasses.replace(recipe.parallel, tp=spec["tp"], pp=spec["pp"], **spec.get("parallel", {})),
        "train": dataclasses.replace(recipe.train, **spec.get("train", {})),
        "guard": dataclasses.replace(recipe.guard, **spec.get("guard", {})),
        "data": dataclasses.replace(recipe.data, workers=spec.get("workers", 0), **spec.get("data", {})),
        "cluster": dataclasses.replace(recipe.cluster, devices_per_node=world),
        "vocab_rows": training.vocab_rows(Path(spec["weights"]) if "lora" in spec else start),
        "tokenizer": Path(spec.get("tokenizer") or shards / "tokenizer"),
        "weights": None if spec.get("resume") else start,
        "resume": start if spec.get("resume") else None,
    }
    try:
        if "rows" in spec:
            train.finetune(train.FinetuneJob(**common, rows=Path(spec["rows"]), **_tuning(spec)))
        else:
            train.pretrain(train.PretrainJob(**common, **shards_of(shards, common["data"].weights)))
    except (Stopped, RolledBack) as err:
        print(f"stopped: {err}", flush=True)
        return err.exit_code
    except ToolkitError as err:
        print(f"error: {err}", flush=True)
        return err.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
