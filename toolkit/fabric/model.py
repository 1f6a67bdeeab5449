"""What is known of one node's fabric, as plain values that travel as JSON. Decides names and units; reads nothing,
judges nothing.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from toolkit.fabric.sysfs import MOST_TEXT, NAME

_MOST_ITEMS = 8192

ETHERNET, INFINIBAND = "Ethernet", "InfiniBand"  # as sysfs says it
LINK_LAYERS = {"roce": ETHERNET, "infiniband": INFINIBAND}  # kind of fabric -> link layer of its ports
TITLES = {"roce": "RoCE", "infiniband": "InfiniBand"}


@dataclass(frozen=True, kw_only=True)
class Gid:
    """A slot of a port's GID table that is not empty. `gid` as sysfs has it: eight groups of four hex digits."""

    index: int
    gid: str
    version: int | None = None  # of RoCE; None on InfiniBand
    netdev: str = ""


@dataclass(frozen=True, kw_only=True)
class Port:
    """A port of an RDMA device. `distances` holds, for every GPU by PCI address, how far it is: PIX, PXB, PHB or SYS.

    `gid_index` is the slot that NCCL would choose by itself (2.21 and newer); None where it finds none.
    """

    device: str
    port: int
    state: str = ""  # ACTIVE, DOWN, INIT, ARMED
    phys_state: str = ""  # LinkUp, Disabled, Polling
    link_layer: str = ""  # Ethernet or InfiniBand
    rate_gbps: float | None = None
    gids: tuple[Gid, ...] = ()
    gid_index: int | None = None
    netdevs: tuple[str, ...] = ()  # which carry its IP addresses, the one of `gid_index` first
    mtu: int | None = None  # bytes, of the first of them
    ib_mtu: int | None = None  # bytes of payload in a RoCE packet, as follows from it
    pci: str = ""  # address of its PCI function
    pcie_gb_s: float | None = None  # GB/s that its slot carries each way
    numa: int | None = None
    virtual: bool = False  # a virtual function of SR-IOV
    firmware: str = ""
    board: str = ""
    guid: str = ""
    counters: Mapping[str, int] = field(default_factory=dict)  # of errors
    distances: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """As NCCL_IB_HCA takes it."""
        return f"{self.device}:{self.port}"

    @property
    def active(self) -> bool:
        return self.state == "ACTIVE"


@dataclass(frozen=True, kw_only=True)
class Netdev:
    """An IP interface. `rdma` names the devices that share its hardware."""

    name: str
    state: str = ""  # up, down, unknown
    mtu: int | None = None
    speed_mbps: int | None = None
    pci: str = ""
    vlan: int | None = None
    parents: tuple[str, ...] = ()  # below it: the interface of a VLAN, the members of a bond or bridge
    routed: bool = False  # some route leads through it
    default_metric: int | None = None  # of the default route through it
    rdma: tuple[str, ...] = ()

    @property
    def up(self) -> bool:
        return self.state in ("up", "unknown") and self.name != "lo"


@dataclass(frozen=True, kw_only=True)
class Gpu:
    pci: str
    numa: int | None = None
    device: str = ""  # PCI id, 0x20b2


@dataclass(frozen=True, kw_only=True)
class Fabric:
    """One node. `problems` are things that could not be read; they are no reason to refuse the node."""

    node: str = ""
    ports: tuple[Port, ...] = ()
    netdevs: tuple[Netdev, ...] = ()
    gpus: tuple[Gpu, ...] = ()
    kernel: str = ""
    drivers: Mapping[str, str] = field(default_factory=dict)  # module -> version, where it tells one
    peermem: bool = False  # nvidia_peermem or its forerunner is loaded
    dmabuf: bool = False  # NVIDIA's open kernel modules on a kernel of 5.12 or newer
    problems: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def from_dict(value: Any) -> Fabric | None:
    """`as_dict` read back; None for anything else, since the file may have been cut off or be somebody else's."""
    try:
        found = _build(Fabric, value)
    except (TypeError, ValueError, KeyError, RecursionError):
        return None
    named = [port.device for port in found.ports] + [dev.name for dev in found.netdevs]
    named += [name for port in found.ports for name in port.netdevs]
    return found if all(NAME.fullmatch(name) for name in named) else None


def _build(cls: Any, value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise TypeError(cls)
    hints = typing.get_type_hints(cls)
    return cls(**{name: _convert(hints[name], value[name]) for name in hints if name in value})


def _convert(kind: Any, value: Any) -> Any:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _convert(args[0], value)
    if dataclasses.is_dataclass(kind):
        return _build(kind, value)
    if origin is tuple or origin is Mapping or getattr(origin, "__name__", "") == "Mapping":
        wanted = (list, tuple) if origin is tuple else Mapping
        if not isinstance(value, wanted) or len(value) > _MOST_ITEMS:
            raise TypeError(kind)
        if origin is tuple:
            return tuple(_convert(args[0], item) for item in value)
        return {_convert(str, name): _convert(args[1], item) for name, item in value.items()}
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind or (kind is float and not math.isfinite(value)):
        raise TypeError(kind)
    return value[:MOST_TEXT] if kind is str else value
