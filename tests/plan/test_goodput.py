"""The rhythm of saves: formulas against their own optimum, the simulation against the formulas, and both at edges."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.plan import goodput
from toolkit.plan.goodput import Saving

HOUR = 3600.0


def saving(stall: float = 30.0, mtbf: float = 10 * HOUR, restart: float = 600.0, write: float | None = None) -> Saving:
    return Saving(stall_s=stall, write_s=stall if write is None else write, restart_s=restart, mtbf_s=mtbf)


def best_by_search(asked: Saving) -> float:
    """The interval whose expected goodput is highest, by golden section over its logarithm."""
    low, high = math.log(asked.stall_s / 100), math.log(100 * asked.mtbf_s)
    ratio = (math.sqrt(5) - 1) / 2
    for _ in range(200):
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        if goodput.expected(asked, math.exp(a)) < goodput.expected(asked, math.exp(b)):
            low = a
        else:
            high = b
    return math.exp((low + high) / 2)


def test_the_failure_rate_is_the_one_that_was_published() -> None:
    """Llama 3: 419 in 54 days of 16,384 GPUs is one every three hours."""
    assert goodput.mtbf_s(16_384) == pytest.approx(54 * 24 * HOUR / 419)
    assert goodput.mtbf_s(128) == pytest.approx(128 * goodput.mtbf_s(16_384))
    assert goodput.mtbf_s(8, 0.01) == pytest.approx(12.5 * HOUR)
    assert goodput.mtbf_s(8, 0.0) == math.inf


def test_young_and_daly_by_hand() -> None:
    """A save of 5 minutes and a failure a day: Young says 2 h, Daly about what his paper's formula gives."""
    asked = saving(stall=300, mtbf=24 * HOUR)
    assert goodput.young(asked) == pytest.approx(2 * HOUR)
    part = 300 / (2 * 24 * HOUR)
    assert goodput.daly(asked) == pytest.approx(2 * HOUR * (1 + math.sqrt(part) / 3 + part / 9) - 300)
    assert goodput.daly(saving(stall=7200, mtbf=3600)) == 3600  # saves that take longer than two failures are apart


@pytest.mark.parametrize("stall", [1.0, 30.0, 300.0, 1800.0])
@pytest.mark.parametrize("mtbf", [3 * HOUR, 50 * HOUR, 400 * HOUR])
def test_daly_loses_no_more_than_the_best_interval_there_is(stall: float, mtbf: float) -> None:
    asked = saving(stall=stall, mtbf=mtbf)
    best = best_by_search(asked)
    assert goodput.daly(asked) == pytest.approx(best, rel=0.02)
    assert goodput.expected(asked, goodput.daly(asked)) >= goodput.expected(asked, best) * (1 - 1e-4)
    assert goodput.expected(asked, goodput.daly(asked)) >= goodput.expected(asked, goodput.young(asked)) - 1e-12


@pytest.mark.parametrize("gpus", goodput.SIZES)
@pytest.mark.parametrize("times", [0.3, 1.0, 4.0])
def test_the_simulation_agrees_with_the_formula(gpus: int, times: float) -> None:
    """Over 3,000 hours, at the best interval and away from it: within four standard errors, which are below 1 %."""
    asked = saving(stall=60.0, mtbf=goodput.mtbf_s(gpus), restart=700.0)
    interval = times * goodput.daly(asked)
    found = goodput.simulate(asked, interval, work_s=3000 * HOUR, runs=200)
    error = 4 * (found.high - found.low) / 3.3 / math.sqrt(200) + 2e-4
    assert error < 0.01
    assert found.mean == pytest.approx(goodput.expected(asked, interval), abs=error)
    assert found.low <= found.mean <= found.high
    assert found.failures == pytest.approx(3000 * HOUR / found.mean / asked.mtbf_s, rel=0.05)


def test_a_save_in_the_background_waits_less_and_risks_more() -> None:
    """It is whole only when it is written: the training pays for a failure before that, and the two models agree."""
    front = saving(stall=60.0, mtbf=3 * HOUR)
    behind = replace(front, stall_s=1.0)
    at = 1200.0
    assert goodput.expected(behind, at) > goodput.expected(front, at)
    assert goodput.expected(behind, at) < goodput.expected(replace(behind, write_s=1.0), at)
    found = goodput.simulate(behind, at, work_s=2000 * HOUR, runs=100)
    assert found.mean == pytest.approx(goodput.expected(behind, at), abs=0.003)


def test_the_same_seed_gives_the_same_answer() -> None:
    asked = saving()
    first = goodput.simulate(asked, 1000.0, work_s=100 * HOUR)
    assert first == goodput.simulate(asked, 1000.0, work_s=100 * HOUR)
    assert first != goodput.simulate(asked, 1000.0, work_s=100 * HOUR, seed=2)


def test_without_failures_only_the_saves_cost() -> None:
    asked = saving(mtbf=math.inf)
    assert goodput.expected(asked, 3000.0) == pytest.approx(3000 / 3030)
    assert goodput.simulate(asked, 3000.0, work_s=HOUR).failures == 0
    found = goodput.best(asked, gpus=8, step_s=2.0, most_steps=500, hours=10)
    assert found.steps == 500  # it saves at the end, and that is enough


def test_where_nothing_is_ever_saved_it_ends_all_the_same() -> None:
    asked = saving(mtbf=100.0, restart=2000.0)
    assert goodput.expected(asked, 1000.0) < 1e-6 and goodput.expected(asked, 1e6) == 0.0
    found = goodput.simulate(asked, 1e6, work_s=1e7)
    assert found.mean == 0.0 and found.failures == 100_000


def test_one_save_ends_before_the_next_begins() -> None:
    asked = saving(stall=1.0, write=900.0, mtbf=HOUR)
    assert goodput.young(asked) < 100
    found = goodput.best(asked, gpus=8, step_s=50.0, most_steps=10_000, hours=100)
    assert found.steps == 18 and found.interval_s == 900.0


@given(
    stall=st.floats(0.1, 3000),
    mtbf=st.floats(600, 1e7),
    restart=st.floats(0, 5000),
    interval=st.floats(1, 1e6),
)
def test_laws(stall: float, mtbf: float, restart: float, interval: float) -> None:
    asked = saving(stall=stall, mtbf=mtbf, restart=restart)
    here = goodput.expected(asked, interval)
    assert 0 <= here < 1
    assert goodput.expected(replace(asked, restart_s=restart + 100), interval) <= here
    assert goodput.expected(replace(asked, mtbf_s=2 * mtbf), interval) >= here
    assert goodput.expected(replace(asked, stall_s=2 * stall, write_s=2 * stall), interval) <= here
