"""The attempts of a stage on Slurm: how often it began, on which nodes, how far it came and how it ended.

Kept in the stage's folder by whoever holds the stage's lock. Decides when there have been enough, and which nodes to
keep away from; leaves asking Slurm and going on to the job.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolkit import files

ATTEMPTS, NODES = "attempts.json", "nodes.json"


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One start of a stage's job. `step_from` and `step_to` are those of the newest whole checkpoint, None before there
    is one, `reached` the last step trained: what lies between is trained twice. `state` is RUNNING, COMPLETED, FAILED,
    STOPPED, ROLLED_BACK, UNFIT (a node was, before a rank began), CRASHED, HUNG, LOST or CANCELLED; times in seconds
    since 1970.
    """

    job_id: str
    restart: int
    started: float
    hosts: tuple[str, ...]
    step_from: int | None
    logs: Mapping[str, int] = field(default_factory=dict)
    state: str = "RUNNING"
    ended: float | None = None
    step_to: int | None = None
    reached: int | None = None
    why: str = ""

    @property
    def idle(self) -> bool:
        """Whether it ended, and no newer checkpoint than at its beginning was left. One that was rolled back was not
        idle: the training itself counts those. Nor was one whose nodes were not fit: the next has others.
        """
        before, after = (-1 if step is None else step for step in (self.step_from, self.step_to))
        return self.state not in ("RUNNING", "ROLLED_BACK", "UNFIT") and after <= before


@dataclass(frozen=True, kw_only=True)
class Nodes:
    """Why each node is blamed, in order; which are excluded; of which Slurm has been told."""

    strikes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    excluded: tuple[str, ...] = ()
    told: tuple[str, ...] = ()


def read(folder: Path) -> list[Attempt]:
    """The attempts so far, oldest first; none when the file is damaged, which costs no more than their history."""
    rows = _object(folder / ATTEMPTS).get("attempts")
    return [made for row in rows if (made := _attempt(row)) is not None] if isinstance(rows, list) else []


def write(folder: Path, attempts: Sequence[Attempt]) -> None:
    files.write_json(folder / ATTEMPTS, {"attempts": [dataclasses.asdict(a) for a in attempts]})


def close_lost(attempts: Sequence[Attempt], step: int | None, reached: int | None) -> list[Attempt]:
    """Attempts without an end were cut off, by their node or by SIGKILL; `step` is the newest checkpoint's now."""
    lost: dict[str, Any] = {"state": "LOST", "ended": time.time(), "step_to": step, "reached": reached}
    lost["why"] = "its end was not recorded"
    return [dataclasses.replace(a, **lost) if a.state == "RUNNING" else a for a in attempts]


def idle_in_a_row(attempts: Sequence[Attempt]) -> int:
    """How many of the newest attempts, one after the other, left no newer checkpoint."""
    count = 0
    for attempt in reversed(attempts):
        if not attempt.idle:
            break
        count += 1
    return count


def read_nodes(folder: Path) -> Nodes:
    found = _object(folder / NODES)
    strikes = found.get("strikes")
    kept = {str(k): tuple(map(str, v)) for k, v in strikes.items()} if isinstance(strikes, dict) else {}
    lists = {name: tuple(map(str, found.get(name) or ())) for name in ("excluded", "told")}
    return Nodes(strikes=kept, **lists)


def blame(folder: Path, faults: Iterable[tuple[str, str]], limit: int) -> Nodes:
    """Note a strike for each (node, why); nodes with `limit` of them are excluded from now on."""
    before = read_nodes(folder)
    strikes = dict(before.strikes)
    for node, why in faults:
        strikes[node] = (*strikes.get(node, ()), why)
    excluded = tuple(sorted({*before.excluded, *(n for n, reasons in strikes.items() if len(reasons) >= limit)}))
    after = dataclasses.replace(before, strikes=strikes, excluded=excluded)
    if after != before:
        files.write_json(folder / NODES, dataclasses.asdict(after))
    return after


def exclude(folder: Path, faults: Iterable[tuple[str, str]]) -> Nodes:
    """Note a strike for each (node, why), and keep away from these nodes from now on, however few they have."""
    told = list(faults)
    before = blame(folder, told, sys.maxsize)
    after = dataclasses.replace(before, excluded=tuple(sorted({*before.excluded, *(node for node, _ in told)})))
    if after != before:
        files.write_json(folder / NODES, dataclasses.asdict(after))
    return after


def note_told(folder: Path, nodes: Iterable[str]) -> None:
    before = read_nodes(folder)
    after = dataclasses.replace(before, told=tuple(sorted({*before.told, *nodes})))
    files.write_json(folder / NODES, dataclasses.asdict(after))


def excluded(run: Path) -> tuple[str, ...]:
    """Nodes that any stage of the run keeps away from."""
    return tuple(sorted({node for path in run.glob(f"stages/*/{NODES}") for node in read_nodes(path.parent).excluded}))


def _object(path: Path) -> dict[str, Any]:
    try:
        value = files.read_json(path)
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _attempt(row: Any) -> Attempt | None:
    names = {f.name for f in dataclasses.fields(Attempt)}
    try:
        known = {key: value for key, value in row.items() if key in names}
        return Attempt(**{**known, "hosts": tuple(map(str, known["hosts"]))})
    except (AttributeError, KeyError, TypeError):
        return None
