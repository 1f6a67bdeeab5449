"""What a training costs by its hours: days, GPU-hours, energy, carbon and money; and the same of a published one.

Decides the sums alone: how long it takes is `promise`'s to say, what is plugged in where nobody measured, `energy`'s.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from toolkit import energy
from toolkit.recipe.schema import Cluster, Published


@dataclass(frozen=True, kw_only=True)
class Cost:
    """`device_kwh` is the GPUs' alone, `kwh` and `kgco2` with the rest of nodes and building; None where not stated."""

    hours: float
    gpu_hours: float
    device_kwh: float | None
    kwh: float | None
    kgco2: float | None
    money: float | None

    @property
    def days(self) -> float:
        return self.hours / 24


def cost(site: Cluster, *, hours: float, gpus: int, watts: float | None) -> Cost:
    """`watts` of one GPU, its limit where nothing was measured: an upper bound of its energy."""
    used = None
    if watts:
        used = energy.account(
            device_kwh=energy.device_kwh(watts=watts, devices=gpus, hours=hours),
            node_overhead=site.node_overhead,
            pue=site.pue,
            kgco2_per_kwh=site.kgco2_per_kwh,
        )
    price = site.price_per_gpu_hour
    return Cost(
        hours=hours,
        gpu_hours=hours * gpus,
        device_kwh=used and used.device_kwh,
        kwh=used and used.kwh,
        kgco2=used and used.kgco2,
        money=None if price is None else price * hours * gpus,
    )


@dataclass(frozen=True, kw_only=True)
class Explained:
    """A published training's own sums: `hours` is its tokens over its tokens/s, exactly; the others follow from the
    whole hours of that, as publications count. None where what they need was not published.
    """

    hours: float | None
    whole_hours: int | None
    gpu_hours: int | None
    device_kwh: float | None
    kwh: float | None
    kgco2: float | None


def explain(told: Published) -> Explained:
    """MEDITRON-70B's (arXiv 2311.16079, sections 2 and 3 and appendix A): 48.1e9 tokens at 40,200 a second are 332.4 h,
    332 x 128 are 42,496 GPU-hours, and 400 W of each at 0.016 kgCO2 a kWh, x 1.625 x 1.1, are 486 kg.
    """
    hours = told.tokens / told.tokens_per_s / 3600 if told.tokens and told.tokens_per_s else told.hours
    whole = None if hours is None else math.floor(hours)
    used = None
    if whole is not None and told.gpu_w is not None:
        used = energy.account(
            device_kwh=energy.device_kwh(watts=told.gpu_w, devices=told.gpus, hours=whole),
            node_overhead=told.node_overhead,
            pue=told.pue,
            kgco2_per_kwh=told.kgco2_per_kwh,
        )
    return Explained(
        hours=hours,
        whole_hours=whole,
        gpu_hours=None if whole is None else whole * told.gpus,
        device_kwh=used and used.device_kwh,
        kwh=used and used.kwh,
        kgco2=used and used.kgco2,
    )
