"""Which slot of a RoCE port's GID table NCCL takes by itself. Decides by NCCL's own rule; whether that is good
enough is for others.

The rule, of NCCL 2.21 and newer (its documentation: NCCL_IB_GID_INDEX, NCCL_IB_ADDR_FAMILY, NCCL_IB_ROCE_VERSION_NUM;
ncclIbGetGidIndex in net_ib.cc): begin with slot 0 and go through the table once. A slot of the family asked for (IPv4)
displaces one that is of another family. Among slots of that family that are neither zero nor link-local, one of the
RoCE version asked for (2) displaces one of another version or an unusable one. Older NCCL takes slot 0 unless told.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from toolkit.fabric.model import Gid

ZERO = ipaddress.IPv6Address(0)


def address(gid: Gid) -> ipaddress.IPv6Address | None:
    """None for text that is no GID."""
    try:
        return ipaddress.IPv6Address(gid.gid)
    except ValueError:
        return None


def family(gid: Gid) -> str:
    """`ipv4` (an IPv4-mapped address), `link-local`, `ipv6`, or `none` for a slot that is zero or no address."""
    found = address(gid)
    if found is None or found == ZERO:
        return "none"
    if found.ipv4_mapped is not None:
        return "ipv4"
    return "link-local" if found.packed[:8] == b"\xfe\x80" + bytes(6) else "ipv6"


def shown(gid: Gid) -> str:
    """For people: 10.0.0.1, fe80::e42:a1ff:fe5b:4d00."""
    found = address(gid)
    return gid.gid if found is None else str(found.ipv4_mapped or found)


def choice(gids: Sequence[Gid], wanted: str = "ipv4", version: int = 2) -> int | None:
    """The slot that NCCL takes; None for an empty table. It may be one of no use: see `usable`.

    `wanted` is `ipv4` or `ipv6`, NCCL_IB_ADDR_FAMILY; `version` is NCCL_IB_ROCE_VERSION_NUM.
    """
    table = {gid.index: gid for gid in gids if family(gid) != "none"}
    if not table:
        return None
    best = table.get(0)
    for index in sorted(index for index in table if index > 0):
        candidate = table[index]
        if not _of(candidate, wanted):
            continue
        if not _of(best, wanted):
            best = candidate
        elif usable(candidate) and (best is None or not usable(best) or best.version != candidate.version):
            best = candidate if candidate.version == version else best
    return 0 if best is None else best.index


def usable(gid: Gid | None) -> bool:
    """Whether packets reach another node by it: neither empty nor link-local."""
    return gid is not None and family(gid) in ("ipv4", "ipv6")


def at(gids: Sequence[Gid], index: int | None) -> Gid | None:
    return next((gid for gid in gids if gid.index == index), None)


def _of(gid: Gid | None, wanted: str) -> bool:
    """NCCL knows two families: IPv4-mapped is IPv4, everything else, an empty slot too, is IPv6."""
    return (gid is not None and family(gid) == "ipv4") == (wanted == "ipv4")
