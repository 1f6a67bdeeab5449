"""What is a fault of which node, from facts alone; the table; and lists of nodes as Slurm writes them."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.preflight import Facts, Fault, Outcome, Wanted, as_dict, faults, measurable, table, warnings
from toolkit.preflight.facts import read
from toolkit.preflight.nodelist import names, ranks, spans

WANTED = Wanted(world=16, per_node=8, gpu=True, rdma=True)
NODES = ["node01", "node02"]


def job(**changes: dict[int, object]) -> list[Facts]:
    """Two nodes of eight, all well but for `changes`: {field: {rank: value}}."""
    told = [
        Facts(
            rank=n, local_rank=n % 8, node_rank=n // 8, world=16, node=NODES[n // 8], master="node01:20000", job="7.0",
            nodelist="node[01-02]", pid=100 + n, gpus=8, visible="0,1,2,3,4,5,6,7", version="1", python="3.11.7",
            round_trip_s=0.001, sees_folder=True,
        )
        for n in range(16)
    ]  # fmt: skip
    for field, values in changes.items():
        told = [dataclasses.replace(f, **{field: values.get(f.rank, getattr(f, field))}) for f in told]
    return told


def on(node: int, value: object) -> dict[int, object]:
    return dict.fromkeys(range(8 * node, 8 * node + 8), value)


def outcome(found: list[Fault], warned: list[Fault]) -> Outcome:
    return Outcome(faults=tuple(found), warnings=tuple(warned), exclude=())


def said(told: list[Facts], **unheard: object) -> list[str]:
    return [str(fault) for fault in faults(told, WANTED, unheard.get("unheard"))]  # type: ignore[arg-type]


def test_no_fault() -> None:
    assert said(job()) == [] and warnings(job(), WANTED) == []
    assert said(job(visible=dict.fromkeys(range(16)))) == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"gpus": on(1, 7)}, "node02: ranks 8-15: 7 GPUs in /dev, 8 were asked for"),
        ({"gpus": on(0, None)}, "node01: ranks 0-7: 0 GPUs in /dev, 8 were asked for"),
        ({"visible": {9: "3"}}, "node02: rank 9: CUDA_VISIBLE_DEVICES=3 leaves no GPU for this local rank"),
        ({"visible": {0: ""}}, "node01: rank 0: CUDA_VISIBLE_DEVICES=(empty) leaves no GPU for this local rank"),
        ({"master": {5: "node09:20000"}}, "node01: rank 5: master address node09:20000, where rank 0 has node01:20000"),
        ({"python": on(1, "3.12.1")}, "node02: ranks 8-15: Python 3.12.1, where rank 0 has 3.11.7"),
        ({"nodelist": {3: ""}}, "node01: rank 3: node list (none), where rank 0 has node[01-02]"),
        ({"world": {4: 8}}, "node01: rank 4: world size 8, where 16 were asked for"),
        (
            {"sees_folder": on(1, False)},
            "node02: ranks 8-15: what rank 0 writes into the run's folder is not seen there",
        ),
        ({"clock_offset_s": on(1, 2.6)}, "node02: clock 2.6 s ahead of rank 0's"),
        ({"node_rank": {11: 0}}, "node02: node ranks 0, 1 on one node"),
    ],
)
def test_one_fault(changes: dict[str, dict[int, object]], told: str) -> None:
    assert told in said(job(**changes))


def test_a_clock_is_as_exact_as_the_way_is_long() -> None:
    slow = {"clock_offset_s": on(1, 2.6), "round_trip_s": on(1, 1.4)}
    assert said(job(**slow)) == []  # it may be 1.9 s
    assert said(job(**{**slow, "round_trip_s": {**on(1, 1.4), 12: 0.1}})) == ["node02: clock 2.6 s ahead of rank 0's"]


def test_a_whole_node_that_never_came_has_its_name_from_the_list() -> None:
    assert said(job()[:8]) == ["node02: ranks 8-15 of 16 never reported"]
    assert said(job()[8:])[0] == "node01: ranks 0-7 of 16 never reported"
    bare = [dataclasses.replace(f, nodelist="") for f in job()[:8]]
    assert said(bare) == ["ranks 8-15 of 16 never reported"]
    assert said([]) == ["ranks 0-15 of 16 never reported"]
    why = {n: ("node02", "node01:20000 cannot be reached: No route to host") for n in (8, 9)}
    assert said(job()[:8] + job()[10:], unheard=why) == [
        "node02: ranks 8-9 of 16 never reported: node01:20000 cannot be reached: No route to host"
    ]


def test_only_whole_nodes_are_measured() -> None:
    whole = {"node01": list(range(8)), "node02": list(range(8, 16))}
    for told, left in (
        (job(), ["node01", "node02"]),
        (job()[:15], ["node01"]),
        (job(gpus=on(0, 7)), ["node02"]),
        (job(visible={9: "3"}), ["node01"]),
        (job(local_rank={9: 0}), ["node01"]),
        (job(rank={9: 8}), ["node01"]),
        (job(clock_offset_s=on(1, 9.0)), ["node01", "node02"]),
    ):
        found = measurable(told, WANTED)
        assert {node: [f.rank for f in here] for node, here in found.items()} == {node: whole[node] for node in left}


def test_limited_memory_is_a_warning_where_there_is_rdma() -> None:
    told = job(memlock_kib=on(1, 64))
    assert [str(one) for one in warnings(told, WANTED)] == [
        "node02: memory that may be locked is limited to 64 KiB, and RDMA locks its buffers"
    ]
    assert warnings(told, dataclasses.replace(WANTED, rdma=False)) == [] and said(told) == []


def test_the_table() -> None:
    told = job(memlock_kib=on(1, 64))
    lines = table(told, outcome(faults(told, WANTED), warnings(told, WANTED))).splitlines()
    assert lines[1].split() == ["node01", "0-7", "8", "0,1,2,3,4,5,6,7", "unlimited", "+0.000", "s", "3.11.7", "1"]
    assert lines[2].split()[4:6] == ["64", "KiB"] and lines[-1] == "every rank is where it should be"
    made = as_dict(told, outcome(faults(told[:3], WANTED), []))
    assert made["ranks"] == 16 and made["faults"][0] == {"node": "node01", "what": "ranks 3-7 of 16 never reported"}
    assert table([], outcome(faults([], WANTED), [])).splitlines()[-1].startswith("fault: ranks 0-15")


@given(st.lists(st.builds(Facts), max_size=5))
@settings(deadline=None)
def test_whatever_ranks_say_can_be_judged_and_shown(told: list[Facts]) -> None:
    found = faults(told, WANTED)
    made = outcome(found, warnings(told, WANTED))
    assert found and table(told, made) and as_dict(told, made)
    assert measurable(told, WANTED) == {}


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.sampled_from([f.name for f in dataclasses.fields(Facts)]), inner)
        ),
    )
)
def test_whatever_comes_is_facts_or_nothing(value: object) -> None:
    found = read(json.loads(json.dumps(value)))
    if found is not None:
        faults([found], WANTED)
        measurable([found], WANTED)
        table([found], outcome([], []))


def test_facts_survive_the_wire() -> None:
    for facts in job(visible={3: None}, memlock_kib={2: 64}):
        assert read(json.loads(json.dumps(dataclasses.asdict(facts)))) == facts


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("node01", ["node01"]),
        ("node[01-03,07],login", ["node01", "node02", "node03", "node07", "login"]),
        ("r[1-2]n[08-10]", ["r1n08", "r1n09", "r1n10", "r2n08", "r2n09", "r2n10"]),
        ("gpu[9-11]-ib", ["gpu9-ib", "gpu10-ib", "gpu11-ib"]),
        ("", []),
        ("node[1-999999999]", []),
        ("node[x]", []),
        ("n[1-1000]m[1-1000]", []),
        ("node[5-3]", []),
    ],
)
def test_node_lists(text: str, found: list[str]) -> None:
    assert names(text) == tuple(found)


@settings(deadline=None)
@given(st.lists(st.integers(0, 300), min_size=1))
def test_spans_say_which_ranks(numbers: list[int]) -> None:
    back = [
        n for span in spans(numbers).split(",") for n in range(int(span.split("-")[0]), int(span.split("-")[-1]) + 1)
    ]
    assert back == sorted(set(numbers))
    assert ranks(numbers).startswith("rank " if len(back) == 1 else "ranks ")
