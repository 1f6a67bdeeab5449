"""What a rank tells of itself and of the node it is on. Decides the values and their units; judges none of them."""

from __future__ import annotations

import dataclasses
import os
import platform
import re
import resource
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import toolkit
from toolkit.errors import PreflightFailed

_KIB = 1024


@dataclass(frozen=True, kw_only=True)
class Facts:
    """One rank. `gpus` are those in /dev, `visible` is CUDA_VISIBLE_DEVICES; None: not looked for, not set.

    `clock_offset_s` is this clock less that of rank 0, as exact as half of `round_trip_s`.
    """

    rank: int
    local_rank: int
    node_rank: int
    world: int
    node: str  # as Slurm calls it, else the host's name
    master: str  # address:port
    job: str = ""  # id and restart of the Slurm job; empty outside
    nodelist: str = ""
    pid: int = 0
    gpus: int | None = None
    visible: str | None = None
    memlock_kib: int | None = None  # None: unlimited
    version: str = ""
    python: str = ""
    clock_offset_s: float = 0.0
    round_trip_s: float = 0.0
    sees_folder: bool = False


def gather(*, gpu: bool, env: Mapping[str, str] = os.environ) -> Facts:
    """This process's own facts. Raises `PreflightFailed` when its environment is not that of a rank."""
    node = env.get("SLURMD_NODENAME") or socket.gethostname()
    try:
        numbers = {name: int(env[name]) for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_PORT")}
        master = env["MASTER_ADDR"]
    except (KeyError, ValueError) as err:
        what = f"lacks {err.args[0]}" if isinstance(err, KeyError) else f"holds no number where one must be: {err}"
        raise PreflightFailed(
            f"the environment of a rank {what}", where=node, do="start it as a stage of a run: recipe=preflight"
        ) from None
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    restart = env.get("SLURM_RESTART_COUNT") or "0"
    return Facts(
        rank=numbers["RANK"],
        local_rank=numbers["LOCAL_RANK"],
        node_rank=numbers["NODE_RANK"],
        world=numbers["WORLD_SIZE"],
        node=node,
        master=f"{master}:{numbers['MASTER_PORT']}",
        job=f"{env['SLURM_JOB_ID']}.{restart}" if env.get("SLURM_JOB_ID") else "",
        nodelist=env.get("SLURM_JOB_NODELIST") or env.get("SLURM_NODELIST") or "",
        pid=os.getpid(),
        gpus=_gpus_in_dev() if gpu else None,
        visible=env.get("CUDA_VISIBLE_DEVICES") if gpu else None,
        memlock_kib=None if soft == resource.RLIM_INFINITY else soft // _KIB,
        version=toolkit.__version__,
        python=platform.python_version(),
    )


def read(value: Any) -> Facts | None:
    """Facts from another rank's JSON; None for anything else, since whoever can reach the port may send it."""
    if not isinstance(value, dict):
        return None
    made = {}
    for field in dataclasses.fields(Facts):
        given = value.get(field.name, field.default)
        kinds = str(field.type).split(" | ")
        fits = {"int": int, "float": (int, float), "str": str, "bool": bool}
        whole = isinstance(given, fits[kinds[0]]) and (kinds[0] == "bool" or not isinstance(given, bool))
        if not whole and not (given is None and "None" in kinds):
            return None
        made[field.name] = given[:500] if isinstance(given, str) else given
    return Facts(**made)


def _gpus_in_dev() -> int:
    return sum(re.fullmatch(r"nvidia\d+", path.name) is not None for path in Path("/dev").iterdir())
