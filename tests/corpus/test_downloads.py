"""The list of downloads: all of it parses, is no choice of a recipe's group, and says what a user must know."""

from __future__ import annotations

import json
import shlex

import pytest

from toolkit.corpus import downloads, fetch, readers
from toolkit.errors import DataError, RecipeError, UsageError
from toolkit.recipe.compose import compose, recipes_dir


def test_every_download_says_what_must_be_known():
    listed = downloads.load()
    assert {"pmc", "s2orc", "papers", "abstracts", "pubmed", "pubmed-updates", "guidelines"} <= set(listed)
    assert {one.kind.split(" ")[0] for one in listed.values()} == {"pmc", "s2orc", "abstracts", "guidelines", "replay"}
    for one in listed.values():
        assert one.kind.split(" ")[0] in readers.KINDS and one.page.startswith("https://"), one.name
        assert any(c.isdigit() for c in one.size) or "files" in one.size, one.name
        for command in one.commands:
            assert shlex.split(command, comments=True)[0].split("=")[0] in (
                "aws",
                "curl",
                "wget",
                "hf",
                "grep",
                "HF_TOKEN",
            )
        if one.fetch:
            assert one.fetch in fetch._WAYS and one.base.startswith("https://") and one.base.endswith("/")
            host = one.base.split("/")[2].removesuffix(".s3.amazonaws.com")
            assert any(host in command or one.repository and one.repository in command for command in one.commands), (
                one.name
            )


def test_it_is_no_choice_of_the_group_data(monkeypatch):
    assert downloads.folder() == recipes_dir() / "data" / "downloads"
    with pytest.raises(RecipeError, match="downloads"):
        compose("demo", ["data=downloads"])
    monkeypatch.setenv("TOOLKIT_RECIPES", "/elsewhere")
    assert downloads.folder() == recipes_dir() / "data" / "downloads"


def test_it_is_printed_as_commands_with_comments(capsys):
    downloads.show(["pubmed", "guidelines"])
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    commands = [line for line in lines if not line.startswith("# ") and not line.startswith("#   ")]
    assert [command.split()[0] for command in commands] == ["wget", "hf"]
    assert any("1,334 files" in line for line in lines) and any("licence:" in line for line in lines)
    downloads.show(as_json=True)
    assert {one["name"] for one in json.loads(capsys.readouterr().out)} == set(downloads.load())
    with pytest.raises(UsageError, match="Did you mean 'pubmed'"):
        downloads.show(["pubmedd"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("downloads: [a", "is no YAML"),
        ("- a", "'downloads' was expected"),
        ("downloads: {a: 5}", "a mapping was expected"),
        ("downloads: {a: {titel: x}}", "unknown key 'titel'.*title"),
        ("downloads: {a: {title: x, kind: pmc, page: p, size: s, license: l}}", "'commands' is missing"),
        ("downloads: {a: !!python/object/apply:os.system ['true']}", "is no YAML"),
    ],
)
def test_a_list_that_is_none_is_said(tmp_path, text, words):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(DataError, match=words):
        downloads.load(tmp_path)
    with pytest.raises(DataError, match="no list of downloads"):
        downloads.load(tmp_path / "none")
