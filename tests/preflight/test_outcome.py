"""Faults of nodes by their NICs, and all that a preflight found put together: who is kept away from, and who is not."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest

from tests.fabric import trees
from toolkit import fabric
from toolkit.fabric import Fabric
from toolkit.preflight import Bandwidth, Fault, Measured, Nodes, nics, outcome
from toolkit.recipe import compose
from toolkit.recipe.schema import Cluster


@functools.cache
def site(*words: str) -> Cluster:
    return compose("preflight", [f"cluster.{word}" for word in words]).recipe.cluster


SITE = site()


@pytest.fixture(scope="module")
def sixteen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Fabric]:
    """Nodes with MEDITRON's one NIC, of which node07 has half the rate and node12 is down."""
    root, odd = tmp_path_factory.mktemp("sys"), {7: "rate", 12: "down"}
    found = {}
    for index in range(1, 17):
        node = trees.node(root, index, odd=odd.get(index), management="eth0")
        found[node.name] = fabric.detect(node, node=node.name)
    return found


def test_the_odd_nodes_are_named(sixteen: dict[str, Fabric]) -> None:
    found, _ = nics.judge(sixteen, SITE)
    said = {node: [fault.what for fault in found if fault.node == node] for node in ("node07", "node12")}
    assert {fault.node for fault in found} == set(said)
    assert "mlx5_0:1 100 Gb/s, where the profile says 200 Gb/s" in said["node07"]
    assert any("the rate of mlx5_0:1 is 100 Gb/s" in what for what in said["node07"])
    assert any(what.startswith("no active RoCE port") for what in said["node12"])
    assert nics.judge({n: f for n, f in sixteen.items() if n not in said}, SITE) == ([], [])
    more = [str(one) for one in nics.judge({"node01": sixteen["node01"]}, site("nics=2"))[0]]
    assert more == ["node01: 1 of 2 fabric ports are active: mlx5_0:1"]


def test_what_the_nics_of_most_nodes_carry_is_expected(sixteen: dict[str, Fabric]) -> None:
    assert nics.ceiling_gb_s(sixteen, SITE) == 25.0
    assert nics.ceiling_gb_s({}, SITE) is None is nics.ceiling_gb_s(sixteen, site("fabric=none"))
    slow = {name: sixteen["node07"] for name in ("a", "b")}
    assert outcome.limits(Nodes(fabrics={**slow, "c": sixteen["node01"]}), SITE).pair_gb_s == 12.5


def test_errors_that_nics_counted_meanwhile(sixteen: dict[str, Fabric]) -> None:
    before = {"node01": sixteen["node01"]}
    counts = nics.counters(sixteen["node01"])
    assert counts["mlx5_0:1"]["symbol_error"] == 0

    def after(**more: int) -> tuple[list[str], list[str]]:
        later = {"mlx5_0:1": {name: count + more.get(name, 0) for name, count in counts["mlx5_0:1"].items()}}
        found, warned = nics.grown(before, {"node01": later}, SITE)
        return [str(one) for one in found], [str(one) for one in warned]

    assert after() == ([], []) and after(symbol_error=10, np_cnp_sent=10**6) == ([], [])
    assert after(symbol_error=11)[0] == ["node01: mlx5_0:1 counted 11 x symbol_error during the preflight"]
    assert after(link_downed=1)[0] == ["node01: mlx5_0:1 counted 1 x link_downed during the preflight"]
    assert after(local_ack_timeout_err=50)[1] == [
        "node01: mlx5_0:1 counted 50 x local_ack_timeout_err during the preflight"
    ]
    for foreign in (None, [], {}, {"node01": 3}, {"node01": {"mlx5_0:1": {"symbol_error": "many"}}}):
        assert nics.grown(before, foreign if isinstance(foreign, dict) else {}, SITE) == ([], [])


def judged(faults: list[Fault], nodes: Nodes, band: Bandwidth | None = None, count: int = 16) -> outcome.Outcome:
    return outcome.judge(faults, [], nodes, band, SITE, count)


def test_a_few_nodes_are_kept_away_from_and_many_are_not(sixteen: dict[str, Fabric]) -> None:
    found = judged([Fault(node="node03", what="rank 3 never reported")], Nodes(fabrics=sixteen))
    assert found.exclude == ("node03", "node07", "node12")
    everywhere = [Fault(node=name, what="/dev/shm has 0.1 GiB, 1 are needed") for name in sixteen]
    found = judged(everywhere, Nodes())
    assert found.exclude == () and len(found.faults) == 16
    assert str(found.warnings[0]).startswith("16 of 16 nodes have faults, which is rather the job's or the site's")
    assert judged(everywhere[:1], Nodes(), count=2).exclude == ("node01",)
    assert judged(everywhere[:1], Nodes(), count=1).exclude == ()


def test_what_was_measured_and_what_nodes_said_come_together(sixteen: dict[str, Fabric]) -> None:
    nodes = Nodes(fabrics=sixteen, errors={"node12": "no active RoCE port. Found: mlx5_0:1", "node01": "another image"})
    names = sorted(sixteen)
    tried = [(a, b) for place, a in enumerate(names) for b in names[:place]]
    pairs = {pair: Measured(gb_s=11.0 if "node07" in pair else 23.0) for pair in tried}
    band = Bandwidth(nodes=tuple(names), pairs=pairs, notes=("node09: measured without it",))
    found = judged([], nodes, band)
    assert found.exclude == ("node01", "node07", "node12")
    said = [str(fault) for fault in found.faults]
    assert "node01: another image" in said
    assert [what for what in said if what.startswith("node12: no active")] == [
        "node12: no active RoCE port. Found: mlx5_0:1"
    ]  # and not once more
    assert any(what.startswith("node07: slow with 15 of 15 others") for what in said)
    assert [str(one) for one in found.warnings] == ["node09: measured without it"]
    assert found.limits is not None and found.limits.pair_gb_s == 25.0


def test_without_gpus_one_fault_is_enough() -> None:
    told = {"a": {"gpu": {"error": "there is no nvidia-smi on this host", "gpus": []}, "shm_gib": 64}}
    met = [Fault(node="a", what="ranks 0-7: 0 GPUs in /dev, 8 were asked for")]
    assert judged(met, Nodes(hosts=told)).faults == tuple(met)
    assert len(judged([], Nodes(hosts=told)).faults) == 1


def test_files_of_nodes_that_are_damaged(tmp_path: Path, sixteen: dict[str, Fabric]) -> None:
    good = {"node": "node01", "host": {"shm_gib": 1}, "fabric": sixteen["node01"].as_dict(), "image": "/a.sif"}
    files = {
        "node01": json.dumps({**good, "error": None}),
        "node02": json.dumps({**good, "host": 3, "fabric": {"ports": 7}, "error": ["x"], "image": None}),
        "node03": json.dumps(good)[:-40],
        "node04": "[1]",
        "node05": "",
        "node06": "[" * 100_000,
        "node07": json.dumps({**good, "error": "  the image\nis another "}),
    }
    for name, body in files.items():
        (tmp_path / f"{name}.json").write_text(body)
    (tmp_path / "node08.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "node09.json").mkdir()
    found = outcome.read(tmp_path)
    assert set(found.hosts) == set(found.fabrics) == set(found.images) == {"node01", "node07"}
    assert set(found.errors) == {f"node{index:02d}" for index in range(3, 10)}
    assert found.errors["node07"] == "the image is another"
    assert outcome.read(tmp_path / "missing") == Nodes()
