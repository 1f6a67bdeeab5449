"""The rules for what a recipe says of its fabric: numbers that NCCL takes, and names that end up in an environment.

Decides which variables a recipe may set there. It is written to disk, so no secret may be among them, nor anything that
changes what is run.
"""

from __future__ import annotations

import re

from toolkit.errors import RecipeError
from toolkit.recipe.schema import Cluster, Nccl

# NCCL's documentation ("Environment Variables") and the fields of the InfiniBand headers they end up in.
_RANGES = {
    "gid_index": (0, 1023),
    "traffic_class": (0, 255),
    "service_level": (0, 15),
    "qps": (1, 128),
    "timeout": (1, 31),
    "retry": (0, 7),
    "cross_nic": (0, 2),
}
# Variables that have a key of their own; "" for those that follow from others.
KEYS = {
    "NCCL_IB_DISABLE": "cluster.fabric",
    "NCCL_IB_HCA": "cluster.nccl.hca",
    "NCCL_SOCKET_IFNAME": "cluster.nccl.sockets",
    "GLOO_SOCKET_IFNAME": "cluster.nccl.sockets",
    "NCCL_IB_GID_INDEX": "cluster.nccl.gid_index",
    "NCCL_IB_TC": "cluster.nccl.traffic_class",
    "NCCL_IB_SL": "cluster.nccl.service_level",
    "NCCL_IB_QPS_PER_CONNECTION": "cluster.nccl.qps",
    "NCCL_IB_TIMEOUT": "cluster.nccl.timeout",
    "NCCL_IB_RETRY_CNT": "cluster.nccl.retry",
    "NCCL_NET_GDR_LEVEL": "cluster.nccl.gdr_level",
    "NCCL_CROSS_NIC": "cluster.nccl.cross_nic",
    "UCX_NET_DEVICES": "cluster.nccl.ucx",
    "CUDA_DEVICE_MAX_CONNECTIONS": "parallel.cuda_connections",
}
_PORT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}(:[1-9][0-9]?)?")
_NETDEV = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,14}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_RUNS = re.compile(r"LD_.*|PATH|PYTHON.*|.*_PATH|BASH_.*|ENV|IFS|HOME|SHELL|TMPDIR|APPTAINER.*|SINGULARITY.*|SLURM.*")
_RANKS = re.compile(r"RANK|LOCAL_RANK|NODE_RANK|WORLD_SIZE|MASTER_ADDR|MASTER_PORT|CUDA_VISIBLE_DEVICES")
_SECRET = re.compile(r"KEY.*|.*(TOKEN|SECRET|PASSW|CREDENTIAL|API_?KEY|_KEYS?$).*", re.IGNORECASE)
# Apptainer (1.4.5) writes what an --env-file gives it into a script of its own, between double quotes: $, ` and \ are
# read as a shell's there, and a ' arrives with a backslash. A " does arrive, but that is not relied on. Everything else
# that prints arrives as it was.
_CHANGED = frozenset("'\"$`\\")


def fits(value: str) -> bool:
    """Whether a value arrives in an image as it stands in an environment file."""
    return value.isprintable() and not _CHANGED & set(value)


def check(site: Cluster, where: str = "") -> None:
    """Raise `RecipeError` for the first rule that does not hold."""
    nccl = site.nccl
    for name, (least, most) in _RANGES.items():
        value = getattr(nccl, name)
        if value is not None and not least <= value <= most:
            _refuse(f"cluster.nccl.{name}={value} must lie between {least} and {most}", where, "NCCL takes no other")
    _lists(nccl, where)
    for name, value in nccl.env.items():
        _variable(name, value, nccl, where)


def _lists(nccl: Nccl, where: str) -> None:
    for key, words, form, do in (
        ("hca", nccl.hca, _PORT, "name a device or one of its ports: mlx5_0, mlx5_0:1"),
        ("sockets", nccl.sockets, _NETDEV, "name an interface exactly: eno1"),
    ):
        for index, word in enumerate(words):
            if not form.fullmatch(word):
                _refuse(f"cluster.nccl.{key}[{index}]={word!r} is no name of one", where, do)


def _variable(name: str, value: str, nccl: Nccl, where: str) -> None:
    told = f"cluster.nccl.env.{name}"
    if not _VARIABLE.fullmatch(name):
        _refuse(f"{told} is no name of a variable", where, "letters, digits and _ only")
    if name == "NCCL_NET" and nccl.required:
        _refuse(f"{told} does not go with cluster.nccl.required, which asks for NCCL's own IB", where,
                "cluster.nccl.required=false beside it, for a plugin's network")  # fmt: skip
    if name in KEYS:
        _refuse(f"{told} has a key of its own", where, f"use {KEYS[name]}")
    if _RUNS.fullmatch(name) or _RANKS.fullmatch(name):
        _refuse(f"{told} would change what is run, or where", where, "it is for variables of NCCL and its transports")
    if _SECRET.match(name):
        _refuse(f"{told} looks like a secret, and a recipe is written to the run's folder", where,
                "set it in the environment of the job")  # fmt: skip
    if not fits(value) or len(value) > 1000:
        _refuse(f"{told}={value[:40]!r} would not reach an image as it is", where, "give text that prints, without "
                "quotes, $, ` and \\")  # fmt: skip


def _refuse(what: str, where: str, do: str) -> None:
    raise RecipeError(what, where=where, do=do)
