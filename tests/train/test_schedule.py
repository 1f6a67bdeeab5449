"""The learning rates of the paper's two models, by NeMo's real scheduler: MEDITRON paper, section 4.1 and Table 11."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.train.forks import Forks
from toolkit.recipe import compose, save

pytestmark = pytest.mark.slow
PROBE = Path(__file__).with_name("schedule_probe.py")


def rates(forks: Forks, folder: Path, recipe: str, *steps: int) -> list[float]:
    save(compose(recipe).recipe, folder / "recipe.yaml")
    words = [sys.executable, str(PROBE), str(folder / "recipe.yaml"), str(folder), str(folder / "rates.json")]
    code = forks.run_ranks([*words, *map(str, steps)], processes=1, folder=folder, threads=1)
    assert code == 0, (folder / "log").read_text(errors="replace")[-3000:]
    found = json.loads((folder / "rates.json").read_text(encoding="utf-8"))
    return [found[str(step)] for step in steps]


def test_the_70b_warms_up_and_stops_half_way_down_its_cosine(forks: Forks, tmp_path: Path) -> None:
    """The peak 1.5e-4 after 2,000 steps, then a cosine to 1e-6 at 46,000, of which the run sees the half.

    Steps count finished updates. NeMo warms up by (step + 1) / (2,000 + 1), so that the first update is not made at a
    rate of 0 as by Megatron-LM's step / 2,000; half way it lies 0.025 % of the peak above, and at 2,000 both are there.
    """
    first, warming, peak, middle, last = rates(forks, tmp_path, "pretrain_70b", 0, 1_000, 2_000, 11_500, 23_000)
    assert first == pytest.approx(1.5e-4 / 2001, rel=1e-9)
    assert warming == pytest.approx(1.5e-4 * 1001 / 2001, rel=1e-9)
    assert warming == pytest.approx(7.5e-5, rel=1e-3)
    assert peak == 1.5e-4
    assert middle == pytest.approx(1.33509e-4, rel=1e-5)
    assert last == pytest.approx(8.08148e-5, rel=1e-5)


def test_the_7b_ends_where_the_papers_table_11_says(forks: Forks, tmp_path: Path) -> None:
    """1.6e-4 there; 1.676e-4 by 1e-6 at the end of two epochs, were one 14,700 steps; 10 % of the peak would give
    1.80e-4. The recipe takes 14,500 steps, since the paper states none: 1.679e-4.
    """
    first, peak, last = rates(forks, tmp_path, "pretrain_7b", 0, 2_000, 14_500)
    assert first == pytest.approx(3e-4 / 2001, rel=1e-9)
    assert peak == 3e-4
    assert last == pytest.approx(1.67856e-4, rel=1e-5)
    assert last == pytest.approx(1.676e-4, rel=2e-3)
