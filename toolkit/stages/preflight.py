"""Stage preflight: every rank of the job meets the others where a training's would, and measures the ways between them;
rank 0 says which node is not fit.

It makes no output that another stage reads: its result holds for the nodes of one attempt alone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toolkit import fabric, files, preflight
from toolkit.errors import PreflightFailed, UsageError
from toolkit.hardware import GPUS
from toolkit.preflight import expected, nics, outcome
from toolkit.preflight.meeting import LIMIT_S
from toolkit.recipe.schema import Cluster
from toolkit.stages.context import Context, Result

LIMIT = "MEDITRON_PREFLIGHT_LIMIT_S"
SYSFS = "MEDITRON_SYSFS"  # another root than /sys, for trees that are made up
NODES = "nodes"  # what each node said of itself, NODE.json
_MOST_NAMED = 8
_SMALL_GIB = 40.0  # of a GPU: nccl-tests hold three buffers of the largest message


def run(context: Context) -> Result:
    cluster = context.recipe.cluster
    wanted = preflight.Wanted(
        world=context.layout.world,
        per_node=cluster.devices_per_node,
        gpu=cluster.device == "gpu",
        rdma=cluster.device == "gpu" and cluster.fabric != "none",
    )
    own = preflight.gather(gpu=wanted.gpu)
    hands = preflight.Hands(own, gpu=wanted.gpu, counters=_counters)
    try:
        heard, why = preflight.meet(
            own,
            folder=context.folder,
            limit_s=_limit_s(),
            obey=hands,
            lead=(lambda table: lead(table, wanted, cluster, context.folder / NODES))
            if cluster.preflight.bandwidth
            else None,
        )
    finally:
        hands.close()
    if heard is None:
        if why:
            raise PreflightFailed(
                f"rank {own.rank} cannot meet the others",
                where=own.node,
                why=why,
                do="see rank 0's log for what it heard; all ranks must reach that address",
            )
        return Result(outputs={})
    met = preflight.faults(heard.told, wanted, heard.unheard)
    nodes = outcome.read(context.folder / NODES)
    found = outcome.judge(
        met, preflight.warnings(heard.told, wanted), nodes, heard.led, cluster, wanted.world // wanted.per_node
    )
    files.write_json(context.folder / "preflight.json", preflight.as_dict(heard.told, found, nodes, heard.led))
    print(preflight.table(heard.told, found, heard.led), flush=True)
    if found.faults:
        raise _failure(found)
    return Result(outputs={}, figures=_figures(heard))


def lead(
    table: preflight.Table, wanted: preflight.Wanted, cluster: Cluster, folder: Path
) -> preflight.Bandwidth | None:
    """Rank 0's part of the measuring; None where no node is whole."""
    members = preflight.measurable(table.told, wanted)
    if not members:
        return None
    asked, known = cluster.preflight, GPUS.get(cluster.gpu or "")
    plan = preflight.Plan(
        gpu=wanted.gpu,
        per_node=wanted.per_node,
        size_bytes=expected.size_bytes(cluster),
        limits=outcome.limits(outcome.read(folder), cluster),
        limit_s=asked.limit_s,
        start_s=asked.start_s,
        rounds=asked.rounds,
        perf_mib=1024 if known is not None and known.memory_gib < _SMALL_GIB else 4096,
    )
    stay_s = preflight.budget_s(plan, len(members))
    print(f"measuring on {len(members)} x {wanted.per_node} ranks", flush=True)
    return preflight.measure(lambda orders, limit_s: table.ask(orders, limit_s, stay_s), members, table.hosts, plan)


def _counters() -> Mapping[str, Any]:
    """What this node's NICs have counted by now. An image shows the host's /sys."""
    return nics.counters(fabric.detect(Path(os.environ.get(SYSFS) or "/sys")))


def _figures(heard: preflight.Meeting) -> dict[str, Any]:
    figures: dict[str, Any] = {"ranks": len(heard.told), "nodes": len({f.node for f in heard.told})}
    if heard.led is not None:
        rates = [one.gb_s for one in heard.led.pairs.values() if one.gb_s is not None]
        figures |= {"slowest_pair_gb_s": round(min(rates), 3)} if rates else {}
        everyone = heard.led.everyone
        figures |= {"all_gb_s": round(everyone.gb_s, 3)} if everyone is not None and everyone.gb_s else {}
    return figures


def _failure(found: preflight.Outcome) -> PreflightFailed:
    faults = found.faults
    nodes = list(dict.fromkeys(fault.node for fault in faults if fault.node))
    more = f"; and {len(faults) - _MOST_NAMED} more in preflight.json" if len(faults) > _MOST_NAMED else ""
    leave = f", or leave the node out: sbatch --exclude={','.join(nodes)}" if 0 < len(nodes) <= _MOST_NAMED else ""
    if found.exclude:
        leave = "; later jobs of this launcher keep away from the node until a preflight finds it fit"
    return PreflightFailed(
        f"{len(faults)} fault{'s' if len(faults) > 1 else ''}",
        where=", ".join(nodes[:_MOST_NAMED]) or "preflight",
        why="; ".join(map(str, faults[:_MOST_NAMED])) + more,
        do=f"mend what is named{leave}",
    )


def _limit_s() -> float:
    given = os.environ.get(LIMIT, "").strip()
    try:
        limit = float(given or LIMIT_S)
        if 1 <= limit <= 86_400:
            return limit
    except ValueError:
        pass
    raise UsageError(f"{LIMIT}={given} is no number of seconds from 1 to 86400", do=f"leave it out for {LIMIT_S:g}")
