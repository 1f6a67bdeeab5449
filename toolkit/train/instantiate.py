"""The real model, wrappers and optimizer of a training's ranks, built on the meta device to be looked at.

Decides what stands in for what a host without GPUs lacks (`STOOD_IN`, `FOR_TE`); NeMo and Megatron-core decide the
rest as they do in a training. Replaces process-wide names: call it in a process of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from toolkit.errors import MissingPackage, PlanRefused

if TYPE_CHECKING:
    from toolkit.train.job import PretrainJob

Ranks = Literal["distinct", "all"]

STOOD_IN = {
    "process group": "torch's fake backend: every group is made, no message is sent",
    "device": "meta: shapes and types of every tensor, no memory",
    "gloo groups": "off: they carry checkpoints alone",
}
FOR_TE = {
    "layers": "Megatron's own in place of Transformer Engine's: the same weights in the same shapes",
    "fused rotary positions": "off: Transformer Engine brings them",
}


def instantiate(job: PretrainJob, *, ranks: Ranks = "distinct") -> dict[str, Any]:
    """Build what each rank of the job's layout would hold, and say what was found there; nothing is written.

    `ranks`: those that differ (tensor rank 0, every pipeline and data rank), or all. Returns plain values: "ranks" (one
    dict each: parameters, layers by chunk, elements in the optimizer's shard), "parameters" (of the whole model: shards
    added, what tensor ranks repeat counted once, padding rows included), "micro_batches", "groups" (ranks that rank 0
    shares a group with), "built" (fields of the built objects of rank 0). Raises `MissingPackage`, and `PlanRefused`
    with NeMo's words when it refuses the recipe.
    """
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # a GPU would get the whole model
    try:
        from toolkit.train import seams

        seams.install_nemo("meta")
        from toolkit.train import built
    except ModuleNotFoundError as err:
        raise MissingPackage(
            f"{err.name} is not installed here",
            why="the model of every rank is built by NeMo and Megatron-core themselves",
            do="run it in the environment or image that trains",
        ) from err
    found: list[dict[str, Any]] = []
    for rank in chosen(job, ranks):
        try:
            with built.rank(job, rank) as made:
                found.append(built.look(made))
                if rank == 0:
                    first = built.of_rank_0(made)
        except (ValueError, AssertionError, RuntimeError, TypeError) as err:
            raise PlanRefused(
                f"NeMo does not build rank {rank}", where=job.model.name, why=f"{type(err).__name__}: {err}"
            ) from err
    stood_in = STOOD_IN | (FOR_TE if job.train.layers == "te" and not job.on_cpu else {})
    return {"world": world(job), **first, "parameters": total(job, found), "ranks": found, "stood_in": stood_in}


def world(job: PretrainJob) -> int:
    return job.cluster.nodes * job.cluster.devices_per_node


def chosen(job: PretrainJob, ranks: Ranks) -> Iterator[int]:
    """Tensor ranks lie next to each other, so each `tp`-th rank is tensor rank 0."""
    yield from range(0, world(job), 1 if ranks == "all" else job.parallel.tp)


def total(job: PretrainJob, found: list[dict[str, Any]]) -> int:
    """Each weight of the model once: the ranks of one replica, shards of all tensor ranks, repeated ones of the first.

    With tensor rank 0 alone its shards stand for those of the others.
    """
    replica = [one for one in found if one["dp"] == 0 and one["cp"] == 0]
    times = 1 if any(one["tp"] for one in replica) else job.parallel.tp
    return sum(one["sharded"] * times + (one["repeated"] if one["tp"] == 0 else 0) for one in replica)
