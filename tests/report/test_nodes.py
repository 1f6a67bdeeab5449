"""The picture of a preflight: a cross for a bad node, two squares for a bad link, and nothing that a file can break."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.report.test_browser import browser, look  # noqa: F401  # a fixture
from toolkit.report import build, nodes, words

BAD, LINK = "node07", ("node04", "node11")


def preflight(count: int, bad: str = BAD) -> dict[str, Any]:
    """As the stage writes it: `bad` is slow with all, and nothing came of it with the last."""
    names = [f"node{index:02d}" for index in range(1, count + 1)]
    pairs = []
    for place, a in enumerate(names):
        for b in names[:place]:
            slow = bad in (a, b) or {a, b} == set(LINK)
            gb_s = None if bad in (a, b) and names[-1] in (a, b) else 10.5 if slow else 23.5
            pairs.append({"a": a, "b": b, "gb_s": gb_s, "why": "" if gb_s else "no answer within 60 s", "slow": slow})
    fit = {"gb_s": 234.5, "why": "", "how": "all_reduce_perf", "wrong": 0}
    return {
        "nodes": [{"node": name} for name in names],
        "faults": [{"node": bad, "what": f"slow with {count - 1} of {count - 1} others"}] if bad else [],
        "warnings": [{"node": "", "what": "node09: measured without nccl-tests"}],
        "exclude": [bad] if bad else [],
        "bandwidth": {
            "nodes": names, "alone": dict.fromkeys(names, fit), "pairs": pairs, "all": {**fit, "gb_s": 22.4},
            "expected": {"node_gb_s": 230.0, "pair_gb_s": 25.0, "all_gb_s": 25.0, "fraction": 0.8, "outlier": 0.7},
        },
    }  # fmt: skip


def run(folder: Path, told: object) -> Path:
    (folder / "stages/preflight").mkdir(parents=True)
    (folder / "recipe.yaml").write_text("name: preflight\nstages: [preflight]\n")
    (folder / "stages/preflight/preflight.json").write_text(told if isinstance(told, str) else json.dumps(told))
    return folder


def test_a_bad_node_is_a_cross_and_a_bad_link_two_squares(tmp_path: Path) -> None:
    html = build(run(tmp_path / "run", preflight(16))).read_text()
    wide = html[html.index('id="nodes-wide"') : html.index('id="nodes-narrow"')]
    cells = re.findall(r'class="(cell[^"]*)"', wide)
    assert cells.count("cell poor") == 2 * 15 + 2 and cells.count("cell alone") == 16 and "cell untried" not in cells
    assert len(cells) - cells.count("cell-value") == 16 * 16 and wide.count('class="cross"') == 2 * 2
    assert wide.count(">23.5<") == 16 * 15 - 32 and wide.count(">10.5<") == 30 and wide.count(">234<") == 16
    assert wide.count('class="node bad"') == 2 and wide.count('class="node"') == 30
    assert "16 pairs are too slow or came to nothing" in wide and "node04 and node11" in wide
    assert "1 fault found on 16 nodes. To be left out: node07." in html and "22.4 GB/s, where 25.0 is expected" in html
    assert 'href="#preflight"' in html and "slow with 15 of 15 others" in html and "measured without nccl-tests" in html


def test_two_nodes_and_none(tmp_path: Path) -> None:
    html = build(run(tmp_path / "two", preflight(2, bad=""))).read_text()
    assert html.count('class="cell"') == 2 * 2 and "2 nodes looked at, no fault found." in html
    bare = {**preflight(2, bad=""), "bandwidth": None}
    html = build(run(tmp_path / "bare", bare)).read_text()
    assert 'id="preflight"' in html and "nodes-wide" not in html
    (tmp_path / "none").mkdir()
    (tmp_path / "none/recipe.yaml").write_text("name: demo\n")
    assert "preflight" not in build(tmp_path / "none").read_text()


def test_a_hundred_nodes_make_a_picture_of_sixty_four_with_the_bad_one(tmp_path: Path) -> None:
    matrix = nodes.read(preflight(100, bad="node99"))
    assert matrix is not None and len(matrix.nodes) == 64 and "node99" in matrix.nodes and matrix.left_out == 36
    assert list(matrix.nodes) == sorted(matrix.nodes)


HOSTILE = '</text></svg><script>alert(1)</script>&<b>"x"'


@pytest.mark.parametrize(
    "told",
    [
        {"nodes": 3, "faults": "x", "exclude": [None, 1], "bandwidth": []},
        {"faults": [{"node": HOSTILE, "what": HOSTILE}, 7, {"what": 3}], "exclude": [HOSTILE], "warnings": [{}]},
        {"bandwidth": {"nodes": [HOSTILE, HOSTILE, "b", 3], "alone": {HOSTILE: {"gb_s": "fast"}, "b": 1},
                       "pairs": [{"a": HOSTILE, "b": "b", "gb_s": 1e300, "slow": 1}, {"a": "b"}, None, {"a": 1}],
                       "all": {"why": HOSTILE}, "expected": {"pair_gb_s": -1, "node_gb_s": True}}},
        {"bandwidth": {"nodes": ["a", "b"], "pairs": [{"a": "a", "b": "b", "gb_s": 0}], "expected": {"pair_gb_s": 0}}},
        {"bandwidth": {"nodes": ["\u202e" * 50, "漢" * 200], "pairs": [], "alone": {"a": {}}}},
        "{",
        "[1]",
    ],
)  # fmt: skip
def test_whatever_stands_in_the_file(tmp_path: Path, told: object) -> None:
    html = build(run(tmp_path / "run", told)).read_text()
    assert "<script" not in html and "<b>" not in html and "\u202e" not in html


def test_the_line_of_a_page_without_training(tmp_path: Path) -> None:
    assert words.preflight(preflight(16)) == "1 fault found on 16 nodes. To be left out: node07."
    html = build(run(tmp_path / "run", preflight(16))).read_text()
    assert re.search(r'class="verdict">1 fault found on 16', html)


@pytest.mark.slow
def test_nothing_sticks_out(browser: str, tmp_path: Path) -> None:  # noqa: F811
    told = preflight(16)
    told["bandwidth"]["nodes"] += ["a-node-with-a-very-long-name-indeed-0123456789.cluster.example.org"]
    for frame in look(browser, build(run(tmp_path / "run", told)), tmp_path):
        assert frame["scroll"] <= frame["width"] and frame["out"] == [] and frame["loaded"] == []
        assert frame["wide"] + frame["narrow"] == 1
