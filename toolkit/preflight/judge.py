"""What of all that the ranks told is a fault, and of which node. Pure: values in, words out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from toolkit.preflight.facts import Facts
from toolkit.preflight.nodelist import names, ranks

CLOCK_S = 2.0
_MOST_WORDS = 200


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the job asked for: ranks in all and on each node, whether on GPUs, whether with RDMA between the nodes."""

    world: int
    per_node: int
    gpu: bool
    rdma: bool = False


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What is wrong; `node` is empty where no node can be named."""

    node: str
    what: str

    def __str__(self) -> str:
        return f"{self.node}: {self.what}" if self.node else self.what


def faults(told: Sequence[Facts], wanted: Wanted, unheard: Mapping[int, tuple[str, str]] | None = None) -> list[Fault]:
    """Every fault, those of missing ranks first.

    `unheard` is {rank: (node, why)} of ranks that could not reach rank 0 and said so elsewhere.
    """
    return [
        *_missing(told, wanted, unheard or {}),
        *_numbers(told, wanted),
        *_places(told, wanted),
        *_same(told),
        *_clocks(told),
        *_folder(told),
        *(_gpus(told, wanted) if wanted.gpu else []),
    ]


def warnings(told: Sequence[Facts], wanted: Wanted) -> list[Fault]:
    """What is no fault, and may become one."""
    if not wanted.rdma:
        return []
    limits = {f.node: f.memlock_kib for f in told if f.memlock_kib is not None}
    return [
        Fault(node=node, what=f"memory that may be locked is limited to {kib:,} KiB, and RDMA locks its buffers")
        for node, kib in sorted(limits.items())
    ]


def measurable(told: Sequence[Facts], wanted: Wanted) -> dict[str, list[Facts]]:
    """The nodes that are whole, with their ranks: each local rank once, and each with a GPU where one is due."""
    lame = {fault.node for fault in [*_numbers(told, wanted), *_places(told, wanted)]}
    lame |= {fault.node for fault in _gpus(told, wanted)} if wanted.gpu else set()
    here = {node: [f for f in told if f.node == node] for node in _nodes(told)}
    return {node: ranks for node, ranks in here.items() if len(ranks) == wanted.per_node and node not in lame}


def _missing(told: Sequence[Facts], wanted: Wanted, unheard: Mapping[int, tuple[str, str]]) -> list[Fault]:
    gone = sorted(set(range(wanted.world)) - {f.rank for f in told})
    known = {f.node_rank: f.node for f in told}
    listed = names(next((f.nodelist for f in told if f.nodelist), ""))
    if len(listed) * wanted.per_node == wanted.world:
        known = {**dict(enumerate(listed)), **known}
    found: dict[tuple[str, str], list[int]] = defaultdict(list)
    for rank in gone:
        node, why = unheard.get(rank, (known.get(rank // wanted.per_node, ""), ""))
        found[node, why].append(rank)
    return [
        Fault(
            node=node, what=f"{ranks(which)} of {wanted.world} never reported{': ' + why[:_MOST_WORDS] if why else ''}"
        )
        for (node, why), which in found.items()
    ]


def _numbers(told: Sequence[Facts], wanted: Wanted) -> list[Fault]:
    found = []
    for rank, count in sorted(Counter(f.rank for f in told).items()):
        same = [f for f in told if f.rank == rank]
        if count > 1:
            places = " and ".join(f"{f.node} (process {f.pid})" for f in same)
            found.append(Fault(node=same[-1].node, what=f"rank {rank} reported {count} times: from {places}"))
        if not 0 <= rank < wanted.world:
            found.append(Fault(node=same[0].node, what=f"rank {rank} is none of 0 to {wanted.world - 1}"))
    for node, world, which in _groups(told, lambda f: f.world):
        if world != wanted.world:
            found.append(
                Fault(node=node, what=f"{ranks(which)}: world size {world}, where {wanted.world} were asked for")
            )
    return found


def _places(told: Sequence[Facts], wanted: Wanted) -> list[Fault]:
    found = []
    for node in _nodes(told):
        here = [f for f in told if f.node == node]
        numbers = sorted(f.local_rank for f in here)
        odd = [n for n, count in Counter(numbers).items() if count > 1 or not 0 <= n < wanted.per_node]
        if odd or len(here) > wanted.per_node:
            said = ", ".join(map(str, numbers))
            found.append(Fault(node=node, what=f"local ranks {said}, where 0 to {wanted.per_node - 1} were asked for"))
        if len({f.node_rank for f in here}) > 1:
            said = ", ".join(map(str, sorted({f.node_rank for f in here})))
            found.append(Fault(node=node, what=f"node ranks {said} on one node"))
    for number, count in sorted(Counter(n for _, n in {(f.node, f.node_rank) for f in told}).items()):
        if count > 1:
            shared = sorted({f.node for f in told if f.node_rank == number})
            found.append(Fault(node=shared[-1], what=f"node rank {number}, which {shared[0]} has too"))
    return found


def _same(told: Sequence[Facts]) -> list[Fault]:
    """Values that must be those of rank 0, or of most where rank 0 is missing."""
    found = []
    for what, of in (
        ("master address", lambda f: f.master),
        ("toolkit version", lambda f: f.version),
        ("Python", lambda f: f.python),
        ("node list", lambda f: f.nodelist),
    ):
        first = next((of(f) for f in told if f.rank == 0), None)
        if first is None and told:
            first = Counter(map(of, told)).most_common(1)[0][0]
        for node, value, which in _groups(told, of):
            if value != first:
                found.append(
                    Fault(
                        node=node,
                        what=f"{ranks(which)}: {what} {value or '(none)'}, where rank 0 has {first or '(none)'}",
                    )
                )
    return found


def _clocks(told: Sequence[Facts]) -> list[Fault]:
    found = []
    for node in _nodes(told):
        best = min((f for f in told if f.node == node), key=lambda f: f.round_trip_s)
        if abs(best.clock_offset_s) - best.round_trip_s / 2 > CLOCK_S:
            way = "ahead of" if best.clock_offset_s > 0 else "behind"
            found.append(Fault(node=node, what=f"clock {abs(best.clock_offset_s):.1f} s {way} rank 0's"))
    return found


def _folder(told: Sequence[Facts]) -> list[Fault]:
    return [
        Fault(node=node, what=f"{ranks(which)}: what rank 0 writes into the run's folder is not seen there")
        for node, sees, which in _groups(told, lambda f: f.sees_folder)
        if not sees
    ]


def _gpus(told: Sequence[Facts], wanted: Wanted) -> list[Fault]:
    found = []
    for node, gpus, which in _groups(told, lambda f: f.gpus):
        if (gpus or 0) < wanted.per_node:
            found.append(
                Fault(node=node, what=f"{ranks(which)}: {gpus or 0} GPUs in /dev, {wanted.per_node} were asked for")
            )
    for node, visible, which in _groups(told, lambda f: f.visible):
        if visible is None:
            continue
        count = len([word for word in visible.split(",") if word.strip()])
        # Each rank takes the device of its local rank.
        blind = [f.rank for f in told if f.node == node and f.rank in which and f.local_rank >= count]
        if blind:
            what = f"{ranks(blind)}: CUDA_VISIBLE_DEVICES={visible or '(empty)'} leaves no GPU for this local rank"
            found.append(Fault(node=node, what=what))
    return found


def _nodes(told: Sequence[Facts]) -> list[str]:
    return list(dict.fromkeys(f.node for f in sorted(told, key=lambda f: (f.node_rank, f.rank))))


def _groups(told, of):  # type: ignore[no-untyped-def]
    """(node, value, ranks) for every value that ranks of a node have."""
    found: dict[tuple[str, object], list[int]] = defaultdict(list)
    for facts in sorted(told, key=lambda f: (f.node_rank, f.rank)):
        found[facts.node, of(facts)].append(facts.rank)
    return [(node, value, which) for (node, value), which in found.items()]
