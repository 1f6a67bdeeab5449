"""Stage preflight: every rank of the job meets the others where a training's would; rank 0 says which node is not fit.

It makes no output that another stage reads: its result holds for the nodes of one attempt alone.
"""

from __future__ import annotations

import os

from toolkit import files, preflight
from toolkit.errors import PreflightFailed, UsageError
from toolkit.preflight.meeting import LIMIT_S
from toolkit.stages.context import Context, Result

LIMIT = "MEDITRON_PREFLIGHT_LIMIT_S"
_MOST_NAMED = 8


def run(context: Context) -> Result:
    cluster = context.recipe.cluster
    wanted = preflight.Wanted(
        world=context.layout.world,
        per_node=cluster.devices_per_node,
        gpu=cluster.device == "gpu",
        rdma=cluster.device == "gpu" and cluster.fabric != "none",
    )
    own = preflight.gather(gpu=wanted.gpu)
    heard, why = preflight.meet(own, folder=context.folder, limit_s=_limit_s())
    if heard is None:
        if why:
            raise PreflightFailed(
                f"rank {own.rank} cannot meet the others",
                where=own.node,
                why=why,
                do="see rank 0's log for what it heard; all ranks must reach that address",
            )
        return Result(outputs={})
    found = preflight.faults(heard.told, wanted, heard.unheard)
    warned = preflight.warnings(heard.told, wanted)
    files.write_json(context.folder / "preflight.json", preflight.as_dict(heard.told, found, warned))
    print(preflight.table(heard.told, found, warned), flush=True)
    if found:
        raise _failure(found)
    return Result(outputs={}, figures={"ranks": len(heard.told), "nodes": len({f.node for f in heard.told})})


def _failure(found: list[preflight.Fault]) -> PreflightFailed:
    nodes = list(dict.fromkeys(fault.node for fault in found if fault.node))
    more = f"; and {len(found) - _MOST_NAMED} more in preflight.json" if len(found) > _MOST_NAMED else ""
    leave = f", or leave the node out: sbatch --exclude={','.join(nodes)}" if 0 < len(nodes) <= _MOST_NAMED else ""
    return PreflightFailed(
        f"{len(found)} fault{'s' if len(found) > 1 else ''}",
        where=", ".join(nodes[:_MOST_NAMED]) or "preflight",
        why="; ".join(map(str, found[:_MOST_NAMED])) + more,
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
