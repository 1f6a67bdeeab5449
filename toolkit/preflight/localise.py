"""Who is to blame, from what each node reached alone and with others. Pure: measurements in, verdict out.

A node is bad when it is slow alone, or when most of its pairs are while the others' are not; one slow pair between
nodes that are well with others is a link.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Pair = tuple[str, str]
_LEAST_PAIRS = 2  # a node is not blamed for one pair
_MOST_LINKS = 20


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One test: bus bandwidth in GB/s, or None and `why` there is none. `how` names the tool."""

    gb_s: float | None = None
    why: str = ""
    how: str = ""
    wrong: int = 0  # elements that were not the right sum


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Below which a test is slow: `fraction` of what is expected, or `outlier` of what its likes reach."""

    node_gb_s: float | None = None
    pair_gb_s: float | None = None
    all_gb_s: float | None = None
    fraction: float = 0.8
    outlier: float = 0.25


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """`faults` are (node, words), node "" where none can be named; `exclude` are nodes to keep away from."""

    faults: tuple[tuple[str, str], ...] = ()
    exclude: tuple[str, ...] = ()
    slow: frozenset[Pair] = field(default_factory=frozenset)  # pairs that are too slow or came to nothing


def verdict(
    alone: Mapping[str, Measured], pairs: Mapping[Pair, Measured], everyone: Measured | None, limits: Limits
) -> Verdict:
    """Faults by node. Keys of `pairs` are two different nodes, in either order, each pair once."""
    pairs = {(min(pair), max(pair)): found for pair, found in pairs.items()}
    slow_alone = {node: why for node, found in alone.items() if (why := _slow(found, alone, limits.node_gb_s, limits))}
    faults = [(node, f"alone: {why}") for node, why in slow_alone.items()]
    reasons = {pair: why for pair, found in pairs.items() if (why := _slow(found, pairs, limits.pair_gb_s, limits))}
    nodes = sorted({node for pair in pairs for node in pair})
    bad, told = _blame(nodes, pairs, reasons, slow_alone)
    faults += told
    exclude = [*slow_alone, *(node for node in bad if node not in slow_alone)]
    left = {pair: why for pair, why in reasons.items() if not set(pair) & set(exclude)}
    if left and len(left) == len([pair for pair in pairs if not set(pair) & set(exclude)]) and len(left) > 1:
        worst = min(left, key=lambda pair: pairs[pair].gb_s or 0.0)
        faults.append(("", f"all {len(left)} pairs of nodes are slow, {_name(worst)} the most: {left[worst]}"))
    else:
        for pair, why in list(left.items())[:_MOST_LINKS]:
            more = "; which of the two it is, one pair cannot tell" if len(nodes) == 2 else ""
            faults.append(("", f"{_name(pair)}: {why}{more}"))
        if len(left) > _MOST_LINKS:
            faults.append(("", f"and {len(left) - _MOST_LINKS} more slow pairs"))
    if everyone is not None:
        why = _slow(everyone, {}, limits.all_gb_s, limits)
        if why:
            faults.append(("", f"all nodes together: {why}"))
    return Verdict(faults=tuple(faults), exclude=tuple(sorted(exclude)), slow=frozenset(reasons))


def _name(pair: Pair) -> str:
    return f"{pair[0]} - {pair[1]}"


def rate(gb_s: float) -> str:
    """GB/s in words, also where there is little of it."""
    return f"{gb_s:.1f} GB/s" if gb_s >= 10 else f"{gb_s:.3g} GB/s"


def _slow(found: Measured, likes: Mapping[object, Measured], expected: float | None, limits: Limits) -> str:
    """Why a test is a fault, in words; '' when it is none."""
    if found.wrong:
        return f"{found.wrong:,} elements of the sum were wrong"
    if found.gb_s is None:
        return found.why or "came to nothing"
    if expected is not None and found.gb_s < limits.fraction * expected:
        return f"{rate(found.gb_s)}, where {rate(expected)} is expected and {limits.fraction:.0%} of it is the least"
    rates = sorted(one.gb_s for one in likes.values() if one.gb_s is not None)
    # The upper quartile: of three nodes with a bad one, two of three pairs are slow, and the median with them.
    usual = rates[math.ceil(0.75 * (len(rates) - 1))] if rates else 0.0
    if found.gb_s < limits.outlier * usual:
        return f"{rate(found.gb_s)}, where its likes reach {rate(usual)}"
    return ""


def _blame(
    nodes: Sequence[str], pairs: Mapping[Pair, Measured], reasons: Mapping[Pair, str], known: Mapping[str, str]
) -> tuple[list[str], list[tuple[str, str]]]:
    """(bad nodes, faults of theirs) from pairs alone; `known` are bad already, and their pairs tell nothing."""
    left = [node for node in nodes if node not in known]
    bad: list[str] = []
    told: list[tuple[str, str]] = []
    groups = _groups(left, pairs, reasons)
    if len(groups) > 1 and len(groups[0]) > len(groups[1]):
        norm = groups[0]
        for group in groups[1:]:
            # One pair tells nothing; several do, and one of them with a node that is well with others.
            counted = [
                node for node in group if _pairs(node, pairs, nodes) >= _LEAST_PAIRS and _pairs(node, pairs, norm)
            ]
            if len(group) > 1 and counted:
                told.append(("", f"{', '.join(group)} are well with each other alone, and slow with all the others"))
            for node in counted:
                bad.append(node)
                told.append((node, _with_others(node, pairs, reasons, norm)))
        left = norm
    elif len(groups) > 1:
        return [], told  # nobody can tell who is right
    while True:
        shares = {node: _share(node, pairs, reasons, left) for node in left}
        worst = max(left, key=lambda node: shares[node], default=None)
        if worst is None or shares[worst] <= 0.5 or _pairs(worst, pairs, left) <= _LEAST_PAIRS:
            return bad, told
        bad.append(worst)
        told.append((worst, _with_others(worst, pairs, reasons, left)))
        left = [node for node in left if node != worst]


def _groups(nodes: Sequence[str], pairs: Mapping[Pair, Measured], reasons: Mapping[Pair, str]) -> list[list[str]]:
    """Nodes that good pairs join, directly or by others; the largest group first."""
    group = {node: {node} for node in nodes}
    for a, b in pairs:
        if (a, b) not in reasons and a in group and b in group and group[a] is not group[b]:
            joined = group[a] | group[b]
            for node in joined:
                group[node] = joined
    unique = {id(members): sorted(members) for members in group.values()}
    return sorted(unique.values(), key=lambda members: (-len(members), members))


def _of(node: str, pairs: Mapping[Pair, Measured], others: Sequence[str]) -> list[Pair]:
    return [(a, b) for a, b in pairs if (a == node and b in others) or (b == node and a in others)]


def _pairs(node: str, pairs: Mapping[Pair, Measured], others: Sequence[str]) -> int:
    return len(_of(node, pairs, others))


def _share(node: str, pairs: Mapping[Pair, Measured], reasons: Mapping[Pair, str], others: Sequence[str]) -> float:
    mine = _of(node, pairs, others)
    return sum(pair in reasons for pair in mine) / len(mine) if mine else 0.0


def _with_others(node: str, pairs: Mapping[Pair, Measured], reasons: Mapping[Pair, str], others: Sequence[str]) -> str:
    slow = [pair for pair in _of(node, pairs, others) if pair in reasons]
    worst = min(slow, key=lambda pair: pairs[pair].gb_s or 0.0)
    partner = worst[0] if worst[1] == node else worst[1]
    how = "slow" if any(pairs[pair].gb_s is not None for pair in slow) else "nothing comes of it"
    return f"{how} with {len(slow)} of {_pairs(node, pairs, others)} others; with {partner}: {reasons[worst]}"
