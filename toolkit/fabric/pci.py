"""How far two PCI functions are from each other, and what a slot carries, from sysfs. Decides by the path of their
bridges, in the words of NCCL_NET_GDR_LEVEL.
"""

from __future__ import annotations

import re
from pathlib import Path

from toolkit.fabric import sysfs

# Nearest first. NCCL's documentation: PIX, the same PCI switch; PXB, through several switches; PHB, the same NUMA node,
# through the CPU; SYS, across the interconnect of the CPUs.
DISTANCES = ("PIX", "PXB", "PHB", "SYS")
ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_ROOT = re.compile(r"pci[0-9a-f]{4,8}:[0-9a-f]{2}")


def path_of(function: Path | None) -> tuple[str, ...]:
    """The bridges down to a function: ('pci0000:40', '0000:40:01.1', '0000:41:00.0'); () for what is on no PCI bus."""
    parts = function.parts if function is not None else ()
    return tuple(part for part in parts if ADDRESS.fullmatch(part) or _ROOT.fullmatch(part))


def distance(one: tuple[str, ...], other: tuple[str, ...], numa: tuple[int | None, int | None]) -> str:
    """PIX, PXB, PHB or SYS of two paths; `numa` are the NUMA nodes of both ends, None or -1 where unknown."""
    shared = 0
    while shared < min(len(one), len(other)) and one[shared] == other[shared]:
        shared += 1
    if shared > 1:  # below one bridge
        # A switch is a port towards the CPU and one for each device: below the former come its port and the device.
        return "PIX" if max(len(one), len(other)) - shared <= 2 else "PXB"
    near, far = (None if node is None or node < 0 else node for node in numa)
    return "PHB" if near == far else "SYS"


def slot(address: str) -> str:
    """The functions of one card share its slot."""
    return address.rpartition(".")[0]


def bandwidth_gb_s(function: Path) -> float | None:
    """GB/s each way of a function's link as it runs now; None where sysfs does not tell.

    Lanes x transfers, less the line code: 8b/10b to 5 GT/s, 128b/130b to 32 GT/s, 242 of 256 bytes at 64 GT/s (PCI
    Express base specification).
    """
    speed = re.match(r"([0-9]{1,3}(?:\.[0-9]+)?) GT/s", sysfs.text(function / "current_link_speed"))
    width = sysfs.number(function / "current_link_width")
    if speed is None or width is None or not 1 <= width <= 32:
        return None
    rate = float(speed[1])
    code = 0.8 if rate <= 5 else 128 / 130 if rate <= 32 else 242 / 256
    return rate * width * code / 8
