"""The command line: examples that work, one clear message when they cannot."""

from __future__ import annotations

import json

import pytest

from tests.corpus.corpora import documents
from toolkit import cli
from toolkit.corpus.__main__ import main


def run(*argv: object) -> int:
    return cli.run(main, [str(part) for part in argv])


def test_jsonl_from_two_files_with_json_report(jsonl, tmp_path, capsys):
    a, b = jsonl({"body": "a", "id": "1"}, name="a.jsonl"), jsonl({"body": "b"}, name="b.jsonl")
    out = tmp_path / "out"
    options = ["--json", "-p", "text_field=body", "--subset", "mine", "--valid-fraction", "0.5", "--workers", 2]
    assert run("build", "jsonl", a, b, "-o", out, *options) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["documents_out"], shown["train"], shown["valid"]) == (2, 1, 1)
    assert [row["subset"] for row in documents(out, "train")] == ["mine"]
    assert run("show", out, "1", "--json") == 0
    assert json.loads(capsys.readouterr().out)["text"] == "a"
    assert run("show", out, "1") == 0 and capsys.readouterr().out.endswith("\n\na\n")
    assert run("show", out, "2") == 1 and "no document has the id '2'" in capsys.readouterr().err


def test_licences_dates_duplicates_and_benchmarks(jsonl, tmp_path, capsys):
    question = "Which enzyme is blocked by the drug that the patient of this vignette was given last night"
    asked = jsonl({"id": "q1", "question": question, "options": ["one", "two"], "answer": 0}, name="asked.jsonl")
    path = jsonl(
        *({"id": f"d{i}", "text": f"text number {i}", "license": "CC0"} for i in range(8)),
        {"id": "nc", "text": "bound", "license": "cc-by-nc"},
        {"id": "new", "text": "young", "license": "CC0", "date": "2024"},
        {"id": "twin", "text": "Text number 1", "license": "CC0"},
        {"id": "leak", "text": f"Answers: {question}? one.", "license": "CC0"},
    )
    out = tmp_path / "out"
    options = ["--cutoff", "2023-08", "--benchmark", f"mine={asked}", "--licences", "open,CC-BY-NC*"]
    assert run("build", "jsonl", path, "-o", out, *options) == 0
    report = json.loads((out / "report.json").read_text())
    removed = {rule: count for rule, count in report["removed"].items() if count}
    assert removed == {"after_cutoff": 1, "exact_duplicate": 1, "contaminated": 1} and report["out"] == 9
    capsys.readouterr()
    assert run("report", out) == 0
    told = capsys.readouterr().out
    assert "after_cutoff" in told and "jsonl   12    9" in told and "tokens" in told
    assert run("build", "jsonl", path, "-o", out, "--keep-duplicates") == 0
    assert json.loads((out / "report.json").read_text())["out"] == 11
    capsys.readouterr()
    assert run("report", out, "--json") == 0 and json.loads(capsys.readouterr().out)["out"] == 11


def test_a_recipe_is_built_without_a_run(jsonl, tmp_path, capsys):
    path = jsonl(*({"id": f"d{i}", "text": f"text {i}"} for i in range(9)))
    words = ["recipe=demo", "corpus=jsonl", f"corpus.sources.documents.path={path}", "corpus.valid_fraction=0.5"]
    assert run("build", *words, "-o", tmp_path / "out", "--json") == 0
    assert json.loads(capsys.readouterr().out)["documents_out"] == 9
    assert {row["subset"] for row in documents(tmp_path / "out", "train")} == {"documents"}


def test_the_world_with_its_questions(tmp_path, capsys):
    out, questions = tmp_path / "out", tmp_path / "questions"
    assert run("build", "world", "-o", out, "--questions", questions, "-p", "documents_per_entity=1") == 0
    assert "200" in capsys.readouterr().out
    assert len((questions / "cloze.jsonl").read_text().splitlines()) == 240


def test_where_sources_come_from(tmp_path, capsys):
    assert run("downloads") == 0
    every = capsys.readouterr().out
    assert run("build", "abstracts", "--list-downloads") == 0
    some = capsys.readouterr().out
    assert some and some in every and len(some) < len(every)
    assert run("build", "recipe=gap_replay", "--list-downloads") == 0
    assert "licence" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (("build", "jsonl", "gone.jsonl"), 1, "no such file"),
        (("build", "jsonl"), 2, "at least one file"),
        (("build", "jsnol", "x"), 2, "Did you mean 'jsonl'"),
        (("build", "recipe=gap_replay"), 2, "corpus.sources.guidelines.path=PATH"),
        (("build", "recipe=gap_repaly"), 2, "Did you mean 'gap_replay'"),
        (("build", "recipe=gap_replay", "--seed", "1"), 2, "--seed does not go with a recipe"),
        (("build", "recipe=gap_replay", "~corpus.sources.guidelines"), 2, "corpus.sources.abstracts.path=PATH"),
        (("build", "recipe=gap_replay", "articles"), 2, "'articles' is not key=value"),
        (("build", "recipe=gap_replay", "corpus.sources.replay.knd=x"), 2, "kind"),
        (("build", "recipe=gap_replay", "corpus.filters.cutoff=soon"), 2, "no date"),
        (("build", "world", "x"), 2, "no input"),
        (("build", "pmc", "x", "--questions", "t"), 2, "belongs to world"),
        (("build", "world", "-p", "seed"), 2, "KEY=VALUE"),
        (("build", "world", "-p", "sed=1"), 2, "Did you mean 'seed'"),
        (("build", "world", "-p", "seed=one"), 2, "whole number"),
        (("build", "jsonl", "x", "--licences", "opne"), 2, "Did you mean 'open'"),
        (("build", "jsonl", "x", "--workers", "-1"), 2, "cannot be negative"),
    ],
)
def test_mistakes_get_one_line_and_an_exit_code(tmp_path, capsys, argv, code, said):
    assert run(*argv, "-o", tmp_path / "out") == code
    said_there = capsys.readouterr().err
    assert said in said_there and len(said_there.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_corpus_is_said(tmp_path, capsys):
    for verb in (("report", tmp_path), ("show", tmp_path, "x")):
        assert run(*verb) == 1
        assert "is no corpus" in capsys.readouterr().err


def test_help_has_an_example(capsys):
    for argv in (["--help"], ["build", "--help"]):
        with pytest.raises(SystemExit) as end:
            main(argv)
        assert end.value.code == 0 and "python -m toolkit.corpus build pmc" in capsys.readouterr().out
