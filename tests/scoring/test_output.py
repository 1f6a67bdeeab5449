"""The files of scores: read as written, and put together without a change to any number."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.scoring.conftest import CLOZE, LETTERS, make_items
from toolkit import scoring
from toolkit.errors import DataError


@pytest.fixture
def scores(llama: Path) -> list[scoring.Score]:
    loaded = scoring.load_model(llama)
    return [
        scoring.score(model=loaded, items=make_items(9, seed), benchmark=benchmark, name=name)
        for seed, (name, benchmark) in enumerate([("base", CLOZE), ("base", LETTERS), ("böse \u2028", CLOZE)])
    ]


def test_merged_is_as_written_at_once(scores: list[scoring.Score], tmp_path: Path) -> None:
    scoring.write(tmp_path / "whole", scores)
    for number, score in enumerate(scores):
        scoring.write(tmp_path / str(number), [score])
    told = scoring.merge([tmp_path / str(number) for number in range(3)], tmp_path / "merged")
    for name in ("scores.json", "predictions.jsonl"):
        assert (tmp_path / "merged" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert told == scoring.read(tmp_path / "whole") == json.loads(json.dumps([score.as_dict() for score in scores]))


def test_nothing_to_merge(tmp_path: Path) -> None:
    scoring.write(tmp_path / "whole", [])
    assert scoring.merge([], tmp_path / "merged") == []
    for name in ("scores.json", "predictions.jsonl"):
        assert (tmp_path / "merged" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("scores.json", b""), ("scores.json", b"["), ("scores.json", b"3"), ("scores.json", b"[{}]"),
        ("scores.json", b"[[]]"), ("scores.json", b"\xff"), ("scores.json", None), ("predictions.jsonl", None),
        ("predictions.jsonl", b"{}\n{}"), ("predictions.jsonl", b""),
    ],
)  # fmt: skip
def test_damaged_scores_are_not_taken(
    scores: list[scoring.Score], tmp_path: Path, name: str, content: bytes | None
) -> None:
    scoring.write(tmp_path / "one", scores[:1])
    (tmp_path / "one" / name).unlink()
    if content is not None:
        (tmp_path / "one" / name).write_bytes(content)
    with pytest.raises(DataError, match="score again|Score again"):
        scoring.merge([tmp_path / "one"], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
