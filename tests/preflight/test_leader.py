"""How rank 0 measures: whom it asks for what, and what it makes of every answer. The ranks' side is made up here; real
ranks measure in test_bandwidth.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from toolkit.preflight import Facts, Hands, Limits, Plan, measure, nccl_tests
from toolkit.preflight.bandwidth import budget_s

RECORDED = Path(__file__).with_name("recorded")
V100 = (RECORDED / "nccl_tests_v100.txt").read_text()
LIMITS = Limits(node_gb_s=120.0, pair_gb_s=25.0, all_gb_s=25.0, outlier=0.7)
Answer = Callable[[int, dict[str, Any]], dict[str, Any] | None]


def table(gb_s: float, wrong: int = 0) -> str:
    row = nccl_tests.Row(size_bytes=1 << 30, time_us=5e4, algbw_gb_s=gb_s / 1.9, busbw_gb_s=gb_s, wrong=wrong)
    return nccl_tests.write([row])


class Ranks:
    """Four nodes of two GPUs, ranks 0 to 7, all well but for what `odd` answers instead."""

    def __init__(self, odd: Answer | None = None, perf: bool = True, nodes: int = 4) -> None:
        self.asked: list[tuple[int, dict[str, Any]]] = []
        self._odd, self._perf = odd or (lambda rank, order: None), perf
        self.members = {
            f"n{node}": [Facts(rank=2 * node + n, local_rank=n, node_rank=node, world=2 * nodes, node=f"n{node}",
                               master="n0:1") for n in range(2)]
            for node in range(nodes)
        }  # fmt: skip

    def ask(self, orders: Mapping[int, dict[str, Any]], limit_s: float) -> dict[int, dict[str, Any]]:
        assert all(limit_s > order["limit_s"] for order in orders.values())
        found = {}
        for rank, order in orders.items():
            self.asked.append((rank, order))
            usual = {
                "start": {"torch": "2", "perf": self._perf}, "open": {"port": 4000 + rank},
                "perf": {"table": V100, "code": 0}, "run": {"table": table(24.0)}, "counters": {"counters": {}},
            }  # fmt: skip
            odd = self._odd(rank, order)
            found[rank] = usual[order["do"]] if odd is None else odd
        return found

    def measure(self, **changes: Any) -> Any:
        plan = Plan(**{"gpu": True, "per_node": 2, "size_bytes": 1 << 30, "limits": LIMITS, **changes})
        return measure(self.ask, self.members, {rank: f"10.0.0.{rank}" for rank in range(16)}, plan)


def test_all_well() -> None:
    ranks = Ranks()
    found = ranks.measure()
    assert {node: (one.gb_s, one.how) for node, one in found.alone.items()} == dict.fromkeys(
        ["n0", "n1", "n2", "n3"], (129.14, "all_reduce_perf")
    )
    assert len(found.pairs) == 6 and {one.gb_s for one in found.pairs.values()} == {24.0}
    assert found.everyone.gb_s == 24.0 and found.notes == () and found.lost == {}
    assert found.counters == dict.fromkeys(found.alone, {})
    assert [order["gpus"] for _, order in ranks.asked if order["do"] == "perf"] == [2] * 4
    runs = [(rank, order) for rank, order in ranks.asked if order["do"] == "run"]
    everyone = [order for _, order in runs if order["world"] == 8]
    assert [order["rank"] for order in everyone] == list(range(8)) and {tuple(o["store"]) for o in everyone} == {
        ("10.0.0.0", 4000)
    }
    assert len({order["key"] for _, order in runs}) == 7  # six pairs, and all


def test_without_nccl_tests_a_node_is_a_group_of_its_own() -> None:
    found = Ranks(perf=False).measure()
    assert {(one.gb_s, one.how) for one in found.alone.values()} == {(24.0, "NCCL")}
    broken = {"table": "all_reduce_perf: error while loading shared libraries: libmpi.so.40", "code": 127}
    found = Ranks(lambda rank, order: broken if (rank, order["do"]) == (2, "perf") else None).measure()
    assert found.alone["n1"].how == "NCCL" and found.alone["n0"].how == "all_reduce_perf"
    assert len(found.notes) == 1 and "n1: all_reduce_perf told nothing (all_reduce_perf: error while" in found.notes[0]


def test_a_node_on_which_torch_does_not_start_costs_the_others_nothing() -> None:
    error = {"error": "RuntimeError: torch 2.9 finds no GPU"}
    found = Ranks(lambda rank, order: error if (rank, order["do"]) == (5, "start") else None).measure()
    assert found.lost == {"n2": "rank 5: RuntimeError: torch 2.9 finds no GPU"}
    assert found.alone["n2"].gb_s is None and len(found.pairs) == 3 and found.everyone.gb_s == 24.0


def test_a_rank_that_goes_away() -> None:
    gone = {"error": "its process is gone, or does not answer"}
    ranks = Ranks(lambda rank, order: gone if rank == 7 and order["do"] != "start" else None)
    found = ranks.measure()
    assert [pair for pair, one in found.pairs.items() if one.gb_s is None] == [
        pair for pair in found.pairs if "n3" in pair
    ]
    assert found.pairs["n0", "n3"].why == "rank 7: its process is gone, or does not answer"
    assert found.everyone.gb_s == 24.0  # of the other three
    # Whoever has lost its measuring process by that is given another before its next test.
    again = [rank for rank, order in ranks.asked[8:] if order["do"] == "start"]
    assert 7 in again


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ({}, "its table is not whole"),
        ({"table": 3}, "its table is not whole"),
        ({"table": table(24.0)[:300]}, "its table is not whole"),
        ({"table": table(9e8)}, "its table is not whole"),
        ({"table": "Test NCCL failure common.cu:1: 'unhandled cuda error'"}, "Test NCCL failure common.cu:1"),
        ({"error": 7}, "ranks 0, 1, 2, 3: 7"),
    ],
)
def test_answers_that_are_none(answer: dict[str, Any], why: str) -> None:
    found = Ranks(lambda rank, order: answer if order["do"] == "run" else None, nodes=2).measure()
    assert found.pairs["n0", "n1"].gb_s is None and found.pairs["n0", "n1"].why.startswith(why)
    assert found.everyone is None


def test_no_meeting_point_and_wrong_sums() -> None:
    shut = {"error": "RuntimeError: address in use"}
    found = Ranks(lambda rank, order: shut if order["do"] == "open" else None, nodes=2).measure()
    assert found.pairs["n0", "n1"].why == "rank 0: RuntimeError: address in use"
    bad = {"table": table(24.0, wrong=5)}
    found = Ranks(lambda rank, order: bad if order["do"] == "run" else None, nodes=2).measure()
    assert found.pairs["n0", "n1"].wrong == 5


def test_the_time_that_a_rank_waits_covers_all_tests() -> None:
    plan = Plan(gpu=True, per_node=8, size_bytes=1, limits=LIMITS)
    assert budget_s(plan, 16) > 17 * 60 and budget_s(plan, 64) < budget_s(plan, 16)  # 8 rounds instead of 15


def test_a_rank_runs_nccl_tests_without_the_jobs_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that stands for all_reduce_perf tells how it was called, and prints what the real one did."""
    program = tmp_path / "all_reduce_perf"
    told = f'env > {tmp_path}/env; echo "$@" > {tmp_path}/args; cat {RECORDED}/nccl_tests_v100.txt'
    program.write_text(f"#!/bin/sh\n{told}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    for name in ("PMI_RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "RANK", "NCCL_IB_HCA"):
        monkeypatch.setenv(name, "1")
    own = Facts(rank=0, local_rank=0, node_rank=0, world=8, node="a", master="a:1", visible="0,1,2,3,4,5,6,7")
    answer = Hands(own, gpu=True)({"do": "perf", "limit_s": 30, "gpus": 8, "end_mib": 4096})
    assert nccl_tests.read(answer["table"]).peak_gb_s == 129.14 and answer["code"] == 0
    assert (tmp_path / "args").read_text().split() == ["-b", "8M", "-e", "4096M", "-f", "2", "-g", "8"]
    names = {line.partition("=")[0] for line in (tmp_path / "env").read_text().splitlines()}
    assert "NCCL_IB_HCA" in names and not names & {"PMI_RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "RANK"}
    program.write_text("#!/bin/sh\nsleep 60\n")
    late = Hands(own, gpu=True)({"do": "perf", "limit_s": 0.5, "gpus": 8, "end_mib": 8})
    assert late == {"error": "all_reduce_perf was not done within 0.5 s"}
