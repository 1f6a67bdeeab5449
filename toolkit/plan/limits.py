"""What saving and restarting a training takes on a site, and whether the site's limits let it come to its end.

Decides what an attempt under a time limit must hold and what a budget of GPU-hours covers; the rhythm of saves is
`goodput`'s, the words of a refusal `promise`'s to collect.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from toolkit import hardware
from toolkit.plan import disk, goodput, trainings
from toolkit.plan.goodput import Saving
from toolkit.recipe.schema import Cluster, Recipe, Train

_PCIE_GB_S = 64.0  # both directions together, where it is not known
_LEAST_STALL_S = 1.0  # the ranks agree on who writes what


@dataclass(frozen=True, kw_only=True)
class Broken:
    """A limit that a training cannot keep: the number that is too large, why, and the cheapest change that would do."""

    what: str
    why: str
    do: str


def saving(recipe: Recipe, stage: str, *, gpus: int | None = None) -> Saving:
    """Of the training that `stage` does, on so many GPUs: the recipe's when not given.

    A checkpoint is written at the site's rate. In the background the training waits only until every rank has its part
    in the host's memory, at half of what PCIe carries in one direction.
    """
    site = recipe.cluster
    own = site.nodes * site.devices_per_node
    gpus = own if gpus is None else gpus
    size = disk.checkpoints(recipe, stage).checkpoint_bytes
    write_s = size / 1e9 / disk_gb_s(site, gpus)
    stall_s = write_s
    if recipe.train.async_save and site.device == "gpu":
        known = hardware.GPUS.get(site.gpu or "")
        copies = (known and known.pcie_gb_s or _PCIE_GB_S) / 4
        stall_s = min(write_s, max(_LEAST_STALL_S, size / 1e9 / gpus / copies))
    return Saving(
        stall_s=stall_s,
        write_s=write_s,
        restart_s=60 * site.restart_min + write_s,  # it is read as fast as it is written
        mtbf_s=goodput.mtbf_s(gpus, site.failures_per_gpu_hour),
    )


def disk_gb_s(site: Cluster, gpus: int) -> float:
    """What the nodes of so many GPUs write together: as stated, else what was published, for each node."""
    if site.disk_gb_s is not None:
        return site.disk_gb_s
    return goodput.DISK_GB_S_A_NODE * max(1, gpus / site.devices_per_node)


def share(recipe: Recipe, train: Train, saves: Saving, step_s: float) -> float:
    """The share of the time that is progress, at the recipe's own rhythm, with failures and with the restarts that the
    time limit brings.
    """
    interval = min(train.save_every, train.steps) * step_s
    kept = goodput.expected(saves, interval)
    if recipe.cluster.time_limit_min is None:
        return kept
    lost = saves.restart_s + saves.write_s
    return kept * max(0.0, 1 - lost / (60 * recipe.cluster.time_limit_min))


def attempt(recipe: Recipe, stage: str, step_s: float) -> Broken | None:
    """Whether an attempt under the site's time limit gets further than the one before it.

    It does when it starts, trains a step and is asked to save early enough for that, or when it comes to the next save
    by itself.
    """
    site, train = recipe.cluster, trainings.settings(recipe, stage)
    if site.time_limit_min is None:
        return None
    saves, limit, before = saving(recipe, stage), 60 * site.time_limit_min, site.alive.signal_before_s
    start, write = saves.restart_s, saves.write_s
    own = min(train.save_every, train.steps)
    by_itself = start + own * step_s + write
    when_asked = start + step_s + before if step_s + write <= before else math.inf
    if limit >= min(by_itself, when_asked):
        return None
    most = math.floor((limit - start - write) / step_s)
    section = "finetune" if stage == "finetune" else "train"
    longer = f"cluster.time_limit_min={math.ceil(min(by_itself, when_asked) / 60)}"
    if most >= 1:
        what = f"{section}.save_every={own} takes {_minutes(own * step_s)}, and an attempt has {_minutes(limit)}"
        do = f"{section}.save_every={most}, or {longer}"
    else:
        what = f"a start, one step and a save take {_minutes(start + step_s + write)}, and an attempt {_minutes(limit)}"
        do = longer
    return Broken(
        what=f"{stage}: {what}",
        why=f"it starts in {_minutes(start)} and writes a checkpoint in {_minutes(write)}, so no attempt would leave "
        "the next one anything",
        do=do,
    )


def budget(recipe: Recipe, gpu_hours: float, pretrain_gpu_hours: float) -> Broken | None:
    """Whether the allocation covers so many GPU-hours, of which the pretraining takes a part."""
    most = recipe.cluster.max_gpu_hours
    if most is None or gpu_hours <= most:
        return None
    rest = most - (gpu_hours - pretrain_gpu_hours)
    fits = math.floor(recipe.train.steps * rest / pretrain_gpu_hours) if pretrain_gpu_hours else 0
    return Broken(
        what=f"{gpu_hours:,.0f} GPU-hours are more than cluster.max_gpu_hours={most:,.0f}",
        why="failures and restarts are counted in",
        do=f"train.steps={fits} would fit" if fits >= 1 else "ask for a larger allocation, or leave trainings out",
    )


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:,.1f} min" if seconds < 36_000 else f"{seconds / 3600:,.1f} h"
