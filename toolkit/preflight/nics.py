"""What the nodes' fabrics say: ports that are missing, nodes that differ, errors that NICs counted meanwhile; and what
the NICs of a node carry. Decides what of it is a fault; what a fabric is and how nodes are compared is `fabric`'s.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from toolkit import fabric
from toolkit.errors import PreflightFailed
from toolkit.fabric import Fabric
from toolkit.preflight.judge import Fault
from toolkit.recipe.schema import Cluster

# Of a port that healthy hardware does not count, each once enough, or only so many; the others may grow by load alone:
# retransmissions where packets get lost or come out of order, and congestion notices.
_NEVER = ("link_downed", "link_error_recovery")
_FEW = (
    *("symbol_error", "port_rcv_errors", "port_rcv_remote_physical_errors", "local_link_integrity_errors"),
    *("excessive_buffer_overrun_errors", "rx_icrc_encapsulated"),
)
_RETRIES = ("local_ack_timeout_err", "packet_seq_err", "implied_nak_seq_err", "rnr_nak_retry_err")


def judge(fabrics: Mapping[str, Fabric], site: Cluster) -> tuple[list[Fault], list[Fault]]:
    """(faults, warnings): of each node against the profile, then of the nodes against each other."""
    found: list[Fault] = []
    warned: list[Fault] = []
    kind, hca = site.fabric, site.nccl.hca
    for node, seen in sorted(fabrics.items()):
        try:
            ports = fabric.need(seen, kind, hca).ports
        except PreflightFailed as err:
            found.append(Fault(node=node, what=f"{err.what}; {err.why}"[:300]))
            continue
        slow = [port for port in ports if site.nic_gbps and (port.rate_gbps or 0.0) < site.nic_gbps]
        if kind != "none" and site.nics and len(ports) < site.nics:
            names = ", ".join(port.name for port in ports)
            found.append(Fault(node=node, what=f"{len(ports)} of {site.nics} fabric ports are active: {names}"))
        if kind != "none" and slow:
            told = ", ".join(f"{port.name} {port.rate_gbps or 0:g} Gb/s" for port in slow)
            found.append(Fault(node=node, what=f"{told}, where the profile says {site.nic_gbps} Gb/s"))
    for one in fabric.differences(fabrics, kind, hca, pinned=fabric.pinned(site.nccl)):
        what = str(one).removeprefix(f"{one.node}: ")
        # Of a tie nobody knows who is wrong, so that no node is named for it.
        fault = Fault(node="", what=str(one)) if one.tie else Fault(node=one.node, what=what)
        (found if one.level == "fault" else warned).append(fault)
    return found, warned


def ceiling_gb_s(fabrics: Mapping[str, Fabric], site: Cluster) -> float | None:
    """What the NICs of a node carry in one direction on most nodes, the most of those in a tie; GB/s."""
    seen = Counter(
        carried
        for one in fabrics.values()
        if (carried := fabric.ceiling_gb_s(one, site.fabric, site.nccl.hca)) is not None
    )
    return max(seen, key=lambda carried: (seen[carried], carried), default=None)


def counters(seen: Fabric) -> dict[str, dict[str, int]]:
    """What the ports have counted, {port: {name: count}}."""
    return {port.name: dict(port.counters) for port in seen.ports if port.active}


def grown(before: Mapping[str, Fabric], after: Mapping[str, Any], site: Cluster) -> tuple[list[Fault], list[Fault]]:
    """(faults, warnings) of errors counted since `before`; `after` is {node: what `counters` gave there}."""
    found: list[Fault] = []
    warned: list[Fault] = []
    for node, seen in sorted(before.items()):
        later = after.get(node)
        for port, counts in counters(seen).items():
            now = later.get(port) if isinstance(later, dict) else None
            for name, count in counts.items():
                value = now.get(name) if isinstance(now, dict) else None
                more = value - count if isinstance(value, int) and not isinstance(value, bool) else 0
                fault = Fault(node=node, what=f"{port} counted {more:,} x {name} during the preflight")
                if (name in _NEVER and more > 0) or (name in _FEW and more > site.preflight.counters):
                    found.append(fault)
                elif name in _RETRIES and more > site.preflight.counters:
                    warned.append(fault)
    return found, warned
