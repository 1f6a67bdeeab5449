"""What NCCL is told of each kind of node, why, and how it is written down."""

from __future__ import annotations

import dataclasses
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fabric import trees
from tests.fabric.conftest import Seen
from toolkit import fabric
from toolkit.errors import DataError, PreflightFailed
from toolkit.fabric import Fabric, Value
from toolkit.recipe import compose
from toolkit.recipe.schema import Nccl

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


def told(
    node: Fabric, kind: str = "roce", policy: Nccl | None = None, nodes: tuple[Fabric, ...] = ()
) -> dict[str, str]:
    return fabric.parse(fabric.text(fabric.values(node, kind=kind, policy=policy, nodes=nodes)))


def value(name: str, values: tuple[Value, ...]) -> Value:
    return next(one for one in values if one.name == name)


SOCKETS = {"NCCL_SOCKET_IFNAME": "=eno1", "GLOO_SOCKET_IFNAME": "eno1"}
EIGHT = ",".join(f"mlx5_{n}:1" for n in range(8))


def test_meditrons_node_as_written(seen: Seen) -> None:
    """The whole file, for the profile of MEDITRON's cluster."""
    site = compose("pretrain_70b").recipe.cluster
    values = fabric.values(seen(trees.meditron), kind=site.fabric, policy=site.nccl)
    written = fabric.text(values, "What NCCL and its like are told on node01.")
    golden = GOLDEN / "nccl_env_meditron.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(written)
    assert written == golden.read_text()


def test_by_kind_of_node(tmp_path: Path, seen: Seen) -> None:
    assert told(seen(trees.mixed)) == {"NCCL_NET": "IB", "NCCL_IB_HCA": f"={EIGHT}", **SOCKETS}
    tree = trees.rails(tmp_path, "InfiniBand")
    node = fabric.detect(tree.sys, proc=tree.proc)
    assert told(node, "infiniband") == {"NCCL_NET": "IB", "NCCL_IB_HCA": f"={EIGHT}", **SOCKETS}
    assert told(seen(trees.vlan)) == {"NCCL_NET": "IB", "NCCL_IB_HCA": "=mlx5_0:1", **SOCKETS}
    assert told(seen(trees.bonded)) == {"NCCL_NET": "IB", "NCCL_IB_HCA": "=mlx5_bond_0:1", **SOCKETS}
    assert told(seen(trees.empty), "none") == SOCKETS
    with pytest.raises(PreflightFailed, match="no active RoCE port"):
        told(seen(trees.empty, node="node02"))


def test_the_gid_index_is_told_only_where_nccl_would_err(seen: Seen) -> None:
    usual = fabric.values(seen(trees.meditron), kind="roce")
    assert value("NCCL_IB_GID_INDEX", usual).value is None
    assert "3 is the first usable slot, RoCE v2, IPv4 on ens1f0np0" in value("NCCL_IB_GID_INDEX", usual).why
    old = fabric.values(seen(trees.meditron, node="b"), kind="roce", policy=Nccl(gid="detected"))
    assert value("NCCL_IB_GID_INDEX", old).value == "3"
    site = fabric.values(seen(trees.meditron, node="c"), kind="roce", policy=Nccl(gid_index=5))
    assert (value("NCCL_IB_GID_INDEX", site).value, value("NCCL_IB_GID_INDEX", site).source) == ("5", "policy")
    six = told(seen(trees.ipv6))
    assert six["NCCL_IB_ADDR_FAMILY"] == "AF_INET6" and "NCCL_IB_GID_INDEX" not in six
    local = told(seen(trees.meditron, node="d", gids=trees.roce_gids("ens1f0np0")))
    assert local["NCCL_IB_GID_INDEX"] == "1" and "NCCL_IB_ADDR_FAMILY" not in local
    without = fabric.values(seen(trees.meditron, node="e", gids=()), kind="roce")
    assert "need IP addresses" in value("NCCL_IB_GID_INDEX", without).why


def test_all_nodes_of_a_job_count(seen: Seen) -> None:
    nodes = [seen(trees.meditron, node=f"node{n:02d}") for n in range(1, 4)]
    moved = seen(trees.meditron, node="node04", gids=trees.roce_gids("ens1f0np0", "fd00::1", "10.0.0.4"))
    values = fabric.values(moved, kind="roce", policy=Nccl(gid="detected"), nodes=[*nodes, moved])
    index = value("NCCL_IB_GID_INDEX", values)
    assert index.value is None and "3 on node01 mlx5_0:1" in index.why and "5 on node04 mlx5_0:1" in index.why
    # The odd node does not decide, whoever asks.
    lost = seen(trees.meditron, node="node05", gids=trees.roce_gids("ens1f0np0"))
    assert told(lost, nodes=(*nodes, lost)) == {"NCCL_NET": "IB", "NCCL_IB_HCA": "=mlx5_0:1", **SOCKETS}
    down = seen(trees.meditron, node="node06", state="1: DOWN")
    values = fabric.values(down, kind="roce", nodes=[*nodes, down])
    assert "on 3 of 4 nodes" in value("NCCL_IB_HCA", values).why
    with pytest.raises(PreflightFailed, match="no active RoCE port") as caught:
        fabric.values(nodes[0], kind="roce", nodes=[down])
    assert caught.value.where == "node06"


def test_an_interface_is_named_only_if_all_have_it(seen: Seen) -> None:
    one, other = seen(trees.meditron), seen(trees.meditron, node="node02")
    other = replace(other, netdevs=tuple(replace(dev, name=dev.name.replace("eno1", "eno2")) for dev in other.netdevs))
    values = fabric.values(one, kind="roce", nodes=[one, other])
    assert value("NCCL_SOCKET_IFNAME", values).value is value("GLOO_SOCKET_IFNAME", values).value is None
    assert "eno1 on node01; eno2 on node02" in value("NCCL_SOCKET_IFNAME", values).why
    assert told(one, policy=Nccl(sockets=("eno1", "eno2")))["GLOO_SOCKET_IFNAME"] == "eno1,eno2"


def test_every_value_of_the_policy_arrives(seen: Seen) -> None:
    policy = Nccl(required=False, hca=("mlx5_0",), sockets=("ens1f0np0",), gid_index=3, traffic_class=104,
                  service_level=3, qps=4, timeout=22, retry=7, gdr_level="PHB", cross_nic=0, ucx=True,
                  env={"NCCL_IB_ADAPTIVE_ROUTING": "1"})  # fmt: skip
    node = seen(trees.meditron)
    assert told(node, policy=policy) == {
        **{"NCCL_IB_HCA": "=mlx5_0:1", "NCCL_IB_GID_INDEX": "3", "NCCL_SOCKET_IFNAME": "=ens1f0np0"},
        **{"GLOO_SOCKET_IFNAME": "ens1f0np0", "NCCL_IB_TC": "104", "NCCL_IB_SL": "3"},
        **{"NCCL_IB_QPS_PER_CONNECTION": "4", "NCCL_IB_TIMEOUT": "22", "NCCL_IB_RETRY_CNT": "7"},
        **{"NCCL_CROSS_NIC": "0", "NCCL_NET_GDR_LEVEL": "PHB", "UCX_NET_DEVICES": "mlx5_0:1"},
        "NCCL_IB_ADAPTIVE_ROUTING": "1",
    }
    sources = {one.name: one.source for one in fabric.values(node, kind="roce", policy=policy)}
    assert set(sources.values()) == {"policy", "detected"} and sources["UCX_NET_DEVICES"] == "detected"
    # No field of the policy is forgotten: each changes what is told.
    plain = fabric.values(node, kind="roce")
    for field in dataclasses.fields(Nccl):
        given = "detected" if field.name == "gid" else getattr(policy, field.name)
        assert fabric.values(node, kind="roce", policy=Nccl(**{field.name: given})) != plain, field.name
    plugin = Nccl(required=False, env={"NCCL_NET": "AWS Libfabric"})
    assert told(node, policy=plugin)["NCCL_NET"] == "AWS Libfabric"
    # Without a fabric nothing of it is said.
    assert told(node, "none", policy) == {
        **{"NCCL_SOCKET_IFNAME": "=ens1f0np0", "GLOO_SOCKET_IFNAME": "ens1f0np0", "NCCL_IB_ADAPTIVE_ROUTING": "1"}
    }


def test_the_callers_values_win_and_are_said_to(seen: Seen) -> None:
    found = fabric.values(seen(trees.meditron), kind="roce", policy=Nccl(traffic_class=104))
    caller = {"NCCL_IB_TC": "106", "NCCL_IB_GID_INDEX": "5", "NCCL_NET": "IB", "NCCL_DEBUG": "INFO", "HOME": "/root",
              "GLOO_SOCKET_IFNAME": "$(id)", "NCCL_ODD": "a'b", "NCCL_DEBUG_FILE": "/tmp/%h x,y"}  # fmt: skip
    merged = fabric.with_caller(found, caller)
    assert fabric.parse(fabric.text(merged)) == {
        **{"NCCL_NET": "IB", "NCCL_IB_HCA": "=mlx5_0:1", "NCCL_IB_GID_INDEX": "5", "NCCL_SOCKET_IFNAME": "=eno1"},
        **{"NCCL_IB_TC": "106", "NCCL_DEBUG": "INFO", "NCCL_DEBUG_FILE": "/tmp/%h x,y"},
    }
    assert value("NCCL_IB_TC", merged).why == "set by the caller, instead of 104"
    assert value("NCCL_IB_TC", merged).source == value("NCCL_NET", merged).source == "caller"
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_ODD"):
        assert value(name, merged).value is None and "left to the environment" in value(name, merged).why
    assert fabric.with_caller(found, {"PATH": "/bin"}) == found


NAMES = st.from_regex(r"[A-Z_][A-Z0-9_]{0,20}", fullmatch=True)


@given(st.dictionaries(NAMES, st.text(max_size=40)), st.text(max_size=200))
def test_a_file_is_read_back_by_us_and_by_a_shell(values: dict[str, str], why: str) -> None:
    good = {name: text for name, text in values.items() if text.isprintable() and not set("'\"$`\\") & set(text)}
    for name in values.keys() - good.keys():
        with pytest.raises(DataError, match="cannot be a line"):
            fabric.text([Value(name=name, value=values[name], why="", source="policy")])
    written = fabric.text([Value(name=n, value=v, why=why, source="policy") for n, v in good.items()], why)
    assert fabric.parse(written) == good
    assert all(line.startswith(("#", *good)) for line in written.splitlines())


def test_a_shell_reads_the_same(tmp_path: Path) -> None:
    awkward = {"A": "=mlx5_0:1,mlx5_1:1", "B": " two  words ", "C": "", "D": "#!&|;<>()*?[]{}~%^é", "E": "=x"}
    path = tmp_path / "nccl.env"
    path.write_text(fabric.text([Value(name=n, value=v, why="x\ny", source="policy") for n, v in awkward.items()]))
    done = subprocess.run(
        ["env", "-i", "sh", "-ac", '. "$1"; exec env', "sh", str(path)], capture_output=True, text=True
    )
    read = dict(line.partition("=")[::2] for line in done.stdout.splitlines())
    assert {name: read[name] for name in awkward} == awkward


@pytest.mark.parametrize(
    "line", ["NCCL_NET", "export A=1", "1A=2", "A='x", "A=a b", "A=", "\x00=1", "A=`id", "=x", "A B=1"]
)
def test_a_damaged_file_is_refused_with_its_line(line: str) -> None:
    with pytest.raises(DataError, match="NAME='VALUE'") as caught:
        fabric.parse(f"# fine\nB='1'\n{line}\n")
    assert caught.value.where == "line 3"
