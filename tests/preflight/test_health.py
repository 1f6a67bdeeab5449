"""What of a host's facts is a fault; and facts of this host, with programs that are missing, hang or talk nonsense."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.preflight import health, host, host_facts, host_limit_s, nvidia_smi
from toolkit.recipe import Recipe, compose
from toolkit.recipe.schema import Cluster

RECORDED = Path(__file__).with_name("recorded")


@functools.cache
def site(*words: str) -> Cluster:
    return compose("preflight", [f"cluster.{word}" for word in words]).recipe.cluster


def node(**changes: Any) -> dict[str, Any]:
    """A host of eight A100, all well but for `changes` of the first GPU's fields, or the host's."""
    gpu = nvidia_smi.Gpu(
        index=0, name="NVIDIA A100-SXM4-80GB", memory_mib=81920, used_mib=4, uncorrected=0, remapped=2, gen=4,
        gen_max=4, width=16, width_max=16, nvlink_fabric="Completed, Success",
    )  # fmt: skip
    fields = {field.name for field in dataclasses.fields(nvidia_smi.Gpu)}
    first = dataclasses.replace(gpu, **{name: value for name, value in changes.items() if name in fields})
    gpus = [first, *(dataclasses.replace(gpu, index=index) for index in range(1, 8))]
    report = dataclasses.asdict(nvidia_smi.Report(driver="550.54.15", attached=8, gpus=tuple(gpus)))
    told = {"kernel": "5.15", "memlock_kib": None, "shm_gib": 256.0, "scratch": None, "gpu": {"error": "", **report}}
    return json.loads(json.dumps({**told, **{k: v for k, v in changes.items() if k not in fields}}))


def said(told: dict[str, Any], cluster: Cluster | None = None) -> list[str]:
    found, _ = health.judge({"node07": told}, cluster or site(), rdma=True)
    assert all(fault.node == "node07" for fault in found)
    return [fault.what for fault in found]


def test_a_host_that_is_well() -> None:
    assert said(node()) == [] and health.judge({}, site(), rdma=True) == ([], [])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"uncorrected": 3}, "GPU 0: 3 uncorrected ECC errors since the driver was loaded"),
        ({"pending": ["remapped rows"]}, "GPU 0: remapped rows are pending: it must be reset"),
        ({"failed": ["row remapping has failed"]}, "GPU 0: row remapping has failed"),
        ({"reset": "recovery action: Reboot"}, "GPU 0: recovery action: Reboot"),
        ({"slowdowns": ["hw_thermal_slowdown"]}, "GPU 0: its clocks are held down: hw thermal slowdown"),
        ({"width": 8}, "GPU 0: PCIe x8, where x16 is possible"),
        ({"mig": True}, "GPU 0: MIG is on, and a rank takes a whole GPU"),
        ({"nvlink_fabric": "In Progress"}, "GPU 0: NVLink's switches: In Progress; is the fabric manager running?"),
        ({"used_mib": 9000, "processes": ["python (process 7)"]},
         "GPU 0: 9,000 MiB of its memory are in use before the job: python (process 7)"),
        ({"broken": ["used: ERR!"]}, "GPU 0: the driver cannot read it: used: ERR!"),
        ({"name": "NVIDIA A100-SXM4-40GB", "memory_mib": 40960},
         "GPU 0: NVIDIA A100-SXM4-40GB of 40 GiB, where the profile says A100-80GB SXM"),
        ({"shm_gib": 0.064}, "/dev/shm has 0.064 GiB, 1 are needed"),
        ({"shm_gib": None}, "there is no /dev/shm"),
        ({"gpu": {"error": "there is no nvidia-smi on this host", "gpus": []}}, "there is no nvidia-smi on this host"),
        ({"scratch": {"path": "/scratch", "free_gib": 2.5, "error": ""}},
         "cluster.scratch, /scratch, has room for 2.5 GiB, 10 are needed"),
        ({"scratch": {"path": "/scratch", "free_gib": 99, "error": "nothing may be written to /scratch"}},
         "cluster.scratch, /scratch: nothing may be written to /scratch"),
        ({"dcgm": {"error": "dcgmi gave no answer within 180 s"}}, "dcgmi gave no answer within 180 s"),
    ],
)  # fmt: skip
def test_one_fault(changes: dict[str, Any], words: str) -> None:
    assert said(node(**changes)) == [words]


def test_a_slow_link_of_a_gpu_that_is_awake_is_a_warning() -> None:
    for pstate, gen, words in (("P0", 3, ["PCIe generation 3, where 4 is possible"]), ("P8", 1, []), ("P0", 4, [])):
        found, warned = health.judge({"a": node(pstate=pstate, gen=gen)}, site(), rdma=True)
        assert found == [] and [fault.what.partition(": ")[2].partition(", and")[0] for fault in warned] == words


def test_what_all_gpus_share_is_said_once() -> None:
    told = node()
    for gpu in told["gpu"]["gpus"]:
        gpu["mig"] = True
    told["gpu"]["gpus"][2]["width"] = told["gpu"]["gpus"][5]["width"] = 4
    shared, some = said(told)
    assert shared == "all 8 GPUs: MIG is on, and a rank takes a whole GPU"
    assert some == "GPUs 2, 5: PCIe x4, where x16 is possible"


def test_fewer_gpus_and_another_driver() -> None:
    told = node()
    del told["gpu"]["gpus"][6:]
    assert said(told) == ["the driver finds 6 GPUs, 8 were asked for"]
    assert said(node(), site("devices_per_node=4")) == []
    for asked, fits in (("550", True), ("550.54", True), ("550.54.15", True), ("55", False), ("535", False)):
        found = said(node(), site(f"preflight.driver='{asked}'"))
        assert found == ([] if fits else [f"driver 550.54.15, cluster.preflight.driver asks for {asked}"])


def test_a_sites_own_thresholds() -> None:
    assert said(node(used_mib=3000), site("preflight.idle_mib=4000")) == []
    assert said(node(shm_gib=0.5), site("preflight.shm_gib=0.25")) == []
    assert said(node(memlock_kib=64)) == []  # a warning of the ranks', see judge
    assert said(node(memlock_kib=1 << 21), site("preflight.memlock_gib=1.5")) == []
    assert "asks for 64 GiB" in said(node(memlock_kib=1 << 21), site("preflight.memlock_gib=64"))[0]


def test_a_setting_that_dcgm_does_not_like_is_a_warning() -> None:
    findings = [{"test": "software", "grade": "setting", "gpu": "0", "said": "Persistence mode is off"},
                {"test": "memory", "grade": "fail", "gpu": "3", "said": "row remap failure"}]  # fmt: skip
    found, warned = health.judge({"a": node(dcgm={"error": "", "findings": findings})}, site(), rdma=True)
    assert [str(one) for one in found] == ["a: DCGM, memory of GPU 3: row remap failure"]
    assert [str(one) for one in warned] == ["a: DCGM, software of GPU 0: Persistence mode is off"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["gpu", "gpus", "dcgm", "error", "findings", "scratch", "path", "free_gib", "shm_gib", "index",
                         "memlock_kib", "name", "memory_mib", "pending", "processes", "driver", "attached", "width"]),
        inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@settings(deadline=None)
@given(json_values)
def test_whatever_a_node_wrote_can_be_judged(value: object) -> None:
    health.judge({"a": value}, SITE, rdma=True)


SITE = site("scratch=/scratch", "preflight.memlock_gib=1", "preflight.driver='550'")


# ---- this host -------------------------------------------------------------------------------------------------------


def recipe(*words: str) -> Recipe:
    return compose("preflight", list(words)).recipe


def program(folder: Path, name: str, body: str) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (None, "there is no nvidia-smi on this host"),
        ("echo 'NVIDIA-SMI has failed because'; exit 9", "nvidia-smi made no report: NVIDIA-SMI has failed because"),
        ("echo no driver >&2; exit 9", "nvidia-smi ended with 9: no driver"),
        ("exit 0", "nvidia-smi said nothing"),
        ("sleep 60", "nvidia-smi gave no answer within 1 s"),
        ("head -c 2000 {file}", "nvidia-smi's report is cut off or damaged"),
        ("printf '\\377\\376<nvidia_smi_log>'", "cut off or damaged"),
        ("cat {file}", "the driver finds 1 GPUs, 8 were asked for"),
    ],
)
def test_nvidia_smi_in_every_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str | None, words: str
) -> None:
    if body is not None:
        program(tmp_path, "nvidia-smi", body.format(file=RECORDED / "nvidia_smi_a100_535.xml"))
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin")
    monkeypatch.setattr(host, "_SMI_S", 1.0 if body == "sleep 60" else 60.0)
    told = json.loads(json.dumps(host_facts(recipe())))
    assert any(words in what for what in said(told)), said(told)


def test_dcgmi_runs_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "nvidia-smi", f"cat {RECORDED / 'nvidia_smi_blackwell_590.xml'}")
    program(tmp_path, "dcgmi", f'echo "$@" > {tmp_path}/asked; cat {RECORDED / "dcgmi_4.2.txt"}; exit 226')
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin")
    assert "dcgm" not in host_facts(recipe())
    told = host_facts(recipe("cluster.preflight.dcgm=2"))
    assert (tmp_path / "asked").read_text().split() == ["diag", "-r", "2", "-j"]
    assert told["dcgm"]["version"] == "4.2.3" and len(told["dcgm"]["findings"]) == 1
    assert host_limit_s(recipe("cluster.preflight.dcgm=2")) > host_limit_s(recipe()) > 60


def test_a_host_without_gpus(tmp_path: Path) -> None:
    words = ["cluster.device=cpu", f"cluster.scratch={tmp_path}/$USER/$SLURM_JOB_ID"]
    told = host_facts(recipe(*words), env={"USER": "me", "SLURM_JOB_ID": "7"})
    assert "gpu" not in told and told["scratch"]["path"] == f"{tmp_path}/me/7" and told["scratch"]["free_gib"] > 0
    assert said(told, site("device=cpu", "preflight.scratch_gib=0")) == []
    nowhere = host_facts(recipe("cluster.device=cpu", "cluster.scratch=/no/such/folder"))
    assert "there is no such folder" in said(nowhere, site("device=cpu"))[0]
