"""All that a preflight found, put together: faults by node, warnings, and which nodes to keep away from.

Decides what of that which the nodes wrote is believed, and when a fault is the job's own; measures nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolkit import fabric
from toolkit.fabric import Fabric
from toolkit.preflight import expected, health, nics
from toolkit.preflight.bandwidth import Bandwidth
from toolkit.preflight.judge import Fault
from toolkit.preflight.localise import Limits, Verdict, verdict
from toolkit.recipe.schema import Cluster

_LARGEST = 8 << 20
_MOST_WORDS = 300


@dataclass(frozen=True, kw_only=True)
class Nodes:
    """What nodes said of themselves before their ranks began: facts of the host, fabric, errors; by node."""

    hosts: Mapping[str, Any] = field(default_factory=dict)
    fabrics: Mapping[str, Fabric] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)
    images: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    faults: tuple[Fault, ...]
    warnings: tuple[Fault, ...]
    exclude: tuple[str, ...]
    verdict: Verdict | None = None
    limits: Limits | None = None


def read(folder: Path) -> Nodes:
    """The files NODE.json in `folder`; what of them is damaged is left out, and its node has an error."""
    hosts, fabrics, errors, images = {}, {}, {}, {}
    for path in sorted(folder.glob("*.json")):
        node = path.stem
        try:
            if path.stat().st_size > _LARGEST:
                raise ValueError("it is too large")
            told = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(told, dict):
                raise ValueError("it is no JSON object")
        except (OSError, ValueError, RecursionError) as err:
            errors[node] = f"what it said of itself cannot be read: {err}"[:_MOST_WORDS]
            continue
        if isinstance(told.get("error"), str) and told["error"].strip():
            errors[node] = " ".join(told["error"].split())[:_MOST_WORDS]
        if isinstance(told.get("host"), dict):
            hosts[node] = told["host"]
        if isinstance(told.get("image"), str):
            images[node] = told["image"][:_MOST_WORDS]
        seen = fabric.from_dict(told.get("fabric"))
        if seen is not None:
            fabrics[node] = seen
    return Nodes(hosts=hosts, fabrics=fabrics, errors=errors, images=images)


def limits(nodes: Nodes, site: Cluster) -> Limits:
    return expected.limits(site, nics.ceiling_gb_s(nodes.fabrics, site))


def judge(
    met: Sequence[Fault], warned: Sequence[Fault], nodes: Nodes, band: Bandwidth | None, site: Cluster, everyone: int
) -> Outcome:
    """`met` and `warned` are of the meeting; `everyone` is how many nodes the job has."""
    faults, warnings = list(met), list(warned)
    faults += [Fault(node=node, what=what) for node, what in nodes.errors.items()]
    blind = {fault.node for fault in met if "GPUs in /dev" in fault.what}
    hosts = {node: {k: v for k, v in told.items() if node not in blind or k not in ("gpu", "dcgm")}
             for node, told in nodes.hosts.items()}  # fmt: skip
    rdma = site.device == "gpu" and site.fabric != "none"
    passive = [health.judge(hosts, site, rdma=rdma), nics.judge(nodes.fabrics, site)]
    found, asked = None, None
    if band is not None:
        asked = limits(nodes, site)
        found = verdict(band.alone, band.pairs, band.everyone, asked)
        faults += [Fault(node=node, what=what) for node, what in found.faults]
        warnings += [Fault(node="", what=note) for note in band.notes]
        passive.append(nics.grown(nodes.fabrics, band.counters, site))
    for some, others in passive:
        # A node that was refused its NCCL values says the same of itself.
        faults += [fault for fault in some if fault.what.partition(";")[0] not in nodes.errors.get(fault.node, "")]
        warnings += others
    bad = sorted({fault.node for fault in faults if fault.node} | set(found.exclude if found else ()))
    shared = len(bad) * 2 > everyone
    if bad and shared and everyone > 1:
        what = f"{len(bad)} of {everyone} nodes have faults, which is rather the job's or the site's: none is excluded"
        warnings.append(Fault(node="", what=what))
    return Outcome(
        faults=tuple(dict.fromkeys(faults)),
        warnings=tuple(dict.fromkeys(warnings)),
        exclude=() if shared else tuple(bad),
        verdict=found,
        limits=asked,
    )
