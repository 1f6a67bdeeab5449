"""Nodes of a site that a preflight has found unfit, over all runs: `<runs>/nodes.json`, by cluster and node.

Decides who is on that list and how it outlives damage and writers at the same time; what keeps away from them is the
launcher's and the job's.
"""

from __future__ import annotations

import contextlib
import fcntl
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit import files
from toolkit.errors import RunError

NAME = "nodes.json"
# What becomes a word of sbatch's --exclude; a list that a stranger has written to names nothing else.
_NODE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}")
_LONGEST_WHY = 300


@dataclass(frozen=True, kw_only=True)
class Unfit:
    """A node that jobs keep away from: why, since when (seconds since 1970), and the run whose preflight said so."""

    why: str
    since: float
    run: str


def read(runs: Path) -> dict[str, dict[str, Unfit]]:
    """{cluster: {node: Unfit}} below the folder of runs; empty without a list. A damaged entry is passed over, and a
    list that is no JSON at all counts as none: it is a help, and must not stop a launch.
    """
    try:
        body = files.read_json(runs / NAME)
    except (OSError, ValueError, RecursionError):
        return {}
    found: dict[str, dict[str, Unfit]] = {}
    for cluster, nodes in body.items() if isinstance(body, dict) else ():
        made = {node: one for node, row in nodes.items() if (one := _unfit(node, row))} if _is(nodes) else {}
        if made:
            found[str(cluster)] = made
    return found


def names(runs: Path, cluster: str) -> tuple[str, ...]:
    """The nodes of `cluster` that jobs keep away from, sorted."""
    return tuple(sorted(read(runs).get(cluster, {})))


def note(runs: Path, cluster: str, found: Mapping[str, str], run: str) -> None:
    """Put the nodes of `found`, {node: why}, on the list. One that is there keeps its date. Raises `DiskFull`."""
    fit = {node: why for node, why in found.items() if _NODE.fullmatch(node)}

    def change(known: dict[str, Unfit]) -> dict[str, Unfit]:
        now = time.time()
        for node, why in fit.items():
            since = known[node].since if node in known else now
            known[node] = Unfit(why=why[:_LONGEST_WHY], since=since, run=run)
        return known

    if fit:
        _change(runs, cluster, change)


def clear(runs: Path, cluster: str, nodes: Iterable[str]) -> tuple[str, ...]:
    """Take nodes off the list; returns those that were on it. Raises `RunError` and `DiskFull`."""
    gone = tuple(sorted(set(nodes) & set(names(runs, cluster))))
    if gone:
        _change(runs, cluster, lambda known: {node: one for node, one in known.items() if node not in gone})
    return gone


def _change(runs: Path, cluster: str, change: Callable[[dict[str, Unfit]], dict[str, Unfit]]) -> None:
    try:
        with _alone(runs):
            known = read(runs)
            known[cluster] = change(known.get(cluster, {}))
            body = {
                name: {node: {"why": u.why, "since": u.since, "run": u.run} for node, u in sorted(nodes.items())}
                for name, nodes in sorted(known.items())
                if nodes
            }
            files.write_json(runs / NAME, body)
    except OSError as err:
        raise RunError(f"the list of unfit nodes cannot be written: {err.strerror}", where=runs / NAME) from None


@contextlib.contextmanager
def _alone(runs: Path) -> Iterator[None]:
    """Jobs of several runs may end at once. The kernel lets go of the lock however this process ends."""
    with open(runs / f".{NAME}.lock", "a", encoding="utf-8") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _is(value: Any) -> bool:
    return isinstance(value, dict)


def _unfit(node: Any, row: Any) -> Unfit | None:
    if not isinstance(node, str) or not _NODE.fullmatch(node) or not isinstance(row, dict):
        return None
    why, since, run = row.get("why"), row.get("since"), row.get("run")
    good = isinstance(since, (int, float)) and not isinstance(since, bool) and since == since
    return Unfit(
        why=why[:_LONGEST_WHY] if isinstance(why, str) else "",
        since=float(since) if good else 0.0,
        run=run[:_LONGEST_WHY] if isinstance(run, str) else "",
    )
