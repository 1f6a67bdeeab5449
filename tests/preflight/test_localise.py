"""Who is to blame, from measurements that are made up; which pairs are tried; what is expected of a site's links."""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.hardware import is_gpu, node_bus_gb_s
from toolkit.preflight import Limits, Measured, expected
from toolkit.preflight.localise import Verdict, verdict
from toolkit.preflight.schedule import rounds
from toolkit.recipe import compose
from toolkit.recipe.schema import Cluster

GOOD = 24.0


def names(count: int) -> list[str]:
    return [f"n{number:02}" for number in range(count)]


def judged(
    count: int, rate: Callable[[str, str], float | None], *, most: int | None = None, limits: Limits | None = None,
    alone: dict[str, float | None] | None = None, everyone: float | None = GOOD,
) -> Verdict:  # fmt: skip
    """Of `count` nodes, whose pairs reach `rate(a, b)`; None: nothing came of it."""
    pairs = {
        (a, b): Measured(gb_s=rate(a, b), why="" if rate(a, b) is not None else "no answer within 60 s")
        for round_ in rounds(names(count), most)
        for a, b in round_
    }
    own = {name: Measured(gb_s=230.0) for name in names(count)}
    own |= {name: Measured(gb_s=value, why="hung") for name, value in (alone or {}).items()}
    limits = limits or Limits(node_gb_s=230.0, pair_gb_s=25.0, all_gb_s=25.0, outlier=0.7)
    return verdict(own, pairs, None if everyone is None else Measured(gb_s=everyone), limits)


def slow(*bad: str, gb_s: float | None = 11.0) -> Callable[[str, str], float | None]:
    return lambda a, b: gb_s if {a, b} & set(bad) else GOOD


def test_all_well() -> None:
    for count in (1, 2, 3, 16):
        assert judged(count, slow()) == Verdict()


@pytest.mark.parametrize("gb_s", [11.0, None])
@pytest.mark.parametrize(("count", "most"), [(3, None), (4, None), (5, None), (16, None), (32, None), (16, 3), (16, 2)])
def test_a_bad_node_is_named_whatever_the_size(count: int, most: int | None, gb_s: float | None) -> None:
    found = judged(count, slow("n02", gb_s=gb_s), most=most)
    assert found.exclude == ("n02",) and [node for node, _ in found.faults] == ["n02"]
    tried = sum("n02" in pair for round_ in rounds(names(count), most) for pair in round_)
    assert f"with {tried} of {tried} others" in found.faults[0][1] and len(found.slow) == tried


def test_without_anything_expected_the_others_are_the_measure() -> None:
    free = Limits(outlier=0.7)
    for count in (3, 4, 16):
        assert judged(count, slow("n01"), limits=free, everyone=None).exclude == ("n01",)
    assert judged(16, lambda a, b: 0.2, limits=free) == Verdict()  # slow, and nobody knows
    half = judged(2, slow(), limits=free, alone={"n01": 100.0})
    assert half.exclude == ("n01",) and "its likes reach 230.0 GB/s" in half.faults[0][1]


def test_two_bad_nodes() -> None:
    found = judged(8, slow("n01", "n06"))
    assert found.exclude == ("n01", "n06")


def test_a_bad_node_that_was_lucky_once() -> None:
    found = judged(16, lambda a, b: GOOD if (a, b) in (("n03", "n09"), ("n09", "n03")) else slow("n03")(a, b))
    assert found.exclude == ("n03",) and "slow with 14 of 15 others" in found.faults[0][1]


def test_one_slow_pair_is_a_link() -> None:
    found = judged(16, lambda a, b: 9.0 if {a, b} == {"n04", "n11"} else GOOD)
    assert found.exclude == () and found.slow == {("n04", "n11")}
    told = "n04 - n11: 9 GB/s, where 25.0 GB/s is expected and 80% of it is the least"
    assert found.faults == (("", told),)


def test_of_two_nodes_nobody_can_tell() -> None:
    found = judged(2, slow("n00"))
    assert found.exclude == () and len(found.faults) == 1
    assert found.faults[0][1].endswith("which of the two it is, one pair cannot tell")


def test_a_node_that_is_slow_alone_is_bad_and_its_pairs_blame_nobody_else() -> None:
    found = judged(4, slow("n01"), alone={"n01": 90.0})
    assert found.exclude == ("n01",) and [node for node, _ in found.faults] == ["n01"]
    assert found.faults[0][1].startswith("alone: 90.0 GB/s, where 230.0 GB/s is expected")
    assert judged(2, slow("n01"), alone={"n01": None}).faults == (("n01", "alone: hung"),)


def test_a_part_that_reaches_only_itself() -> None:
    far = {"n12", "n13", "n14"}
    found = judged(16, lambda a, b: 3.0 if (a in far) != (b in far) else GOOD)
    assert found.exclude == ("n12", "n13", "n14")
    assert ("", "n12, n13, n14 are well with each other alone, and slow with all the others") in found.faults


def test_two_halves_leave_nobody_to_blame() -> None:
    found = judged(8, lambda a, b: GOOD if (a < "n04") == (b < "n04") else 5.0)
    assert found.exclude == () and len(found.faults) == 16 and found.faults[0][0] == ""


def test_when_everything_is_slow_no_node_is_blamed() -> None:
    found = judged(16, lambda a, b: 5.0, everyone=5.0)
    assert found.exclude == () and len(found.faults) == 2
    assert found.faults[0][1].startswith("all 120 pairs of nodes are slow") and "all nodes" in found.faults[1][1]


def test_all_together_may_be_slow_though_pairs_are_well() -> None:
    assert [what for _, what in judged(4, slow(), everyone=12.0).faults] == [
        "all nodes together: 12.0 GB/s, where 25.0 GB/s is expected and 80% of it is the least"
    ]


def test_a_wrong_sum_is_worse_than_a_slow_one() -> None:
    found = verdict({"a": Measured(gb_s=230.0, wrong=2)}, {}, None, Limits())
    assert found.exclude == ("a",) and found.faults == (("a", "alone: 2 elements of the sum were wrong"),)


rate = st.none() | st.floats(0, 500)


@settings(deadline=None)
@given(st.integers(1, 7), st.data())
def test_whatever_is_measured_can_be_judged(count: int, data: st.DataObject) -> None:
    nodes = names(count)
    tried = [pair for pair in itertools.combinations(nodes, 2) if data.draw(st.booleans())]
    pairs = {pair: Measured(gb_s=data.draw(rate)) for pair in tried}
    alone = {node: Measured(gb_s=data.draw(rate)) for node in nodes if data.draw(st.booleans())}
    limits = Limits(node_gb_s=data.draw(rate), pair_gb_s=data.draw(rate), outlier=0.5)
    found = verdict(alone, pairs, Measured(gb_s=data.draw(rate)), limits)
    assert set(found.exclude) <= set(nodes) and found.slow <= set(pairs)
    assert {node for node, _ in found.faults if node} == set(found.exclude)
    # A slow pair is told of: by a fault of one of its nodes, or its own.
    assert not found.slow or found.faults


# ---- which pairs -----------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(0, 70), st.none() | st.integers(1, 80))
def test_each_round_has_a_node_once_and_no_pair_comes_twice(count: int, most: int | None) -> None:
    found = rounds(range(count), most)
    pairs = [tuple(sorted(pair)) for round_ in found for pair in round_]
    assert len(set(pairs)) == len(pairs) and all(a != b for a, b in pairs)
    for round_ in found:
        assert max(Counter(itertools.chain(*round_)).values()) == 1 and len(round_) == count // 2
    whole = count - 1 + count % 2 if count > 1 else 0
    assert len(found) == min(whole, most if most is not None else whole if count <= 16 else 8)
    if len(found) == whole:
        assert len(pairs) == count * (count - 1) // 2


# ---- what is expected ------------------------------------------------------------------------------------------------


@functools.cache
def site(*words: str) -> Cluster:
    return compose("preflight", list(words)).recipe.cluster


def limits(*words: str, ceiling: float | None = None) -> Limits:
    return expected.limits(site(*words), ceiling)


def test_one_nic_of_200_gb_gives_25_and_not_185() -> None:
    found = limits(ceiling=25.0)
    assert (found.node_gb_s, found.pair_gb_s, found.all_gb_s) == (230.0, 25.0, 25.0)
    assert found.fraction * found.pair_gb_s == 20.0
    assert limits().pair_gb_s == 25.0  # nothing was found: the profile's
    assert limits(ceiling=12.5).pair_gb_s == 12.5  # a NIC of 100 Gb, whatever the profile says


def test_neither_more_than_the_nics_nor_than_the_gpus() -> None:
    assert limits("cluster=h100_ib").pair_gb_s == 400.0 and limits("cluster=h100_ib").node_gb_s == 460.0
    assert limits("cluster=h100_ib", "cluster.gpu=a100_80gb_sxm").pair_gb_s == 230.0
    cards = limits("cluster=h100_ib", "cluster.gpu=l40s", "cluster.devices_per_node=2")
    assert cards.node_gb_s is None and cards.pair_gb_s == 64.0  # two PCIe 4 slots
    assert limits("cluster=h100_ib", "cluster.gpu=null").pair_gb_s == 400.0


def test_a_site_knows_better() -> None:
    own = [f"cluster.preflight.{name}" for name in ("node_gb_s=200", "pair_gb_s=22", "all_gb_s=21", "fraction=0.9")]
    found = limits(*own, "cluster.preflight.outlier=0.5", ceiling=25.0)
    assert found == Limits(node_gb_s=200.0, pair_gb_s=22.0, all_gb_s=21.0, fraction=0.9, outlier=0.5)


def test_of_a_cpu_nothing_is_expected() -> None:
    found = limits("cluster.device=cpu", ceiling=25.0)
    assert (found.node_gb_s, found.pair_gb_s, found.all_gb_s) == (None, None, None) and found.outlier < 0.2
    assert limits("cluster.fabric=none").pair_gb_s is None


def test_one_node() -> None:
    assert node_bus_gb_s("a100_80gb_sxm", 8) == 230 and node_bus_gb_s("h100_80gb_sxm", 8) == 460
    assert node_bus_gb_s("h100_80gb_sxm", 4) == 345 == node_bus_gb_s("gh200_96gb", 4)
    assert node_bus_gb_s("a100_80gb_sxm", 1) is None is node_bus_gb_s("a100_80gb_pcie", 8) is node_bus_gb_s("mine", 8)


@pytest.mark.parametrize(
    ("key", "product", "mib", "same"),
    [
        ("a100_80gb_sxm", "NVIDIA A100-SXM4-80GB", 81920, True),
        ("a100_80gb_sxm", "NVIDIA A100-SXM4-40GB", 40960, False),
        ("a100_80gb_sxm", "NVIDIA A100 80GB PCIe", 81920, False),
        ("a100_80gb_pcie", "NVIDIA A100 80GB PCIe", 81920, True),
        ("a100_40gb_pcie", "NVIDIA A100-PCIE-40GB", 40960, True),
        ("a100_40gb_pcie", "NVIDIA A100-SXM4-40GB", 40960, False),
        ("h100_80gb_sxm", "NVIDIA H100 80GB HBM3", 81559, True),
        ("h100_80gb_sxm", "NVIDIA H100 PCIe", 81559, False),
        ("h100_94gb_nvl", "NVIDIA H100 NVL", 95830, True),
        ("h100_80gb_pcie", "NVIDIA H100 NVL", 95830, False),
        ("h200_141gb_sxm", "NVIDIA H200", 143771, True),
        ("h200_141gb_nvl", "NVIDIA H200 NVL", 143771, True),
        ("h100_80gb_sxm", "NVIDIA H200", 143771, False),
        ("gh200_96gb", "NVIDIA GH200 480GB", 97871, True),
        ("b200_180gb_sxm", "NVIDIA B200", 183359, True),
        ("l4", "NVIDIA L4", 23034, True),
        ("l4", "NVIDIA L40S", 46068, False),
        ("l40s", "NVIDIA L40S", 46068, True),
        ("a40", "NVIDIA A40", 46068, True),
        ("v100_32gb_sxm", "Tesla V100-SXM2-32GB", 32768, True),
        ("v100_32gb_sxm", "Tesla V100-SXM2-16GB", 16384, False),
        ("v100_32gb_sxm", "Tesla V100-SXM2-32GB", None, True),
        ("mine", "NVIDIA whatever", 1, True),
    ],
)
def test_a_products_name_and_its_type(key: str, product: str, mib: int | None, same: bool) -> None:
    assert is_gpu(key, product, mib) is same
