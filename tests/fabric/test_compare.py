"""How nodes of a job differ: each fault of the one-machine Slurm's odd nodes by name, majorities and ties."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.fabric import trees
from tests.fabric.conftest import Seen
from toolkit import fabric
from toolkit.fabric import Fabric

EXPECTED = {
    "address": ("fault", "the address of mlx5_0:1 is none that reaches another node, the others have IPv4, RoCE v2"),
    "down": ("fault", "port mlx5_0:1 is DOWN, the others have ACTIVE"),
    "rate": ("fault", "the rate of mlx5_0:1 is 100 Gb/s, the others have 200 Gb/s"),
    "mtu": ("fault", "the MTU of mlx5_0:1 is 1500, the others have 4200"),
    "missing": ("fault", "port mlx5_0:1 is missing, the others have ACTIVE"),
    "link_layer": ("fault", "the link layer of mlx5_0:1 is InfiniBand, the others have Ethernet"),
    "firmware": ("warning", "the firmware of mlx5_0:1 is 22.31.1014, the others have 22.39.2048"),
    "gid": ("warning", "the GID index of mlx5_0:1 is 5, the others have 3"),
}


def cluster(root: Path, odd: dict[int, str], count: int = 16) -> dict[str, Fabric]:
    """What the nodes of the one-machine Slurm detect: each sees its own /sys/class."""
    found = {}
    for index in range(1, count + 1):
        node = trees.node(root, index, odd=odd.get(index), management="eth0")
        assert sorted(path.name for path in node.iterdir()) == ["class"]
        found[node.name] = fabric.detect(node, node=node.name)
    return found


def test_sixteen_nodes_alike(tmp_path: Path) -> None:
    nodes = cluster(tmp_path, {})
    assert fabric.differences(nodes, "roce") == ()
    assert {one.ports[0].gid_index for one in nodes.values()} == {3} and nodes["node07"].ports[0].netdevs == ("roce0",)


def test_each_odd_node_of_sixteen_is_named(tmp_path: Path) -> None:
    assert set(EXPECTED) == set(trees.ODD)
    places = {index: kind for index, kind in enumerate(EXPECTED, 3)}
    nodes = cluster(tmp_path, places)
    found = fabric.differences(nodes, "roce")
    assert [(one.node, one.level, str(one), one.tie) for one in found] == [
        (f"node{index:02d}", EXPECTED[kind][0], f"node{index:02d}: {EXPECTED[kind][1]}", False)
        for index, kind in sorted(places.items(), key=lambda place: (EXPECTED[place[1]][0] == "warning", place[0]))
    ]
    pinned = {one.node: one.level for one in fabric.differences(nodes, "roce", pinned=True)}
    assert pinned["node10"] == "fault"  # its GID index is another, and NCCL would be told one for all


def test_ties(tmp_path: Path) -> None:
    nodes = cluster(tmp_path, {1: "mtu", 2: "mtu", 5: "rate"}, count=5)
    faults = [one for one in fabric.differences(nodes, "roce")]
    mtu = {one.node: (one.value, one.others, one.tie) for one in faults if "MTU" in one.what}
    assert mtu == {"node01": ("1500", "4200", False), "node02": ("1500", "4200", False)}
    even = fabric.differences({name: nodes[name] for name in ("node01", "node02", "node03", "node04")}, "roce")
    assert [(one.node, one.value, one.others, one.tie) for one in even] == [
        *[("node01", "1500", "4200", True), ("node02", "1500", "4200", True)],
        *[("node03", "4200", "1500", True), ("node04", "4200", "1500", True)],
    ]
    assert str(even[0]) == "node01: the MTU of mlx5_0:1 is 1500, as many nodes have 4200"
    three = fabric.differences({name: nodes[name] for name in ("node01", "node03", "node05")}, "roce")
    assert {one.what for one in three} == {"the MTU of mlx5_0:1", "the rate of mlx5_0:1"} and not any(
        t.tie for t in three
    )


@pytest.mark.parametrize("kind", ["down", "missing"])
def test_a_port_that_works_nowhere_but_on_one_is_down_on_the_others(tmp_path: Path, kind: str) -> None:
    nodes = cluster(tmp_path, dict.fromkeys(range(2, 6), kind), count=5)
    assert [one.node for one in fabric.differences(nodes, "roce")] == ["node02", "node03", "node04", "node05"]


def test_other_names_for_the_same_nic_are_a_tie(tmp_path: Path) -> None:
    nodes = cluster(tmp_path, {}, count=2)
    (port,) = nodes["node02"].ports
    other = dataclasses.replace(nodes["node02"], ports=(dataclasses.replace(port, device="mlx5_4"),))
    found = fabric.differences({"node01": nodes["node01"], "node02": other}, "roce")
    assert all(one.tie for one in found) and {one.node for one in found} == {"node01", "node02"}
    assert "missing (it has mlx5_4:1)" in {one.value for one in found}


def test_one_of_eight_rails_is_slow_or_gone(tmp_path: Path) -> None:
    nodes = {}
    for index in range(1, 4):
        tree = trees.rails(tmp_path / str(index))
        if index == 3:
            port = tree.sys / "class/infiniband/mlx5_6/ports/1"
            trees.write(port / "rate", "200 Gb/sec (2X NDR)")
            (tree.sys / "class/infiniband/mlx5_2").unlink()
        nodes[f"node{index:02d}"] = fabric.detect(tree.sys, proc=tree.proc, node=f"node{index:02d}")
    assert [str(one) for one in fabric.differences(nodes, "roce")] == [
        "node03: port mlx5_2:1 is missing, the others have ACTIVE",
        "node03: the rate of mlx5_6:1 is 200 Gb/s, the others have 400 Gb/s",
    ]
    assert fabric.select(nodes["node03"], "roce").left_out["mlx5_6:1"] == "slower than the 400 Gb/s of others"


def test_vlans_drivers_and_ways_to_memory(seen: Seen) -> None:
    usual, tagged = [seen(trees.meditron, node=f"n{i}") for i in range(3)], seen(trees.vlan, node="n3")
    nodes = {one.node: one for one in [*usual, tagged]}
    told = {(one.level, one.what, one.value) for one in fabric.differences(nodes, "roce")}
    assert told == {("fault", "the VLAN of mlx5_0:1", "100"), ("warning", "the GID index of mlx5_0:1", "5")}
    nodes["n3"] = dataclasses.replace(usual[0], node="n3", drivers={"nvidia": "535.1"}, peermem=False)
    told = {(one.level, one.what, one.value) for one in fabric.differences(nodes, "roce")}
    assert told == {("warning", "the driver nvidia", "535.1"), ("warning", "GPUDirect RDMA", "not available")}


def test_nothing_to_compare() -> None:
    assert fabric.differences({}, "roce") == () == fabric.differences({"a": Fabric(node="a")}, "roce")
    assert fabric.differences({"a": Fabric(node="a"), "b": Fabric(node="b")}, "roce") == ()
