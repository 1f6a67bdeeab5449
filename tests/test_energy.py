"""Energy and carbon: the paper's figures from its inputs, and what power files say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from toolkit import energy
from toolkit.hardware import tdp_w
from toolkit.recipe import compose


def test_the_papers_carbon() -> None:
    """MEDITRON paper, appendix A: 272 kgCO2 for the GPUs, 486 with nodes and building."""
    site = compose("pretrain_70b").recipe.cluster
    watts = tdp_w(site.gpu, site.gpu_tdp_w)
    used = energy.device_kwh(watts=watts, devices=site.nodes * site.devices_per_node, hours=332)
    told = energy.account(
        device_kwh=used, node_overhead=site.node_overhead, pue=site.pue, kgco2_per_kwh=site.kgco2_per_kwh
    )
    assert watts == 400 and told.device_kwh == pytest.approx(16_998.4)
    assert (round(told.device_kgco2), round(told.kgco2)) == (272, 486)
    assert told.kwh == pytest.approx(16_998.4 * 1.625 * 1.1)


def test_what_is_not_stated_counts_as_one_and_has_no_carbon() -> None:
    told = energy.account(device_kwh=2.0)
    assert (told.kwh, told.kgco2, told.device_kgco2) == (2.0, None, None)
    assert energy.account(device_kwh=2.0, kgco2_per_kwh=0.0).kgco2 == 0.0


@pytest.mark.parametrize(
    "bad",
    [{"pue": -1.0}, {"pue": 0.9}, {"node_overhead": 0.0}, {"kgco2_per_kwh": -0.1}, {"pue": float("nan")},
     {"device_kwh": -1.0}, {"device_kwh": float("nan")}],
)  # fmt: skip
def test_what_cannot_be_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be at least"):
        energy.account(**{"device_kwh": 1.0, **bad})


def test_the_mean_power_is_weighted_by_time_over_all_nodes(tmp_path: Path) -> None:
    good = [{"seconds": 10, "gpus": 8, "power_w": 300.0}, {"seconds": 30, "gpus": 8, "power_w": 400}]
    (tmp_path / "0.jsonl").write_text("".join(json.dumps(row) + "\n" for row in good))
    assert energy.measured_w(tmp_path) == pytest.approx(375)
    other = {"seconds": 40, "gpus": 4, "power_w": 75}
    damaged = [
        '{"seconds": NaN, "gpus": 8, "power_w": 1}',
        '{"seconds": 1, "gpus": 8, "power_w": -5}',
        '{"seconds": 1, "gpus": 1, "power_w": 1e300}',
        '{"seconds": "x", "gpus": 1, "power_w": 1}',
        "[1]",
        "[" * 9000,
        '{"sec',
    ]
    (tmp_path / "1.jsonl").write_bytes("\n".join([json.dumps(other), *damaged]).encode() + b"\xff\xfe")
    assert energy.measured_w(tmp_path) == pytest.approx((375 * 320 + 75 * 160) / 480)


def test_nothing_measured(tmp_path: Path) -> None:
    assert energy.measured_w(tmp_path / "absent") is None
    assert energy.measured_w(tmp_path) is None
    (tmp_path / "0.jsonl").write_text("")
    assert energy.measured_w(tmp_path) is None
