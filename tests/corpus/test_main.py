"""The command line: examples that work, one clear message when they cannot."""

from __future__ import annotations

import json

import pytest

from toolkit import cli
from toolkit.corpus.__main__ import main


def run(*argv: object) -> int:
    return cli.run(main, [str(part) for part in argv])


def test_jsonl_from_two_files_with_json_report(jsonl, tmp_path, capsys):
    a, b = jsonl({"body": "a"}, name="a.jsonl"), jsonl({"body": "b"}, name="b.jsonl")
    out = tmp_path / "out"
    options = ["--json", "-p", "text_field=body", "--subset", "mine", "--valid-fraction", "0.5"]
    assert run("build", "jsonl", a, b, "-o", out, *options) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["documents_out"], shown["train"], shown["valid"]) == (2, 1, 1)
    assert json.loads((out / "train.jsonl").read_text())["subset"] == "mine"


def test_the_world_with_its_questions(tmp_path, capsys):
    out, tasks = tmp_path / "out", tmp_path / "tasks"
    assert run("build", "world", "-o", out, "--tasks", tasks, "-p", "documents_per_entity=1") == 0
    assert "documents_out: 200" in capsys.readouterr().out
    assert len((tasks / "cloze.jsonl").read_text().splitlines()) == 240


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (("build", "jsonl", "gone.jsonl"), 1, "no such file"),
        (("build", "jsonl"), 2, "at least one file"),
        (("build", "world", "x"), 2, "no input"),
        (("build", "jats", "x", "--tasks", "t"), 2, "belongs to world"),
        (("build", "world", "-p", "seed"), 2, "KEY=VALUE"),
        (("build", "world", "-p", "sed=1"), 2, "Did you mean 'seed'"),
        (("build", "world", "-p", "seed=one"), 2, "whole number"),
    ],
)
def test_mistakes_get_one_line_and_an_exit_code(tmp_path, capsys, argv, code, said):
    assert run(*argv, "-o", tmp_path / "out") == code
    said_there = capsys.readouterr().err
    assert said in said_there and len(said_there.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_help_has_an_example(capsys):
    for argv in (["--help"], ["build", "--help"]):
        with pytest.raises(SystemExit) as end:
            main(argv)
        assert end.value.code == 0 and "python -m toolkit.corpus build jats" in capsys.readouterr().out
