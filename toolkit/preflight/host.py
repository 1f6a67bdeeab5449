"""What a node's host tells before its ranks start: GPUs by their driver, DCGM's diagnosis, memory, scratch.

Decides which programs are asked and how long they may take; runs on the host, outside the image, once a node, and
never fails: what cannot be read is told as such. What is a fault is `health`'s.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import re
import resource
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from toolkit.preflight import dcgmi, nvidia_smi
from toolkit.recipe.schema import Cluster, Recipe

_SMI_S = 60.0  # without persistence mode each call wakes the driver up, seconds a GPU
# dcgmi diag by level: DCGM's documentation gives seconds, 2 minutes, 30 minutes and 1 to 2 hours.
_DCGM_S = {1: 180.0, 2: 900.0, 3: 3600.0, 4: 10_800.0}
_KIB, _GIB = 1 << 10, 1 << 30
SHM = Path("/dev/shm")


def limit_s(recipe: Recipe) -> float:
    """How long `facts` may take on a node, at most."""
    return 60.0 + (_SMI_S + _DCGM_S.get(recipe.cluster.preflight.dcgm, 0.0)) * (recipe.cluster.device == "gpu")


def facts(recipe: Recipe, *, env: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """What this host is like, as JSON: {kernel, memlock_kib (null: unlimited), shm_gib, scratch, gpu, dcgm}."""
    site = recipe.cluster
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    found: dict[str, Any] = {
        "kernel": platform.release(),
        "memlock_kib": None if soft == resource.RLIM_INFINITY else soft // _KIB,
        "shm_gib": _size_gib(SHM),
        "scratch": _scratch(site, env),
    }
    if site.device == "gpu":
        found["gpu"] = _gpu()
        if site.preflight.dcgm:
            found["dcgm"] = _dcgm(site.preflight.dcgm)
    return found


def _gpu() -> dict[str, Any]:
    said, problem = _ask(nvidia_smi.COMMAND, _SMI_S)
    try:
        report = dataclasses.asdict(nvidia_smi.read(said))
    except ValueError as err:
        return {"error": problem or str(err), "gpus": []}
    return {"error": problem, **report}


def _dcgm(level: int) -> dict[str, Any]:
    """dcgmi's exit code says no more than that a test failed or that a setting is not as it likes it."""
    said, problem = _ask(("dcgmi", "diag", "-r", str(level), "-j"), _DCGM_S[level])
    try:
        return {"error": "", "level": level, **dataclasses.asdict(dcgmi.read(said))}
    except ValueError as err:
        return {"error": problem or str(err), "level": level, "findings": []}


def _ask(command: Sequence[str], seconds: float) -> tuple[str, str]:
    """(what it printed, why it cannot be believed or '')."""
    name = command[0]
    try:
        done = subprocess.run(
            list(command), capture_output=True, timeout=seconds, stdin=subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
    except FileNotFoundError:
        return "", f"there is no {name} on this host"
    except subprocess.TimeoutExpired:
        return "", f"{name} gave no answer within {seconds:.0f} s"
    except OSError as err:
        return "", f"{name} cannot be started: {err.strerror or err}"
    said = done.stdout.decode("utf-8", errors="replace")
    if done.returncode and not said.strip():
        words = " ".join(done.stderr.decode("utf-8", errors="replace").split())[:200]
        return "", f"{name} ended with {done.returncode}{': ' + words if words else ''}"
    return said, ""


def _size_gib(path: Path) -> float | None:
    try:
        stat = os.statvfs(path)
    except OSError:
        return None
    return round(stat.f_frsize * stat.f_blocks / _GIB, 3)


def _scratch(site: Cluster, env: Mapping[str, str]) -> dict[str, Any] | None:
    """Room where the jobs' TMPDIR will be; its folder for this job need not be there yet."""
    if site.scratch is None:
        return None
    path = Path(re.sub(r"\$(\w+)", lambda match: env.get(match[1], "0"), site.scratch))
    there = next(folder for folder in [path, *path.parents] if folder.is_dir())
    try:
        stat = os.statvfs(there)
        room = stat.f_frsize * stat.f_bavail / _GIB
    except OSError as err:
        return {"path": str(path), "free_gib": None, "error": err.strerror or str(err)}
    if there == Path("/"):
        return {"path": str(path), "free_gib": None, "error": "there is no such folder, nor one above it"}
    error = "" if os.access(there, os.W_OK | os.X_OK) else f"nothing may be written to {there}"
    return {"path": str(path), "free_gib": round(room, 3), "error": error}
