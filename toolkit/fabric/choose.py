"""Which of a node's ports are its fabric, and which interface carries the sockets. Decides by link layer, rate,
nearness to GPUs and routes; a site that knows better names the ports itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from toolkit.errors import PreflightFailed
from toolkit.fabric import pci
from toolkit.fabric.model import ETHERNET, INFINIBAND, LINK_LAYERS, TITLES, Fabric, Netdev, Port
from toolkit.fabric.node import shares


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The fabric's ports, and of every other one why it is not of them."""

    ports: tuple[Port, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(port.name for port in self.ports)


def kind_of(fabric: Fabric) -> str:
    """`infiniband` where a port of it is active, else `roce`, else `none`: for a node of an unknown cluster."""
    layers = {port.link_layer for port in fabric.ports if port.active}
    return "infiniband" if INFINIBAND in layers else "roce" if ETHERNET in layers else "none"


def select(fabric: Fabric, kind: str, hca: Sequence[str] = ()) -> Selection:
    """The ports that a job's data takes on this node; none for kind `none`.

    `hca` names them, as `mlx5_0` or `mlx5_0:1`, whatever the rules below would say. Without it, of the active ports of
    the kind's link layer: no virtual functions where there are physical ones; those of the highest rate; where there
    are GPUs, those that are the nearest of some GPU (storage sits elsewhere); and not the one that carries the default
    route, unless it is the only one, or the only nearest one of some GPU.
    """
    left: dict[str, str] = {}
    ports = [port for port in fabric.ports if _fits(port, kind, left)]
    if kind == "none":
        return Selection(left_out=left)
    if hca:
        named = [port for port in ports if port.name in hca or port.device in hca]
        left |= {port.name: "not named in cluster.nccl.hca" for port in ports if port not in named}
        return Selection(ports=tuple(named), left_out=left)
    ports = _keep(ports, [p for p in ports if not p.virtual], left, "a virtual function beside physical ones")
    best = max((port.rate_gbps or 0.0 for port in ports), default=0.0)
    fast = [port for port in ports if (port.rate_gbps or 0.0) == best]
    ports = _keep(ports, fast, left, f"slower than the {best:g} Gb/s of others")
    near = nearest(fabric, ports)
    wanted = {name for names in near.values() for name in names}
    ports = _keep(ports, [p for p in ports if p.name in wanted], left, "no GPU's nearest, as storage is")
    netdevs = {dev.name: dev for dev in fabric.netdevs}
    routes = [dev for dev in fabric.netdevs if dev.default_metric is not None]
    only = {names[0] for names in near.values() if len(names) == 1}
    quiet = [p for p in ports if p.name in only or not any(shares(dev, p, netdevs) for dev in routes)]
    ports = _keep(ports, quiet, left, "carries the default route, as management does")
    return Selection(ports=tuple(ports), left_out=left)


def need(fabric: Fabric, kind: str, hca: Sequence[str] = ()) -> Selection:
    """`select`, or `PreflightFailed` when it finds none though the kind says that there is one, or not all of `hca`."""
    found = select(fabric, kind, hca)
    absent = [name for name in hca if not any(name in (port.name, port.device) for port in found.ports)]
    if kind == "none" or (found.ports and not absent):
        return found
    seen = "; ".join(f"{describe(port)}: {found.left_out.get(port.name, 'is of the fabric')}" for port in fabric.ports)
    raise PreflightFailed(
        f"no active {TITLES[kind]} port" + (f" {', '.join(absent)}, as cluster.nccl.hca names it" if absent else ""),
        where=fabric.node,
        why=f"found: {seen}" if seen else "there is no RDMA device in /sys/class/infiniband",
        do="check the node's cables and drivers, or state another cluster.fabric",
    )


def nearest(fabric: Fabric, ports: Sequence[Port]) -> dict[str, tuple[str, ...]]:
    """GPU -> the ports nearest to it: its rail, where it is one. {} where distances are unknown."""
    found = {}
    for gpu in fabric.gpus:
        far = {port.name: pci.DISTANCES.index(port.distances[gpu.pci]) for port in ports
               if port.distances.get(gpu.pci) in pci.DISTANCES}  # fmt: skip
        if far:
            found[gpu.pci] = tuple(name for name, rank in far.items() if rank == min(far.values()))
    return found


def sockets(fabric: Fabric) -> Netdev | None:
    """The interface for what goes over sockets: meeting, control and gloo.

    That of the default route (lowest metric), else one that is up and shares no hardware with RDMA, else any that is
    up; one with routes before one without, the faster before the slower.
    """
    routes = [dev for dev in fabric.netdevs if dev.default_metric is not None and dev.name != "lo"]
    if routes:
        return min(routes, key=lambda dev: (dev.default_metric or 0, dev.name))
    up = [dev for dev in fabric.netdevs if dev.up and (dev.pci or dev.parents or dev.routed)]
    up.sort(key=lambda dev: (bool(dev.rdma), not dev.routed, -(dev.speed_mbps or 0), dev.name))
    return up[0] if up else None


def ceiling_gb_s(fabric: Fabric, kind: str, hca: Sequence[str] = ()) -> float | None:
    """What the node's fabric carries each way at most, in GB/s (10^9 bytes): the rates of its ports, but of no slot
    more than its PCIe link does. None where there is no port or a rate is not told.
    """
    slots: dict[str, list[Port]] = defaultdict(list)
    for port in select(fabric, kind, hca).ports:
        slots[pci.slot(port.pci) or port.name].append(port)
    if not slots or any(port.rate_gbps is None for ports in slots.values() for port in ports):
        return None
    total = 0.0
    for ports in slots.values():
        rate = sum(port.rate_gbps or 0.0 for port in ports) / 8
        total += min([rate, *(port.pcie_gb_s for port in ports if port.pcie_gb_s is not None)])
    return total


def describe(port: Port) -> str:
    layer = TITLES["roce"] if port.link_layer == ETHERNET else port.link_layer or "of unknown link layer"
    rate = "rate unknown" if port.rate_gbps is None else f"{port.rate_gbps:g} Gb/s"
    return f"{port.name} ({layer}, {port.state or 'state unknown'}, {rate})"


def _fits(port: Port, kind: str, left: dict[str, str]) -> bool:
    if not port.active:
        why = f"{port.phys_state}, " if port.phys_state and port.phys_state != "LinkUp" else ""
        left[port.name] = f"not active ({why}{port.state or 'state unknown'})"
    elif kind == "none":
        left[port.name] = "cluster.fabric is none"
    elif port.link_layer != LINK_LAYERS[kind]:
        left[port.name] = f"{port.link_layer or 'unknown link layer'}, and the fabric is {TITLES[kind]}"
    else:
        return True
    return False


def _keep(ports: list[Port], kept: list[Port], left: dict[str, str], why: str) -> list[Port]:
    """`kept`, with the reason noted for the others; all of them where the rule would leave none."""
    if not kept:
        return ports
    left |= {port.name: why for port in ports if port not in kept}
    return kept
