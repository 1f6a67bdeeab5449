"""What the plan promised beside what happened, on the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.report import sample
from tests.report.test_page import page, told
from toolkit.plan import missing_inputs
from toolkit.plan.promise import promise
from toolkit.plan.show import plan_values
from toolkit.recipe import compose, save
from toolkit.report import read
from toolkit.report.promised import section


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The 70B by its real plan, a quarter of it done, at the paper's speed."""
    root = tmp_path / "pretrain_70b-1"
    root.mkdir()
    recipe = compose("pretrain_70b", ["stages=[pretrain]"]).recipe
    save(recipe, root / "recipe.yaml")
    sample.put(root / "plan.json", plan_values(recipe, missing_inputs(recipe), promise(recipe)))
    rows = []
    for step in range(1, 5751, 10):
        row = {"step": step, "loss": 2 - step / 10_000, "tokens_per_s": 40_200.0, "step_s": 52.167}
        rows.append(row | {"memory_gib": 41.5, "elapsed_s": 53.0 * (step + 9)})
    sample.lines(root / "stages/pretrain/metrics.jsonl", rows)
    return root


def kept(root: Path) -> dict[str, Any]:
    return json.loads((root / "plan.json").read_text())


def test_promised_and_happened(run: Path) -> None:
    one = kept(run)["promise"]["trainings"][0]
    (table,) = section(read.read(run))["tables"]
    rows = {what: (promised, happened, change) for what, promised, _, happened, change in table["rows"]}
    assert set(rows) == {"Step time", "Tokens/s", "GPU memory", "Hours", "GPU-hours", "Energy", "Carbon"}
    assert rows["Step time"][:2] == (f"{one['step_s']:.3f} s", "52.167 s")
    assert rows["Tokens/s"][:2] == (f"{one['tokens_per_s']:,.0f}", "40,200")
    sign = 100 * (40_200 / one["tokens_per_s"] - 1)
    assert rows["Tokens/s"][2] == f"{sign:+.1f} %".replace("-", "\u2212")
    assert rows["GPU memory"][:2] == (f"{one['memory']['stages'][0]['gib']:.1f} GiB", "41.5 GiB")
    # A quarter of the steps is a quarter of the hours.
    assert rows["Hours"][:2] == (f"{one['held']['hours'] * 5741 / 23_000:,.2f} h", f"{53.0 * 5750 / 3600:,.2f} h")
    assert rows["GPU-hours"][1] == f"{128 * 53.0 * 5750 / 3600:,.1f}"
    assert rows["Carbon"][1] == f"{128 * 53.0 * 5750 / 3600 * 0.4 * 1.625 * 1.1 * 0.016:,.2f} kgCO2"


def test_it_is_a_section_of_the_page(run: Path) -> None:
    html, parsed = page(run)
    words = told(parsed)
    assert 'id="promise"' in html and 'href="#promise"' in html
    assert "Promised and happened" in words and "of 5,741 of 23,000 steps" in words
    assert "The plan refused this run" not in words


def test_before_anything_happened_there_is_the_promise_alone(run: Path) -> None:
    (run / "stages/pretrain/metrics.jsonl").unlink()
    one = kept(run)["promise"]["trainings"][0]
    told_of = section(read.read(run))["tables"][0]
    assert not told_of["began"] and all(happened == change == "" for _, _, _, happened, change in told_of["rows"])
    assert f"{one['held']['hours']:,.2f} h" in [promised for _, promised, *_ in told_of["rows"]]
    assert "It has not logged anything yet." in told(page(run)[1])


def test_a_run_that_was_forced_says_so(run: Path) -> None:
    recipe = compose("pretrain_70b", ["stages=[pretrain]", "train.micro_batch=8"]).recipe
    sample.put(run / "plan.json", plan_values(recipe, [], promise(recipe)))
    words = told(page(run)[1])
    assert "The plan refused this run, and it was forced: pretrain takes" in words


@pytest.mark.parametrize(
    "plan",
    [
        None,
        {"recipe": "x"},
        {"promise": None},
        {"promise": {"trainings": [], "refused": []}},
        {"promise": [1]},
    ],
)
def test_without_a_promise_there_is_no_section(run: Path, plan: Any) -> None:
    (run / "plan.json").unlink()
    if plan is not None:
        sample.put(run / "plan.json", plan)
    html, _ = page(run)
    assert 'id="promise"' not in html and 'href="#promise"' not in html


@pytest.mark.parametrize("text", sample.HOSTILE)
def test_a_hostile_plan_harms_nothing(run: Path, text: str) -> None:
    """Texts that would be markup, numbers of the wrong kind: the page is whole, and shows what is left."""
    plan = kept(run)
    one = plan["promise"]["trainings"][0]
    plan["promise"]["refused"] = [{"what": text}, text, None, {"do": text}]
    one["memory"]["stages"] = text
    one |= {"step_s": text, "tokens_per_s": [1], "steps": -3, "step_s_low": None, "held": text}
    sample.put(run / "plan.json", plan)
    html, parsed = page(run)
    assert "<script" not in html and "onerror=" not in html.replace("onerror=alert(1)&gt;", "")
    assert html.rstrip().endswith("</html>")


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b'{"promise": {"trainings": 7}}', b"\xff\xfe\x00"])
def test_a_damaged_plan_is_told_of_or_passed_over(run: Path, body: bytes) -> None:
    (run / "plan.json").write_bytes(body)
    html, _ = page(run)
    assert 'id="promise"' not in html and html.rstrip().endswith("</html>")
