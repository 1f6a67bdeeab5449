"""`score list` and how all verbs find benchmarks' files."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from toolkit import cli
from toolkit.errors import UsageError
from toolkit.score import __main__ as verbs
from toolkit.score import places
from toolkit.scoring import benchmarks


def run(*argv: object) -> int:
    return cli.run(verbs.main, [str(a) for a in argv])


def test_list_has_sizes_shots_modes_and_licences(capsys: pytest.CaptureFixture):
    assert run("list") == 0
    lines = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines()}
    assert lines["benchmark"][:6] == ["benchmark", "split", "size", "train", "answers", "shots"]
    assert lines["medqa"][1:6] == ["test", "1273", "10178", "A-E", "0"]
    assert lines["medmcqa"][1:9] == ["validation", "4183", "182822", "A-D", "0", "letter*", "cloze", "cot"]
    assert lines["truthfulqa_medical"][2] == "99" and "Apache-2.0" in lines["truthfulqa_medical"]
    assert run("list", "--json") == 0
    listed = {spec["name"]: spec for spec in json.loads(capsys.readouterr().out)}
    assert set(listed) == set(benchmarks.names())
    assert listed["pubmedqa"]["answers"] == ["yes", "no", "maybe"]
    assert len(listed["medqa4"]["hub"]["revision"]) == 40


def test_list_of_one_says_everything(capsys: pytest.CaptureFixture):
    assert run("list", "--benchmark", "mmlu_medical, medqa") == 0
    out = capsys.readouterr().out
    assert "1,862" in out and "{group}_test.csv" in out and "only with --hub" in out
    assert "has not been counted" in out  # how often each letter is right among five options
    assert run("list", "--benchmark", "medqa9") == 2
    assert "Did you mean" in capsys.readouterr().err


def test_each_path_belongs_to_a_benchmark():
    assert places.paths(["x"], ["a"]) == {"a": "x"} and places.paths(["x=b"], ["a"]) == {"a": "x=b"}
    assert places.paths(["b=y", "a=x=z"], ["a", "b"]) == {"a": "x=z", "b": "y"}
    for given, names in ((["x"], ["a", "b"]), (["x", "y"], ["a"]), (["c=x"], ["a", "b"]), (["a=x", "a=y"], ["a", "b"])):
        with pytest.raises(UsageError, match="--train .* belongs to no benchmark"):
            places.paths(given, names, "--train")
    with pytest.raises(UsageError, match="names 'medqa' twice"):
        places.specs("medqa,medqa4,medqa")
    with pytest.raises(UsageError, match="names none"):
        places.specs(" ,")


def test_nothing_is_fetched_unless_the_hub_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    from toolkit.scoring import hub

    asked = []
    monkeypatch.setattr(hub, "fetch", lambda spec, split="test": asked.append((spec.name, split)) or tmp_path / split)
    specs = places.specs("medqa4,medmcqa")
    args = argparse.Namespace(path=["medqa4=x"], train=[], hub=False)
    assert places.located(args, specs, shots=True) == {"medqa4": ("x", None), "medmcqa": (None, None)} and not asked
    args.hub = True
    where = str(tmp_path / "test"), str(tmp_path / "demonstrations")
    assert places.located(args, specs, shots=True) == {"medqa4": ("x", None), "medmcqa": where}
    assert asked == [("medmcqa", "test"), ("medmcqa", "demonstrations")]
    assert places.located(args, specs, shots=False)["medmcqa"] == (where[0], None)
