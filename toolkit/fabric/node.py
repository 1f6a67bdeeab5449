"""What a node's /sys and /proc tell of its fabric. Decides how files become facts; which port is the fabric's and what
NCCL is told is decided elsewhere.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from toolkit.fabric import gid, pci
from toolkit.fabric import sysfs as read
from toolkit.fabric.model import ETHERNET, Fabric, Gid, Gpu, Netdev, Port

_MOST_DEVICES = 256
_MOST_PORTS = 16
_MOST_GIDS = 1024
_NVIDIA = 0x10DE
# What a RoCE packet carries besides its payload: the kernel's iboe_get_mtu takes 40 bytes for the address, 8 for UDP,
# 12 for the base header, 4 and 28 for the longest extensions and 4 for the checksum.
_ROCE_HEADERS = 96
_IB_MTUS = (4096, 2048, 1024, 512, 256)
# Errors that a healthy fabric does not count, or hardly (Linux: Documentation/ABI/stable/sysfs-class-infiniband, and
# the counters of mlx5).
_COUNTERS = {
    "counters": (
        *("symbol_error", "link_error_recovery", "link_downed", "port_rcv_errors", "port_rcv_remote_physical_errors"),
        *("port_xmit_discards", "local_link_integrity_errors", "excessive_buffer_overrun_errors"),
    ),
    "hw_counters": (
        *("out_of_sequence", "packet_seq_err", "local_ack_timeout_err", "implied_nak_seq_err", "rnr_nak_retry_err"),
        *("rx_icrc_encapsulated", "roce_adp_retrans", "np_cnp_sent", "rp_cnp_handled", "np_ecn_marked_roce_packets"),
    ),
}
_MODULES = ("nvidia", "mlx5_core", "mlx5_ib", "ib_core")
_PEERMEM = ("module/nvidia_peermem", "module/nv_peer_mem", "kernel/mm/memory_peers/nv_mem")
_DMABUF_KERNEL = (5, 12)  # the first with DMA-BUF in its RDMA core


def detect(sysfs: Path = Path("/sys"), *, proc: Path = Path("/proc"), node: str = "") -> Fabric:
    """The fabric of the node whose /sys and /proc these are. Never raises for what is or is not there.

    `node` names it; without one, the host's own name.
    """
    root, problems = Path(sysfs), []
    netdevs = _netdevs(root, Path(proc))
    gpus, paths = _gpus(root)
    ports: list[Port] = []
    folder = root / "class" / "infiniband"
    for device in read.names(folder, _MOST_DEVICES):
        found = _ports(folder / device, netdevs, problems)
        if not found:
            problems.append(f"{device} has no ports")
        function = read.real(folder / device / "device")
        mine = pci.path_of(function)
        distances = {g.pci: pci.distance(mine, paths[g.pci], (_numa(function), g.numa)) for g in gpus} if mine else {}
        ports += [replace(port, distances=distances) for port in found]
    for part in ("class/infiniband", "class/net"):
        if passed := read.strange(root / part):
            problems.append(f"{passed} entries of {part} have names that no device has; they were passed over")
    return Fabric(
        node=node or socket.gethostname(),
        ports=tuple(ports),
        netdevs=_with_rdma(netdevs, ports),
        gpus=gpus,
        kernel=read.text(Path(proc) / "sys/kernel/osrelease"),
        drivers={name: found for name in _MODULES if (found := read.text(root / "module" / name / "version"))},
        peermem=any(read.is_there(root / part) for part in _PEERMEM),
        dmabuf=_dmabuf(Path(proc)),
        problems=tuple(problems),
    )


def _ports(device: Path, netdevs: Mapping[str, Netdev], problems: list[str]) -> list[Port]:
    function = read.real(device / "device")
    beside = [name for name in read.names(device / "device" / "net") if name in netdevs]
    numbers = [name for name in read.names(device / "ports", _MOST_PORTS) if re.fullmatch(r"[1-9][0-9]?", name)]
    found = []
    for number in numbers:
        folder = device / "ports" / number
        link_layer = read.text(folder / "link_layer")
        gids = _gids(folder, device.name, problems)
        choice = gid.choice(gids) if link_layer == ETHERNET else None
        # A function with several ports has an interface for each, told apart by its dev_port.
        own = [name for name in beside if _dev_port(device, name) == int(number) - 1] if len(numbers) > 1 else beside
        named = [slot.netdev for slot in sorted(gids, key=lambda slot: slot.index != choice) if slot.netdev]
        names = tuple(dict.fromkeys([*named, *own]))
        mtu = next((netdevs[name].mtu for name in names if name in netdevs), None)
        found.append(
            Port(
                device=device.name,
                port=int(number),
                state=_word(read.text(folder / "state")),
                phys_state=_word(read.text(folder / "phys_state")),
                link_layer=link_layer,
                rate_gbps=_rate(read.text(folder / "rate")),
                gids=gids,
                gid_index=choice,
                netdevs=names,
                mtu=mtu,
                ib_mtu=_ib_mtu(mtu) if link_layer == ETHERNET else None,
                pci=function.name if function is not None and pci.ADDRESS.fullmatch(function.name) else "",
                pcie_gb_s=None if function is None else pci.bandwidth_gb_s(function),
                numa=_numa(function),
                virtual=read.is_there(device / "device" / "physfn"),
                firmware=read.text(device / "fw_ver"),
                board=read.text(device / "board_id"),
                guid=read.text(device / "node_guid"),
                counters=_counters(folder),
            )
        )
    return found


def _gids(port: Path, device: str, problems: list[str]) -> tuple[Gid, ...]:
    indexes = [name for name in read.names(port / "gids", _MOST_GIDS + 1) if re.fullmatch(r"[0-9]{1,6}", name)]
    if len(indexes) > _MOST_GIDS:
        problems.append(f"{device}:{port.name} has more than {_MOST_GIDS} GIDs; the rest was not read")
    found = []
    for index in indexes[:_MOST_GIDS]:
        slot = Gid(index=int(index), gid=read.text(port / "gids" / index))
        if gid.family(slot) == "none":
            continue
        kind = read.text(port / "gid_attrs" / "types" / index)
        version = 2 if kind.startswith("RoCE v2") else 1 if kind.endswith("RoCE v1") else None
        netdev = read.text(port / "gid_attrs" / "ndevs" / index)
        found.append(replace(slot, version=version, netdev=netdev if read.NAME.fullmatch(netdev) else ""))
    return tuple(found)


def _counters(port: Path) -> dict[str, int]:
    found = {name: read.number(port / folder / name) for folder, names in _COUNTERS.items() for name in names}
    return {name: value for name, value in found.items() if value is not None}


def _netdevs(root: Path, proc: Path) -> dict[str, Netdev]:
    routed, defaults = _routes(proc)
    vlans = _vlans(proc)
    found = {}
    folder = root / "class" / "net"
    for name in read.names(folder, _MOST_DEVICES * 4):
        dev = folder / name
        if not read.is_there(dev / "mtu") and not read.is_there(dev / "operstate"):
            continue  # bonding_masters and the like
        lower = [entry.removeprefix("lower_") for entry in read.names(dev) if entry.startswith("lower_")]
        vlan, parent = vlans.get(name, (None, ""))
        members = read.text(dev / "bonding" / "slaves").split()
        function = read.real(dev / "device")
        speed = read.number(dev / "speed")
        found[name] = Netdev(
            name=name,
            state=read.text(dev / "operstate"),
            mtu=read.number(dev / "mtu"),
            speed_mbps=speed if speed is not None and speed > 0 else None,
            pci=function.name if function is not None and pci.ADDRESS.fullmatch(function.name) else "",
            vlan=vlan,
            parents=tuple(dict.fromkeys(n for n in [parent, *members, *lower] if read.NAME.fullmatch(n))),
            routed=name in routed,
            default_metric=defaults.get(name),
        )
    return found


def _routes(proc: Path) -> tuple[set[str], dict[str, int]]:
    """(interfaces that some route leads through, interface -> metric of its default route), IPv4 before IPv6."""
    routed: set[str] = set()
    defaults: dict[str, int] = {}
    for line in read.lines(proc / "net" / "route")[1:]:
        words = line.split()
        if len(words) < 8 or not read.NAME.fullmatch(words[0]):
            continue
        routed.add(words[0])
        if words[1] == words[7] == "00000000" and re.fullmatch(r"[0-9]{1,10}", words[6]):
            defaults[words[0]] = min(int(words[6]), defaults.get(words[0], 1 << 40))
    for line in read.lines(proc / "net" / "ipv6_route"):
        words = line.split()
        # The kernel's own entry for "unreachable" is a default route through lo.
        if len(words) != 10 or words[0] != "0" * 32 or words[1] != "00" or words[9] == "lo":
            continue
        if read.NAME.fullmatch(words[9]) and re.fullmatch(r"[0-9a-f]{8}", words[5]):
            defaults.setdefault(words[9], (1 << 32) + int(words[5], 16))
            routed.add(words[9])
    return routed, defaults


def _vlans(proc: Path) -> dict[str, tuple[int | None, str]]:
    found = {}
    for line in read.lines(proc / "net" / "vlan" / "config"):
        words = [word.strip() for word in line.split("|")]
        if len(words) == 3 and re.fullmatch(r"[0-9]{1,4}", words[1]):
            found[words[0]] = (int(words[1]), words[2])
    return found


def _with_rdma(netdevs: Mapping[str, Netdev], ports: list[Port]) -> tuple[Netdev, ...]:
    """Each interface with the RDMA devices that share its hardware, through VLANs, bonds and bridges."""
    return tuple(
        replace(dev, rdma=tuple(dict.fromkeys(port.device for port in ports if shares(dev, port, netdevs))))
        for dev in netdevs.values()
    )


def shares(dev: Netdev, port: Port, netdevs: Mapping[str, Netdev]) -> bool:
    """Whether what goes through the interface goes through the port's hardware."""
    below = _below(dev.name, netdevs)
    if below & set(port.netdevs):
        return True
    bases = {name for name in port.netdevs if name in netdevs} or set()
    if below & {name for base in bases for name in _below(base, netdevs)}:
        return True
    return bool(port.pci) and any(netdevs[name].pci == port.pci for name in below if name in netdevs)


def _below(name: str, netdevs: Mapping[str, Netdev]) -> set[str]:
    found, waiting = set(), [name]
    while waiting:
        here = waiting.pop()
        if here not in found:
            found.add(here)
            waiting += netdevs[here].parents if here in netdevs else ()
    return found


def _gpus(root: Path) -> tuple[tuple[Gpu, ...], dict[str, tuple[str, ...]]]:
    """NVIDIA's display and 3D controllers, and the bridges down to each."""
    found, paths = [], {}
    folder = root / "bus" / "pci" / "devices"
    for name in read.names(folder, form=pci.ADDRESS):
        function = read.real(folder / name)
        if function is None or read.number(function / "vendor") != _NVIDIA:
            continue
        if (read.number(function / "class") or 0) >> 8 not in (0x0300, 0x0302):
            continue
        found.append(Gpu(pci=name, numa=_numa(function), device=read.text(function / "device")))
        paths[name] = pci.path_of(function)
    return tuple(found), paths


def _numa(function: Path | None) -> int | None:
    node = None if function is None else read.number(function / "numa_node")
    return None if node is None or node < 0 else node


def _dev_port(device: Path, netdev: str) -> int | None:
    return read.number(device / "device" / "net" / netdev / "dev_port")


def _word(text: str) -> str:
    """`4: ACTIVE` -> `ACTIVE`."""
    return text.rpartition(":")[2].strip()


def _rate(text: str) -> float | None:
    """`200 Gb/sec (4X HDR)` -> 200.0."""
    found = re.match(r"([0-9]{1,5}(?:\.[0-9]{1,3})?) Gb/sec", text)
    return float(found[1]) if found else None


def _ib_mtu(mtu: int | None) -> int | None:
    return next((size for size in _IB_MTUS if mtu is not None and mtu - _ROCE_HEADERS >= size), None)


def _dmabuf(proc: Path) -> bool:
    release = re.match(r"([0-9]{1,3})\.([0-9]{1,3})", read.text(proc / "sys/kernel/osrelease"))
    if release is None or (int(release[1]), int(release[2])) < _DMABUF_KERNEL:
        return False
    return "Open Kernel Module" in read.text(proc / "driver/nvidia/version")
