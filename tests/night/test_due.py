"""What is due, what is tried again and what is given up; and a history that takes nothing in its files for granted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from toolkit.night import Found, History, choose

SCORES = [{"model": "m", "benchmark": "b", "mode": "letter", "accuracy": 0.5, "n": 4}]


def found(step: int, *, series: str = "a", fingerprint: str = "f", bad: str = "") -> Found:
    return Found(series=series, path=Path(f"/runs/{series}/step={step}"), step=step, fingerprint=fingerprint, bad=bad)


def scored(history: History, one: Found, *, asked: str = "now", tmp_path: Path) -> None:
    folder = tmp_path / "scores"
    folder.mkdir(exist_ok=True)
    (folder / "scores.json").write_text(json.dumps(SCORES))
    (folder / "predictions.jsonl").write_text("")
    facts = {"path": str(one.path), "step": one.step, "fingerprint": one.fingerprint, "asked": asked, "night": "n"}
    history.keep(one.series, one.name, folder, facts=facts)


def steps(ones: object) -> list[int]:
    return [(one[0] if isinstance(one, tuple) else one).step for one in ones]  # type: ignore[attr-defined]


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "nights")


def test_what_has_scores_is_not_due_until_its_files_change(history: History, tmp_path: Path) -> None:
    ones = [found(9), found(19)]
    scored(history, ones[0], tmp_path=tmp_path)
    asked = {"asked": "now", "tries": 3, "most": 9}
    assert steps(choose(ones, history, **asked).due) == [19]
    scored(history, ones[1], tmp_path=tmp_path)
    assert choose(ones, history, **asked).due == ()
    assert steps(choose([found(9), found(19, fingerprint="g")], history, **asked).due) == [19]


def test_other_questions_are_asked_of_the_last_good_one_and_newer(history: History, tmp_path: Path) -> None:
    ones = [found(step) for step in (9, 19, 29)]
    for one in ones:
        scored(history, one, tmp_path=tmp_path)
    history.set_good(history.scored("a")[1])
    choice = choose([*ones, found(5)], history, asked="other", tries=3, most=9)
    assert steps(choice.due) == [5, 19, 29]  # 5 has no scores at all


def test_missed_nights_are_one_night_with_the_newest_first(history: History) -> None:
    ones = [found(step) for step in range(0, 60, 10)] + [found(7, series="b"), found(3, series="b")]
    choice = choose(ones, history, asked="now", tries=3, most=5)
    assert [(one.series, one.step) for one in choice.due] == [("a", 30), ("a", 40), ("a", 50), ("b", 3), ("b", 7)]
    assert sorted(steps(choice.waiting)) == [0, 10, 20]
    assert history.tries("a") == {}  # a try counts when its job begins


def test_a_bad_one_is_tried_a_few_nights(history: History) -> None:
    bad = found(9, bad="its file common.pt is missing")
    asked = {"asked": "now", "tries": 2, "most": 9}
    for night in (1, 2):
        choice = choose([bad], history, **asked)
        assert choice.skipped == ((bad, f"its file common.pt is missing (try {night} of 2)"),) and not choice.due
    for _ in range(2):
        choice = choose([bad], history, **asked)
        assert choice.given_up == ((bad, bad.bad),) and not choice.skipped
    grown = found(9, fingerprint="more of it", bad="its file common.pt is missing")
    assert steps(choose([grown], history, **asked).skipped) == [9]  # it is being written
    whole = found(9, fingerprint="all of it")
    assert steps(choose([whole], history, **asked).due) == [9]


def test_a_job_that_dies_counts_as_a_try_once_a_night(history: History, tmp_path: Path) -> None:
    one, asked = found(9), {"asked": "now", "tries": 2, "most": 9}
    facts = {"fingerprint": "f", "path": str(one.path), "step": 9}
    for night in ("one", "one", "one", "two"):  # Slurm starts jobs again
        assert steps(choose([one], history, **asked).due) == [9]
        history.started("a", "step=9", night=night, **facts)
    choice = choose([one], history, **asked)
    assert choice.given_up == ((one, "its job ended without a word"),)
    history.failed("a", "step=9", "its weights are not finite")
    assert choose([one], history, **asked).given_up == ((one, "its weights are not finite"),)
    history.started("a", "step=9", night="three", **{**facts, "fingerprint": "g"})
    assert history.tries("a")["step=9"].number == 1  # its files have changed
    scored(history, one, tmp_path=tmp_path)
    assert history.tries("a") == {}


@pytest.mark.parametrize("raw", ["", "{", "[]", "null", '{"step": "9"}', '{"number": 1}', "\x00", "[" * 100_000])
@pytest.mark.parametrize("file", ["checkpoint.json", "good.json", "tries", "verdict.json", "scores.json"])
def test_damage_is_as_if_it_were_not_there(history: History, tmp_path: Path, raw: str, file: str) -> None:
    one = found(9)
    scored(history, one, tmp_path=tmp_path)
    (kept,) = history.scored("a")
    history.set_good(kept)
    history.judge(kept, {"state": "good"})
    place = {"good.json": history.place("a") / file, "tries": history.place("a") / "tries" / "step=9.json"}
    path = place.get(file, kept.folder / file)
    path.parent.mkdir(exist_ok=True)
    path.write_text(raw)
    found_now, good = history.scored("a"), history.good("a")
    assert len(found_now) == (0 if file in ("checkpoint.json", "scores.json") else 1)
    assert (good is None) == (file in ("checkpoint.json", "scores.json"))  # good.json is known from the verdicts
    if found_now:
        assert all(isinstance(row, dict) for row in found_now[0].rows)
    assert history.tries("a") == {}


def test_what_a_writer_left_half_done_is_no_checkpoint(history: History, tmp_path: Path) -> None:
    scored(history, found(9), tmp_path=tmp_path)
    (history.place("a") / "step=9").rename(history.place("a") / ".step=9.77.part")
    assert history.scored("a") == [] and history.good("a") is None
    (history.place("a") / "good.json").write_text('{"name": "../../etc", "step": 9}')
    assert history.good("a") is None


@pytest.mark.parametrize("lost", ["good.json", "step=19", "step=19/predictions.jsonl", "step=19/scores.json"])
def test_a_lost_good_one_is_followed_by_the_one_before(history: History, tmp_path: Path, lost: str) -> None:
    for step, state in ((9, "first"), (19, "good"), (29, "worse")):
        scored(history, found(step), tmp_path=tmp_path)
        history.judge(history.scored("a")[-1], {"state": state})
    history.set_good(history.scored("a")[1])
    path = history.place("a") / lost
    path.rename(tmp_path / "lost")
    good = history.good("a")
    assert good is not None and good.step == (19 if lost == "good.json" else 9)
    due = choose([found(9), found(19), found(29)], history, asked="now", tries=3, most=9).due
    assert steps(due) == ([] if lost == "good.json" else [19])


def test_other_folders_and_impossible_times_are_no_obstacle(history: History) -> None:
    for name in (".snapshot", "my notes", "a"):
        (history.folder / "series" / name).mkdir(parents=True)
    assert history.series() == ["a"]
    for place, began in enumerate((1e300, -1.0, float("nan"), 10**400, True, "now", 5)):
        history.record(f"n{place}", {"began": began, "state": "good"})
    assert [one["night"] for one in history.nights()][-1] == "n6"


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "a\nb", "-rf", "a b"])
def test_names_that_lead_elsewhere_are_a_defect(history: History, name: str) -> None:
    with pytest.raises(ValueError, match="no name"):
        history.place(name)


def test_nights_are_read_in_order(history: History) -> None:
    for name, began in (("b", 2.0), ("a", 3.0), ("c", None)):
        history.record(name, {"began": began, "state": "good"})
    (history.folder / "nights" / "x.json").write_text("{")
    assert [one["night"] for one in history.nights()] == ["c", "b", "a"]
