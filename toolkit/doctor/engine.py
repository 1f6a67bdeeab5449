"""Torch, the GPUs and the kernels: what answers of processes of their own amount to."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from toolkit import pins
from toolkit.doctor.asking import Answer, ask
from toolkit.doctor.finding import Finding, State
from toolkit.doctor.profiles import CUDA, Place

SECTION = "torch and its kernels"
_MOST_RANKS = 8
_NO_GPU = "no GPU is visible here"

Told = Callable[[str], None]


def look(
    where: Place, table: pins.Pins, packages: Mapping[str, Finding], *, limit_s: float, told: Told
) -> list[Finding]:
    """`packages` are the findings by name: a kernel is tried where its package could be imported."""
    if packages["torch"].state == "fault" and packages["torch"].found == "absent":
        return []
    answer = ask(["torch"], limit_s=limit_s, told=told)["torch"]
    if not answer.ok:
        return [_finding("torch-facts", "torch", f"cannot be asked ({answer.ending})", "fault", answer.why)]
    facts = answer.value
    found = [*_cuda(where, table, facts), _gpus(where, facts)]
    device = "cuda" if facts["gpus"] else "cpu"
    ranks = min(len(facts["gpus"]), _MOST_RANKS) if facts["gpus"] else 2
    tried = {"matmul": f"kernel matmul {device}", "attention": f"kernel attention {device}"}
    tried["allreduce"] = f"kernel allreduce {device} {ranks}"
    answers = ask(list(tried.values()), limit_s=limit_s, told=told)
    words = {
        "matmul": f"bf16 matrix product on the {_on(device)}",
        "attention": f"PyTorch's flash attention on the {_on(device)}",
        "allreduce": f"{'NCCL' if device == 'cuda' else 'gloo'} all-reduce, ranks: {ranks}",
    }
    found += [_kernel(key, words[key], answers[question]) for key, question in tried.items()]
    for key, package, what in (
        ("te", "transformer-engine", "Linear of Transformer Engine, forwards and backwards"),
        ("flash", "flash-attn", "flash-attn, forwards and backwards"),
        ("apex", "apex", "fused Adam of apex"),
    ):
        if package not in packages or packages[package].state in ("fault", "absent"):
            continue
        if device == "cpu":
            found.append(_finding(key, what, f"not tried: {_NO_GPU}", "absent"))
        else:
            question = f"kernel {key} {device}"
            found.append(_kernel(key, what, ask([question], limit_s=limit_s, told=told)[question]))
    return found


def _cuda(where: Place, table: pins.Pins, facts: Mapping[str, Any]) -> list[Finding]:
    if where.profile == "cpu" or (CUDA in where.without and facts["cuda"] is None):
        words = facts["cuda"] or "none, a CPU build"
        return [_finding("cuda", "CUDA that torch was built for", words, "ok" if facts["cuda"] is None else "warn")]
    container = table.gpu_image.get("container")
    want = str(container.get("cuda", "")) if where.profile == "train" and isinstance(container, dict) else ""
    found = facts["cuda"]
    if found is None:
        what = "torch's CPU build does not use GPUs: use the image, or install torch for CUDA"
        return [
            _finding("cuda", "CUDA that torch was built for", "none, a CPU build", "fault", what, wanted=want or "any")
        ]
    near = not want or pins.fits(found, want, leading=True)
    odd = "" if near else f"torch was built for CUDA {found}, the table says {want}: is it the pinned image?"
    rest = [
        _finding(key, name, _version(facts[key]), "ok" if facts[key] else "fault",
                 "" if facts[key] else f"this torch was built without {name}: trainings on GPUs need it")
        for key, name in (("nccl", "NCCL"), ("cudnn", "cuDNN"))
    ]  # fmt: skip
    return [_finding("cuda", "CUDA that torch was built for", found, "ok" if near else "warn", odd, wanted=want), *rest]


def _gpus(where: Place, facts: Mapping[str, Any]) -> Finding:
    gpus = facts["gpus"]
    if gpus:
        names = sorted({str(gpu["name"]) for gpu in gpus})
        return _finding("gpus", "GPUs", f"{len(gpus)} x {' and '.join(names)}", "ok", detail={"gpus": gpus})
    if facts["cuda"] and any(Path("/dev").glob("nvidia[0-9]*")):
        if os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1"):
            return _finding("gpus", "GPUs", "hidden by CUDA_VISIBLE_DEVICES", "warn", "unset CUDA_VISIBLE_DEVICES")
        why = facts.get("no_gpu", "")
        return _finding(
            "gpus", "GPUs", "in /dev, and not visible to torch", "fault",
            f"{why or 'torch does not say why'}: start the image with --nv; if it was, the driver is too old",
        )  # fmt: skip
    return _finding("gpus", "GPUs", "none here", "absent")


def _kernel(key: str, what: str, answer: Answer) -> Finding:
    if answer.ok:
        error = answer.value.get("error")
        found = "works" if error is None else f"works, off by {error:.1e}"
        return _finding(key, what, found, "ok", detail=answer.value)
    words = {"failed": "fails", "died": "ends its process", "hung": "hangs"}[answer.ending]
    do = {
        "matmul": "torch and this device do not go together: use the image",
        "attention": "torch and this device do not go together: use the image",
        "allreduce": "processes on this machine cannot meet: look at its loopback device, /dev/shm and NCCL_DEBUG=INFO",
    }.get(key, "build it again for this torch, CUDA and GPU, or use the image")
    return _finding(key, what, words, "fault", f"{answer.why}: {do}")


def _finding(
    key: str, what: str, found: str, state: State, remedy: str = "", *, wanted: str = "", detail: Mapping[str, Any] = {}
) -> Finding:
    return Finding(
        section=SECTION, key=key, what=what, found=found, wanted=wanted, state=state, remedy=remedy, detail=detail
    )


def _version(value: Any) -> str:
    if isinstance(value, int):  # cuDNN's 91002 is 9.10.2
        return f"{value // 10_000}.{value // 100 % 100}.{value % 100}" if value >= 10_000 else str(value)
    return str(value) if value else "absent"


def _on(device: str) -> str:
    return "GPU" if device == "cuda" else "CPU"
