"""The stage preflight through the launcher on this machine: a result that no later stage depends on, or a clear end."""

from __future__ import annotations

import dataclasses
import itertools
import json
import socket
from collections.abc import Callable

import pytest

from toolkit.errors import PreflightFailed, RecipeError, UsageError
from toolkit.plan import steps
from toolkit.recipe import compose, rules
from toolkit.runs import Run, done
from toolkit.stages import preflight
from toolkit.stages.context import Context
from toolkit.submit import execute, outlook

Make = Callable[..., Run]


def test_its_place_in_a_plan() -> None:
    recipe = compose("pretrain_70b", ["stages=[shards,import,preflight,pretrain]"]).recipe
    by_id = {step.id: step for step in steps(recipe)}
    assert by_id["preflight"].processes == 128 == by_id["pretrain"].processes and by_id["preflight"].needs == ()
    assert by_id["pretrain"].needs == ("shards", "import", "preflight")
    assert all(step.processes == 1 for step in steps(compose("pretrain_70b", ["stages=[shards,import]"]).recipe))


def test_the_recipe_takes_any_size() -> None:
    recipe = compose("preflight").recipe
    for nodes, per_node in itertools.product([*range(1, 17), 32, 64], [1, 2, 4, 8]):
        site = dataclasses.replace(recipe.cluster, nodes=nodes, devices_per_node=per_node)
        other = dataclasses.replace(recipe, cluster=site)
        rules.check(other)
        assert steps(other)[0].processes == nodes * per_node


@pytest.mark.slow
def test_four_processes_meet(make: Make) -> None:
    run = make(["preflight"])
    execute(run, quiet=True)
    told = json.loads((run.stage("preflight") / "preflight.json").read_text())
    assert told["ranks"] == 4 and told["faults"] == [] and [node["ranks"] for node in told["nodes"]] == ["0-3"]
    record = done(run, "preflight")
    assert record is not None and record["outputs"] == {} and record["result"] == {"ranks": 4, "nodes": 1}
    band = told["bandwidth"]
    assert len(band["alone"]) == 1 and band["pairs"] == [] and band["all"] is None
    (alone,) = band["alone"].values()
    assert alone["gb_s"] > 0 and alone["how"] == "gloo" and alone["wrong"] == 0
    assert "every rank is where it should be" in (run.stage("preflight") / "log").read_text()
    assert [row["state"] for row in outlook(run)] == ["done"]


@pytest.mark.slow
def test_a_node_that_is_not_fit_ends_the_run(make: Make) -> None:
    """More GPUs than any machine has, so that the fault is real wherever this runs."""
    run = make(["preflight"], "cluster.device=gpu", "cluster.devices_per_node=24", "train.global_batch=96",
               "finetune.global_batch=96")  # fmt: skip
    with pytest.raises(PreflightFailed) as caught:
        execute(run, quiet=True)
    told = str(caught.value)
    assert caught.value.exit_code == 4 and "GPUs in /dev, 24 were asked for" in told and "ranks 0-23" in told
    assert "--exclude=" in told and done(run, "preflight") is None
    assert json.loads((run.stage("preflight") / "preflight.json").read_text())["faults"]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("fraction=0", "above 0 and at most 1"),
        ("fraction=1.5", "above 0 and at most 1"),
        ("outlier=nan", "cluster.preflight.outlier"),
        ("rounds=0", "at least 1"),
        ("limit_s=0", "at least 1"),
        ("size_mib=0", "at least 1"),
        ("pair_gb_s=-3", "above 0"),
        ("node_gb_s=inf", "must be a finite number"),
        ("scratch_gib=-1", "at least 0"),
        ("dcgm=5", "levels 1 to 4"),
        ("driver=new", "no version of a driver"),
        ("bandwith=false", "Did you mean"),
    ],
)
def test_thresholds_that_are_none_are_refused(word: str, said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        compose("preflight", [f"cluster.preflight.{word}"])
    assert said in str(caught.value)


def test_without_bandwidth_nothing_is_measured(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """One rank, in this process; and what its node has said of itself before is judged with it."""
    run = make(["preflight"], "cluster.devices_per_node=1", "cluster.preflight.bandwidth=false", "parallel.tp=1",
               "parallel.pp=1", "parallel.sequence=false")  # fmt: skip
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    values = {"RANK": "0", "LOCAL_RANK": "0", "NODE_RANK": "0", "WORLD_SIZE": "1", "SLURMD_NODENAME": "node07"}
    for name, value in {**values, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, value)
    context = Context(run=run, step=steps(run.recipe)[0])
    assert preflight.run(context).figures == {"ranks": 1, "nodes": 1}
    assert json.loads((context.folder / "preflight.json").read_text())["bandwidth"] is None
    nodes = context.folder / "nodes"
    nodes.mkdir()
    (nodes / "node07.json").write_text(json.dumps({"node": "node07", "error": "another image", "host": {"shm_gib": 1}}))
    (nodes / "node08.json").write_text('{"node": "node08", "host": ')
    with pytest.raises(PreflightFailed) as caught:
        preflight.run(context)
    assert "node07: another image" in str(caught.value) and "node08: what it said of itself" in str(caught.value)
    told = json.loads((context.folder / "preflight.json").read_text())
    assert told["exclude"] == [] and told["hosts"] == {"node07": {"shm_gib": 1}}


@pytest.mark.parametrize("given", ["soon", "0", "-3", "nan", "inf", "1e9"])
def test_a_limit_that_is_none_is_refused(make: Make, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    run = make(["preflight"])
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "NODE_RANK": "0", "WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "1")
    monkeypatch.setenv("MEDITRON_PREFLIGHT_LIMIT_S", given)
    with pytest.raises(UsageError, match="no number of seconds"):
        preflight.run(Context(run=run, step=steps(run.recipe)[0]))


def test_a_process_that_is_no_rank_is_told_so(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make(["preflight"])
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(PreflightFailed, match="the environment of a rank lacks RANK"):
        preflight.run(Context(run=run, step=steps(run.recipe)[0]))
