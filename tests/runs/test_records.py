"""Done is what is whole and unchanged; everything else runs again, and says why."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from toolkit.errors import RunError
from toolkit.recipe import compose
from toolkit.runs import Run, create, done, is_done, record_done

INPUTS = {"recipe.yaml": "aa", "corpus/corpus": "bb"}


@pytest.fixture
def run(runs_root: Path) -> Run:
    """A run whose stage `shards` is done: a folder and a file."""
    made = create(dataclasses.replace(compose("demo").recipe, runs=str(runs_root)), command=[], plan={})
    folder = made.stage("shards")
    (folder / "shards").mkdir(parents=True)
    (folder / "shards" / "train.bin").write_bytes(b"123")
    (folder / "list.txt").write_text("x")
    outputs = {"shards": folder / "shards", "list": folder / "list.txt"}
    record_done(
        made, "shards", stage="shards", started=time.time() - 2, inputs=INPUTS, outputs=outputs, result={"n": 1}
    )
    return made


def test_done_is_done(run: Run) -> None:
    assert is_done(run, "shards", INPUTS) == (True, "")
    record = done(run, "shards")
    assert record is not None
    assert record["names"] == {"shards": "shards", "list": "list.txt"} and record["result"] == {"n": 1}
    assert 2 <= record["elapsed_s"] < 60
    assert is_done(run, "corpus", {}) == (False, "not finished") and done(run, "corpus") is None


def changed(run: Run) -> None:
    (run.stage("shards") / "shards" / "train.bin").write_bytes(b"124")


def truncated(run: Run) -> None:
    (run.stage("shards") / "shards" / "train.bin").write_bytes(b"12")


def grown(run: Run) -> None:
    (run.stage("shards") / "shards" / "other.bin").touch()


def emptied(run: Run) -> None:
    (run.stage("shards") / "shards" / "train.bin").unlink()


def gone(run: Run) -> None:
    (run.stage("shards") / "list.txt").unlink()


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        *((damage, "shards has changed") for damage in (changed, truncated, grown, emptied)),
        (gone, "list.txt is gone"),
    ],
)
def test_an_output_that_is_not_what_was_recorded(run: Run, damage: Callable[[Run], None], why: str) -> None:
    damage(run)
    assert is_done(run, "shards", INPUTS) == (False, why)


@pytest.mark.parametrize(
    "inputs", [{}, {**INPUTS, "recipe.yaml": "ab"}, {**INPUTS, "new": "cc"}, {"recipe.yaml": "aa"}]
)
def test_an_input_that_has_changed(run: Run, inputs: dict[str, str]) -> None:
    assert is_done(run, "shards", inputs) == (False, "its inputs have changed")


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"null", b"{}", b"\xff", b'{"inputs": {}, "outputs": {}}', b'{"inputs": [], "outputs": {}}',
        b"[" * 100_000,
    ],
)  # fmt: skip
def test_a_damaged_record(run: Run, content: bytes) -> None:
    path = run.stage("shards") / "done.json"
    path.write_bytes(content)
    with pytest.raises(RunError, match="damaged") as caught:
        is_done(run, "shards", INPUTS)
    assert caught.value.where == str(path) and caught.value.exit_code == 1
    assert "\n" not in str(caught.value)


def test_a_truncated_record_is_never_taken_for_done(run: Run) -> None:
    path = run.stage("shards") / "done.json"
    whole = path.read_bytes()
    assert json.loads(whole)
    for cut in range(len(whole) - 2):
        path.write_bytes(whole[:cut])
        with pytest.raises(RunError):
            is_done(run, "shards", INPUTS)
