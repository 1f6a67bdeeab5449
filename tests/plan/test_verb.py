"""`python -m toolkit.plan`: what launch would show, what it refuses, and what it says where NeMo is not installed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from toolkit import cli, launch
from toolkit.plan import __main__ as verb
from toolkit.plan.proof import stage_layers
from toolkit.recipe import compose

# A Python in which torch cannot be imported, as on a login node.
NO_TORCH = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
sys.meta_path.insert(0, Blocked())
from toolkit import cli
from toolkit.plan.__main__ import main
sys.exit(cli.run(main))
"""


@pytest.mark.parametrize("name", ["demo", "pretrain_70b", "pretrain_llama3_70b"])
def test_the_plan_is_the_one_that_launch_shows(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(verb.main, [f"recipe={name}", "train.lr=1e-4", "train.min_lr=1e-6"]) == 0
    shown = capsys.readouterr().out
    assert cli.run(launch.main, [f"recipe={name}", "train.lr=1e-4", "train.min_lr=1e-6", "--dry-run"]) == 0
    assert capsys.readouterr().out.startswith(shown.rstrip("\n"))
    assert "command line" in shown


def test_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(verb.main, ["recipe=pretrain_70b", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["layout"]["dp"] == 2 and told["layout"]["micro_batches"] == 128
    assert {"recipe", "layout", "stages", "missing"} <= told.keys()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give one recipe=NAME"),
        (["train.lr=1"], "give one recipe=NAME"),
        (["recipe="], "give one recipe=NAME"),
        (["recipe=demo", "recipe=demo"], "give one recipe=NAME"),
        (["recipe=dmo"], "Did you mean 'demo'?"),
        (["recipe=demo", "run=last"], "run= has no meaning here"),
        (["recipe=demo", "train.lr"], "'train.lr' is not key=value"),
        (["recipe=demo", "train.lrr=1"], "Did you mean 'train.lr'?"),
        (["recipe=demo", "--ranks", "all"], "--ranks goes with --instantiate"),
        (["recipe=demo", "train.lr=nan"], "must be a finite number"),
    ],
)
def test_a_wrong_command_line_is_one_message(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(verb.main, words) == 2
    told = capsys.readouterr()
    assert said in told.err and told.err.count("\n") == 1 and told.out == ""


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        verb.main(["--help"])
    assert ended.value.code == 0
    assert "python -m toolkit.plan recipe=pretrain_70b --instantiate" in capsys.readouterr().out


def test_where_torch_is_not_installed_it_says_so() -> None:
    words = [sys.executable, "-c", NO_TORCH, "recipe=pretrain_70b", "--instantiate", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "torch is not installed here" in done.stderr and "Traceback" not in done.stderr
    assert json.loads(done.stdout)["error"] == "MissingPackage"


@pytest.mark.parametrize(("vp", "layers"), [(None, [list(range(30, 40))]), (5, [[6, 7], [22, 23], [38, 39], [54, 55],
                                                                               [70, 71]])])  # fmt: skip
def test_layers_of_a_stage(vp: int | None, layers: list[list[int]]) -> None:
    recipe = compose("pretrain_70b", [f"parallel.vp={'null' if vp is None else vp}"]).recipe
    assert stage_layers(recipe, 3) == layers
    every = [layer for stage in range(8) for chunk in stage_layers(recipe, stage) for layer in chunk]
    assert sorted(every) == list(range(80))
