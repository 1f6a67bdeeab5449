"""What NCCL and its like are told of a fabric, each value with its reason. Decides which follow from what was detected
and which from the site's policy; what need not be said is left out, and the reason for that is kept too.

Names and meanings are those of NCCL's documentation, "Environment Variables". CUDA_DEVICE_MAX_CONNECTIONS is no matter
of the fabric: the training sets it (parallel.cuda_connections).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from toolkit.fabric import choose, gid, pci
from toolkit.fabric.choose import Selection
from toolkit.fabric.model import TITLES, Fabric, Gid, Port
from toolkit.recipe.fabric import fits
from toolkit.recipe.schema import Nccl

Source = Literal["detected", "policy", "caller", "toolkit"]
# What a caller may have set for the payload's transports: it goes into the file, since what an image sets for itself
# would hide the caller's environment, but not the file.
_CALLERS = ("NCCL_", "UCX_", "GLOO_", "TORCH_NCCL_", "TP_SOCKET_")
_UNFIT = (
    "the caller's value has a quote, $, ` or \\, which Apptainer changes in such a file; it is left to the environment"
)
_POLICY = {
    "traffic_class": ("NCCL_IB_TC", "traffic class of the packets, DSCP x 4"),
    "service_level": ("NCCL_IB_SL", "service level"),
    "qps": ("NCCL_IB_QPS_PER_CONNECTION", "queue pairs of a connection"),
    "timeout": ("NCCL_IB_TIMEOUT", "4.096 us x 2^value, then a packet counts as lost"),
    "retry": ("NCCL_IB_RETRY_CNT", "times a lost packet is sent again"),
    "cross_nic": ("NCCL_CROSS_NIC", "whether a ring may enter and leave a node by different NICs"),
}


@dataclass(frozen=True, kw_only=True)
class Value:
    """A variable and why. `value` is None for one that is left to NCCL on purpose."""

    name: str
    value: str | None
    why: str
    source: Source


@dataclass(frozen=True, kw_only=True)
class _Node:
    fabric: Fabric
    selection: Selection


def values(fabric: Fabric, *, kind: str, policy: Nccl | None = None, nodes: Sequence[Fabric] = ()) -> tuple[Value, ...]:
    """What the payload of a job on these nodes is told.

    `nodes` are all of the job's, `fabric` that of the one that asks; where they differ, what most of them have is the
    norm. `kind` is the site's cluster.fabric. Raises `PreflightFailed` when it says that there is a fabric and no node
    has an active port of it, or most lack one that `policy.hca` names.
    """
    policy = policy or Nccl()
    every = list(nodes) or [fabric]
    told: list[Value] = []
    if kind != "none":
        alike = _norm(every, kind, policy)
        if not alike:
            choose.need(fabric, kind, policy.hca)  # says what is there instead
            choose.need(every[0], kind, policy.hca)
        choose.need(alike[0].fabric, kind, policy.hca)
        told += [_required(policy), _hca(alike, len(every), kind, policy)]
        if kind == "roce":
            told += _gid_index(alike, policy)
    told += _sockets(every, policy)
    for key, (name, meaning) in _POLICY.items():
        if kind != "none" and (value := getattr(policy, key)) is not None:
            told.append(Value(name=name, value=str(value), why=f"{meaning} (cluster.nccl.{key})", source="policy"))
    if kind != "none":
        told.append(_gdr(alike, policy))
        if policy.ucx:
            ports = ",".join(alike[0].selection.names)
            told.append(Value(name="UCX_NET_DEVICES", value=ports, why="the same ports for UCX", source="detected"))
    told += [Value(name=k, value=v, why="cluster.nccl.env", source="policy") for k, v in policy.env.items()]
    return tuple(value for value in told if value is not None)


def pinned(policy: Nccl) -> bool:
    """Whether NCCL is told one GID index for all nodes: then they must have the same, see `differences`."""
    return policy.gid_index is not None or policy.gid == "detected"


def with_caller(told: Sequence[Value], environ: Mapping[str, str]) -> tuple[Value, ...]:
    """`told` with what the caller has set in the job's environment in place of what was found, and besides it whatever
    else of NCCL, UCX and gloo is set there: what is in an image's own environment hides it otherwise. A value that no
    environment file can carry is left to the environment, and said to be.
    """
    made = []
    for value in told:
        given = environ.get(value.name)
        if given is None:
            made.append(value)
        elif not fits(given):
            made.append(replace(value, value=None, why=_UNFIT, source="caller"))
        elif given == value.value:
            made.append(replace(value, why=f"{value.why}; the caller has set the same", source="caller"))
        else:
            instead = f"instead of {value.value}" if value.value is not None else "which would have been left out"
            made.append(replace(value, value=given, why=f"set by the caller, {instead}", source="caller"))
    known = {value.name for value in told}
    for name in sorted(environ):
        if name.startswith(_CALLERS) and name not in known and name.isidentifier() and name.isascii():
            fit = fits(environ[name])
            why = "set by the caller" if fit else _UNFIT
            made.append(Value(name=name, value=environ[name] if fit else None, why=why, source="caller"))
    return tuple(made)


def _norm(every: Sequence[Fabric], kind: str, policy: Nccl) -> list[_Node]:
    """The nodes whose ports have the names that most nodes' have; the first such group where several are as large."""
    found = [_Node(fabric=one, selection=choose.select(one, kind, policy.hca)) for one in every]
    found = [node for node in found if node.selection.ports]
    most = Counter(node.selection.names for node in found).most_common(1)
    return [node for node in found if node.selection.names == most[0][0]] if most else []


def _required(policy: Nccl) -> Value | None:
    if "NCCL_NET" in policy.env:
        return None  # a network of the site's own, such as a plugin's
    if not policy.required:
        why = "cluster.nccl.required is false: NCCL may go on over sockets without a word"
        return Value(name="NCCL_NET", value=None, why=why, source="policy")
    why = "without the fabric a job ends at once, instead of going on over sockets (cluster.nccl.required)"
    return Value(name="NCCL_NET", value="IB", why=why, source="toolkit")


def _hca(alike: Sequence[_Node], count: int, kind: str, policy: Nccl) -> Value:
    node = alike[0]
    rates = {port.rate_gbps for found in alike for port in found.selection.ports}
    rate = f" at {next(iter(rates)):g} Gb/s" if len(rates) == 1 and None not in rates else ""
    where = f", on {len(alike)} of {count} nodes" if len(alike) != count else f", on all {count} nodes" * (count > 1)
    active = f"active {TITLES[kind]} port{'s' * (len(node.selection.ports) != 1)}{rate}{where}"
    without = "; ".join(f"not {name}: {why}" for name, why in node.selection.left_out.items())
    return Value(
        name="NCCL_IB_HCA",
        value="=" + ",".join(node.selection.names),
        why=f"{active}; = matches exactly" + (f"; {without}" if without else ""),
        source="policy" if policy.hca else "detected",
    )


def _gid_index(alike: Sequence[_Node], policy: Nccl) -> list[Value]:
    """The index only where NCCL would not find a good one by itself, on most ports: what the others lack, no index
    makes good.
    """
    name = "NCCL_IB_GID_INDEX"

    def told(value: str | None, why: str, source: Source = "detected") -> Value:
        return Value(name=name, value=value, why=why, source=source)

    if policy.gid_index is not None:
        return [told(str(policy.gid_index), "on all NICs of all nodes (cluster.nccl.gid_index)", "policy")]
    ports = [(node.fabric.node, port) for node in alike for port in node.selection.ports]
    automatic = [(node, port) for node, port in ports if _good(port, port.gid_index)]
    if 2 * len(automatic) > len(ports):
        places: dict[int | None, list[str]] = {}
        for node, port in automatic:
            places.setdefault(port.gid_index, []).append(f"{node} {port.name}".strip())
        if len(places) > 1:
            each = "; ".join(f"{index} on {_some(where)}" for index, where in places.items())
            return [told(None, f"not the same everywhere, so it is left to NCCL 2.21 and newer: {each}")]
        slot = gid.at(automatic[0][1].gids, automatic[0][1].gid_index)
        found = "" if slot is None else f"{slot.index} is the first usable slot, {_slot(slot)}"
        if policy.gid == "detected":
            return [told(str(next(iter(places))), f"{found} (cluster.nccl.gid)")]
        return [told(None, f"NCCL 2.21 and newer find it: {found}")]
    if all(_good(port, gid.choice(port.gids, "ipv6")) for _, port in ports):
        why = "the fabric has IPv6 addresses alone, and NCCL looks for IPv4 unless told"
        family = Value(name="NCCL_IB_ADDR_FAMILY", value="AF_INET6", why=why, source="detected")
        return [family, told(None, "NCCL 2.21 and newer find it among the IPv6 addresses")]
    local = [{slot.index for slot in port.gids if slot.version == 2} for _, port in ports]
    shared = sorted(set.intersection(*local))
    if shared:
        why = "no address reaches beyond its own link; this slot is RoCE v2 on all, within one Ethernet segment"
        return [told(str(shared[0]), why)]
    return [told(None, "no slot is RoCE v2 on every port; the fabric's interfaces need IP addresses")]


def _good(port: Port, index: int | None) -> bool:
    """A slot by which packets reach another node, of RoCE v2 where the port has one such."""
    slot = gid.at(port.gids, index)
    second = any(gid.usable(other) and other.version == 2 for other in port.gids)
    return gid.usable(slot) and slot is not None and (slot.version == 2 or not second)


def _sockets(every: Sequence[Fabric], policy: Nccl) -> list[Value]:
    pair = ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME")
    if policy.sockets:
        names, why = ",".join(policy.sockets), "cluster.nccl.sockets"
        return [Value(name=name, value=f"={names}" if name == pair[0] else names, why=why, source="policy")
                for name in pair]  # fmt: skip
    found = {one.node: choose.sockets(one) for one in every}
    names_ = sorted({dev.name for dev in found.values() if dev is not None})
    if len(names_) != 1 or None in found.values():
        told = "; ".join(f"{dev.name if dev else 'none'} on {node}" for node, dev in list(found.items())[:8])
        return [Value(name=name, value=None, why=f"no interface is the same on all nodes: {told}", source="detected")
                for name in pair]  # fmt: skip
    dev = next(dev for dev in found.values() if dev is not None)
    why = "carries the default route" if dev.default_metric is not None else "is up" + ", without RDMA" * (not dev.rdma)
    exact = Value(name=pair[0], value=f"={dev.name}", why=f"{dev.name} {why}; = matches exactly", source="detected")
    return [exact, Value(name=pair[1], value=dev.name, why=f"{dev.name} {why}; gloo takes names", source="detected")]


def _gdr(alike: Sequence[_Node], policy: Nccl) -> Value:
    name = "NCCL_NET_GDR_LEVEL"
    if policy.gdr_level is not None:
        why = "how far a NIC may be from a GPU to read its memory (cluster.nccl.gdr_level)"
        return Value(name=name, value=policy.gdr_level, why=why, source="policy")
    node = alike[0]
    seen = {far for port in node.selection.ports for far in port.distances.values()}
    distances = [far for far in pci.DISTANCES if far in seen]
    way = "nvidia_peermem" if node.fabric.peermem else "DMA-BUF" if node.fabric.dmabuf else "not available, it seems"
    gpus = f"NICs to GPUs {'/'.join(distances)}" if distances else "no GPU seen"
    return Value(name=name, value=None, why=f"NCCL decides; GPUDirect RDMA: {way}; {gpus}", source="detected")


def _slot(slot: Gid) -> str:
    version = f"RoCE v{slot.version}" if slot.version is not None else "of unknown version"
    family = {"ipv4": "IPv4", "ipv6": "IPv6"}.get(gid.family(slot), gid.family(slot))
    return f"{version}, {family}" + (f" on {slot.netdev}" if slot.netdev else "")


def _some(words: Sequence[str], most: int = 4) -> str:
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")
