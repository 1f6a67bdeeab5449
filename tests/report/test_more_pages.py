"""The pages of scores and of nights in a real browser: nothing sticks out, nothing is loaded, nothing runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.report.scored import folder
from tests.report.test_browser import WIDTHS, browser, look  # noqa: F401
from toolkit.report import nights, scores
from toolkit.report.__main__ import _changes

pytestmark = pytest.mark.slow
LONG = "<script>document.title='ran'</script>" + "Wort\u00fcberl\u00e4nge" * 12


def history(hostile: str) -> dict:
    """Twelve checkpoints of a training, of which the last has forgotten a benchmark."""

    def row(name: str, accuracy: float) -> dict:
        ends = [accuracy - 0.03, accuracy + 0.03]
        return {"benchmark": name, "mode": "letter", "accuracy": accuracy, "ci95": ends, "chance": 0.25, "n": 800}

    ones = []
    for number in range(12):
        last = number == 11
        verdict = {
            "state": "worse" if last else "good",
            "worse": last,
            "reference": "step=5000",
            "rows": [],
            "items": [],
        }
        if last:
            gate = {"benchmark": "medqa4", "mode": "letter", "shots": 0, "n": 800, "before": 0.52, "after": 0.41}
            verdict["rows"] = [{**gate, "difference": -0.11, "p_adjusted": 1e-6, "worse": True}]
            item = {"benchmark": "medqa4", "gold": "A", "before": "A", "after": "C"}
            verdict["items"] = [
                {**item, "id": f"q{n}{hostile}", "question": f"Which drug? {hostile}"} for n in range(90)
            ]
        scored = [row("medqa4", 0.41 if last else 0.45 + 0.006 * number), row("mmlu_medical", 0.5 + 0.002 * number)]
        ones.append({"step": 500 * number, "at": 1.7e9 + 86400 * number, "night": f"nightly-{number}{hostile}",
                     "scores": scored, "verdict": verdict})  # fmt: skip
    tried = [{"step": 6000, "tries": 2, "why": f"its file is missing {hostile}"}]
    return {"series": f"pretrain{hostile}", "good": 5000, "checkpoints": ones, "tried": tried}


@pytest.mark.parametrize("kind", ["scores", "night", "index", "empty night"])
def test_nothing_sticks_out_and_nothing_is_loaded(browser: str, tmp_path: Path, kind: str) -> None:  # noqa: F811
    charts = 0
    if kind == "scores":
        pair = [
            folder(tmp_path / name, f"{name} {LONG}", skill, hostile=LONG) for name, skill in (("a", 0.4), ("b", 0.6))
        ]
        page = scores.build(pair, tmp_path / "out", changes=_changes(pair)[0]).html
        charts = 3 + 1 + 6
    elif kind == "index":
        page = nights.index(tmp_path, [history(LONG), history("")])
    else:
        page = nights.page(tmp_path, history(LONG) if kind == "night" else {})
        charts = 2 if kind == "night" else 0
    seen = look(browser, page, tmp_path)
    assert [frame["width"] for frame in seen] == list(WIDTHS)
    for frame in seen:
        assert frame["scroll"] <= frame["width"] and frame["out"] == [] and frame["loaded"] == [], frame
        shown, hidden = ("wide", "narrow") if frame["width"] > 700 else ("narrow", "wide")
        assert (frame[shown], frame[hidden]) == (charts, 0) and frame["title"] != "ran"
