"""Small kernels of what a training computes with, each held against plain PyTorch in fp32. Runs in a process of its
own.

Decides sizes and tolerances; raises `Wrong` where a result is another. Takes "cuda" or "cpu"; what has no CPU code
raises its own error there.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_BF16 = 0.02  # relative; bf16 has 8 bits, and the sums here are short
_FP32 = 1e-5


class Wrong(Exception):
    """A kernel ran, and its numbers are others than PyTorch's."""


def matmul(device: str) -> dict[str, Any]:
    """A product in bf16."""
    import torch

    a, b = _random(torch, (128, 256), 1), _random(torch, (256, 64), 2)
    return _near("bf16 matmul", (a.to(device) @ b.to(device)).cpu(), a.float() @ b.float(), _BF16)


def attention(device: str) -> dict[str, Any]:
    """PyTorch's own flash attention, which train.layers=local computes with."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    q, k, v = (_random(torch, (2, 4, 64, 64), seed) for seed in (1, 2, 3))
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        out = torch.nn.functional.scaled_dot_product_attention(q.to(device), k.to(device), v.to(device), is_causal=True)
    return _near("flash attention of PyTorch", out.cpu(), _attention(torch, q, k, v), _BF16)


def te(device: str) -> dict[str, Any]:
    """Transformer Engine's Linear, forwards and backwards."""
    import torch
    import transformer_engine.pytorch as te_torch

    torch.manual_seed(1)
    layer = te_torch.Linear(256, 128, bias=True, params_dtype=torch.bfloat16).to(device)
    given, back = _random(torch, (64, 256), 2), _random(torch, (64, 128), 3)
    x = given.clone().to(device).requires_grad_()
    out = layer(x)
    out.backward(back.to(device))
    weight, bias = layer.weight.detach().cpu().float(), layer.bias.detach().cpu().float()
    near = _near("Linear of Transformer Engine", out.detach().cpu(), given.float() @ weight.T + bias, _BF16)
    _near("its gradient of the input", x.grad.cpu(), back.float() @ weight, _BF16)
    _near("its gradient of the weight", layer.weight.grad.cpu(), back.float().T @ given.float(), _BF16)
    return near


def flash(device: str) -> dict[str, Any]:
    """flash-attn's causal attention, forwards and backwards."""
    import torch
    from flash_attn import flash_attn_func

    q, k, v = (_random(torch, (2, 64, 4, 64), seed) for seed in (1, 2, 3))  # [b, s, heads, d]
    there = [tensor.clone().to(device).requires_grad_() for tensor in (q, k, v)]
    here = [tensor.float().transpose(1, 2).requires_grad_() for tensor in (q, k, v)]
    out, wanted = flash_attn_func(*there, causal=True), _attention(torch, *here)
    out.float().sum().backward()
    wanted.sum().backward()
    near = _near("flash-attn", out.detach().cpu(), wanted.detach().transpose(1, 2), _BF16)
    for name, a, b in zip("qkv", there, here, strict=True):
        _near(f"its gradient of {name}", a.grad.cpu(), b.grad.transpose(1, 2), 2 * _BF16)
    return near


def apex(device: str) -> dict[str, Any]:
    """NVIDIA apex's fused Adam, three steps of it."""
    import torch
    from apex.optimizers import FusedAdam

    start = _random(torch, (64, 32), 1).float()
    mine, theirs = (torch.nn.Parameter(start.clone().to(where)) for where in ("cpu", device))
    settings: dict[str, Any] = {"lr": 0.01, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}
    one, other = torch.optim.AdamW([mine], **settings), FusedAdam([theirs], adam_w_mode=True, **settings)
    for step in range(3):
        gradient = _random(torch, (64, 32), 10 + step).float()
        mine.grad, theirs.grad = gradient, gradient.to(device)
        one.step()
        other.step()
    return _near("FusedAdam of apex", theirs.detach().cpu(), mine.detach(), _FP32)


def allreduce(device: str, ranks: str) -> dict[str, Any]:
    """A sum over ranks on this machine: NCCL with a GPU each, gloo on CPUs."""
    backend = "nccl" if device == "cuda" else "gloo"
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            # These ranks meet on this machine alone; what its fabric needs is another matter.
            "GLOO_SOCKET_IFNAME": "lo",
            "NCCL_SOCKET_IFNAME": "lo",
            "OMP_NUM_THREADS": "1",
        }
        children = []
        for rank in range(int(ranks)):
            with open(Path(folder, f"words-{rank}"), "wb") as words:
                children.append(
                    subprocess.Popen(
                        [sys.executable, "-c", _RANK, backend, str(Path(folder, "meet")), str(rank), ranks],
                        stdin=subprocess.DEVNULL, stdout=words, stderr=words, env=environment,
                    )
                )  # fmt: skip
        # The first that fails leaves the others waiting for it; whoever asked ends them all.
        while any(child.poll() is None for child in children) and not any(child.poll() for child in children):
            time.sleep(0.05)
        failed = [rank for rank, child in enumerate(children) if child.poll()]
        if failed:
            said = Path(folder, f"words-{failed[0]}").read_text(encoding="utf-8", errors="replace").split("\n")
            last = [line.strip() for line in said if line.strip()][-1:]
            raise Wrong(f"rank {failed[0]} of {ranks} ended with {children[failed[0]].poll()}: {' '.join(last)}")
    return {"backend": backend, "ranks": int(ranks)}


_RANK = """
import os, sys, torch
backend, path, rank, world = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
device = "cpu"
if backend == "nccl":
    torch.cuda.set_device(rank)
    device = f"cuda:{rank}"
torch.distributed.init_process_group(backend, init_method="file://" + path, rank=rank, world_size=world)
given = torch.full((1 << 16,), float(rank + 1), device=device)
torch.distributed.all_reduce(given)
wanted = world * (world + 1) / 2
if not bool((given == wanted).all()):
    print(f"rank {rank}: sum {given[0].item()} instead of {wanted}", file=sys.stderr)
    os._exit(3)
torch.distributed.barrier()
torch.distributed.destroy_process_group()
"""

KERNELS: dict[str, Callable[..., dict[str, Any]]] = {
    "matmul": matmul,
    "attention": attention,
    "te": te,
    "flash": flash,
    "apex": apex,
    "allreduce": allreduce,
}


def _random(torch: Any, shape: tuple[int, ...], seed: int) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(torch.bfloat16)


def _attention(torch: Any, q: Any, k: Any, v: Any) -> Any:
    """[b, heads, s, d] in fp32, written out."""
    q, k, v = (tensor.float() for tensor in (q, k, v))
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    ahead = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    return scores.masked_fill(ahead, float("-inf")).softmax(-1) @ v


def _near(what: str, found: Any, wanted: Any, limit: float) -> dict[str, Any]:
    """The largest difference as a share of the largest value; raises `Wrong` above `limit`, and for NaN."""
    if tuple(found.shape) != tuple(wanted.shape):
        raise Wrong(f"{what}: shape {tuple(found.shape)} instead of {tuple(wanted.shape)}")
    error = ((found.float() - wanted.float()).abs().max() / wanted.float().abs().max()).item()
    if not error <= limit:
        raise Wrong(f"{what}: off by {error:.2g} of its largest value, {limit:g} is allowed")
    return {"error": error, "limit": limit}
