"""What is detected of nodes of every kind, and of trees that no kernel would show."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fabric import trees
from tests.fabric.conftest import QUICK, Seen
from toolkit import fabric
from toolkit.errors import PreflightFailed, ToolkitError
from toolkit.fabric import choose, gid
from toolkit.fabric.model import from_dict
from toolkit.recipe.schema import Nccl

ROOT = Path(__file__).resolve().parents[2]


def test_meditrons_node_has_one_roce_port(seen: Seen) -> None:
    node = seen(trees.meditron)
    (port,) = node.ports
    assert (port.name, port.active, port.link_layer, port.rate_gbps) == ("mlx5_0:1", True, "Ethernet", 200.0)
    assert [(slot.index, slot.version, gid.shown(slot)) for slot in port.gids] == [
        *[(0, 1, "fe80::e42:a1ff:fe5b:4d00"), (1, 2, "fe80::e42:a1ff:fe5b:4d00")],
        *[(2, 1, "10.0.0.1"), (3, 2, "10.0.0.1")],
    ]
    assert port.gid_index == 3 and port.netdevs == ("ens1f0np0",) and (port.mtu, port.ib_mtu) == (4200, 4096)
    assert port.firmware == "22.39.2048" and port.numa == 0 and port.pci == "0000:c1:00.0"
    assert port.pcie_gb_s == pytest.approx(31.5, abs=0.01)  # PCIe 4.0 x16
    assert port.counters["symbol_error"] == 0 and "np_cnp_sent" in port.counters
    assert len(node.gpus) == 8 and sorted(port.distances.values()) == ["PHB"] * 4 + ["SYS"] * 4
    assert node.peermem and not node.dmabuf and node.drivers["nvidia"] == "550.54.15"
    assert choose.sockets(node) == next(dev for dev in node.netdevs if dev.name == "eno1")
    assert {dev.name: dev.rdma for dev in node.netdevs} == {"eno1": (), "ens1f0np0": ("mlx5_0",)}
    assert fabric.ceiling_gb_s(node, "roce") == 25.0
    assert fabric.ceiling_gb_s(node, "infiniband") is None and fabric.ceiling_gb_s(node, "none") is None


@pytest.mark.parametrize(("link_layer", "kind"), [("Ethernet", "roce"), ("InfiniBand", "infiniband")])
def test_eight_rails(tmp_path: Path, link_layer: str, kind: str) -> None:
    tree = trees.rails(tmp_path, link_layer)
    node = fabric.detect(tree.sys, proc=tree.proc)
    chosen = fabric.select(node, kind)
    assert chosen.names == tuple(f"mlx5_{n}:1" for n in range(8)) and not chosen.left_out
    assert fabric.kind_of(node) == kind and fabric.ceiling_gb_s(node, kind) == 400.0
    near = choose.nearest(node, chosen.ports)
    assert [names for names in near.values()] == [
        (f"mlx5_{2 * s}:1", f"mlx5_{2 * s + 1}:1") for s in range(4) for _ in "ab"
    ]
    assert {port.gid_index for port in node.ports} == ({3} if kind == "roce" else {None})
    assert all(
        port.distances[gpu] == "PIX" for gpu, names in near.items() for port in chosen.ports if port.name in names
    )
    other = fabric.select(node, "roce" if kind == "infiniband" else "infiniband")
    assert not other.ports and "and the fabric is" in other.left_out["mlx5_0:1"]


def test_storage_and_management_are_told_from_compute(seen: Seen) -> None:
    node = seen(trees.mixed)
    chosen = fabric.select(node, "roce")
    assert chosen.names == tuple(f"mlx5_{n}:1" for n in range(8))
    assert chosen.left_out["mlx5_8:1"] == chosen.left_out["mlx5_9:1"] == "no GPU's nearest, as storage is"
    assert chosen.left_out["mlx5_10:1"] == "slower than the 400 Gb/s of others"
    # A site that knows better is believed.
    assert fabric.select(node, "roce", ["mlx5_8", "mlx5_9:1"]).names == ("mlx5_8:1", "mlx5_9:1")
    with pytest.raises(PreflightFailed, match="no active RoCE port mlx5_3:2, as cluster.nccl.hca names it"):
        fabric.values(node, kind="roce", policy=Nccl(hca=("mlx5_8", "mlx5_3:2")))


def test_infiniband_beside_roce_is_not_its_fabric(tmp_path: Path) -> None:
    tree = trees.meditron(tmp_path)
    tree.nic(
        trees.Nic(
            device="mlx5_1", netdevs=("ib0",), pci="0000:4b:00.0", link_layer="InfiniBand", rate="400 Gb/sec (4X NDR)"
        )
    )
    node = fabric.detect(tree.sys, proc=tree.proc)
    assert fabric.select(node, "roce").names == ("mlx5_0:1",) and fabric.select(node, "infiniband").names == (
        "mlx5_1:1",
    )


def test_the_default_route_marks_management_unless_it_is_the_only_way(tmp_path: Path) -> None:
    tree = trees.Tree(tmp_path)
    for n, name in enumerate(("net0", "net1")):
        tree.nic(trees.Nic(device=f"mlx5_{n}", netdevs=(name,), pci=f"0000:{0x43 + n:x}:00.0",
                           gids=trees.roce_gids(name, f"10.0.{n}.1")))  # fmt: skip
    tree.route("net0")
    node = fabric.detect(tree.sys, proc=tree.proc)
    chosen = fabric.select(node, "roce")
    assert chosen.names == ("mlx5_1:1",) and "default route" in chosen.left_out["mlx5_0:1"]
    alone = replace(node, ports=node.ports[:1])
    assert fabric.select(alone, "roce").names == ("mlx5_0:1",)


def test_virtual_functions_do_not_count_beside_their_card(tmp_path: Path) -> None:
    tree = trees.meditron(tmp_path)
    tree.nic(trees.Nic(device="mlx5_1", netdevs=("vf0",), pci="0000:c1:00.2", bridges=("pci0000:c0", "0000:c0:03.1")))
    function = (tree.sys / "bus/pci/devices/0000:c1:00.2").resolve()
    trees.link(function / "physfn", tree.sys / "bus/pci/devices/0000:c1:00.0")
    node = fabric.detect(tree.sys, proc=tree.proc)
    assert [port.virtual for port in node.ports] == [False, True]
    assert fabric.select(node, "roce").left_out == {"mlx5_1:1": "a virtual function beside physical ones"}
    # In a virtual machine there is nothing else.
    assert fabric.select(replace(node, ports=node.ports[1:]), "roce").names == ("mlx5_1:1",)


def test_the_interface_for_sockets(tmp_path: Path) -> None:
    tree = trees.Tree(tmp_path)
    tree.nic(trees.Nic(device="mlx5_0", netdevs=("roce0",)))
    bridges = ("pci0000:00", "0000:00:01.1")
    for n, (name, speed, state) in enumerate([("eno1", 1000, "up"), ("eno2", 25000, "up"), ("eno3", 100000, "down")]):
        function = tree.function(f"0000:01:00.{n}", bridges, 0, "0x020000", "0x14e4", "0x16d7")
        tree.netdev(name, function=function, speed=speed, state=state)
    tree.netdev("docker0", speed=-1)
    tree.netdev("lo", state="unknown")

    def sockets() -> str | None:
        found = choose.sockets(fabric.detect(tree.sys, proc=tree.proc))
        return found and found.name

    assert sockets() == "eno2"  # up, without RDMA, the fastest
    tree.route("eno1", "0000000A")
    assert sockets() == "eno1"  # the one that leads somewhere
    trees.write(
        tree.proc / "net/ipv6_route",
        f"{'0' * 32} 00 {'0' * 32} 00 {'fe80' + '0' * 28} 00000400 00000001 00000000 00000003 eno2\n"
        f"{'0' * 32} 00 {'0' * 32} 00 {'0' * 32} ffffffff 00000001 00000000 00200200 lo",
    )
    assert sockets() == "eno2"  # a default route, if of IPv6
    tree.route("roce0", metric=200)
    assert sockets() == "roce0"
    tree.route("eno3", metric=50)
    assert sockets() == "eno3"


def test_a_slot_carries_no_more_than_its_pcie_link(tmp_path: Path) -> None:
    """Two ports of 200 Gb/s on one card: 50 GB/s, of which PCIe 4.0 x16 carries 31.5."""
    tree = trees.Tree(tmp_path)
    for n in range(2):
        tree.nic(trees.Nic(device=f"mlx5_{n}", netdevs=(f"p{n}",), pci=f"0000:43:00.{n}"))
    assert fabric.ceiling_gb_s(fabric.detect(tree.sys, proc=tree.proc), "roce") == pytest.approx(31.5, abs=0.01)


def test_vlan_ipv6_bond_down(seen: Seen) -> None:
    tagged = seen(trees.vlan)
    assert tagged.ports[0].gid_index == 5 and tagged.ports[0].netdevs[0] == "ens1f0np0.100"
    dev = next(dev for dev in tagged.netdevs if dev.name == "ens1f0np0.100")
    assert (dev.vlan, dev.parents, dev.rdma) == (100, ("ens1f0np0",), ("mlx5_0",))

    six = seen(trees.ipv6)
    assert six.ports[0].gid_index == 0 and not gid.usable(gid.at(six.ports[0].gids, 0))
    assert gid.choice(six.ports[0].gids, "ipv6") == 3

    bond = seen(trees.bonded)
    assert bond.ports[0].name == "mlx5_bond_0:1" and bond.ports[0].netdevs == ("bond0", "ens1f0np0")
    dev = next(dev for dev in bond.netdevs if dev.name == "bond0")
    assert dev.parents == ("ens1f0np0", "ens1f1np1") and dev.rdma == ("mlx5_bond_0",)

    down = seen(trees.meditron, state="1: DOWN")
    with pytest.raises(PreflightFailed, match="no active RoCE port") as caught:
        fabric.need(down, "roce")
    assert "mlx5_0:1 (RoCE, DOWN, 200 Gb/s): not active (Disabled, DOWN)" in caught.value.why
    assert caught.value.where == "node01" and caught.value.exit_code == 4


def test_a_node_without_any(seen: Seen) -> None:
    node = seen(trees.empty)
    assert node.ports == () and fabric.kind_of(node) == "none" and fabric.need(node, "none").ports == ()
    with pytest.raises(PreflightFailed, match="no active InfiniBand port") as caught:
        fabric.need(node, "infiniband")
    assert "no RDMA device" in caught.value.why


def test_this_machine_and_no_machine(tmp_path: Path) -> None:
    assert fabric.detect().node and isinstance(fabric.detect(), fabric.Fabric)
    nothing = fabric.detect(tmp_path / "sys", proc=tmp_path / "proc", node="x")
    assert nothing == fabric.Fabric(node="x")


def test_dma_buf_needs_open_modules_and_a_kernel(tmp_path: Path) -> None:
    tree = trees.meditron(tmp_path)
    version = tree.proc / "driver/nvidia/version"
    trees.write(version, "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.15")
    assert fabric.detect(tree.sys, proc=tree.proc).dmabuf
    trees.write(tree.proc / "sys/kernel/osrelease", "5.10.0-28-amd64")
    assert not fabric.detect(tree.sys, proc=tree.proc).dmabuf


# --- trees that are not as they should be


def _binary(port: Path) -> None:
    for file in (port / "state", port / "rate", port / "link_layer", port / "gids/3", port / "gid_attrs/ndevs/3"):
        file.write_bytes(bytes(range(256)) * 40)


def _blank(port: Path) -> None:
    for file in [file for file in port.rglob("*") if file.is_file()]:
        file.write_bytes(b"")


def _loops(port: Path) -> None:
    for name in ("gids", "gid_attrs"):
        shutil.rmtree(port / name)
        (port / name).symlink_to(port / name)
    device = port.parent.parent / "device"
    device.unlink()
    device.symlink_to("device")


def _many(port: Path) -> None:
    for index in range(16, 100_000):
        os.symlink("3", port / "gids" / str(index))


def _huge(port: Path) -> None:
    with open(port / "rate", "wb") as handle:
        handle.truncate(1 << 40)


def _pipe(port: Path) -> None:
    (port / "state").unlink()
    os.mkfifo(port / "state")


def _folders(port: Path) -> None:
    for name in ("state", "rate"):
        (port / name).unlink()
        (port / name).mkdir()


def _names(port: Path) -> None:
    for name in ("mlx5_1,evil", "a b", "=x", "ü", "line\nbreak", "x" * 200):
        (port.parents[2] / name).mkdir()
        os.symlink(port.parent.parent, _class_of(port) / name)


def _class_of(port: Path) -> Path:
    return next(parent for parent in port.parents if parent.name == "sys") / "class/infiniband"


@pytest.mark.parametrize("spoil", [_binary, _blank, _loops, _many, _huge, _pipe, _folders, _names])
def test_hostile_trees_are_read_to_the_end(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    tree = trees.meditron(tmp_path)
    spoil((tree.sys / "class/infiniband/mlx5_0/ports/1").resolve())
    node = fabric.detect(tree.sys, proc=tree.proc, node="node01")
    assert [port.name for port in node.ports] == ["mlx5_0:1"] and len(node.gpus) == 8
    assert len(node.ports[0].gids) <= 1024 and len(str(node.as_dict())) < 1_000_000
    if spoil is _many:
        assert node.ports[0].gid_index == 3 and "more than 1024 GIDs" in node.problems[0]
    if spoil is _names:
        assert "6 entries of class/infiniband have names" in node.problems[0]
    assert from_dict(json.loads(json.dumps(node.as_dict()))) == node


def test_a_slot_whose_read_fails_is_an_empty_one(tmp_path: Path) -> None:
    """Reading /proc/self/mem at its start fails as the kernel's empty slots do, with an error of read(2)."""
    tree = trees.meditron(tmp_path)
    port = tree.sys / "class/infiniband/mlx5_0/ports/1"
    with pytest.raises(OSError), open("/proc/self/mem", "rb", buffering=0) as handle:
        handle.read(16)
    for name in ("gid_attrs/types/3", "gid_attrs/ndevs/3"):
        (port / name).unlink()
        (port / name).symlink_to("/proc/self/mem")
    (found,) = fabric.detect(tree.sys, proc=tree.proc).ports
    assert [(slot.index, slot.version) for slot in found.gids] == [(0, 1), (1, 2), (2, 1), (3, None)]
    assert found.gid_index == 2  # of its kind, and of a version that is known


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can try as another user")
def test_a_tree_that_may_not_be_read(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as base:
        os.chmod(base, 0o755)
        tree = trees.meditron(Path(base))
        for part in ("class/infiniband/mlx5_0/ports/1/gids", "class/net/eno1"):
            os.chmod(tree.sys / part, 0)
        os.chmod(tree.sys / "class/infiniband/mlx5_0/ports/1/state", 0)
        code = (
            f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
            "import json, os, pathlib; from toolkit import fabric\n"
            "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
            f"node = fabric.detect(pathlib.Path({str(tree.sys)!r}), proc=pathlib.Path({str(tree.proc)!r}))\n"
            "print(json.dumps([[p.name, p.state, len(p.gids), p.rate_gbps] for p in node.ports]))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [["mlx5_0:1", "", 0, 200.0]]


WORDS = st.one_of(
    st.binary(max_size=300),
    st.sampled_from(
        ["4: ACTIVE", "1: DOWN", "Ethernet", "InfiniBand", "400 Gb/sec (4X NDR)", "RoCE v2", "0", "-1", ""]
    ).map(str.encode),
    st.ip_addresses().map(lambda found: trees.gid(str(found)).encode()),
)
SPOILT = st.lists(
    st.tuples(st.integers(0, 10_000), st.sampled_from(["write", "gone", "folder", "loop", "pipe"]), WORDS)
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    spoilt=SPOILT,
    kind=st.sampled_from(["roce", "infiniband", "none"]),
    make=st.sampled_from([trees.vlan, trees.bonded]),
)
def test_whatever_the_tree_detect_ends_and_values_can_be_written(
    spoilt: list[tuple[int, str, bytes]], kind: str, make: Callable[[Path], trees.Tree]
) -> None:
    with tempfile.TemporaryDirectory(dir=QUICK) as base:
        tree = make(Path(base))
        files = sorted(path for path in tree.root.rglob("*") if not path.is_dir() or path.is_symlink())
        for number, how, content in spoilt:
            path = files[number % len(files)]
            if not path.parent.is_dir() or (path.is_dir() and not path.is_symlink()):
                continue
            path.unlink(missing_ok=True)
            if how == "write":
                path.write_bytes(content)
            elif how == "folder":
                path.mkdir()
            elif how == "loop":
                path.symlink_to(path.name)
            elif how == "pipe":
                os.mkfifo(path)
        node = fabric.detect(tree.sys, proc=tree.proc, node="node01")
    assert from_dict(json.loads(json.dumps(node.as_dict()))) == node
    try:
        values = fabric.values(node, kind=kind)
    except ToolkitError as err:
        assert str(err) and kind != "none"
        return
    told = fabric.parse(fabric.text(values))
    assert told == {value.name: value.value for value in values if value.value is not None}


@given(value=st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
                          lambda x: st.lists(x, max_size=4) | st.dictionaries(
                              st.sampled_from(["node", "ports", "device", "gids", "netdevs", "name", "port", "index"]),
                              x, max_size=5)))  # fmt: skip
@settings(deadline=None)
def test_foreign_json_is_a_fabric_or_nothing(value: object) -> None:
    found = from_dict(value)
    assert found is None or from_dict(found.as_dict()) == found


@pytest.mark.parametrize(
    "change",
    [
        {"ports": "mlx5_0"},
        {"ports": [{"device": "mlx5_0"}]},
        {"ports": [{"device": "a,b", "port": 1}]},
        {"ports": [{"device": "a", "port": True}]},
        {"ports": [{"device": "a", "port": 1, "rate_gbps": float("nan")}]},
        {"netdevs": [{"name": "x y"}]},
        {"netdevs": [{"name": f"n{i}"} for i in range(9000)]},
        {"problems": [1]},
        {"drivers": {"nvidia": None}},
    ],
)
def test_what_is_not_of_a_nodes_form_is_refused(seen: Seen, change: dict[str, object]) -> None:
    whole = seen(trees.meditron).as_dict()
    assert from_dict(whole) is not None
    assert from_dict({**whole, **change}) is None
