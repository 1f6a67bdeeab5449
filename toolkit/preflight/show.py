"""The result of a preflight by node, for people and for preflight.json."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from toolkit.preflight.facts import Facts
from toolkit.preflight.judge import Fault
from toolkit.preflight.nodelist import spans

_COLUMNS = ("node", "ranks", "GPUs", "visible", "memlock", "clock", "Python", "toolkit")


def as_dict(told: Sequence[Facts], found: Sequence[Fault], warned: Sequence[Fault]) -> dict[str, Any]:
    return {
        "master": next((f.master for f in told if f.rank == 0), None),
        "job": next((f.job for f in told if f.job), None),
        "ranks": len({f.rank for f in told}),
        "nodes": [_node(here) for here in _by_node(told)],
        "faults": [{"node": fault.node, "what": fault.what} for fault in found],
        "warnings": [{"node": fault.node, "what": fault.what} for fault in warned],
    }


def table(told: Sequence[Facts], found: Sequence[Fault], warned: Sequence[Fault]) -> str:
    """A line for each node, then one for each fault and warning."""
    rows = [list(_COLUMNS)]
    for here in map(_node, _by_node(told)):
        memlock = "unlimited" if here["memlock_kib"] is None else f"{here['memlock_kib']} KiB"
        rows.append(
            [here["node"], here["ranks"], _or_dash(here["gpus"]), _or_dash(here["visible"]), memlock]
            + [f"{here['clock_offset_s']:+.3f} s", here["python"], here["version"]]
        )
    widths = [max(len(row[n]) for row in rows) for n in range(len(_COLUMNS))]
    lines = ["  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += [f"fault: {fault}" for fault in found] + [f"warning: {fault}" for fault in warned]
    return "\n".join([*lines, "" if found else "every rank is where it should be"]).rstrip()


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
