"""The result of a preflight by node, for people and for preflight.json."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from toolkit.preflight.bandwidth import Bandwidth
from toolkit.preflight.facts import Facts
from toolkit.preflight.localise import Measured, rate
from toolkit.preflight.nodelist import spans
from toolkit.preflight.outcome import Nodes, Outcome

_COLUMNS = ("node", "ranks", "GPUs", "visible", "memlock", "clock", "Python", "toolkit")


def as_dict(
    told: Sequence[Facts], outcome: Outcome, nodes: Nodes | None = None, band: Bandwidth | None = None
) -> dict[str, Any]:
    """What preflight.json holds. Rates are bus bandwidths in GB/s (1e9 bytes)."""
    return {
        "master": next((f.master for f in told if f.rank == 0), None),
        "job": next((f.job for f in told if f.job), None),
        "ranks": len({f.rank for f in told}),
        "nodes": [_node(here) for here in _by_node(told)],
        "faults": [{"node": fault.node, "what": fault.what} for fault in outcome.faults],
        "warnings": [{"node": fault.node, "what": fault.what} for fault in outcome.warnings],
        "exclude": list(outcome.exclude),
        "bandwidth": None if band is None else _bandwidth(band, outcome),
        "hosts": {} if nodes is None else {name: nodes.hosts[name] for name in sorted(nodes.hosts)},
        "images": {} if nodes is None else dict(nodes.images),
    }


def table(told: Sequence[Facts], outcome: Outcome, band: Bandwidth | None = None) -> str:
    """A line for each node, then one for each fault and warning."""
    rows = [list(_COLUMNS)]
    for here in map(_node, _by_node(told)):
        memlock = "unlimited" if here["memlock_kib"] is None else f"{here['memlock_kib']} KiB"
        rows.append(
            [here["node"], here["ranks"], _or_dash(here["gpus"]), _or_dash(here["visible"]), memlock]
            + [f"{here['clock_offset_s']:+.3f} s", here["python"], here["version"]]
        )
    lines = _lines(rows)
    if band is not None:
        lines += ["", *_lines(_rates(band)), *_everyone(band, outcome)]
    lines += [f"fault: {fault}" for fault in outcome.faults] + [f"warning: {fault}" for fault in outcome.warnings]
    if outcome.exclude:
        lines.append(f"to be left out: {','.join(outcome.exclude)}")
    return "\n".join([*lines, "" if outcome.faults else "every rank is where it should be"]).rstrip()


def _lines(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    return ["  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _rates(band: Bandwidth) -> list[list[str]]:
    """Bus bandwidth of each node alone and with others; GB/s."""
    if not band.pairs:
        return [["node", "alone"], *([node, _rate(band.alone.get(node))] for node in band.nodes)]
    rows = [["node", "alone", "with others: least", "with", "median", "of"]]
    for node in band.nodes:
        found = {(a if b == node else b): one for (a, b), one in band.pairs.items() if node in (a, b)}
        rates = {other: one.gb_s for other, one in found.items() if one.gb_s is not None}
        nothing = next((other for other, one in found.items() if one.gb_s is None), None)
        least = nothing if nothing is not None else min(rates, key=lambda other: rates[other], default=None)
        rows.append(
            [
                node,
                _rate(band.alone.get(node)),
                _rate(found.get(least or "")),
                least or "-",
                f"{statistics.median(rates.values()):.3g}" if rates else "-",
                str(len(found)),
            ]
        )
    return rows


def _everyone(band: Bandwidth, outcome: Outcome) -> list[str]:
    lines = []
    if band.everyone is not None:
        unit = "" if band.everyone.gb_s is None else " GB/s"
        lines.append(f"all that are fit together: {_rate(band.everyone)}{unit}")
    limits = outcome.limits
    told = {"alone": limits.node_gb_s, "in pairs": limits.pair_gb_s, "all": limits.all_gb_s} if limits else {}
    known = [f"{what} {rate(value)}" for what, value in told.items() if value is not None]
    if known and limits is not None:
        lines.append(f"expected: {', '.join(known)}; less than {limits.fraction:.0%} of it is a fault")
    elif limits is not None:
        lines.append(
            f"nothing is expected of these links; less than {limits.outlier:.0%} of what others reach is a fault"
        )
    return [*lines, ""]


def _rate(found: Measured | None) -> str:
    return "-" if found is None else "nothing" if found.gb_s is None else f"{found.gb_s:.3g}"


def _bandwidth(band: Bandwidth, outcome: Outcome) -> dict[str, Any]:
    slow = outcome.verdict.slow if outcome.verdict else frozenset()
    limits = outcome.limits
    return {
        "nodes": list(band.nodes),
        "alone": {node: _measured(one) for node, one in band.alone.items()},
        "pairs": [
            {"a": a, "b": b, **_measured(one), "slow": (min(a, b), max(a, b)) in slow}
            for (a, b), one in band.pairs.items()
        ],
        "all": None if band.everyone is None else _measured(band.everyone),
        "expected": {}
        if limits is None
        else {
            "node_gb_s": limits.node_gb_s,
            "pair_gb_s": limits.pair_gb_s,
            "all_gb_s": limits.all_gb_s,
            "fraction": limits.fraction,
            "outlier": limits.outlier,
        },
        "seconds": round(band.seconds, 1),
    }


def _measured(one: Measured) -> dict[str, Any]:
    return {
        "gb_s": None if one.gb_s is None else round(one.gb_s, 4),
        "why": one.why,
        "how": one.how,
        "wrong": one.wrong,
    }


def _node(here: Sequence[Facts]) -> dict[str, Any]:
    best = min(here, key=lambda f: f.round_trip_s)
    first = here[0]
    return {
        "node": first.node,
        "node_rank": first.node_rank,
        "ranks": spans(f.rank for f in here),
        "gpus": first.gpus,
        "visible": first.visible,
        "memlock_kib": min((f.memlock_kib for f in here if f.memlock_kib is not None), default=None),
        "clock_offset_s": round(best.clock_offset_s, 4),
        "round_trip_s": round(best.round_trip_s, 4),
        "sees_folder": all(f.sees_folder for f in here),
        "nodelist": first.nodelist,
        "python": first.python,
        "version": first.version,
    }


def _by_node(told: Sequence[Facts]) -> list[list[Facts]]:
    found: dict[str, list[Facts]] = {}
    for facts in sorted(told, key=lambda f: (f.node_rank, f.rank)):
        found.setdefault(facts.node, []).append(facts)
    return list(found.values())


def _or_dash(value: object) -> str:
    return "-" if value is None else str(value)
