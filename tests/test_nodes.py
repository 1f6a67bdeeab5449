"""What a node says of itself, how it is heard, and what the answers of many amount to. tests/slurm has real nodes."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fabric import trees
from toolkit import alike, fabric, nodes
from toolkit.errors import ImageError, PreflightFailed, StageFailed
from toolkit.plan import Step, steps
from toolkit.recipe import compose
from toolkit.runs import Run, create

ROCE = ("cluster.fabric=roce",)


def run(tmp_path: Path, *words: str, stage: str = "pretrain") -> tuple[Run, Step]:
    given = ["cluster=slurm_dev", f"runs={tmp_path / 'runs'}", f"stages=[{stage}]", *words]
    given += [f"inputs.{name}={tmp_path / name}" for name in ("shards", "checkpoint")]
    made = create(compose("demo", given).recipe, command=["pytest"], plan={})
    return made, steps(made.recipe)[0]


def answers(tmp_path: Path, count: int, **odd: str) -> dict[str, dict[str, Any]]:
    """What `count` nodes with a made-up /sys say; `odd` are nodes that differ, by how."""
    found = {}
    for index in range(1, count + 1):
        name = f"node{index:02d}"
        root = trees.node(tmp_path / "sys", index, odd=odd.get(name), management="lo")
        seen = fabric.detect(root, node=name).as_dict()
        found[name] = {"node": name, "job": "7", "image": None, "fabric": seen, "host": None, "error": None}
    return json.loads(json.dumps(found))


@given(st.dictionaries(st.from_regex(r"[a-z][a-z0-9-]{0,30}", fullmatch=True), st.text(max_size=3000), max_size=6),
       st.randoms(use_true_random=False))  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_answers_survive_each_other(told: dict[str, str], order: random.Random) -> None:
    """Lines of many nodes come in any order between nodes, among whatever else a step prints."""
    made = {name: {"node": name, "error": text} for name, text in told.items()}
    lines = [line for one in made.values() for line in nodes.speak(one).splitlines()]
    assert all(len(line) < 1024 for line in lines)
    lines += ["srun: error: node07: task 3: Killed", "meditron-node X 1/1 ====", "meditron-node Y 1/2 eJw="]
    order.shuffle(lines)
    assert nodes.hear("\n".join(lines) + "\n") == made


@pytest.mark.parametrize(
    "said", ["", "meditron-node n 1/1 !", "meditron-node n 1/1 eJwDAAAAAAE=", "meditron-node n 0/0 a"]
)
def test_what_is_no_answer_is_none(said: str) -> None:
    assert nodes.hear(said + "\n") == {}


def test_an_answer_that_would_fill_the_memory_is_none() -> None:
    told = {"node": "n", "error": " " * (12 << 20)}
    assert nodes.hear(nodes.speak(told)) == {}


def test_who_is_asked(tmp_path: Path) -> None:
    (tmp_path / "x.sif").touch()
    image = ["container=cpu", f"container.image={tmp_path}/x.sif"]
    for words, wanted in (
        ((), False),
        (ROCE, True),
        (image, False),
        ([*image, "cluster.apptainer.local=/local"], True),
        (["cluster.apptainer.local=/local"], False),
        (["container=cpu", f"container.image={tmp_path}", "cluster.apptainer.local=/local"], False),
    ):
        made, step = run(tmp_path, *words)
        assert nodes.asked_of(made.recipe, step) is wanted, words
    assert nodes.asked_of(*_preflight(tmp_path))


def _preflight(tmp_path: Path) -> tuple[Any, Step]:
    made, step = run(tmp_path, stage="preflight")
    return made.recipe, step


def test_this_machine_is_asked_in_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trees.meditron(tmp_path / "tree")
    monkeypatch.setenv(nodes.SYSFS, str(tmp_path / "tree" / "sys"))
    monkeypatch.setenv("SLURMD_NODENAME", "node05")
    made, step = run(tmp_path, *ROCE)
    found = nodes.ask(made, step, ["node05"])
    assert found["node05"]["error"] is None
    assert found["node05"]["fabric"]["ports"][0]["device"] == "mlx5_0"
    assert json.loads((made.stage("pretrain") / "nodes" / "node05.json").read_text()) == found["node05"]


def test_a_process_that_says_nothing_is_ended_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    silent = tmp_path / "silent"
    silent.write_text("#!/bin/sh\nexec sleep 600\n")
    silent.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(silent))
    made, step = run(tmp_path, *ROCE, "cluster.alive.look_s=1")
    (told,) = nodes.ask(made, step, ["node05"]).values()
    assert "did not say what it is like within 1 s" in told["error"] and told["fabric"] is None
    with pytest.raises(StageFailed, match="1 of 1 nodes are not fit"):
        alike.merge(made, step, {"node05": told}, {})


def test_the_values_are_those_of_most_and_the_callers_win(tmp_path: Path) -> None:
    made, step = run(tmp_path, *ROCE, "cluster.nccl.timeout=22")
    told = answers(tmp_path, 5, node01="rate", node04="missing")
    seen = alike.merge(made, step, told, {"NCCL_IB_TIMEOUT": "19", "PATH": "/bin", "NCCL_DEBUG": "INFO"})
    assert [node for node, _ in seen.unfit] == ["node01", "node04"]
    assert "the rate of mlx5_0:1 is 100 Gb/s, the others have 200 Gb/s" in dict(seen.unfit)["node01"]
    values = alike.told(made.path)
    assert (values["NCCL_IB_HCA"], values["NCCL_IB_TIMEOUT"], values["NCCL_DEBUG"]) == ("=mlx5_0:1", "19", "INFO")
    assert "PATH" not in values
    facts = json.loads((made.path / "fabric.json").read_text())
    assert {one["node"] for one in facts["differences"]} == {"node01", "node04"} and len(facts["nodes"]) == 5
    assert next(v for v in facts["values"] if v["name"] == "NCCL_IB_TIMEOUT")["source"] == "caller"


def test_a_difference_that_is_only_worth_a_word_leaves_nobody_out(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    made, step = run(tmp_path, *ROCE)
    assert alike.merge(made, step, answers(tmp_path, 4, node03="firmware"), {}).unfit == ()
    assert "node03: the firmware of mlx5_0:1 is 22.31.1014" in capsys.readouterr().out


def test_where_nobody_can_say_who_is_wrong_nobody_is_left_out(tmp_path: Path) -> None:
    made, step = run(tmp_path, *ROCE)
    with pytest.raises(StageFailed) as caught:
        alike.merge(made, step, answers(tmp_path, 4, node01="mtu", node02="mtu"), {})
    assert "4 of 4 nodes are not fit" in str(caught.value) and "as many nodes have 4200" in str(caught.value)


def test_what_no_node_has_is_the_sites_matter(tmp_path: Path) -> None:
    made, step = run(tmp_path, *ROCE)
    none = answers(tmp_path, 3, node01="missing", node02="missing", node03="missing")
    with pytest.raises(PreflightFailed, match="RoCE"):
        alike.merge(made, step, none, {})
    assert not (made.path / "nccl.env").exists() and alike.told(made.path) == {}


def test_an_error_that_all_nodes_have_is_told_as_it_was(tmp_path: Path) -> None:
    made, step = run(tmp_path, *ROCE)
    cause = ImageError("this is another image", where="/x.sif", do="put it back").as_dict()
    told = answers(tmp_path, 3)
    for one in told.values():
        one |= {"error": "x", "cause": cause}
    with pytest.raises(ImageError) as caught:
        alike.merge(made, step, told, {})
    assert caught.value.exit_code == 3 and "put it back" in str(caught.value).lower()


def test_one_node_without_room_for_the_image_is_left_out(tmp_path: Path) -> None:
    made, step = run(tmp_path)
    told = answers(tmp_path, 3)
    for one in told.values():
        one["image"] = "/local/x-0123.sif"
    told["node02"] |= {"image": None, "error": "/local: no room for the image"}
    seen = alike.merge(made, step, told, {})
    assert seen.image == Path("/local/x-0123.sif") and seen.unfit == (("node02", "/local: no room for the image"),)


def test_in_a_preflight_nothing_is_struck_and_the_nodes_files_say_it(tmp_path: Path) -> None:
    made, step = run(tmp_path, *ROCE, stage="preflight")
    told = answers(tmp_path, 3, node01="missing", node02="missing", node03="missing")
    folder = made.stage("preflight") / "nodes"
    folder.mkdir(parents=True)
    assert alike.merge(made, step, told, {}, judged_later=True).unfit == ()
    assert "RoCE" in json.loads((folder / "node02.json").read_text())["error"]


@pytest.mark.parametrize("value", [None, 3, {}, {"ports": 3}, {"ports": [{"device": "../x"}]}, "x"])
def test_a_fabric_that_is_none_is_a_fault_of_its_node(tmp_path: Path, value: Any) -> None:
    made, step = run(tmp_path, *ROCE)
    told = answers(tmp_path, 4)
    told["node02"]["fabric"] = value
    assert [node for node, _ in alike.merge(made, step, told, {}).unfit] == ["node02"]


def test_the_verb_says_what_this_machine_is_like(tmp_path: Path) -> None:
    made, step = run(tmp_path, *ROCE)
    words = [sys.executable, "-m", "toolkit.nodes", str(made.path)]
    done = subprocess.run([*words, step.id, "--json"], capture_output=True, text=True)
    assert done.returncode == 0 and {"node", "fabric", "error"} <= json.loads(done.stdout).keys()
    done = subprocess.run([*words, "nothing"], capture_output=True, text=True)
    assert done.returncode == 2 and "has no stage 'nothing'" in done.stderr and "Traceback" not in done.stderr
