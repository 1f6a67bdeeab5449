"""What an all-reduce should reach on a site's nodes, from its GPUs' links and the NICs that were found; and how large
its messages are. A site's own figures win.
"""

from __future__ import annotations

from toolkit.hardware import GPUS, node_bus_gb_s
from toolkit.preflight.localise import Limits
from toolkit.recipe.schema import Cluster

_GPU_OUTLIER, _CPU_OUTLIER = 0.7, 0.1  # processes that share a CPU with others may well differ fivefold
_GPU_MIB, _CPU_MIB = 1024, 8
_BITS = 8


def limits(site: Cluster, ceiling_gb_s: float | None) -> Limits:
    """`ceiling_gb_s` is what the fabric's NICs of one node carry in one direction, None where nobody knows: then the
    profile's `nics` x `nic_gbps`. A ring over nodes sends as much through a node's NICs as its bus bandwidth says, so
    that no more than they carry is expected of it, nor more than the GPUs' own links carry.
    """
    asked, gpu = site.preflight, site.device == "gpu"
    node = asked.node_gb_s
    if node is None and gpu:
        node = node_bus_gb_s(site.gpu, site.devices_per_node)
    between = None
    if gpu and site.fabric != "none":
        if ceiling_gb_s is None and site.nics and site.nic_gbps:
            ceiling_gb_s = site.nics * site.nic_gbps / _BITS
        known = GPUS.get(site.gpu or "")
        fed = site.devices_per_node * known.pcie_gb_s / 2 if known and known.pcie_gb_s else None
        between = min((one for one in (ceiling_gb_s, node, fed) if one is not None), default=None)
        between = None if ceiling_gb_s is None else between
    return Limits(
        node_gb_s=node,
        pair_gb_s=asked.pair_gb_s if asked.pair_gb_s is not None else between,
        all_gb_s=asked.all_gb_s if asked.all_gb_s is not None else between,
        fraction=asked.fraction,
        outlier=asked.outlier if asked.outlier is not None else (_GPU_OUTLIER if gpu else _CPU_OUTLIER),
    )


def size_bytes(site: Cluster) -> int:
    """Of the largest message."""
    default = _GPU_MIB if site.device == "gpu" else _CPU_MIB
    return (site.preflight.size_mib or default) << 20
