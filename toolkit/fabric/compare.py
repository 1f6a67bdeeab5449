"""How the nodes of a job differ in their fabric. Decides what is compared and that the majority is the norm; whether a
node is kept out is for others.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from toolkit.fabric import choose, gid
from toolkit.fabric.model import ETHERNET, Fabric, Port

Level = Literal["fault", "warning"]
_ACTIVE = "ACTIVE"
_INDEX = "the GID index"
# Of a port that is active, and of a node.
_PORT_FACTS: tuple[tuple[Level, str], ...] = (
    ("fault", "the link layer"),
    ("fault", "the rate"),
    ("fault", "the MTU"),
    ("fault", "the address"),
    ("warning", _INDEX),
    ("fault", "the VLAN"),
    ("warning", "the PCIe link"),
    ("warning", "the way to the GPUs"),
    ("warning", "the firmware"),
)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """`node` has `value` where the others have `others`.

    `level` is `fault` for what slows or stops a job, else `warning`. `tie`: as many nodes have the one as the other, so
    nobody can say which of them is wrong.
    """

    node: str
    what: str
    value: str
    others: str
    level: Level = "fault"
    tie: bool = False

    def __str__(self) -> str:
        has = "as many nodes have" if self.tie else "the others have"
        return f"{self.node}: {self.what} is {self.value}, {has} {self.others}"


def differences(
    fabrics: Mapping[str, Fabric], kind: str, hca: Sequence[str] = (), *, pinned: bool = False
) -> tuple[Difference, ...]:
    """Every difference between nodes, faults before warnings, then by node's name. `hca` as in `choose.select`.

    `pinned`: NCCL is told one GID index for all nodes, so that a node where the same address has another is a fault;
    else each NIC's own is found there, and it is only worth a word.

    A value that most nodes have is the norm, and who has another differs. Of two values that as many have, both are
    told of, as a tie. A port that is down or missing is a fault however many it is so on, if it is active on one.
    """
    chosen = {node: choose.select(fabric, kind, hca).names for node, fabric in fabrics.items()}
    ports = _common(chosen)
    most = max((len(names) for names in chosen.values()), default=0)
    facts: dict[tuple[Level, str], dict[str, str]] = defaultdict(dict)
    for node, fabric in fabrics.items():
        others = chosen[node] if len(chosen[node]) == most else ()
        for (level, what), value in _facts(fabric, kind, ports, others).items():
            if value:
                facts["fault" if pinned and what.startswith(_INDEX) else level, what][node] = value
    found = [one for (level, what), values in facts.items() for one in _odd(level, what, values)]
    return tuple(sorted(found, key=lambda one: (one.level == "warning", one.node)))


def _common(chosen: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The fabric's ports by name: those that most nodes have chosen that have any; where as many have others, both."""
    groups = Counter(names for names in chosen.values() if names)
    most = max(groups.values(), default=0)
    return tuple(dict.fromkeys(name for group, count in groups.items() if count == most for name in group))


def _facts(fabric: Fabric, kind: str, names: Sequence[str], own: Sequence[str]) -> dict[tuple[Level, str], str]:
    """(level, what) -> value, '' for what cannot be said. `own` are its ports where it has as many as any node."""
    ports = {port.name: port for port in fabric.ports}
    found: dict[tuple[Level, str], str] = {}
    for name in names:
        port = ports.get(name)
        # Of a port that is missing or down, the rest is not worth saying.
        told = _port(port, kind, fabric) if port is not None and port.active else {}
        renamed = port is None and own and name not in own
        state = f"missing (it has {', '.join(own)})" if renamed else "missing" if port is None else port.state
        found["fault", f"port {name}"] = state or "in no state that is known"
        for level, what in _PORT_FACTS:
            found[level, f"{what} of {name}"] = told.get(what, "")
    dev = choose.sockets(fabric)
    found["warning", "the interface for sockets"] = "none" if dev is None else dev.name
    found["warning", "the MTU for sockets"] = "" if dev is None or dev.mtu is None else str(dev.mtu)
    way = "nvidia_peermem" if fabric.peermem else "DMA-BUF" if fabric.dmabuf else "not available"
    found["warning", "GPUDirect RDMA"] = way if fabric.gpus else ""
    for module in ("nvidia", "mlx5_core"):
        found["warning", f"the driver {module}"] = fabric.drivers.get(module, "")
    found["warning", "the kernel"] = fabric.kernel
    return found


def _port(port: Port, kind: str, fabric: Fabric) -> dict[str, str]:
    told = {
        "the link layer": port.link_layer or "unknown",
        "the rate": "unknown" if port.rate_gbps is None else f"{port.rate_gbps:g} Gb/s",
        "the PCIe link": "" if port.pcie_gb_s is None else f"{port.pcie_gb_s:.1f} GB/s",
        "the way to the GPUs": "/".join(far for _, far in sorted(port.distances.items())),
        "the firmware": port.firmware,
    }
    if kind != "roce" or port.link_layer != ETHERNET:
        return told  # InfiniBand has an MTU of its own, which sysfs does not tell, and GIDs that NCCL does not choose
    told["the MTU"] = "" if port.mtu is None else str(port.mtu)
    slot = gid.at(port.gids, port.gid_index)
    if slot is None or not gid.usable(slot):
        return {**told, "the address": "none that reaches another node"}
    version = "" if slot.version is None else f", RoCE v{slot.version}"
    address = {"ipv4": "IPv4", "ipv6": "IPv6"}[gid.family(slot)]
    vlan = next((dev.vlan for dev in fabric.netdevs if dev.name == slot.netdev), None)
    return {
        **told,
        "the address": f"{address}{version}",
        _INDEX: str(slot.index),
        "the VLAN": "none" if vlan is None else str(vlan),
    }


def _odd(level: Level, what: str, values: Mapping[str, str]) -> list[Difference]:
    """Those that have another value than most; in a tie all that take part, with what the other groups have."""
    counts = Counter(values.values())
    if len(counts) < 2:
        return []
    most = max(counts.values())
    norm = sorted(value for value, count in counts.items() if count == most)
    if _ACTIVE in counts and not any(value.startswith("missing (") for value in norm):
        norm = [_ACTIVE]
    found = []
    for node, value in values.items():
        if norm != [value]:
            others = " or ".join(other for other in norm if other != value)
            tie = value in norm
            found.append(Difference(node=node, what=what, value=value, others=others, level=level, tie=tie))
    return found
