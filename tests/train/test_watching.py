"""Lines, loggers and power of a training; what counts as a step's time; a logger that fails ends nothing."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from toolkit import energy
from toolkit.errors import DiskFull, MissingPackage
from toolkit.recipe.schema import Mlflow, Wandb, Watch
from toolkit.train import loggers, power, rows

ROOT = Path(__file__).resolve().parents[2]

# ---- lines -----------------------------------------------------------------------------------------------------------


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_what_is_no_number_becomes_null(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    rows.append(path, {"step": 1, "loss": math.nan, "grad_norm": math.inf, "lr": 1e-4})
    assert path.read_text() == '{"step": 1, "loss": null, "grad_norm": null, "lr": 0.0001}\n'


def test_a_resumed_training_drops_what_it_writes_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for step in range(1, 8):
        rows.append(path, {"step": step, "loss": 1.0, "elapsed_s": 10.0 * step})
        if step % 2 == 0:
            rows.append(path, {"step": step, "valid_loss": 1.0})
    rows.append(path, {"step": 4, "elapsed_s": 75.0})
    rows.append(path, {"step": 7, "event": "spike"})
    rows.append(path, {"step": 7, "event": "rollback", "back_to": 4})
    damage = (
        b'{"step": 3, "lo\xff\xfe\n[1]\nnull\n{"loss": 1}\n{"step": true}\n{"step": "4"}\n' + b"[" * 9000 + b'\n{"st'
    )
    with open(path, "ab") as handle:
        handle.write(damage)
    kept = rows.drop_from(path, 4, 20)
    assert kept == rows.Kept(elapsed_s=75.0, validated=True)  # the time that was lost was spent all the same
    left = read(path)
    assert [row["step"] for row in left if "loss" in row] == [1, 2, 3, 4]
    assert all(row.keys() != {"step", "elapsed_s"} for row in left)
    assert [row["step"] for row in left if "valid_loss" in row] == [2]  # that of step 4 comes again
    assert [row["event"] for row in left if "event" in row] == ["rollback"]
    assert rows.drop_from(path, 4, 4) == rows.Kept(elapsed_s=40.0)


def test_nothing_to_drop(tmp_path: Path) -> None:
    assert rows.drop_from(tmp_path / "absent", 0, 10) == rows.Kept()
    assert not (tmp_path / "absent").exists()


def test_a_full_disk_is_told_as_such(tmp_path: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full on this machine")
    with pytest.raises(DiskFull):
        rows.append("/dev/full", {"step": 1})


# ---- power -----------------------------------------------------------------------------------------------------------


class Nvml:
    """NVML's calls, with GPUs that draw what a test says. Only the library and its driver are missing here."""

    def __init__(self, watts: list[float], *, counts_energy: bool = True, fails_after: int | None = None) -> None:
        self.watts, self.counts_energy, self.fails_after = watts, counts_energy, fails_after
        self.began, self.calls = time.monotonic(), 0

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.watts)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return range(len(self.watts))[index]

    def nvmlDeviceGetHandleByUUID(self, name: str) -> int:  # noqa: N802
        return {"GPU-b": 1}[name]

    def nvmlDeviceGetTotalEnergyConsumption(self, device: int) -> float:  # noqa: N802
        if not self.counts_energy:
            raise RuntimeError("Not Supported")
        return 5e6 + 1000 * self.watts[device] * (time.monotonic() - self.began)

    def nvmlDeviceGetPowerUsage(self, device: int) -> float:  # noqa: N802
        self.calls += 1
        if self.fails_after is not None and self.calls > self.fails_after:
            raise RuntimeError("GPU is lost")
        return 1000 * self.watts[device]


def sample(nvml: Nvml, folder: Path, lines: int, node: int = 0) -> power.Sampler:
    sampler = power.Sampler(nvml, folder, node, every_s=0.02)
    sampler.start()
    path = folder / power.FOLDER / f"{node}.jsonl"
    deadline = time.monotonic() + 20
    while sampler.is_alive() and (not path.is_file() or len(path.read_text().splitlines()) < lines):
        assert time.monotonic() < deadline, "no reading came"
        time.sleep(0.01)
    sampler.end()
    return sampler


@pytest.mark.parametrize("counts_energy", [True, False])
def test_power_is_the_mean_of_the_gpus(counts_energy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    sampler = sample(Nvml([300.0, 500.0], counts_energy=counts_energy), tmp_path, lines=3)
    found = read(tmp_path / "power/0.jsonl")
    assert len(found) >= 3 and {row["gpus"] for row in found} == {2}
    assert all(row["seconds"] > 0 for row in found)
    assert sampler.latest_w == pytest.approx(400, rel=0.05)
    sample(Nvml([100.0, 100.0], counts_energy=counts_energy), tmp_path, lines=1, node=1)
    mean = energy.measured_w(tmp_path / "power")
    assert mean is not None and 100 < mean < 400


@pytest.mark.parametrize(("visible", "gpus"), [("0", 1), ("GPU-b", 1), ("0,1,2", 3), ("9", 3), ("GPU-x", 3), ("", 3)])
def test_only_the_gpus_of_this_process_are_read(
    visible: str, gpus: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    sample(Nvml([100.0, 200.0, 300.0]), tmp_path, lines=1)
    assert read(tmp_path / "power/0.jsonl")[0]["gpus"] == gpus


def test_a_driver_that_fails_ends_the_readings_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sampler = sample(Nvml([100.0], counts_energy=False, fails_after=2), tmp_path, lines=99)
    assert not sampler.is_alive() and len(read(tmp_path / "power/0.jsonl")) == 2
    assert "power is no longer read: GPU is lost" in capsys.readouterr().out


def test_without_nvml_there_is_no_library() -> None:
    assert (power.library() is not None) == Path("/proc/driver/nvidia/gpus").is_dir()


# ---- loggers ---------------------------------------------------------------------------------------------------------


class Sink:
    def __init__(self, *, fails_at: int | None = None, hangs: bool = False) -> None:
        self.fails_at, self.hangs, self.seen, self.closed = fails_at, hangs, [], False

    def write(self, step: int, values: loggers.Values) -> None:
        if self.hangs:
            time.sleep(3600)
        if step == self.fails_at:
            raise ConnectionError(f"no route with key {os.environ['WANDB_API_KEY']}")
        self.seen.append((step, dict(values)))

    def close(self) -> None:
        self.closed = True


def test_a_logger_that_fails_is_told_of_once_and_the_others_go_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "very-secret")
    good, bad = Sink(), Sink(fails_at=3)

    def never() -> loggers.Sink:
        raise SystemExit("not logged in")

    made = loggers.Loggers({"never": never, "bad": lambda: bad, "good": lambda: good})
    for step in range(1, 6):
        made.write(step, {"loss": 1.0 / step})
    made.close()
    assert [step for step, _ in good.seen] == [1, 2, 3, 4, 5] and good.closed
    assert [step for step, _ in bad.seen] == [1, 2] and not bad.closed
    told = capsys.readouterr().err
    assert told.count("warning: bad: ConnectionError: no route with key ***. The training goes on") == 1
    assert told.count("warning: never: it gave up: not logged in") == 1 and "very-secret" not in told
    made.write(6, {})  # nothing is left to write to, and nothing happens


def test_a_logger_that_hangs_holds_nobody(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loggers, "_MOST_WAITING", 5)
    made = loggers.Loggers({"slow": lambda: Sink(hangs=True)})
    for step in range(20):
        made.write(step, {})
    made.close(limit_s=0.2)
    told = capsys.readouterr().err
    assert told.count("too slow") == 1 and "did not finish in time" in told


def test_none_is_asked_for(tmp_path: Path) -> None:
    made = loggers.start(Watch(tensorboard=False), tmp_path, {})
    made.write(1, {"loss": 1.0})
    made.close()
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_told_before_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loggers.importlib.util, "find_spec", lambda name: None)
    loggers.check(Watch(tensorboard=False))
    for asked, off in (
        (Watch(), "watch.tensorboard=false"),
        (Watch(tensorboard=False, wandb=Wandb(project="p")), "watch.wandb=null"),
        (Watch(tensorboard=False, mlflow=Mlflow(experiment="e")), "watch.mlflow=null"),
    ):
        with pytest.raises(MissingPackage) as caught:
            loggers.check(asked)
        assert off in caught.value.do and "pip install" in caught.value.do


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard itself would show."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    found.Reload()
    return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


@pytest.mark.slow
def test_tensorboard_shows_no_step_twice_after_a_resume(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    for begun, last, loss in ((0, 7, 9.0), (4, 10, 1.0)):
        made = loggers.start(Watch(), tmp_path, {}, begun=begun)
        for step in range(begun + 1, last + 1):
            made.write(step, {"loss": loss, "lr": 1e-4})
        made.close()
    shown = scalars(tmp_path / "tensorboard")
    assert shown["loss"] == [*((step, 9.0) for step in range(1, 5)), *((step, 1.0) for step in range(5, 11))]
    assert [step for step, _ in shown["lr"]] == list(range(1, 11))


def test_tensorboard_on_a_disk_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorboard")
    (tmp_path / "tensorboard").write_text("a file where the folder should be")
    made = loggers.start(Watch(), tmp_path, {})
    made.write(1, {"loss": 1.0})
    made.close()
    assert capsys.readouterr().err.count("warning: TensorBoard") == 1


def needs(package: str) -> pytest.MarkDecorator:
    there = importlib.util.find_spec(package) is not None
    return pytest.mark.skipif(
        not there, reason=f"{package} is not installed here; test_what_is_in_no_lock_works_offline tries it"
    )


@pytest.mark.slow
@needs("wandb")
def test_wandb_offline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One id over both attempts, so that `wandb sync` makes one run of them."""
    folder = tmp_path / "run-1/stages/pretrain"
    folder.mkdir(parents=True)
    watch = Watch(tensorboard=False, wandb=Wandb(project="p", mode="offline"))
    for begun in (0, 3):
        time.sleep(1.1 if begun else 0)  # W&B names what it writes by the second
        made = loggers.start(watch, folder, {"train": {"lr": 1e-3}}, begun=begun)
        for step in range(begun + 1, 6):
            made.write(step, {"loss": 1.0 / step})
        made.close()
    assert capsys.readouterr().err == ""
    files = sorted(folder.glob("wandb-files/wandb/offline-run-*/run-*.wandb"))
    assert files and len({file.name for file in files}) == 1
    assert b"loss" in files[0].read_bytes() and all(file.stat().st_size > 500 for file in files)


@pytest.mark.slow
@needs("mlflow")
def test_mlflow_in_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run-1/stages/pretrain"
    folder.mkdir(parents=True)
    watch = Watch(tensorboard=False, mlflow=Mlflow(experiment="e"))
    for begun in (0, 3):
        made = loggers.start(watch, folder, {"train": {"lr": 1e-3}}, begun=begun)
        for step in range(begun + 1, 6):
            made.write(step, {"loss": 1.0 / step})
        made.close()
    assert capsys.readouterr().err == ""
    from mlflow.tracking import MlflowClient

    kept = json.loads((folder / "mlflow.json").read_text())
    client = MlflowClient(tracking_uri=kept["tracking_uri"])
    run = client.get_run(kept["run_id"])
    assert run.info.status == "FINISHED" and run.info.run_name == "run-1 pretrain"
    assert run.data.params == {"train.lr": "0.001"} and run.data.metrics == {"loss": 0.2}
    assert sorted(m.step for m in client.get_metric_history(kept["run_id"], "loss")) == [1, 2, 3, 4, 4, 5, 5]
    assert len(client.search_runs([run.info.experiment_id])) == 1


@pytest.mark.slow
def test_what_is_in_no_lock_works_offline(tmp_path: Path) -> None:
    """The two tests above, with the pinned extras in a folder of their own where the environment lacks them."""
    table = yaml.safe_load((ROOT / "env" / "versions.yaml").read_text(encoding="utf-8"))["packages"]
    pins = [f"{name}=={table[name]['version']}" for name in ("wandb", "mlflow-skinny")]
    uv = shutil.which("uv")
    install = (
        [uv, "pip", "install", "-q", "--python", sys.executable] if uv else [sys.executable, "-m", "pip", "install"]
    )
    made = subprocess.run([*install, "--target", str(tmp_path / "extras"), *pins], capture_output=True, text=True)
    if made.returncode != 0:
        pytest.skip(f"wandb and mlflow cannot be installed here: {made.stderr.strip()[-200:]}")
    env = {**os.environ, "PYTHONPATH": f"{tmp_path / 'extras'}:{ROOT}"}
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-c", os.devnull]
    chosen = [f"{Path(__file__)}::{name}" for name in ("test_wandb_offline", "test_mlflow_in_files")]
    done = subprocess.run(
        [*words, "--rootdir", str(ROOT), *chosen], cwd=ROOT, env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0 and "2 passed" in done.stdout, done.stdout[-3000:] + done.stderr[-1000:]


# ---- a step's time ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_steps_time_is_without_validation_and_saves_and_waiting_for_data_is_told_apart(tmp_path: Path) -> None:
    """A real Lightning training by a clock that only the test turns: a fetch takes 1 s, of which a step makes two, the
    step 10 s, what comes after it 3 s, a validation 100 s, a save 1,000 s.
    """
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("clock_training.py")), str(tmp_path)],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = read(tmp_path / "metrics.jsonl")
    steps = [row for row in found if "loss" in row]
    assert [row["step"] for row in steps] == list(range(1, 9))
    assert {row["data_s"] for row in steps} == {2.0}
    # After steps 3 and 6 comes a validation, after 4 and 8 a save: the next step is counted from its own beginning.
    assert [row["step_s"] for row in steps] == [12.0, 15.0, 15.0, 12.0, 12.0, 15.0, 12.0, 15.0]
    assert [row["tokens_per_s"] for row in steps[:2]] == [100.0, 80.0]
    assert [row["mfu"] for row in steps[:2]] == [0.5, 0.4]
    assert steps[0]["tokens_per_s_device"] == 50.0 and steps[0]["rss_gib"] > 0
    assert steps[-1]["tokens"] == 9600 and "grad_norm" in steps[0]
    assert [row["step"] for row in found if "valid_loss" in row] == [3, 6]
    # Until all is over, the last save included: 8 steps of 12 s and what follows them, 2 validations, 2 saves.
    assert found[-1] == {"step": 8, "elapsed_s": 8 * 15.0 + 2 * 101 + 2 * 1000}
    shown = scalars(tmp_path / "tensorboard")
    assert [step for step, _ in shown["loss"]] == list(range(1, 9))
    assert [value for _, value in shown["tokens_per_s"]] == [row["tokens_per_s"] for row in steps]
    assert [step for step, _ in shown["valid_loss"]] == [3, 6]
