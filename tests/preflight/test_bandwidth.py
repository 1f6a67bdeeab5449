"""Nodes that measure for real, over gloo, and what is found when one is slow, one hangs and one dies."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from toolkit.cluster.ranks import run_ranks
from toolkit.preflight import Facts, Hands, worker

RUN = {"do": "run", "limit_s": 5, "store": ["a", 1], "key": "a", "world": 2, "rank": 1, "size_bytes": 64}
WORKER = Path(__file__).with_name("worker.py")


@pytest.mark.slow
def test_a_slow_node_one_that_hangs_and_one_that_dies(
    tmp_path: Path, repo_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six nodes of one rank each, all on this machine: the three that are well are measured none the less."""
    monkeypatch.setenv("PYTHONPATH", str(repo_root))
    for name in ("SLURM_JOB_ID", "SLURM_JOB_NODELIST", "SLURM_NODELIST"):
        monkeypatch.delenv(name, raising=False)
    odd = ["1=slow", "2=hangs", "3=dies"]
    command = [sys.executable, str(WORKER), str(tmp_path), "120", "measure", *odd]
    code = run_ranks(command, processes=6, folder=tmp_path, threads=1)
    said = (tmp_path / "log").read_text()
    assert code == 4, said
    made = json.loads((tmp_path / "preflight.json").read_text())
    faults = {fault["node"]: fault["what"] for fault in made["faults"]}
    assert set(faults) == {"n1", "n2", "n3"} and made["exclude"] == ["n1", "n2", "n3"], said
    assert "slow with" in faults["n1"] and "where its likes reach" in faults["n1"]
    assert "no answer within" in faults["n2"] and "nothing comes of it" in faults["n3"]
    band = made["bandwidth"]
    well = [pair for pair in band["pairs"] if {pair["a"], pair["b"]} <= {"n0", "n4", "n5"}]
    assert len(well) == 3 and all(pair["gb_s"] > 0 and not pair["slow"] and pair["wrong"] == 0 for pair in well)
    assert all(pair["slow"] for pair in band["pairs"] if pair not in well)
    assert band["all"]["gb_s"] > 0 and band["all"]["how"] == "gloo" and band["alone"] == {}
    assert "all that are fit together" in said and "to be left out: n1,n2,n3" in said


@pytest.mark.parametrize(
    ("order", "said"),
    [
        (None, "cannot be carried out"),
        ({}, "cannot be carried out: 'do'"),
        ({"do": "start"}, "cannot be carried out: 'limit_s'"),
        ({"do": "rm -rf /", "limit_s": 1}, "do='rm -rf /'"),
        ({"do": "start", "limit_s": -1}, "limit_s=-1"),
        ({"do": "start", "limit_s": float("nan")}, "limit_s=nan"),
        ({"do": "open", "limit_s": "soon"}, "cannot be carried out"),
        ({"do": "open", "limit_s": 5}, "there is no measuring process"),
        ({**RUN, "store": ["-h", 1]}, "an address or a key that is none"),
        ({**RUN, "key": "a;b"}, "an address or a key that is none"),
        ({**RUN, "rank": 2}, "2 is no number from 0 to 1"),
        ({**RUN, "store": ["a", 0]}, "0 is no number from 1 to 65535"),
        ({**RUN, "size_bytes": 1 << 60}, "is no number from 64"),
        ({"do": "perf", "limit_s": 5, "gpus": "8; reboot", "end_mib": 8}, "8; reboot is no number"),
    ],
)
def test_an_order_is_no_more_than_numbers(order: object, said: str) -> None:
    own = Facts(rank=0, local_rank=0, node_rank=0, world=1, node="a", master="127.0.0.1:1")
    hands = Hands(own, gpu=False, command=["false"])
    assert said in hands(order)["error"]
    hands.close()


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import sys; print('no memory', file=sys.stderr); sys.exit(3)", "ended with 3: no memory"),
        ("import os; os.abort()", "died of signal 6"),
        ("import time; time.sleep(60)", "no answer within 1 s"),
        ("print('[1, 2]', flush=True); import time; time.sleep(60)", "no answer of this kind"),
        ("print('NCCL INFO', flush=True); import time; time.sleep(60)", "broke off"),
        ("print('[' * 100_000, flush=True); import time; time.sleep(60)", "broke off"),
    ],
)
def test_a_measuring_process_that_is_not_well_is_told_of(code: str, said: str) -> None:
    own = Facts(rank=0, local_rank=0, node_rank=0, world=1, node="a", master="127.0.0.1:1")
    hands = Hands(own, gpu=False, command=[sys.executable, "-S", "-c", code])
    limit_s = 1.0 if "no answer within" in said else 30.0
    assert said in hands({"do": "start", "limit_s": limit_s})["error"]
    assert hands({"do": "counters", "limit_s": 5}) == {"counters": {}}  # the rank itself is well
    hands.close()


def test_an_interface_that_a_host_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value, odd in (
        ("GLOO_SOCKET_IFNAME", "lo", False),
        ("GLOO_SOCKET_IFNAME", "no0,lo", False),
        ("GLOO_SOCKET_IFNAME", "no0", True),
        ("NCCL_SOCKET_IFNAME", "=lo", False),
        ("NCCL_SOCKET_IFNAME", "=no0,no1", True),
        ("NCCL_SOCKET_IFNAME", "^docker", False),
        ("NCCL_SOCKET_IFNAME", "no", False),
        ("NCCL_SOCKET_IFNAME", "", False),
    ):
        monkeypatch.setenv(name, value)
        if odd:
            with pytest.raises(RuntimeError, match=f"{name}={value}, and this host has .*lo"):
                worker.missing_interface(name)
        else:
            worker.missing_interface(name)
    assert worker.interface("127.0.0.1") == "lo" and worker.interface("no.such.host.invalid") == ""
