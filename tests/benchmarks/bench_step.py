"""A training step through the recipe's whole stack against the same model and batch in a bare megatron-core loop.

The demo's pretraining runs in one process on the CPU: NeMo, Lightning, the callbacks, metrics and loggers as the recipe
has them. Between two of its steps the bare loop makes the same one: the model again, from the same weights, on the same
micro-batches, by `get_forward_backward_func` and `get_megatron_optimizer`. A step of the stack lasts from the end of
one bare step to the beginning of the next. The losses of both must be equal. Best of N of each counts, and the bar is
a ratio of 1.10; the medians, which a busy machine moves, are shown beside it.

    python tests/benchmarks/bench_step.py --steps 40
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

BAR = 1.10
UNTIMED = 3  # first steps: memory is taken, the optimizer makes its state
SIZES = {
    "demo": {},
    # Half the demo's tokens a step, so that what a step costs besides computing weighs twice.
    "demo, half the batch": {"train": {"micro_batch": 8, "global_batch": 16}},
}


class Bare:
    """The peer: a model of megatron-core and a loop that does what a step cannot do without."""

    def __init__(self, trainer: Any, module: Any) -> None:
        from megatron.core.distributed import DistributedDataParallel, finalize_model_grads
        from megatron.core.optimizer import get_megatron_optimizer
        from megatron.core.pipeline_parallel.schedules import get_forward_backward_func
        from megatron.core.utils import get_model_config

        theirs = module.module
        while hasattr(theirs, "module"):
            theirs = theirs.module
        config = dataclasses.replace(module.config)
        model = config.configure_model(None, pre_process=True, post_process=True)
        model.load_state_dict(theirs.state_dict())
        ddp = trainer.strategy.ddp_config
        self.model = DistributedDataParallel(config, ddp, model)
        get_model_config(self.model).finalize_model_grads_func = finalize_model_grads
        self.optimizer = get_megatron_optimizer(dataclasses.replace(module.optim.config), [self.model])
        self.weight_decay = module.optim.config.weight_decay
        config.grad_scale_func = self.optimizer.scale_loss
        self.run = get_forward_backward_func()

    def step(self, batches: list[dict[str, Any]], lr: float) -> float:
        for group in self.optimizer.param_groups:  # as Megatron's own scheduler sets them
            group["lr"], group["weight_decay"] = lr, self.weight_decay * group["wd_mult"]
        self.model.zero_grad_buffer()
        self.optimizer.zero_grad()
        rows, length = batches[0]["tokens"].shape
        losses = self.run(
            forward_step_func=_forward,
            data_iterator=iter(batches),
            model=self.model,
            num_microbatches=len(batches),
            seq_length=length,
            micro_batch_size=rows,
            forward_only=False,
        )
        self.optimizer.step()
        return sum(float(loss["loss"]) for loss in losses) / len(losses)


def _forward(batches: Any, model: Any) -> Any:
    batch = next(batches)
    out = model(batch["tokens"], batch["position_ids"], batch.get("attention_mask"), labels=batch["labels"])
    return out, partial(_loss, batch["loss_mask"])


def _loss(mask: Any, out: Any) -> Any:
    loss = (out.float() * mask).sum() / mask.sum()
    return loss, {"loss": loss.detach().clone()}  # the schedule divides what it is given in place


def beside(times: dict[str, list[float]], apart: list[float]) -> Any:
    """The callback that makes the bare step between two of the stack's, and keeps both times."""
    import lightning.pytorch as pl
    import torch

    class Beside(pl.Callback):
        def on_train_start(self, trainer: Any, module: Any) -> None:
            loader = trainer.fit_loop._combined_loader.flattened[0]
            self.data, self.order = loader.dataset, loader.batch_sampler
            self.bare = Bare(trainer, module)
            self.since = time.perf_counter()

        def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
            self.lr = trainer.optimizers[0].param_groups[0]["lr"]

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            took = time.perf_counter() - self.since
            collate = torch.utils.data.default_collate
            batches = [collate([self.data[i] for i in rows]) for rows in self.order.of(trainer.global_step)]
            began = time.perf_counter()
            loss = self.bare.step(batches, self.lr)
            took_bare = time.perf_counter() - began
            if trainer.global_step > UNTIMED:
                times["stack"].append(took)
                times["bare"].append(took_bare)
            apart.append(abs(loss - float(trainer.callback_metrics["reduced_train_loss"])))
            self.since = time.perf_counter()

    return Beside


def measure(name: str, steps: int, run: Any, folder: Path) -> dict[str, Any]:
    """Train one size with both; `folder` takes what the training writes."""
    import nemo_run

    from toolkit import train
    from toolkit.plan import layout
    from toolkit.stages.pretrain import shards_of
    from toolkit.train import engine, nemo_recipe

    recipe, shards = run.recipe, run.stage("shards") / "shards"
    settings = {"steps": steps + UNTIMED, "save_every": 10_000, "valid_every": 10_000, "valid_full": False}
    job = train.PretrainJob(
        folder=folder,
        model=recipe.model,
        parallel=dataclasses.replace(recipe.parallel, tp=1, pp=1),
        train=dataclasses.replace(recipe.train, **settings, **SIZES[name].get("train", {})),
        data=recipe.data,
        cluster=dataclasses.replace(recipe.cluster, devices_per_node=1),
        vocab_rows=layout(recipe).vocab_padded,
        tokenizer=shards / "tokenizer",
        **shards_of(shards, {}),
        guard=recipe.guard,
        watch=recipe.watch,
    )
    times: dict[str, list[float]] = {"stack": [], "bare": []}
    apart: list[float] = []
    build = nemo_recipe.pretrain_recipe

    def with_peer(*args: Any) -> Any:
        made = build(*args)
        made.trainer.callbacks.append(nemo_run.Config(beside(times, apart)))
        return made

    nemo_recipe.pretrain_recipe = with_peer
    try:
        engine.pretrain(job)
    finally:
        nemo_recipe.pretrain_recipe = build
    middle = {key: statistics.median(values) for key, values in times.items()}
    assert len(times["stack"]) == steps and max(apart) < 1e-4, f"not the same training: losses differ by {apart}"
    return {
        "size": name,
        "stack_s": round(min(times["stack"]), 4),
        "bare_s": round(min(times["bare"]), 4),
        "ratio": round(min(times["stack"]) / min(times["bare"]), 4),
        "median_ratio": round(middle["stack"] / middle["bare"], 4),
        "losses_differ_by": max(apart),
    }


def prepare(root: Path) -> Any:
    """A run with the demo's corpus, tokenizer and shards."""
    from toolkit.recipe import compose
    from toolkit.runs import create
    from toolkit.submit import execute

    recipe = compose("demo", [f"runs={root}", "stages=[corpus,base,shards]"]).recipe
    run = create(recipe, command=["bench_step"], plan={})
    execute(run, quiet=True)
    return run


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--steps", type=int, default=40, help="timed steps of each side")
    parser.add_argument("--size", choices=SIZES, help="one size alone; each is measured in a process of its own")
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.size and args.run:
        return one(args)
    with tempfile.TemporaryDirectory() as temporary:
        with contextlib.redirect_stdout(sys.stderr):
            run = prepare(Path(temporary))
        found = [apart(name, args.steps, run.path) for name in ([args.size] if args.size else SIZES)]
    worst = max(row["ratio"] for row in found)
    if args.json:
        print(json.dumps({"sizes": found, "ratio": worst, "bar": BAR, "steps": args.steps}))
    else:
        for row in found:
            print(
                f"{row['size']:22} whole stack {row['stack_s'] * 1e3:7.1f} ms   bare loop {row['bare_s'] * 1e3:7.1f} ms"
                f"   ratio {row['ratio']:.3f}   (of medians: {row['median_ratio']:.3f})"
            )
        print(f"the bar: at most {BAR:.2f}; best of {args.steps} steps, interleaved in one process")
    return 0 if worst <= BAR else 1


def apart(name: str, steps: int, run: Path) -> dict[str, Any]:
    import subprocess

    words = [sys.executable, __file__, "--size", name, "--steps", str(steps), "--run", str(run)]
    env = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=env)
    if done.returncode != 0:
        raise SystemExit(done.stdout[-2000:] + done.stderr[-4000:])
    return json.loads(done.stdout.splitlines()[-1])


def one(args: argparse.Namespace) -> int:
    import socket

    from toolkit.runs import find
    from toolkit.train import seams

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ranks = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "LOCAL_WORLD_SIZE": 1, "NODE_RANK": 0}
    os.environ.update({name: str(value) for name, value in ranks.items()})
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    seams.install_nemo()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        found = measure(args.size, args.steps, find(str(args.run)), Path(folder))
    print(json.dumps(found), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
