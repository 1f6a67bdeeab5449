"""The rules for what a recipe says of its site and its container: sizes, and words that end up in scripts.

Decides which words are harmless there: nothing of a recipe is ever read as code by a shell or as an option by sbatch
that the toolkit sets itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from toolkit.errors import RecipeError
from toolkit.recipe import fabric
from toolkit.recipe.schema import Apptainer, Cluster, Container, Recipe

SIGNAL = "USR2"  # not USR1, which NCCL takes for itself
_LONGEST_WARNING_S = 65_535  # sbatch(1), --signal: an integer between 0 and 65535
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.,:@+/=-]*")
_MODULE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+@:/-]*")
_VARIABLES = ("SLURM_JOB_ID", "SLURM_ARRAY_TASK_ID", "USER")
_LOCAL = re.compile(r"/(?:[A-Za-z0-9_./@+-]|\$USER(?![A-Za-z0-9_]))*")
_SCRATCH = re.compile(rf"/(?:[A-Za-z0-9_./@+-]|\$(?:{'|'.join(_VARIABLES)})(?![A-Za-z0-9_]))*")
_OPTION = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
# Options of sbatch that the toolkit sets from the plan, or that would make it something else than a queued script.
_OURS: Mapping[str, str] = {
    "job-name": "the recipe's name and the stage",
    "partition": "cluster.partition",
    "account": "cluster.account",
    "qos": "cluster.qos",
    "time": "cluster.time_limit_min",
    "nodes": "cluster.nodes",
    "ntasks-per-node": "cluster.devices_per_node",
    "cpus-per-task": "cluster.cpus_per_device",
    "gpus-per-node": "cluster.devices_per_node and cluster.gres",
    "mem": "cluster.mem_gib",
    "exclusive": "cluster.exclusive",
    "signal": "cluster.alive.signal_before_s",
    **dict.fromkeys(["array", "chdir", "dependency", "kill-on-invalid-dep", "output", "requeue"], ""),
    **dict.fromkeys(["error", "input", "no-requeue", "ntasks", "open-mode", "wrap"], ""),
    **dict.fromkeys(["batch", "clusters", "export", "export-file", "get-user-env", "gid", "uid"], ""),
    **dict.fromkeys(["help", "hold", "parsable", "quiet", "test-only", "usage", "version", "wait"], ""),
}


def check(recipe: Recipe, where: str = "") -> None:
    """Raise `RecipeError` for the first rule that does not hold."""
    _sizes(recipe.cluster, where)
    _words(recipe.cluster, where)
    for key, part in (("cluster.sbatch", recipe.cluster), ("cluster.small.sbatch", recipe.cluster.small)):
        for name, value in (part.sbatch or {}).items():
            _option(key, name, value, where)
    _container(recipe.container, recipe.cluster.apptainer, where)
    fabric.check(recipe.cluster, where)


def _refuse(what: str, where: str, do: str) -> None:
    raise RecipeError(what, where=where, do=do)


def _sizes(site: Cluster, where: str) -> None:
    least: dict[str, tuple[Any, float]] = {
        "cluster.cpus_per_device": (site.cpus_per_device, 1),
        "cluster.mem_gib": (site.mem_gib, 0),
        "cluster.nics": (site.nics, 1),
        "cluster.nic_gbps": (site.nic_gbps, 1),
        "cluster.small.cpus": (site.small.cpus, 1),
        "cluster.small.mem_gib": (site.small.mem_gib, 0),
        "cluster.small.devices": (site.small.devices, 0),
        "cluster.small.time_limit_min": (site.small.time_limit_min, 1),
        "cluster.small.array_parallelism": (site.small.array_parallelism, 1),
        "cluster.alive.signal_before_s": (site.alive.signal_before_s, 1),
        "cluster.alive.hang_s": (site.alive.hang_s, 1),
        "cluster.alive.start_s": (site.alive.start_s, 1),
        "cluster.alive.idle_attempts": (site.alive.idle_attempts, 1),
        "cluster.alive.strikes": (site.alive.strikes, 1),
        "cluster.alive.look_s": (site.alive.look_s, 1),
    }
    for key, (value, limit) in least.items():
        if value is not None and value < limit:
            _refuse(f"{key} is {value}", where, f"give {limit:g} or more")
    before, limit_min = site.alive.signal_before_s, site.time_limit_min
    if before > _LONGEST_WARNING_S:
        _refuse(f"cluster.alive.signal_before_s is {before}", where, f"sbatch takes at most {_LONGEST_WARNING_S}")
    if limit_min is not None and before >= 60 * limit_min:
        _refuse(
            f"cluster.alive.signal_before_s={before} leaves nothing of cluster.time_limit_min={limit_min}",
            where,
            "training runs from the start of a job until so many seconds before its end",
        )


def _words(site: Cluster, where: str) -> None:
    named = {
        **{f"cluster.{name}": getattr(site, name) for name in ("partition", "account", "qos", "gres")},
        "cluster.small.partition": site.small.partition,
    }
    for key, word in named.items():
        if word is not None and not _WORD.fullmatch(word):
            _refuse(f"{key}={word!r} is no name that Slurm has", where, "letters, digits and _ . , : @ + / = - only")
    for index, name in enumerate(site.modules):
        if not _MODULE.fullmatch(name):
            do = "letters, digits and _ . + @ : / - only; one name an entry"
            _refuse(f"cluster.modules[{index}]={name!r} is no name of a module", where, do)
    if site.scratch is not None and not _SCRATCH.fullmatch(site.scratch):
        _refuse(
            f"cluster.scratch={site.scratch!r} is no folder that a script can name",
            where,
            "an absolute path of letters, digits and _ . / @ + -; of variables it may name "
            + ", ".join(f"${name}" for name in _VARIABLES),
        )


def _option(key: str, name: Any, value: Any, where: str) -> None:
    told = f"{key}.{name}"
    if not isinstance(name, str) or not _OPTION.fullmatch(name):
        _refuse(f"{told} is no option of sbatch", where, "write it as sbatch does, without --, such as mail-type")
    if name in _OURS:
        _refuse(
            f"{told}: the toolkit sets --{name} itself", where, f"use {_OURS[name]}" if _OURS[name] else "leave it out"
        )
    fine = isinstance(value, (int, float, str)) and value is not False
    if not fine or (isinstance(value, str) and not _printed(value)):
        do = "give text or a number, or true for an option without a value"
        _refuse(f"{told}={value!r} cannot be given to sbatch", where, do)


def _printed(text: str) -> bool:
    """Whether sbatch takes the text as it is, once quoted: it reads a backslash as a mark even then."""
    return bool(text) and text.isprintable() and "\\" not in text


def _container(box: Container, site: Apptainer, where: str) -> None:
    named = {"cluster.apptainer.command": site.command, "container.image": box.image, "container.python": box.python}
    named |= {f"cluster.apptainer.binds[{i}]": bind for i, bind in enumerate(site.binds)}
    named |= {f"cluster.apptainer.options[{i}]": option for i, option in enumerate(site.options)}
    for key, word in named.items():
        if word is not None and (not word or not word.isprintable()):
            _refuse(f"{key}={word!r} cannot be a word of a command", where, "give text that prints")
    for key, word in (("cluster.apptainer.command", site.command), ("container.image", box.image)):
        if word is not None and word.startswith("-"):
            _refuse(f"{key}={word!r} would be read as an option", where, "give a path")
    if site.local is not None and (not _LOCAL.fullmatch(site.local) or "/../" in f"{site.local}/"):
        _refuse(
            f"cluster.apptainer.local={site.local!r} is no folder that every node has",
            where,
            "an absolute path of letters, digits and _ . / @ + -, such as /local/$USER/images; it outlives the job",
        )
    if site.options and not site.options[0].startswith("-"):
        _refuse(
            f"cluster.apptainer.options[0]={site.options[0]!r} is no option",
            where,
            "begin with one, such as --no-privs",
        )
