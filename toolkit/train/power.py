"""The power that this node's GPUs draw, read from NVML at a low rate beside the training. Where NVML is absent nothing
is read; what then stands for it is `energy`'s and the page's to say.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

from toolkit.train import rows

FOLDER = "power"


def library() -> Any:
    """NVML as Python knows it (nvidia-ml-py), initialised; None without it, its driver or a GPU."""
    try:
        import pynvml

        pynvml.nvmlInit()
        return pynvml if pynvml.nvmlDeviceGetCount() else None
    except Exception:  # the module's own error class may be what is missing
        return None


class Sampler(threading.Thread):
    """Every `every_s` one line to `folder`/power/NODE.jsonl: {"time": Unix seconds, "seconds": since the line before,
    "gpus": how many were read, "power_w": mean watts of one}. `nvml` is what `library` gives.
    """

    def __init__(self, nvml: Any, folder: Path, node: int, every_s: float) -> None:
        super().__init__(name="power", daemon=True)
        self.latest_w: float | None = None
        self._nvml, self._every_s = nvml, every_s
        self._path = folder / FOLDER / f"{node}.jsonl"
        self._ended = threading.Event()

    def run(self) -> None:
        try:
            devices = _devices(self._nvml)
            self._path.parent.mkdir(parents=True, exist_ok=True)
            began, energy = time.monotonic(), self._energies(devices)
            over = False
            while not over:
                over = self._ended.wait(self._every_s)
                now, later = time.monotonic(), self._energies(devices)
                if over and now - began < self._every_s / 4:
                    return  # a counter that moves a few times a second says little of so short a time
                watts = _mean_w(energy, later, now - began) or self._power(devices)
                if watts is None:
                    return
                self.latest_w = round(watts, 1)
                line = {"time": round(time.time(), 1), "seconds": round(now - began, 3), "gpus": len(devices)}
                rows.append(self._path, {**line, "power_w": self.latest_w})
                began, energy = now, later
        except Exception as err:  # a driver that fails, a full disk: no reason to end the training
            print(f"power is no longer read: {err}", flush=True)

    def end(self) -> None:
        """A last reading, and no more."""
        self._ended.set()
        self.join(timeout=5.0)

    def _energies(self, devices: list[Any]) -> list[float] | None:
        """mJ since the driver was loaded, by device: exact between two readings. Volta and later have it."""
        try:
            return [float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(device)) for device in devices]
        except Exception:
            return None

    def _power(self, devices: list[Any]) -> float | None:
        readings = [self._nvml.nvmlDeviceGetPowerUsage(device) / 1000 for device in devices]
        return sum(readings) / len(readings) if readings else None


def _mean_w(before: list[float] | None, after: list[float] | None, seconds: float) -> float | None:
    if not before or not after or seconds <= 0:
        return None
    return sum(b - a for a, b in zip(before, after, strict=True)) / len(before) / 1000 / seconds


def _devices(nvml: Any) -> list[Any]:
    """Those that this process sees, by CUDA_VISIBLE_DEVICES; all of the node without it, or where it names one that
    NVML does not know by that name. A rank that is shown its own GPU alone reads that one.
    """
    told = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    try:
        found = [
            nvml.nvmlDeviceGetHandleByIndex(int(name)) if name.isdigit() else nvml.nvmlDeviceGetHandleByUUID(name)
            for name in told
        ]
    except Exception:
        found = []
    return found or [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
