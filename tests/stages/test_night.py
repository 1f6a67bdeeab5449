"""A night's verdicts: what is compared with what, after damage, other questions and a stop at any point."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from toolkit import files
from toolkit.errors import GateFailed
from toolkit.night import History
from toolkit.recipe.schema import Gate
from toolkit.stages import night, parts

ITEMS = 40


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "nights")


@pytest.fixture
def keep(history: History, tmp_path: Path) -> Callable[..., None]:
    """`keep(step, right)`: scores of a checkpoint that has `right` of the questions right."""

    def put(step: int, right: int, *, series: str = "a", asked: str = "now", prompts: str = "p") -> None:
        made = tmp_path / "made"
        made.mkdir(exist_ok=True)
        row = {"model": f"{series} {step}", "benchmark": "b", "mode": "letter", "shots": 0}
        lines = [
            json.dumps({**row, "id": f"q{n}", "gold": "A", "prediction": "AB"[n >= right], "correct": n < right})
            for n in range(ITEMS)
        ]
        (made / "predictions.jsonl").write_text("\n".join(lines) + "\n")
        scores = {**row, "n": ITEMS, "accuracy": right / ITEMS, "benchmark_sha256": prompts}
        (made / "scores.json").write_text(json.dumps([scores]))
        facts = {"path": f"/t/step={step}", "step": step, "fingerprint": "f", "asked": asked, "night": "n"}
        history.keep(series, f"step={step}", made, facts=facts)

    return put


@pytest.fixture
def judge(history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """`judge(name)`: a night of that name; `recorded=False`: it is stopped after its verdicts."""
    monkeypatch.setattr(parts, "finished", lambda context: ())
    monkeypatch.setattr(parts, "all_of", lambda context, made: ())
    monkeypatch.setattr(night, "_questions", lambda context: {})

    def run(name: str, *, asked: str = "now", recorded: bool = True) -> dict[str, Any]:
        monkeypatch.setattr(night, "asked", lambda recipe: asked)
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        told = SimpleNamespace(history=str(history.folder), checkpoints=(), gate=Gate())
        recipe, of = SimpleNamespace(night=told), SimpleNamespace(id=name, path=folder)
        context: Any = SimpleNamespace(recipe=recipe, run=of, folder=folder)
        with contextlib.suppress(GateFailed):
            night.run(context)
        outcome = files.read_json(folder / night.OUTCOME)
        if recorded:
            history.record(name, outcome)
        return outcome

    return run


def states(outcome: dict[str, Any]) -> list[tuple[str, int, str, str | None]]:
    return [(one["series"], one["step"], one["state"], one["reference"])
            for row in outcome["series"] for one in row["checkpoints"]]  # fmt: skip


def test_two_trainings_have_references_of_their_own(keep: Any, judge: Any, history: History) -> None:
    keep(9, 38), keep(9, 10, series="b")
    assert states(judge("n1")) == [("a", 9, "first", None), ("b", 9, "first", None)]
    keep(19, 10), keep(19, 11, series="b")
    outcome = judge("n2")
    assert states(outcome) == [("a", 19, "worse", "step=9"), ("b", 19, "good", "step=9")]
    assert outcome["worse"] and len(outcome["series"][0]["checkpoints"][0]["items"]) == 28
    assert (history.good("a").step, history.good("b").step) == (9, 19)
    assert judge("n3")["series"] == []


def test_a_verdict_that_nobody_was_told_is_given_again(keep: Any, judge: Any, history: History) -> None:
    keep(9, 38)
    judge("n1")
    keep(19, 10), keep(29, 38), keep(39, 5)
    first = judge("n2", recorded=False)
    assert [one[2] for one in states(first)] == ["worse", "good", "worse"]
    again = judge("n3")
    assert states(again) == states(first) and again["worse"]
    assert history.good("a").step == 29
    assert judge("n4")["series"] == []


@pytest.mark.parametrize("verdicts", [1, 2])
def test_a_first_night_stopped_half_way_has_one_first(
    keep: Any, judge: Any, history: History, monkeypatch: pytest.MonkeyPatch, verdicts: int
) -> None:
    keep(9, 38), keep(19, 10), keep(29, 37)
    true, left = History.judge, [verdicts]

    def stops(self: History, one: Any, verdict: Any) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        true(self, one, verdict)

    monkeypatch.setattr(History, "judge", stops)
    with pytest.raises(KeyboardInterrupt):
        judge("n1")
    monkeypatch.setattr(History, "judge", true)
    judge("n1")
    assert [one.verdict["state"] for one in history.scored("a")] == ["first", "worse", "good"]


@pytest.mark.parametrize("lost", ["good.json", "step=19", "step=19/predictions.jsonl"])
def test_a_lost_reference_lets_no_worse_one_in(
    keep: Any, judge: Any, history: History, tmp_path: Path, lost: str
) -> None:
    keep(9, 38), keep(19, 38)
    judge("n1")
    (history.place("a") / lost).rename(tmp_path / "lost")
    keep(29, 10)
    assert states(judge("n2"))[-1] == ("a", 29, "worse", "step=19" if lost == "good.json" else "step=9")


def test_a_reference_that_cannot_be_compared_is_said(keep: Any, judge: Any, history: History) -> None:
    keep(9, 38)
    keep(9, 20, series="b"), keep(19, 20, series="b")
    judge("n1")
    keep(19, 10, prompts="others"), keep(29, 5, series="b")
    outcome = judge("n2")  # one training's trouble is not the other's
    assert states(outcome) == [("a", 19, "first", None), ("b", 29, "worse", "step=19")]
    assert len(outcome["doubts"]) == 1 and "not with the last good step 9" in outcome["doubts"][0]
    assert "not with the last good step 9" in (history.place("a") / "page.html").read_text()
    file = history.place("a") / "step=19" / "predictions.jsonl"
    file.write_bytes(b"x" * file.stat().st_size)  # as long as before
    keep(29, 9)
    outcome = judge("n3")
    assert states(outcome) == [("a", 29, "first", None)] and "is not a prediction" in outcome["doubts"][0]


def test_other_benchmarks_than_before_are_said(keep: Any, judge: Any) -> None:
    keep(9, 38)
    judge("n1")
    keep(19, 10, asked="others")
    outcome = judge("n2", asked="others")
    assert states(outcome) == [("a", 19, "first", None)] and "other benchmarks" in outcome["doubts"][0]
