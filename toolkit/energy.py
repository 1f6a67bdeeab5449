"""Energy and carbon of a training from power, devices and hours. Where the power comes from, measured or a data
sheet's, is its caller's to say; a site's factors that nobody stated count as 1 and are named as such.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Energy:
    """`device_kwh` is the GPUs' alone; `kwh` with the rest of the nodes and the building; carbon in kg of CO2 or its
    equivalent, as the site's intensity is stated, None without one.
    """

    device_kwh: float
    kwh: float
    device_kgco2: float | None
    kgco2: float | None


def account(
    *,
    device_kwh: float,
    node_overhead: float | None = None,
    pue: float | None = None,
    kgco2_per_kwh: float | None = None,
) -> Energy:
    """`node_overhead` is the power of a whole node over that of its GPUs, `pue` that of the building over its nodes
    (both 1 or more, 1 when None); `kgco2_per_kwh` is the intensity of the site's electricity.

    Form and factors are the MEDITRON paper's (arXiv 2311.16079, appendix A): 400 W x 332 h x 128 A100 at 0.016 kgCO2 a
    kWh are 272 kg; x 1.625 (2,000 W of a node beside its GPUs' 3,200 W) x 1.1 (PUE) are 486 kg. Raises `ValueError` for
    what cannot be.
    """
    _least("device_kwh", device_kwh, 0)
    factor = (node_overhead if node_overhead is not None else 1.0) * (pue if pue is not None else 1.0)
    factors = {"node_overhead": (node_overhead, 1), "pue": (pue, 1), "kgco2_per_kwh": (kgco2_per_kwh, 0)}
    for name, (value, least) in factors.items():
        if value is not None:
            _least(name, value, least)
    kwh, clean = device_kwh * factor, kgco2_per_kwh
    return Energy(
        device_kwh=device_kwh,
        kwh=kwh,
        device_kgco2=None if clean is None else device_kwh * clean,
        kgco2=None if clean is None else kwh * clean,
    )


def device_kwh(*, watts: float, devices: int, hours: float) -> float:
    """Energy of `devices` that draw `watts` each for `hours`, in kWh."""
    return watts * devices * hours / 1000


def measured_w(folder: Path) -> float | None:
    """Mean watts of one GPU from what `toolkit.train.power` wrote to `folder`/NODE.jsonl, by time and over all nodes;
    None where nothing was measured. Lines that are damaged or absurd are passed over.
    """
    joules = gpu_seconds = 0.0
    for path in sorted(folder.glob("*.jsonl")) if folder.is_dir() else ():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                row = json.loads(line)
                seconds, gpus, watts = (float(row[key]) for key in ("seconds", "gpus", "power_w"))
            except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
                continue
            if all(math.isfinite(v) and 0 <= v < 1e6 for v in (seconds, gpus, watts)):
                joules, gpu_seconds = joules + seconds * gpus * watts, gpu_seconds + seconds * gpus
    return joules / gpu_seconds if gpu_seconds > 0 else None


def _least(name: str, value: float, least: float) -> None:
    if not value >= least:  # NaN too
        raise ValueError(f"{name}={value} must be at least {least}")
