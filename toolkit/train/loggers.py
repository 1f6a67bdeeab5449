"""TensorBoard, Weights & Biases and MLflow beside metrics.jsonl: one thread hands them each step's figures, so that a
network or a disk that is slow or gone neither stops nor slows the training. What the figures are is `metrics`'.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from toolkit import files
from toolkit.errors import MissingPackage
from toolkit.recipe.schema import Mlflow, Wandb, Watch

_MOST_WAITING = 10_000  # steps; more are left out
_SECRETS = ("WANDB_API_KEY", "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_PASSWORD")
_SIGNALS = (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT)

Values = Mapping[str, float]


class Sink(Protocol):
    def write(self, step: int, values: Values) -> None: ...

    def close(self) -> None: ...


def check(watch: Watch) -> None:
    """Raise `MissingPackage` where a logger is asked for whose package is not installed."""
    for key, asked, module, package in (
        ("tensorboard", watch.tensorboard, "tensorboard", "tensorboard"),
        ("wandb", watch.wandb is not None, "wandb", "meditron-toolkit[wandb]"),
        ("mlflow", watch.mlflow is not None, "mlflow", "meditron-toolkit[mlflow]"),
    ):
        if asked and importlib.util.find_spec(module) is None:
            off = "false" if key == "tensorboard" else "null"
            raise MissingPackage(
                f"the package {module} is not installed",
                where=f"watch.{key}",
                do=f"pip install '{package}' where the training runs, or watch.{key}={off}",
            )


class Loggers:
    """`write` and `close` never raise; `write` waits for no logger, `close` for so long as it is told. A logger
    that fails is told of once, and done without.
    """

    def __init__(self, makers: Mapping[str, Callable[[], Sink]]) -> None:
        self._makers = dict(makers)
        self._waiting: queue.Queue[tuple[int, Values] | None] = queue.Queue(_MOST_WAITING)
        self._full = False
        self._thread = threading.Thread(target=self._work, name="loggers", daemon=True)
        if self._makers:
            self._thread.start()

    def write(self, step: int, values: Values) -> None:
        if not self._thread.is_alive():
            return
        try:
            self._waiting.put_nowait((step, values))
        except queue.Full:
            if not self._full:
                _warn("loggers", "they are too slow: some steps are in metrics.jsonl alone")
            self._full = True

    def close(self, limit_s: float = 60.0) -> None:
        """Let them write what is waiting, for `limit_s` seconds at most."""
        until = time.monotonic() + limit_s
        if self._thread.is_alive():
            with contextlib.suppress(queue.Full):
                self._waiting.put(None, timeout=limit_s)
            self._thread.join(timeout=max(0.1, until - time.monotonic()))
            if self._thread.is_alive():
                _warn("loggers", "they did not finish in time; what they still held is in metrics.jsonl")

    def _work(self) -> None:
        # What a logger starts inherits the mask: a signal to the whole process group is not for it.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        sinks: dict[str, Sink] = {}

        def guarded(name: str, act: Callable[[], Any]) -> Any:
            try:
                return act()
            except Exception as err:
                sinks.pop(name, None)
                _warn(name, f"{type(err).__name__}: {err}")
                return None
            except SystemExit as err:  # how some libraries give up
                sinks.pop(name, None)
                _warn(name, f"it gave up: {err}")
                return None

        for name, make in self._makers.items():
            made = guarded(name, make)
            if made is not None:
                sinks[name] = made
        while sinks and (item := self._waiting.get()) is not None:
            step, values = item
            for name, sink in list(sinks.items()):
                guarded(name, lambda sink=sink, step=step, values=values: sink.write(step, values))
        for name, sink in list(sinks.items()):
            guarded(name, sink.close)


def start(watch: Watch, folder: Path, config: Mapping[str, Any], begun: int = 0) -> Loggers:
    """The loggers that `watch` asks for, of a training in the stage's `folder` that goes on after step `begun`."""
    makers: dict[str, Callable[[], Sink]] = {}
    if watch.tensorboard:
        makers["TensorBoard"] = lambda: TensorBoard(folder / "tensorboard", begun)
    if (wandb := watch.wandb) is not None:
        makers["Weights & Biases"] = lambda: WandbRun(wandb, folder, config)
    if (mlflow := watch.mlflow) is not None:
        makers["MLflow"] = lambda: MlflowRun(mlflow, folder, config)
    return Loggers(makers)


class TensorBoard:
    """Event files. Those of steps that a resumed training does again are purged by TensorBoard as it reads."""

    def __init__(self, folder: Path, begun: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=begun + 1 if begun else None, flush_secs=10)

    def write(self, step: int, values: Values) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class WandbRun:
    """One W&B run for all attempts of a training, by an id that follows from its folder."""

    def __init__(self, asked: Wandb, folder: Path, config: Mapping[str, Any]) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        place = folder / "wandb-files"  # a folder named wandb would be taken for the package by what runs in there
        place.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=asked.project,
            entity=asked.entity,
            mode=asked.mode,
            dir=str(place),
            id=hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16],
            name=_title(folder),
            resume="allow",
            config=dict(config),
            settings=wandb.Settings(console="off", silent=True, disable_git=True, save_code=False, init_timeout=60.0),
        )
        # Steps by their own number: W&B's counter would refuse those that a resumed training does again.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def write(self, step: int, values: Values) -> None:
        self._run.log({**values, "step": step})

    def close(self) -> None:
        self._run.finish()


class MlflowRun:
    """One MLflow run for all attempts of a training; its id is kept in the stage's folder."""

    def __init__(self, asked: Mlflow, folder: Path, config: Mapping[str, Any]) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        # The store of plain files, which nothing need be installed for; newer versions ask to be told that it is meant.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        from mlflow.entities import Metric
        from mlflow.tracking import MlflowClient

        uri = asked.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or (folder.resolve() / "mlruns").as_uri()
        self._client, self._metric = MlflowClient(tracking_uri=uri), Metric
        kept = folder / "mlflow.json"
        before = files.read_json(kept) if kept.is_file() else {}
        if before.get("tracking_uri") == uri:
            self._run = self._client.get_run(before["run_id"]).info.run_id
            self._client.update_run(self._run, status="RUNNING")
            return
        found = self._client.get_experiment_by_name(asked.experiment)
        experiment = found.experiment_id if found else self._client.create_experiment(asked.experiment)
        self._run = self._client.create_run(experiment, run_name=_title(folder)).info.run_id
        for key, value in _flat(config):
            self._client.log_param(self._run, key, str(value)[:500])
        files.write_json(kept, {"tracking_uri": uri, "run_id": self._run})

    def write(self, step: int, values: Values) -> None:
        now = int(time.time() * 1000)
        self._client.log_batch(self._run, metrics=[self._metric(name, v, now, step) for name, v in values.items()])

    def close(self) -> None:
        self._client.set_terminated(self._run)


def _title(folder: Path) -> str:
    """Run and stage: runs/RUN/stages/STAGE."""
    return f"{folder.resolve().parent.parent.name} {folder.name}"


def _flat(config: Mapping[str, Any], key: str = "") -> list[tuple[str, Any]]:
    out: list[tuple[str, Any]] = []
    for name, value in config.items():
        path = f"{key}.{name}" if key else str(name)
        out += _flat(value, path) if isinstance(value, Mapping) else [(path, value)]
    return [(name, value) for name, value in out if value not in (None, "", (), [])]


def _warn(name: str, what: str) -> None:
    """One line; the libraries' own messages may repeat what they were given, so secrets are taken out."""
    for secret in filter(None, map(os.environ.get, _SECRETS)):
        what = what.replace(secret, "***")
    what = " ".join(what.split())[:400]
    print(f"warning: {name}: {what}. The training goes on without it.", file=sys.stderr, flush=True)
