"""How fast nodes are alone, in pairs and together: rank 0 gives the orders and gathers what was measured.

Decides who measures when, and goes on where a test hangs or breaks off; what is too slow is `localise`'s to say.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from toolkit.preflight import nccl_tests
from toolkit.preflight.facts import Facts
from toolkit.preflight.hands import PERF
from toolkit.preflight.localise import Limits, Measured, Pair, verdict
from toolkit.preflight.schedule import rounds

# {rank: order}, seconds for the slowest -> {rank: its answer}; whoever gives none answers {"error": why}.
Ask = Callable[[Mapping[int, dict[str, Any]], float], Mapping[int, dict[str, Any]]]
_PATIENCE_S = 15.0  # beyond what a rank grants its worker: the rank answers, even that there is no answer
_GIVE_UP = 3  # partners in a row with whom a node came to nothing: it costs the others a time limit each
_COUNT_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """`perf_mib` is the largest message of nccl-tests on one node; the rest as in cluster.preflight."""

    gpu: bool
    per_node: int
    size_bytes: int
    limits: Limits
    limit_s: float = 60.0
    start_s: float = 300.0
    rounds: int | None = None
    perf_mib: int = 4096


@dataclass(frozen=True, kw_only=True)
class Bandwidth:
    """What was measured of `nodes`. `lost` came to nothing before the first test, {node: why}; `counters` is what each
    node's NICs have counted at the end, {node: {port: {name: count}}}; `notes` is what else is worth a line.
    """

    nodes: tuple[str, ...] = ()
    alone: Mapping[str, Measured] = field(default_factory=dict)
    pairs: Mapping[Pair, Measured] = field(default_factory=dict)
    everyone: Measured | None = None
    lost: Mapping[str, str] = field(default_factory=dict)
    counters: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    seconds: float = 0.0


def budget_s(plan: Plan, nodes: int) -> float:
    """The longest that all of it may take: how long a rank that has nothing to do waits for its next order."""
    tests = 2 + len(rounds(range(nodes), plan.rounds))
    # Each may hang, and then cost the time to load torch again.
    return (tests + 1) * (plan.start_s + 2 * (plan.limit_s + _PATIENCE_S)) + _COUNT_S + 60.0


def measure(ask: Ask, members: Mapping[str, Sequence[Facts]], hosts: Mapping[int, str], plan: Plan) -> Bandwidth:
    """`members` are the ranks of each node that can be measured, `hosts` the address by which others reach a rank."""
    return _Leader(ask, members, hosts, plan).lead()


class _Leader:
    def __init__(self, ask: Ask, members: Mapping[str, Sequence[Facts]], hosts: Mapping[int, str], plan: Plan) -> None:
        self._ask, self._hosts, self._plan = ask, hosts, plan
        self._ranks = {node: sorted(facts.rank for facts in here) for node, here in members.items()}
        self._perf: set[str] = set()
        self._notes: list[str] = []
        self._broken: set[int] = set()  # ranks whose measuring process was ended
        self._tests = 0

    def lead(self) -> Bandwidth:
        begun = time.monotonic()
        lost = self._start()
        live = [node for node in self._ranks if node not in lost]
        alone = self._alone(live) if self._plan.per_node > 1 else {}
        pairs = self._pairs(live)
        bad = verdict(alone, pairs, None, self._plan.limits).exclude
        none = {node: [one.gb_s is None for pair, one in pairs.items() if node in pair] for node in live}
        fit = [node for node in live if node not in bad and not (none[node] and all(none[node]))]
        everyone = self._groups({"": fit})[""] if len(fit) > 2 else None
        return Bandwidth(
            nodes=tuple(self._ranks),
            alone={**alone, **{node: Measured(why=why) for node, why in lost.items()}},
            pairs=pairs,
            everyone=everyone,
            lost=lost,
            counters=self._count(list(self._ranks)),
            notes=tuple(self._notes),
            seconds=time.monotonic() - begun,
        )

    def _start(self) -> dict[str, str]:
        """{node: why} of those on which a rank cannot measure."""
        answers = self._say({rank: {"do": "start"} for here in self._ranks.values() for rank in here},
                            self._plan.start_s)  # fmt: skip
        lost = {}
        for node, here in self._ranks.items():
            why = next((f"rank {rank}: {answers[rank]['error']}" for rank in here if "error" in answers[rank]), "")
            if why:
                lost[node] = why
            elif answers[here[0]].get("perf") is True:
                self._perf.add(node)
        return lost

    def _alone(self, nodes: Sequence[str]) -> dict[str, Measured]:
        """By nccl-tests where they are, else as groups of their own ranks."""
        with_perf = [node for node in nodes if node in self._perf]
        order = {"do": "perf", "gpus": self._plan.per_node, "end_mib": self._plan.perf_mib}
        answers = self._say({self._ranks[node][0]: order for node in with_perf}, self._plan.limit_s)
        found = {}
        for node in with_perf:
            made = _of(answers[self._ranks[node][0]], PERF)
            if made.gb_s is None:
                self._notes.append(f"{node}: {PERF} told nothing ({made.why}); measured without it")
            else:
                found[node] = made
        rest = {node: [node] for node in nodes if node not in found}
        return {**found, **self._groups(rest)}

    def _pairs(self, nodes: Sequence[str]) -> dict[Pair, Measured]:
        found: dict[Pair, Measured] = {}
        failures: dict[str, int] = dict.fromkeys(nodes, 0)
        skipped: set[str] = set()
        for round_ in rounds(list(nodes), self._plan.rounds):
            live = [pair for pair in round_ if max(failures[node] for node in pair) < _GIVE_UP]
            skipped |= {node for pair in round_ for node in pair if failures[node] >= _GIVE_UP}
            made = self._groups({pair: list(pair) for pair in live})
            found |= made
            for pair, one in made.items():
                for node in pair:
                    failures[node] = failures[node] + 1 if one.gb_s is None else 0
        for node in sorted(skipped):
            self._notes.append(f"{node}: given up after {_GIVE_UP} pairs in a row of which nothing came")
        return found

    def _groups(self, groups: Mapping[Any, Sequence[str]]) -> dict[Any, Measured]:
        """All `groups` of nodes at once, each an all-reduce over all of its ranks."""
        ranks = {key: [rank for node in nodes for rank in self._ranks[node]] for key, nodes in groups.items()}
        self._mend({rank for here in ranks.values() for rank in here})
        opened = self._say({here[0]: {"do": "open"} for here in ranks.values()}, self._plan.limit_s)
        orders: dict[int, dict[str, Any]] = {}
        for here in ranks.values():
            self._tests += 1
            port = opened[here[0]].get("port")
            if isinstance(port, int):
                for place, rank in enumerate(here):
                    orders[rank] = {
                        "do": "run", "store": [self._hosts[here[0]], port], "key": f"test-{self._tests}", "rank": place,
                        "world": len(here), "size_bytes": self._plan.size_bytes,
                    }  # fmt: skip
        answers = self._say(orders, self._plan.limit_s)
        self._broken |= {rank for said in (opened, answers) for rank, answer in said.items() if "error" in answer}
        how = "NCCL" if self._plan.gpu else "gloo"
        return {
            key: _group(here, answers, how) if here[0] in answers else Measured(
                why=f"rank {here[0]}: {opened[here[0]].get('error', 'made no meeting point')}", how=how
            )
            for key, here in ranks.items()
        }  # fmt: skip

    def _mend(self, ranks: set[int]) -> None:
        """New measuring processes for those that an earlier test has cost theirs."""
        again = self._broken & ranks
        self._broken -= again
        self._say({rank: {"do": "start"} for rank in again}, self._plan.start_s)

    def _count(self, nodes: Sequence[str]) -> dict[str, Any]:
        """Of every node, whatever became of its tests: that is when its NICs have something to tell."""
        answers = self._say({self._ranks[node][0]: {"do": "counters"} for node in nodes}, _COUNT_S)
        return {node: answers[self._ranks[node][0]].get("counters", {}) for node in nodes}

    def _say(self, orders: Mapping[int, dict[str, Any]], limit_s: float) -> Mapping[int, dict[str, Any]]:
        if not orders:
            return {}
        return self._ask({rank: {**order, "limit_s": limit_s} for rank, order in orders.items()}, limit_s + _PATIENCE_S)


def _group(ranks: Sequence[int], answers: Mapping[int, dict[str, Any]], how: str) -> Measured:
    """The first rank's table, unless a rank came to nothing."""
    why: dict[str, list[int]] = {}
    for rank in ranks:
        if "error" in answers[rank]:
            why.setdefault(str(answers[rank]["error"])[:200], []).append(rank)
    if why:
        # Who hung says the least, and those who waited for it the same as it: all are named.
        told = [f"rank{'s' * (len(who) > 1)} {', '.join(map(str, who))}: {words}" for words, who in why.items()]
        return Measured(why="; ".join(told)[:600], how=how)
    return _of(answers[ranks[0]], how)


def _of(answer: Mapping[str, Any], how: str) -> Measured:
    if "error" in answer:
        return Measured(why=str(answer["error"])[:300], how=how)
    table = nccl_tests.read(answer["table"]) if isinstance(answer.get("table"), str) else nccl_tests.Table()
    rate = table.peak_gb_s
    if rate is None or not table.whole or table.failed or rate > nccl_tests.MOST_GB_S:
        code = answer.get("code")
        ended = f"ended with {code}" if isinstance(code, int) and code else "its table is not whole"
        return Measured(why=table.failed or ended, how=how)
    return Measured(gb_s=rate, how=how, wrong=table.wrong)
