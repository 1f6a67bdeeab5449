"""What was detected, and how nodes differ, as tables for people. Decides the columns; values come from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from toolkit.fabric import choose, gid
from toolkit.fabric.compare import Difference
from toolkit.fabric.model import TITLES, Fabric, Port


def fabric(found: Fabric, kind: str, hca: Sequence[str] = ()) -> str:
    """A node: its ports with the part each has, its interfaces, its GPUs with their nearest ports."""
    selection = choose.select(found, kind, hca)
    sockets = choose.sockets(found)
    ceiling = choose.ceiling_gb_s(found, kind, hca)
    carries = "" if ceiling is None else f", {ceiling:g} GB/s each way"
    ways = [name for name, there in (("nvidia_peermem", found.peermem), ("DMA-BUF", found.dmabuf)) if there]
    parts = [
        f"node {found.node}: fabric {TITLES.get(kind, 'none')}, {len(selection.ports)} ports{carries}",
        f"GPUDirect RDMA: {', '.join(ways) or 'not available, it seems'}; kernel {found.kernel or 'unknown'}"
        + "".join(f", {name} {version}" for name, version in found.drivers.items()),
    ]
    if found.ports:
        head = ("port", "state", "link", "Gb/s", "netdev", "MTU", "NUMA", "PCI", "firmware", "GID", "errors", "part")
        rows = [_port(port, selection) for port in found.ports]
        parts += ["", table(head, rows)]
    tables = [row for port in selection.ports for row in _gids(port)]
    if tables and kind == "roce":
        parts += ["", table(("port", "GID", "address", "RoCE", "netdev", ""), tables)]
    if found.netdevs:
        rows = [
            (
                *(
                    dev.name,
                    dev.state or "-",
                    _or(dev.mtu),
                    "-" if not dev.speed_mbps else f"{dev.speed_mbps / 1000:g}",
                ),
                *(_or(dev.vlan), ",".join(dev.parents) or "-", ",".join(dev.rdma) or "-"),
                "default" if dev.default_metric is not None else "yes" if dev.routed else "-",
                "sockets" if dev == sockets else "",
            )
            for dev in found.netdevs
        ]
        parts += ["", table(("interface", "state", "MTU", "Gb/s", "VLAN", "over", "RDMA", "route", "part"), rows)]
    if found.gpus:
        near = choose.nearest(found, selection.ports)
        far = {port.name: port.distances for port in selection.ports}
        rows = [
            (
                gpu.pci,
                _or(gpu.numa),
                " ".join(f"{name} ({far[name][gpu.pci]})" for name in near.get(gpu.pci, ())) or "-",
            )
            for gpu in found.gpus
        ]
        parts += ["", table(("GPU", "NUMA", "nearest ports"), rows)]
    return "\n".join([*parts, *(f"note: {problem}" for problem in found.problems)])


def differences(found: Iterable[Difference]) -> str:
    rows = [
        (one.level, one.node, one.what, one.value, ("as many have " if one.tie else "") + one.others) for one in found
    ]
    return table(("level", "node", "what", "is", "others"), rows)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their longest word."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = ("  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)) for row in [head, *rows])
    return "\n".join(line.rstrip() for line in lines)


def _port(port: Port, selection: choose.Selection) -> tuple[str, ...]:
    errors = sum(count for name, count in port.counters.items() if not name.startswith(("np_", "rp_")))
    return (
        *(port.name, port.state or "-", TITLES["roce"] if port.link_layer == "Ethernet" else port.link_layer or "-"),
        *("-" if port.rate_gbps is None else f"{port.rate_gbps:g}", ",".join(port.netdevs) or "-", _or(port.mtu)),
        *(_or(port.numa), port.pci or "-", port.firmware or "-", _or(port.gid_index), str(errors)),
        selection.left_out.get(port.name, "fabric"),
    )


def _gids(port: Port) -> list[tuple[str, ...]]:
    return [
        (
            *(port.name, str(slot.index), gid.shown(slot), "-" if slot.version is None else f"v{slot.version}"),
            *(slot.netdev or "-", "NCCL's own choice" if slot.index == port.gid_index else ""),
        )
        for slot in port.gids[:32]
    ]


def _or(value: object) -> str:
    return "-" if value is None else str(value)
