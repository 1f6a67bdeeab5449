"""One odd node among 16, on a real Slurm whose nodes have a /sys/class of their own: who finds it, who keeps away."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fabric import trees
from tests.slurm.conftest import Slurm, slurm_dev
from tests.slurm.test_keepalive import PROBE, ended, said
from toolkit import chain
from toolkit.cluster import attempts, excluded
from toolkit.recipe import compose
from toolkit.runs import Run, create, find

pytestmark = pytest.mark.slow
ODD = 7
# What a training's ranks do here: tell what they were given, and end well.
TELL = """
import json
values = {name: value for name, value in os.environ.items() if name.startswith("NCCL_")}
(folder / f"told-{rank}.json").write_text(json.dumps(values))
if rank == 0:
    (folder / "done.json").write_text("{}")
sys.exit(0)
"""


@pytest.fixture(scope="module")
def cluster(slurm_packages: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    if os.geteuid() != 0:
        pytest.skip("nodes with a /sys of their own need root")
    shown = tmp_path_factory.mktemp("sys")
    for index in range(1, 17):
        trees.node(shown, index, odd="mtu" if index == ODD else None)
    state = Path(tempfile.mkdtemp(prefix="sd-", dir="/tmp")) / "state"
    before = os.environ.get("SLURM_CONF")
    try:
        up = slurm_dev("up", "--sys", shown, "--state", state)
        assert up.returncode == 0, up.stderr
        os.environ["SLURM_CONF"] = str(state / "etc" / "slurm.conf")
        yield Slurm(state=state)
    finally:
        slurm_dev("down", "--state", state)
        shutil.rmtree(state.parent, ignore_errors=True)
        os.environ.pop("SLURM_CONF", None)
        os.environ |= {} if before is None else {"SLURM_CONF": before}


def launch(cluster: Slurm, *words: str) -> tuple[Path, str]:
    done = cluster.run(sys.executable, "-m", "toolkit.launch", *words, "--json", check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    return Path(told["run"]), told["jobs"][0]["id"]


def train(tmp_path: Path, *words: str) -> tuple[Run, chain.Submitted]:
    probe = tmp_path / "probe"
    probe.write_text(PROBE.format(python=sys.executable, then=TELL))
    probe.chmod(0o755)
    given = ["cluster=slurm_dev", "parallel=tp1_pp1", "stages=[pretrain]", "train.micro_batch=1"]
    given += ["finetune.micro_batch=1", f"container.python={probe}", f"runs={tmp_path / 'runs'}"]
    given += [f"inputs.{name}={tmp_path / name}" for name in ("shards", "checkpoint")]
    run = create(compose("demo", [*given, *words]).recipe, command=["pytest"], plan={})
    (only,) = chain.submit(run)
    return run, only


def test_a_training_leaves_the_odd_node_out_and_tells_the_ranks_what_the_others_have(
    cluster: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NCCL_IB_TIMEOUT", "19")
    monkeypatch.setenv("NCCL_DEBUG", "INFO")
    fabric = ["cluster.fabric=roce", "cluster.nccl.timeout=22", "cluster.nccl.traffic_class=104"]
    run, only = train(tmp_path, "cluster.nodes=8", *fabric)
    assert ended(cluster, only.id) == "COMPLETED", said(run, only.id)
    first, second = attempts.read(run.stage("pretrain"))
    odd = f"node{ODD:02d}"
    assert odd in first.hosts and first.state == "UNFIT" and first.why.startswith(f"{odd}: the MTU of mlx5_0:1 is 1500")
    assert odd not in second.hosts and len(second.hosts) == 8 and second.state == "COMPLETED"
    nodes = attempts.read_nodes(run.stage("pretrain"))
    assert nodes.excluded == (odd,) == nodes.told and "the others have 4200" in nodes.strikes[odd][0]
    assert f"{odd}: the MTU of mlx5_0:1 is 1500" in said(run, only.id)
    made = [json.loads(path.read_text()) for path in sorted(run.stage("pretrain").glob("told-*.json"))]
    assert len(made) == 8 and all(told == made[0] for told in made)
    assert {name: made[0].get(f"NCCL_{name}") for name in ("NET", "IB_HCA", "IB_TC", "IB_TIMEOUT", "DEBUG")} == {
        "NET": "IB", "IB_HCA": "=mlx5_0:1", "IB_TC": "104", "IB_TIMEOUT": "19", "DEBUG": "INFO",
    }  # fmt: skip
    facts = json.loads((run.path / "fabric.json").read_text())
    assert facts["kind"] == "roce" and facts["differences"] == [] and set(facts["nodes"]) == set(second.hosts)
    shown = cluster.run(sys.executable, "-m", "toolkit.runs", "show", str(run.path)).stdout
    assert "2 attempts (1 unfit)" in shown and f"node {odd}, excluded: 1 strike (the MTU" in shown


def test_a_node_found_unfit_while_the_job_was_queued_is_left_too(cluster: Slurm, tmp_path: Path) -> None:
    run, only = train(tmp_path, "cluster.nodes=2", "cluster.sbatch={begin: now+3}")
    excluded.note(tmp_path / "runs", "slurm_dev", {"node01": "half the rate"}, "preflight-1")
    assert ended(cluster, only.id) == "COMPLETED", said(run, only.id)
    first, second = attempts.read(run.stage("pretrain"))
    assert (first.state, first.why) == ("STOPPED", "node01 had failed before")
    assert "node01" in first.hosts and "node01" not in second.hosts
    assert attempts.read_nodes(run.stage("pretrain")).strikes == {"node01": ("half the rate",)}


def test_a_preflight_names_the_odd_node_and_the_next_launch_keeps_away_from_it(cluster: Slurm, tmp_path: Path) -> None:
    runs, odd = tmp_path / "runs", f"node{ODD:02d}"
    words = ["recipe=preflight", "cluster=slurm_dev", "container=none", f"runs={runs}", "cluster.fabric=roce"]
    words += ["cluster.preflight.bandwidth=false", "cluster.time_limit_min=10"]
    path, job = launch(cluster, *words, "cluster.nodes=16")
    assert ended(cluster, job, 240) == "FAILED"
    out = (path / "jobs" / f"preflight-{job}.out").read_text(errors="replace")
    assert cluster.job(job)["ExitCode"].startswith("4:"), out
    verdict = json.loads((path / "stages" / "preflight" / "preflight.json").read_text())
    assert verdict["exclude"] == [odd], verdict
    (known,) = excluded.read(runs)["slurm_dev"].items()
    assert known[0] == odd and "the MTU of mlx5_0:1 is 1500" in known[1].why and known[1].run == path.name
    assert f"later jobs keep away from {odd}" in out

    # Who launches next is told, and so is Slurm.
    done = cluster.run(sys.executable, "-m", "toolkit.launch", *words, "cluster.nodes=2", timeout=120)
    assert "kept away from" in done.stdout and f"  {odd}: the MTU of mlx5_0:1 is 1500" in done.stdout
    path = find("last", runs).path
    job = json.loads((path / "jobs.json").read_text())["stages"][0]["jobs"][0]["id"]
    assert cluster.job(job)["ExcNodeList"] == odd
    assert ended(cluster, job, 120) == "COMPLETED", (path / "jobs" / f"preflight-{job}.out").read_text()
    assert excluded.names(runs, "slurm_dev") == (odd,), "it was not part of that one"

    listed = cluster.run(sys.executable, "-m", "toolkit.runs", "nodes", "--root", runs).stdout
    assert listed.startswith(f"slurm_dev  {odd}  since ") and "MTU" in listed
    cluster.run(sys.executable, "-m", "toolkit.runs", "nodes", "--root", runs, "--forget", odd)
    assert excluded.names(runs, "slurm_dev") == ()
