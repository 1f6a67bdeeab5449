"""Layers of Llama-2-7B's width on one GPU: a step of the recipe's whole stack against the same layers in plain PyTorch.

`pretrain_7b` is cut to as many layers as fit beside their peer: bf16, Transformer Engine's layers where it is
installed, else Megatron's own with PyTorch's flash attention. The peer is a Llama in a few lines: scaled dot product
attention, torch.compile, fused AdamW, bf16 autocast. Both take a step in turn, on batches of the same size. Prints
tokens/s and MFU (6 FLOPs a multiplied parameter + causal attention). `--parity` trains a small model in fp32 on the GPU
and on the CPU from the same weights, and compares the losses.

    python tests/gpu/bench_layers.py --micro-batch 4 --json
    python tests/gpu/bench_layers.py --parity
    python tests/gpu/bench_layers.py --cpu --tiny --steps 3       without a GPU: that the script itself works
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

UNTIMED = 5  # compilation, and memory that is taken once
PARITY_BAR = 2e-3  # fp32; sums are taken in another order
TINY = {"layers": 2, "hidden": 128, "ffn": 352, "heads": 4, "kv_heads": 4}


def plain_llama(model: Any, rows: int, seq: int) -> Any:
    """Llama as a peer: no bias, RMSNorm before attention and MLP, rotary positions, SwiGLU, an output of its own."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    size, heads, groups = model.hidden // model.heads, model.heads, model.kv_heads
    angles = torch.outer(torch.arange(seq), model.rope_base ** -(torch.arange(0, size, 2) / size))

    def rotate(x: Any, cos: Any, sin: Any) -> Any:
        a, b = x.chunk(2, dim=-1)
        return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1).to(x.dtype)

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = (nn.RMSNorm(model.hidden, eps=model.norm_eps) for _ in range(2))
            self.qkv = nn.Linear(model.hidden, (heads + 2 * groups) * size, bias=False)
            self.out = nn.Linear(model.hidden, model.hidden, bias=False)
            self.up = nn.Linear(model.hidden, 2 * model.ffn, bias=False)
            self.down = nn.Linear(model.ffn, model.hidden, bias=False)

        def forward(self, x: Any, cos: Any, sin: Any) -> Any:
            b, s, _ = x.shape
            q, k, v = self.qkv(self.one(x)).view(b, s, -1, size).transpose(1, 2).split((heads, groups, groups), dim=1)
            k, v = (t.repeat_interleave(heads // groups, dim=1) for t in (k, v))
            seen = F.scaled_dot_product_attention(rotate(q, cos, sin), rotate(k, cos, sin), v, is_causal=True)
            x = x + self.out(seen.transpose(1, 2).reshape(b, s, -1))
            gate, up = self.up(self.two(x)).chunk(2, dim=-1)
            return x + self.down(F.silu(gate) * up)

    class Llama(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(rows, model.hidden)
            self.layers = nn.ModuleList(Layer() for _ in range(model.layers))
            self.norm = nn.RMSNorm(model.hidden, eps=model.norm_eps)
            self.head = nn.Linear(model.hidden, rows, bias=False)
            self.register_buffer("cos", angles.cos())
            self.register_buffer("sin", angles.sin())

        def forward(self, tokens: Any, labels: Any) -> Any:
            x = self.embed(tokens)
            for layer in self.layers:
                x = layer(x, self.cos, self.sin)
            return F.cross_entropy(self.head(self.norm(x)).flatten(0, 1).float(), labels.flatten())

    return Llama()


class Plain:
    """The peer's step: as many micro-batches, one clipped update by fused AdamW."""

    def __init__(self, job: Any, device: Any, compiled: bool) -> None:
        import torch

        self.torch, self.device, train = torch, device, job.train
        with torch.device(device):
            self.model = plain_llama(job.model, job.vocab_rows, train.seq_length)
        self.run = torch.compile(self.model) if compiled else self.model
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=train.lr, betas=(train.beta1, train.beta2), eps=train.eps,
            weight_decay=train.weight_decay, fused=True,
        )  # fmt: skip
        self.bf16, self.clip = train.precision == "bf16", train.clip_grad
        shape = (train.micro_batch, train.seq_length + 1)
        self.batches = [
            torch.randint(0, job.model.base_vocab, shape, device=device)
            for _ in range(train.global_batch // train.micro_batch)
        ]

    def step(self) -> float:
        self.optimizer.zero_grad(set_to_none=False)
        total = 0.0
        for batch in self.batches:
            with self.torch.autocast(self.device.type, dtype=self.torch.bfloat16, enabled=self.bf16):
                loss = self.run(batch[:, :-1], batch[:, 1:]) / len(self.batches)
            loss.backward()
            total += loss.detach()
        self.torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimizer.step()
        return float(total)


def beside(job: Any, times: dict[str, list[float]], compiled: bool) -> Any:
    """The callback that takes the peer's step between two of the stack's."""
    import lightning.pytorch as pl
    import torch

    class Beside(pl.Callback):
        def on_train_start(self, trainer: Any, *_: Any) -> None:
            self.device = trainer.strategy.root_device
            self.peer = Plain(job, self.device, compiled)
            self.since = self.now()

        def now(self) -> float:
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            return time.perf_counter()

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            stack = self.now() - self.since
            began = self.now()
            self.peer.step()
            plain = self.now() - began
            if trainer.global_step > UNTIMED:
                times["stack"].append(stack)
                times["plain"].append(plain)
            self.since = self.now()

    return Beside


def layers_that_fit(hidden: int, ffn: int, rows: int, free_bytes: float, tokens: int) -> int:
    """How many layers fit twice, once on each side, into 85 % of what is free.

    Weights, gradients and AdamW's state: Megatron 18 bytes a parameter (bf16 weight, fp32 gradient, main weight and two
    moments), the peer 16 (all fp32). Activations of both: some 34 x hidden bytes a token and layer (Korthikanti et al.
    2022, without the scores that flash attention does not keep), and the logits in fp32, three times.
    """
    states = 18 + 16
    fixed = 2 * rows * hidden * states + 2 * 3 * 4 * rows * tokens
    layer = (4 * hidden * hidden + 3 * hidden * ffn) * states + 2 * 34 * hidden * tokens
    return max(1, int((0.85 * free_bytes - fixed) // layer))


def gpu_type(name: str, gib: float) -> str:
    """The key of toolkit.hardware for a GPU as its driver calls it: the same chip and form, the nearest memory."""
    from toolkit.hardware import GPUS

    words = name.lower().replace("-", " ").split()
    same = [key for key in GPUS if key.split("_")[0] in words and key.endswith("pcie") == ("pcie" in words)]
    same = [key for key in same if key.endswith("nvl") == ("nvl" in words)] or same
    if not same:
        raise SystemExit(f"unknown GPU '{name}': give --gpu, or --peak-tflops")
    return min(same, key=lambda key: abs(GPUS[key].memory_gib - gib))


def job_for(args: argparse.Namespace, run: Any, folder: Path) -> Any:
    """The training of `pretrain_7b` on one device, cut to what `args` say."""
    from importlib.util import find_spec

    from toolkit import train
    from toolkit.recipe import compose
    from toolkit.stages.pretrain import shards_of
    from toolkit.stages.training import vocab_rows

    recipe = compose("pretrain_7b").recipe
    tiny, cpu = args.tiny or args.parity, args.device == "cpu"
    model = dataclasses.replace(recipe.model, **TINY) if tiny else recipe.model
    seq = 128 if tiny else recipe.train.seq_length
    rows, weights = 32_128, None  # 32,017, padded for one rank
    if args.parity:  # the demo's own shape: its weights are there
        model, weights = run.recipe.model, run.stage("import") / "checkpoint"
        rows = vocab_rows(weights)
    elif not cpu:
        import torch

        free, whole = torch.cuda.mem_get_info()
        if args.gpu is None and args.peak_tflops is None:
            args.gpu = gpu_type(torch.cuda.get_device_name(), whole / 2**30)
        fit = args.layers or layers_that_fit(model.hidden, model.ffn, rows, free, args.micro_batch * seq)
        model = dataclasses.replace(model, layers=min(fit, recipe.model.layers))
    shards = run.stage("shards") / "shards"
    steps = args.steps + (0 if args.parity else UNTIMED)
    settings: dict[str, Any] = {
        "steps": steps, "warmup_steps": 0, "seq_length": seq, "micro_batch": args.micro_batch,
        "global_batch": args.micro_batch * args.micro_batches, "save_every": 10_000, "valid_every": 10_000,
        "valid_full": False, "async_save": False, "precision": "fp32" if args.parity or cpu else "bf16",
        "layers": "te" if find_spec("transformer_engine") and not args.parity else "local", "attention": "auto",
    }  # fmt: skip
    return train.PretrainJob(
        folder=folder,
        model=model,
        parallel=dataclasses.replace(recipe.parallel, tp=1, pp=1, cp=1, vp=None, sequence=False, recompute="none"),
        train=dataclasses.replace(recipe.train, **settings),
        data=dataclasses.replace(recipe.data, workers=0),
        cluster=dataclasses.replace(
            recipe.cluster, device=args.device, nodes=1, devices_per_node=1, gpu=args.gpu, peak_tflops=args.peak_tflops
        ),
        vocab_rows=rows,
        tokenizer=shards / "tokenizer",
        weights=weights,
        **shards_of(shards, {}),
        guard=recipe.guard,
        watch=dataclasses.replace(recipe.watch, mfu="6n_causal"),
    )


def measure(args: argparse.Namespace, run: Any, folder: Path) -> dict[str, Any]:
    """Train in this process; with `--parity` the losses alone."""
    import nemo_run

    from toolkit import flops, hardware
    from toolkit.models import Shape
    from toolkit.train import engine, seams

    if args.device == "cpu":
        seams.install_nemo()
    job = job_for(args, run, folder)
    engine._prepare(job)
    from toolkit.train import nemo_recipe

    times: dict[str, list[float]] = {"stack": [], "plain": []}
    build = nemo_recipe.pretrain_recipe

    def with_peer(*given: Any) -> Any:
        made = build(*given)
        if not args.parity:
            made.trainer.callbacks.append(nemo_run.Config(beside(job, times, compiled=args.device != "cpu")))
        return made

    nemo_recipe.pretrain_recipe = with_peer
    engine.pretrain(job)
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    losses = [row["loss"] for row in map(json.loads, lines) if "loss" in row]
    if args.parity:
        return {"losses": losses}
    model = job.model
    shape = Shape(
        layers=model.layers, hidden=model.hidden, ffn=model.ffn, heads=model.heads, kv_heads=model.kv_heads,
        vocab=job.vocab_rows,
    )  # fmt: skip
    tokens = job.train.global_batch * job.train.seq_length
    needed = flops.per_token(shape, job.train.seq_length, "6n_causal")
    peak = None if args.device == "cpu" else hardware.peak_tflops(args.gpu, args.peak_tflops)
    made: dict[str, Any] = {
        "device": args.device, "layers": model.layers, "hidden": model.hidden, "tokens_per_step": tokens,
        "precision": job.train.precision, "engine_layers": job.train.layers, "last_loss": losses[-1],
    }  # fmt: skip
    for side, values in times.items():
        middle = statistics.median(values)
        made[side] = {"step_s": round(middle, 5), "tokens_per_s": round(tokens / middle, 1)}
        if peak is not None:
            made[side]["mfu_6n_causal"] = round(flops.mfu(tokens / middle, 1, peak, needed), 4)
    made["ratio"] = round(made["stack"]["tokens_per_s"] / made["plain"]["tokens_per_s"], 4)
    return made


def child(args: argparse.Namespace, run: Path, device: str) -> dict[str, Any]:
    """`measure` in a process of its own: the CPU's seams and a GPU do not go together."""
    words = [sys.executable, __file__, "--run", str(run), "--device", device, *args.given]
    env = dict(os.environ) | ({"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {})
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=env)
    if done.returncode != 0:
        raise SystemExit(done.stdout[-3000:] + done.stderr[-6000:])
    return json.loads(done.stdout.splitlines()[-1])


def prepared(root: Path, weights: bool) -> Any:
    """A run with the demo's tokenizer and shards, and with its base as a checkpoint where `weights` are asked for."""
    from toolkit.recipe import compose
    from toolkit.runs import create
    from toolkit.submit import execute

    stages = "corpus,base,shards,import" if weights else "corpus,base,shards"
    recipe = compose("demo", [f"runs={root}", f"stages=[{stages}]"]).recipe
    run = create(recipe, command=["bench_layers"], plan={})
    execute(run, quiet=True)
    return run


def alone() -> None:
    """torch.distributed's environment for one rank."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ranks = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "LOCAL_WORLD_SIZE": 1, "NODE_RANK": 0, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in ranks.items()} | {"MASTER_ADDR": "127.0.0.1"})


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--gpu", help="the GPU's type, for its peak: a key of toolkit.hardware (found by its name)")
    parser.add_argument("--peak-tflops", type=float, help="the GPU's dense bf16 peak, where its type is unknown")
    parser.add_argument("--layers", type=int, help="instead of as many as fit")
    parser.add_argument("--micro-batch", type=int, default=4)
    parser.add_argument("--micro-batches", type=int, default=4, help="a step")
    parser.add_argument("--steps", type=int, default=20, help="timed steps of each side")
    parser.add_argument("--parity", action="store_true", help="compare fp32 losses of GPU and CPU instead")
    parser.add_argument("--cpu", action="store_true", help="no GPU: on the CPU, uncompiled, fp32")
    parser.add_argument("--tiny", action="store_true", help="two narrow layers")
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--device", choices=("cpu", "gpu"), help=argparse.SUPPRESS)
    return parser


def main(argv: list[str] | None = None) -> int:
    args = options().parse_args(argv)
    args.given = list(sys.argv[1:] if argv is None else argv)
    if args.run is not None:
        from toolkit.runs import find

        alone()
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
            found = measure(args, find(str(args.run)), Path(folder))
        print(json.dumps(found), flush=True)
        return 0
    device = "cpu" if args.cpu else "gpu"
    with tempfile.TemporaryDirectory() as temporary:
        with contextlib.redirect_stdout(sys.stderr):
            run = prepared(Path(temporary), args.parity)
        if args.parity:
            here, there = child(args, run.path, device), child(args, run.path, "cpu")
            apart = max(abs(a - b) for a, b in zip(here["losses"], there["losses"], strict=True))
            found: dict[str, Any] = {"steps": len(here["losses"]), "losses_differ_by": apart, "bar": PARITY_BAR}
        else:
            found = child(args, run.path, device)
    if args.json:
        print(json.dumps(found))
    elif args.parity:
        print(
            f"fp32 losses of {device} and cpu over {found['steps']} steps: at most {apart:.1e} apart, bar {PARITY_BAR}"
        )
    else:
        print(f"{found['layers']} layers of width {found['hidden']} on one {device}, {found['precision']}")
        for side in ("stack", "plain"):
            row = found[side]
            used = f"   MFU (6N + causal) {row['mfu_6n_causal']:.1%}" if "mfu_6n_causal" in row else ""
            print(f"{side:6} {row['step_s'] * 1e3:9.1f} ms   {row['tokens_per_s']:10.0f} tokens/s{used}")
        print(f"ratio  {found['ratio']:.3f}   medians of {args.steps} steps, interleaved")
    return int(args.parity and found["losses_differ_by"] > PARITY_BAR)


if __name__ == "__main__":
    sys.exit(main())
