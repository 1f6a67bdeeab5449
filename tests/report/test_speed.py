"""Speed, MFU, energy and events on the page; a page that is drawn while its run goes on."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from tests.report import sample
from tests.report.test_page import command, page, told
from toolkit.errors import RunError
from toolkit.recipe import compose, save
from toolkit.report import build, read


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The 70B at the paper's speed: 332 hours, a power file, a few events."""
    root = tmp_path / "pretrain_70b-1"
    root.mkdir()
    save(compose("pretrain_70b", ["stages=[pretrain]"]).recipe, root / "recipe.yaml")
    rows = []
    for step in range(1, 101):
        row = {"step": step, "loss": 2 - step / 100, "lr": 1e-4, "tokens_per_s": 40_200.0, "step_s": 52.0}
        rows.append(row | {"data_s": 1.3, "memory_gib": 61.5, "elapsed_s": 332 * 36.0 * step})
    rows.insert(50, {"step": 50, "event": "spike", "loss": 9.5, "median": 1.5})
    rows.insert(51, {"step": 50, "event": "rollback", "onset": 48, "back_to": 40, "batches": 3})
    rows.append({"step": 90, "event": "skipped", "why": "its loss is no number", "loss": None})
    rows.append({"step": 91, "event": "straggler", "rank": 7, "ratio": 1.4})
    sample.lines(root / "stages/pretrain/metrics.jsonl", rows)
    return root


def started(root: Path) -> None:
    attempt = {"job_id": "1", "started": "2026-03-14T09:27:00Z", "ended": None, "state": "running"}
    sample.put(root / "jobs.json", {"stages": [{"id": "pretrain", "stage": "pretrain", "attempts": [attempt]}]})


def change(root: Path, section: str, **values: object) -> None:
    recipe = yaml.safe_load((root / "recipe.yaml").read_text())
    recipe[section] |= values
    (root / "recipe.yaml").write_text(yaml.safe_dump(recipe))


def test_the_papers_speed_and_carbon(run: Path) -> None:
    html, parsed = page(run)
    words = told(parsed)
    for row in (
        "Tokens/s median of the steps 40,200",
        "Tokens/s a GPU 128 of them 314.1",
        "Step time median; 95 % within 52.000 s 52.000 s",
        "Waiting for data of the step time, in rank 0 2.5 %",
        "MFU, 6n 6 FLOPs a parameter, no attention 41.7 %",
        "and causal attention 43.1 %",
        "attention over the whole sequence 44.7 %",
        "of the nominal size 42.3 %",
        "GPU memory highest, in rank 0 61.50 GiB",
        "312 TFLOP/s a device, dense bf16 of the A100-80GB SXM",
        "not measured: the limit of a100_80gb_sxm 400 W",
        "Energy of the devices 271.97 kgCO2 16,998.40 kWh",
        "node over its GPUs 1.625; PUE 1.100 30,384.64 kWh",
        "Carbon at 0.016 kgCO2 a kWh 486.15 kgCO2",
    ):
        assert row in words, row
    main = html.split('<tr class="main">')[1:]
    assert len(main) == 2 and main[0].startswith('<th scope="row">MFU, 6n_causal') and "Carbon" in main[1][:40]


def test_events_stand_on_the_curve_and_in_a_table(run: Path) -> None:
    html, parsed = page(run)
    words = told(parsed)
    assert "Loss of continued pretraining" in words and "1 skipped update. 1 spike. 1 rollback." in words
    assert "91 straggler rank 7, ratio 1.400 90 skipped why its loss is no number" in words
    assert "50 rollback onset 48, back to 40, batches 3 50 spike loss 9.500, median 1.500" in words
    for what in ("skipped", "spike", "rollback"):
        assert html.count(f'class="knob {what}"') == 2  # for a desktop and for a phone
    assert "knob straggler" not in html
    assert max(value for _, value in read.read(run).pretrain.column("loss")) < 3, "an event's loss is no step's"


def test_another_main_convention_and_a_measured_power(run: Path) -> None:
    change(run, "watch", mfu="paper")
    sample.lines(run / "stages/pretrain/power/0.jsonl", [{"seconds": 10, "gpus": 8, "power_w": 350.0}])
    html, parsed = page(run)
    assert '<tr class="main"><th scope="row">MFU, paper' in html
    assert "Power measured by NVML, mean of one GPU 350 W" in told(parsed)
    assert "237.98 kgCO2" in told(parsed)  # 272 x 350 / 400


def test_an_mfu_above_one_stops_the_report(run: Path) -> None:
    change(run, "cluster", peak_tflops=100.0)
    with pytest.raises(RunError, match="an MFU of 140 %"):
        build(run)
    done = command(run)
    assert done.returncode == 1 and done.stdout == "" and done.stderr.count("\n") == 1
    assert "recipe.yaml: an MFU of 140 % (6n_full) cannot be" in done.stderr and "--peak-tflops N" in done.stderr
    assert not (run / "report.html").exists()
    assert command(run, "--peak-tflops", "312").returncode == 0
    assert "MFU, 6n 6 FLOPs a parameter, no attention 41.7 %" in told(page_of(run / "report.html"))


def page_of(path: Path):  # noqa: ANN201
    from tests.report.test_page import Page

    return Page(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("change_to", "said"),
    [
        ({"gpu": "a100"}, "the recipe names no GPU type that is known; cluster.peak_tflops states one"),
        ({"gpu": {"x": 1}, "gpu_tdp_w": -5}, "No energy: power was not measured, and the GPU's is not known"),
        ({"gpu": "v100_32gb_sxm"}, "No MFU: the V100-32GB SXM2 has no bf16"),
        ({"device": "cpu"}, "No MFU on a CPU, which has no stated peak"),
        ({"device": "cpu"}, "No energy: a CPU's power is not read; cluster.gpu_tdp_w states it."),
        ({"gpu": "a100", "peak_tflops": 312.0}, "312 TFLOP/s a device, as stated"),
        ({"gpu": "a100", "gpu_tdp_w": 300}, "not measured: the limit of a device as stated 300 W"),
        ({"pue": -1.0, "node_overhead": "x"}, "node over its GPUs not stated, counted as 1; PUE not stated"),
        ({"kgco2_per_kwh": None}, "No carbon: cluster.kgco2_per_kwh is not stated."),
        ({"nodes": 0}, "The recipe or the metrics lack what an MFU is made of."),
    ],
)
def test_what_is_not_known_is_said(run: Path, change_to: dict[str, object], said: str) -> None:
    change(run, "cluster", **change_to)
    assert said in told(page(run)[1])


def test_damaged_metrics_and_an_unknown_convention(run: Path) -> None:
    change(run, "watch", mfu="7n")
    path = run / "stages/pretrain/metrics.jsonl"
    whole = path.read_text()
    bad = '{"step": 101, "loss": NaN, "tokens_per_s": null, "step_s": Infinity, "data_s": "x", "elapsed_s": -1}\n'
    bad += '{"step": 102, "event": {"a": [1]}}\n{"step": "x", "event": "spike"}\n'
    path.write_text(whole + bad + whole[: len(whole) // 3])
    html, parsed = page(run)
    assert '<tr class="main"><th scope="row">MFU, 6n_causal' in html and "40,200" in told(parsed)
    path.write_text("")
    assert "The pretrain stage has not run yet" in told(page(run)[1])
    path.write_bytes(b"\xff\xfe\x00")
    assert "has not run yet" in told(page(run)[1])


def test_a_page_reloads_itself_only_while_its_run_goes_on(run: Path) -> None:
    assert 'http-equiv="refresh"' not in page(run)[0]
    started(run)
    assert page(run)[0].count('<meta http-equiv="refresh" content="15">') == 1
    sample.put(run / "stages/pretrain/done.json", {"stage": "pretrain", "result": {}})
    assert 'http-equiv="refresh"' not in page(run)[0]


def test_watching_a_run_until_it_ends(run: Path) -> None:
    started(run)
    path = run / "stages/pretrain/metrics.jsonl"
    words = [sys.executable, "-m", "toolkit.report", str(run), "--watch", "0.05", "--json"]
    watcher = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    try:
        guard = threading.Timer(60, watcher.kill)
        guard.start()
        until = time.monotonic() + 50
        while "over 100 steps" not in (_text(run / "report.html")):
            assert time.monotonic() < until and watcher.poll() is None
            time.sleep(0.05)
        with open(path, "a", encoding="utf-8") as handle:
            handle.write(json.dumps({"step": 101, "loss": 0.9}) + "\n")
        while "over 101 steps" not in _text(run / "report.html"):
            assert time.monotonic() < until and watcher.poll() is None
            time.sleep(0.05)
        sample.put(run / "stages/pretrain/done.json", {"stage": "pretrain", "result": {}})
        out, _ = watcher.communicate(timeout=50)
    finally:
        guard.cancel()
        watcher.kill()
    assert watcher.returncode == 0 and json.loads(out)["state"] == "done"
    assert 'http-equiv="refresh"' not in _text(run / "report.html")


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


@pytest.mark.parametrize("arguments", [["--watch", "0"], ["--watch", "-3"], ["--watch", "nan"], ["--peak-tflops", "0"]])
def test_numbers_that_mean_nothing_are_refused(run: Path, arguments: list[str]) -> None:
    done = command(run, *arguments)
    assert done.returncode == 2 and "Give a number above 0" in done.stderr and done.stderr.count("\n") == 1
