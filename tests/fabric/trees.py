"""Trees as a node's /sys and /proc show them, for nodes that this machine is not: names, texts and links as the kernel
writes them. A detector is given SYS and PROC instead of /sys and /proc.
"""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field, replace
from pathlib import Path

IPV4, IPV6, LOCAL = "ipv4", "ipv6", "link-local"
# How an odd node differs from its neighbours: see `node`.
ODD = ("gid", "address", "down", "rate", "mtu", "missing", "link_layer", "firmware")


@dataclass(frozen=True, kw_only=True)
class Nic:
    """One RDMA device with one port. `bridges` is its way down from the CPU; `gids` are (index, GID, type, netdev)."""

    device: str
    netdevs: tuple[str, ...] = ()
    pci: str = "0000:43:00.0"
    bridges: tuple[str, ...] = ("pci0000:40", "0000:40:01.1")
    numa: int = 0
    link_layer: str = "Ethernet"
    state: str = "4: ACTIVE"
    rate: str = "200 Gb/sec (4X HDR)"
    mtu: int = 4200
    speed: int = 200000
    firmware: str = "22.39.2048"
    board: str = "MT_0000000436"
    gids: tuple[tuple[int, str, str, str], ...] = ()
    slots: int = 16  # of the GID table
    pcie: tuple[str, int] = ("16.0 GT/s PCIe", 16)


@dataclass
class Tree:
    """A tree below `root`; `functions` is where its PCI functions lie, elsewhere for a tree of one part of /sys."""

    root: Path
    functions: Path | None = None
    routes: list[str] = field(default_factory=list)

    @property
    def sys(self) -> Path:
        return self.root / "sys"

    @property
    def proc(self) -> Path:
        return self.root / "proc"

    def function(
        self, pci: str, bridges: tuple[str, ...], numa: int, kind: str, vendor: str, device: str,
        pcie: tuple[str, int] = ("16.0 GT/s PCIe", 16),
    ) -> Path:  # fmt: skip
        folder = (self.functions or self.sys / "devices").joinpath(*bridges, pci)
        for name, text in {
            **{"numa_node": str(numa), "class": kind, "vendor": vendor, "device": device},
            **{"current_link_speed": pcie[0], "max_link_speed": pcie[0], "current_link_width": str(pcie[1])},
        }.items():
            write(folder / name, text)
        if self.functions is None:
            link(self.sys / "bus/pci/devices" / pci, folder)
        return folder

    def gpu(self, pci: str, bridges: tuple[str, ...], numa: int) -> None:
        self.function(pci, bridges, numa, "0x030200", "0x10de", "0x20b2")

    def nic(self, nic: Nic) -> None:
        function = self.function(nic.pci, nic.bridges, nic.numa, "0x020000", "0x15b3", "0x101d", nic.pcie)
        device = function / "infiniband" / nic.device
        link(device / "device", function)
        for name, text in {"node_type": "1: CA", "fw_ver": nic.firmware, "board_id": nic.board}.items():
            write(device / name, text)
        write(device / "node_guid", "0c42:a103:005b:" + nic.pci[5:7] + "00")
        port = device / "ports" / "1"
        up = "ACTIVE" in nic.state
        for name, text in {
            **{"state": nic.state, "phys_state": "5: LinkUp" if up else "3: Disabled", "rate": nic.rate},
            **{"link_layer": nic.link_layer, "lid": "0x0", "sm_lid": "0x0"},
        }.items():
            write(port / name, text)
        filled = {index: row for index, *row in nic.gids}
        for index in range(nic.slots):
            # The kernel shows an empty slot as zeros, and reading its type and netdev fails.
            write(port / "gids" / str(index), filled[index][0] if index in filled else ":".join(["0000"] * 8))
            if index in filled:
                write(port / "gid_attrs/types" / str(index), filled[index][1])
                if filled[index][2]:
                    write(port / "gid_attrs/ndevs" / str(index), filled[index][2])
        for counter in ("symbol_error", "link_downed", "port_rcv_errors", "port_xmit_discards"):
            write(port / "counters" / counter, "0")
        for counter in ("out_of_sequence", "packet_seq_err", "local_ack_timeout_err", "np_cnp_sent", "rp_cnp_handled"):
            write(port / "hw_counters" / counter, "0")
        link(self.sys / "class/infiniband" / nic.device, device)
        for name in nic.netdevs:
            self.netdev(name, function=function, mtu=nic.mtu, speed=nic.speed, state="up" if up else "down")

    def netdev(
        self, name: str, *, function: Path | None = None, mtu: int = 1500, speed: int = 25000, state: str = "up",
        lower: tuple[str, ...] = (), bond: bool = False,
    ) -> None:  # fmt: skip
        folder = (function or self.functions or self.sys / "devices/virtual") / "net" / name
        for attribute, text in {"operstate": state, "mtu": str(mtu), "speed": str(speed), "dev_port": "0"}.items():
            write(folder / attribute, text)
        if function is not None:
            link(folder / "device", function)
        if bond:
            write(folder / "bonding/slaves", " ".join(lower))
        link(self.sys / "class/net" / name, folder)
        for below in lower:
            link(folder / f"lower_{below}", self.sys / "class/net" / below)

    def vlan(self, name: str, number: int, parent: str, *, mtu: int = 4200) -> None:
        self.netdev(name, mtu=mtu, lower=(parent,))
        config = self.proc / "net/vlan/config"
        head = "VLAN Dev name    | VLAN ID\nName-Type: VLAN_NAME_TYPE_RAW_PLUS_VID_NO_PAD\n"
        before = config.read_text() if config.exists() else head
        write(config, before + f"{name:<15}| {number}  | {parent}")

    def route(self, netdev: str, destination: str = "00000000", metric: int = 100) -> None:
        """A row of /proc/net/route; the default route unless another destination is given."""
        mask = "00000000" if destination == "00000000" else "00FFFFFF"
        self.routes.append(f"{netdev}\t{destination}\t0100000A\t0003\t0\t0\t{metric}\t{mask}\t0\t0\t0")
        head = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT"
        write(self.proc / "net/route", "\n".join([head, *self.routes]))

    def management(self, name: str = "eno1", *, default: bool = True) -> None:
        bridges = ("pci0000:00", "0000:00:01.1")
        function = self.function("0000:01:00.0", bridges, 0, "0x020000", "0x14e4", "0x16d7")
        self.netdev(name, function=function)
        self.route(name, "0000000A")
        if default:
            self.route(name)

    def software(self, *, driver: str = "550.54.15", peermem: bool = True) -> None:
        write(self.proc / "sys/kernel/osrelease", "5.14.0-427.13.1.el9_4.x86_64")
        write(self.sys / "module/nvidia/version", driver)
        write(self.sys / "module/mlx5_core/version", "24.01-0.3.3")
        if peermem:
            write(self.sys / "module/nvidia_peermem/initstate", "live")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


def link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(os.path.relpath(target, path.parent))


def gid(address: str) -> str:
    """As sysfs writes it: 39 characters, of an IPv4 address its IPv4-mapped form."""
    plain = ipaddress.ip_address(address)
    whole = ipaddress.IPv6Address(f"::ffff:{address}") if plain.version == 4 else plain
    return whole.exploded


def roce_gids(
    netdev: str, *addresses: str, first: int = 0, local: bool = True
) -> tuple[tuple[int, str, str, str], ...]:
    """The usual table: link-local, then each address, of each RoCE v1 before v2, from slot `first` on."""
    rows = []
    for address in (["fe80::e42:a1ff:fe5b:4d00"] if local else []) + list(addresses):
        for kind in ("IB/RoCE v1", "RoCE v2"):
            rows.append((first + len(rows), gid(address), kind, netdev))
    return tuple(rows)


def switch(number: int) -> tuple[str, ...]:
    """The way down to a PCIe switch; what hangs on it has a bridge of its own there."""
    root = 0x20 * number
    return (f"pci0000:{root:02x}", f"0000:{root:02x}:01.1", f"0000:{root + 1:02x}:00.0")


def gpus(tree: Tree, count: int = 8) -> None:
    """Two on each switch, four switches, two NUMA nodes."""
    for g in range(count):
        root = 0x20 * (g // 2 + 1)
        below = (*switch(g // 2 + 1), f"0000:{root + 2:02x}:{g % 2:02x}.0")
        tree.gpu(f"0000:{root + 3 + g % 2:02x}:00.0", below, g * 2 // count)


def beside(g: int) -> tuple[tuple[str, ...], str]:
    """(bridges, address) of a NIC on the switch of the g-th of eight GPUs."""
    root = 0x20 * (g // 2 + 1)
    return (*switch(g // 2 + 1), f"0000:{root + 2:02x}:{8 + g % 2:02x}.0"), f"0000:{root + 8 + g % 2:02x}:00.0"


def meditron(root: Path, **changes) -> Tree:
    """MEDITRON's node: 8 x A100 SXM, two EPYC, one ConnectX-6 Dx at 200 Gb/s over RoCE (paper, section 3)."""
    tree = Tree(root)
    gpus(tree)
    nic = Nic(device="mlx5_0", netdevs=("ens1f0np0",), pci="0000:c1:00.0", bridges=("pci0000:c0", "0000:c0:03.1"),
              gids=roce_gids("ens1f0np0", "10.0.0.1"))  # fmt: skip
    tree.nic(replace(nic, **changes))
    tree.management()
    tree.software()
    return tree


def rails(root: Path, link_layer: str = "Ethernet") -> Tree:
    """Eight GPUs with a 400 Gb/s NIC each, on the GPU's switch."""
    tree = Tree(root)
    gpus(tree)
    for g in range(8):
        bridges, address = beside(g)
        name = f"ens{g}f0np0" if link_layer == "Ethernet" else f"ib{g}"
        rows = (
            roce_gids(name, f"10.{g}.0.1")
            if link_layer == "Ethernet"
            else ((0, gid("fe80::1:2:3:4"), "IB/RoCE v1", ""),)
        )
        tree.nic(Nic(device=f"mlx5_{g}", netdevs=(name,), pci=address, bridges=bridges, numa=g // 4, gids=rows,
                     link_layer=link_layer, rate="400 Gb/sec (4X NDR)", mtu=9000 if link_layer == "Ethernet" else 4092,
                     speed=400000, pcie=("32.0 GT/s PCIe", 16)))  # fmt: skip
    tree.management()
    tree.software()
    return tree


def mixed(root: Path) -> Tree:
    """Eight compute NICs, two of the same rate for storage on the CPUs, and a slow one for management."""
    tree = rails(root)
    for n, numa in ((8, 0), (9, 1)):
        tree.nic(Nic(device=f"mlx5_{n}", netdevs=(f"stor{n}",), pci=f"0000:{0xe0 + 8 * numa:02x}:00.0", numa=numa,
                     bridges=(f"pci0000:{0xdf + 8 * numa:02x}", f"0000:{0xdf + 8 * numa:02x}:01.1"),
                     gids=roce_gids(f"stor{n}", f"10.20.{n}.1"), rate="400 Gb/sec (4X NDR)", speed=400000,
                     pcie=("32.0 GT/s PCIe", 16)))  # fmt: skip
    tree.nic(Nic(device="mlx5_10", netdevs=("mgmt0",), pci="0000:f1:00.0", bridges=("pci0000:f0", "0000:f0:01.1"),
                 numa=1, gids=roce_gids("mgmt0", "192.168.0.1"), rate="25 Gb/sec (1X EDR)", mtu=1500,
                 speed=25000))  # fmt: skip
    return tree


def vlan(root: Path) -> Tree:
    """The fabric's address is on a VLAN; the interface below it has none."""
    gids = (*roce_gids("ens1f0np0"), *roce_gids("ens1f0np0.100", "10.100.0.1", first=2))
    tree = meditron(root, gids=gids)
    tree.vlan("ens1f0np0.100", 100, "ens1f0np0")
    return tree


def ipv6(root: Path) -> Tree:
    """The fabric has IPv6 addresses alone."""
    return meditron(root, gids=roce_gids("ens1f0np0", "fd00:10::1"))


def bonded(root: Path) -> Tree:
    """Two ports of one card in a bond, which is one RDMA device."""
    tree = Tree(root)
    gpus(tree)
    bridges = ("pci0000:c0", "0000:c0:03.1")
    tree.nic(Nic(device="mlx5_bond_0", netdevs=("ens1f0np0",), pci="0000:c1:00.0", bridges=bridges,
                 gids=roce_gids("bond0", "10.0.0.1")))  # fmt: skip
    second = tree.function("0000:c1:00.1", bridges, 0, "0x020000", "0x15b3", "0x101d")
    tree.netdev("ens1f1np1", function=second, mtu=4200, speed=200000)
    tree.netdev("bond0", mtu=4200, speed=400000, lower=("ens1f0np0", "ens1f1np1"), bond=True)
    tree.management()
    tree.software()
    return tree


def empty(root: Path) -> Tree:
    """Neither NICs of RDMA nor GPUs."""
    tree = Tree(root)
    tree.management()
    return tree


def node(root: Path, index: int, *, odd: str | None = None, management: str | None = None) -> Path:
    """One node of the one-machine Slurm for `slurm-dev up --sys ROOT`: ROOT/nodeNN/class, and nothing else of /sys.

    One RoCE port of 200 Gb/s, mlx5_0, the same on every node but for `odd`, one of `ODD`. The interface for sockets is
    `management`, without one that of this machine's default route, so that what is found can really be used. Returns
    ROOT/nodeNN, which is also a root that `detect` can be given.
    """
    whole = root / f"node{index:02d}"
    tree = _Class(root=whole, functions=whole / "class/.functions")
    nic = Nic(device="mlx5_0", netdevs=("roce0",), pci="0000:c1:00.0", bridges=("pci0000:c0", "0000:c0:03.1"),
              gids=roce_gids("roce0", f"10.0.0.{index}"))  # fmt: skip
    changes = {
        "gid": {"gids": roce_gids("roce0", "fd00::1", f"10.0.0.{index}")},
        "address": {"gids": roce_gids("roce0")},
        "down": {"state": "1: DOWN"},
        "rate": {"rate": "100 Gb/sec (4X EDR)"},
        "mtu": {"mtu": 1500},
        "link_layer": {"link_layer": "InfiniBand", "gids": ((0, gid("fe80::1"), "IB/RoCE v1", ""),)},
        "firmware": {"firmware": "22.31.1014"},
    }
    if odd is not None and odd not in ODD:
        raise ValueError(f"{odd} is none of {ODD}")
    if odd != "missing":
        tree.nic(replace(nic, **changes.get(odd or "", {})))
    (whole / "class/infiniband").mkdir(parents=True, exist_ok=True)
    for name in dict.fromkeys([management or _default_route(), "lo"]):
        tree.netdev(name, state="unknown" if name == "lo" else "up")
    return whole


class _Class(Tree):
    """A tree of which /sys/class alone is there."""

    @property
    def sys(self) -> Path:
        return self.root


def _default_route() -> str:
    """The interface of this machine's default route, or lo."""
    rows = [line.split() for line in Path("/proc/net/route").read_text().splitlines()[1:]]
    return next((row[0] for row in rows if row[1] == row[7] == "00000000"), "lo")
