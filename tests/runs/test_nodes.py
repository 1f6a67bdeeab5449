"""`python -m toolkit.runs nodes`: the list of unfit nodes, shown and shortened."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from toolkit.cluster import excluded
from toolkit.errors import UsageError
from toolkit.runs.__main__ import main


@pytest.fixture
def root(tmp_path: Path) -> Path:
    excluded.note(tmp_path, "alps", {"node07": "half the rate \x1b[2J", "node03": "no answer"}, "preflight-1")
    excluded.note(tmp_path, "other", {"node07": "a port is down"}, "preflight-2")
    return tmp_path


def test_it_says_which_and_why(root: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["nodes", "--root", str(root)]) == 0
    told = capsys.readouterr().out
    assert [line.split()[:2] for line in told.splitlines()] == [
        ["alps", "node03"],
        ["alps", "node07"],
        ["other", "node07"],
    ]
    assert "no answer" in told and "(preflight-1)" in told and "\x1b" not in told
    assert main(["nodes", "--root", str(root), "--cluster", "other", "--json"]) == 0
    (only,) = json.loads(capsys.readouterr().out)["nodes"]
    assert (only["node"], only["cluster"], only["why"], only["run"]) == (
        "node07",
        "other",
        "a port is down",
        "preflight-2",
    )


def test_one_that_was_mended_is_forgotten(root: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["nodes", "--root", str(root), "--cluster", "alps", "--forget", "node07"]) == 0
    assert "forgotten: node07 of alps" in capsys.readouterr().out
    assert excluded.names(root, "alps") == ("node03",) and excluded.names(root, "other") == ("node07",)
    with pytest.raises(UsageError, match="node08: not on the list") as caught:
        main(["nodes", "--root", str(root), "--forget", "node08", "node03"])
    assert "did you mean 'node07'" in caught.value.do or "node03" in caught.value.do
    assert excluded.names(root, "alps") == ("node03",), "all or nothing"


@pytest.mark.parametrize("damage", [None, "", "{", "[]"])
def test_without_a_list_there_are_none(tmp_path: Path, capsys: pytest.CaptureFixture, damage: str | None) -> None:
    if damage is not None:
        (tmp_path / excluded.NAME).write_text(damage)
    assert main(["nodes", "--root", str(tmp_path)]) == 0
    assert "no unfit nodes" in capsys.readouterr().out
