"""How fast a training ran, how much of its GPUs it used, what energy it took: from its curve and the recipe's words.

Decides what is told and what is refused (an MFU above 1); formulas are `toolkit.flops`' and `toolkit.energy`'s.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from toolkit import energy, flops, hardware
from toolkit.errors import RunError
from toolkit.models import EXTRA_TOKENS, Shape
from toolkit.report.record import Curve
from toolkit.report.settings import lookup, positive
from toolkit.report.values import count, duration, number, percent, plain, text

DEFAULT_MFU = "6n_causal"
_SHAPE = ("layers", "hidden", "ffn", "heads", "kv_heads", "base_vocab")


@dataclass(frozen=True, kw_only=True)
class Utilization:
    """MFU as fractions by convention; `main` is the recipe's choice. Without values `why` says why."""

    values: dict[str, float]
    main: str = DEFAULT_MFU
    against: str = ""
    why: str = ""


def median(curve: Curve, name: str) -> float | None:
    values = [value for _, value in curve.finite(name)]
    return statistics.median(values) if values else None


def devices(recipe: dict[str, Any]) -> int | None:
    nodes, each = positive(recipe, "cluster.nodes"), positive(recipe, "cluster.devices_per_node")
    return int(nodes * each) if nodes and each else None


def utilization(recipe: dict[str, Any], curve: Curve, section: str, where: object) -> Utilization:
    """MFU of the median step under every convention. Raises `RunError` for one above 1: no training reaches that, so
    the GPU's type or its peak is not what the recipe says.
    """
    main = lookup(recipe, "watch.mfu")
    main = main if isinstance(main, str) and main in flops.CONVENTIONS else DEFAULT_MFU
    rate, size, length = median(curve, "tokens_per_s"), devices(recipe), positive(recipe, f"{section}.seq_length")
    peak, against = _peak(recipe)
    if peak is None:
        return Utilization(values={}, main=main, why=against)
    shape = _shape(recipe)
    if not rate or rate <= 0 or size is None or length is None or shape is None:
        return Utilization(values={}, main=main, why="The recipe or the metrics lack what an MFU is made of.")
    needed = flops.by_convention(shape, int(length), positive(recipe, "model.nominal_parameters"))
    values = {name: flops.mfu(rate, size, peak, each) for name, each in needed.items()}
    name, highest = max(values.items(), key=lambda item: item[1])
    if highest > 1:
        raise RunError(
            f"an MFU of {100 * highest:,.0f} % ({name}) cannot be",
            where=where,
            why=f"{rate:,.0f} tokens/s on {size} devices are more than {peak:g} TFLOP/s each ({against}) can do: the "
            "recipe's cluster.gpu or cluster.peak_tflops is not that of the devices",
            do="give their dense bf16 peak with --peak-tflops N, and set it right for the next run",
        )
    return Utilization(values=values, main=main, against=f"{peak:,.6g} TFLOP/s a device, {against}")


def _peak(recipe: dict[str, Any]) -> tuple[float | None, str]:
    """(dense bf16 TFLOP/s of a device, whence), or (None, why there is none)."""
    stated, name = positive(recipe, "cluster.peak_tflops"), lookup(recipe, "cluster.gpu")
    if stated:
        return stated, "as stated"
    state = "cluster.peak_tflops states one"
    if lookup(recipe, "cluster.device") == "cpu":
        return None, f"No MFU on a CPU, which has no stated peak; {state}."
    known = hardware.GPUS.get(name) if isinstance(name, str) else None
    if known is None:
        return None, f"No MFU: the recipe names no GPU type that is known; {state}."
    if known.bf16_tflops is None:
        return None, f"No MFU: the {known.title} has no bf16; {state}."
    return known.bf16_tflops, f"dense bf16 of the {known.title}"


def _shape(recipe: dict[str, Any]) -> Shape | None:
    values = {name: positive(recipe, f"model.{name}") for name in _SHAPE}
    if None in values.values() or values["heads"] > values["hidden"]:
        return None
    numbers = {name: int(value) for name, value in values.items()}
    extra = lookup(recipe, "model.extra_tokens")
    vocab = numbers.pop("base_vocab") + (EXTRA_TOKENS.get(extra, 0) if isinstance(extra, str) else 0)
    return Shape(**numbers, vocab=vocab)


def table(recipe: dict[str, Any], curve: Curve, used: Utilization) -> list[tuple[str, str, str, bool]]:
    """Rows (what, figure, smaller words, whether it is the main one)."""
    rows: list[tuple[str, str, str, bool]] = []
    rate, size, took = median(curve, "tokens_per_s"), devices(recipe), median(curve, "step_s")
    if rate is not None:
        rows.append(("Tokens/s", plain(rate, 0), "median of the steps", False))
        if size:
            what = "Tokens/s a GPU" if lookup(recipe, "cluster.device") != "cpu" else "Tokens/s a process"
            rows.append((what, plain(rate / size, 1), f"{size:,} of them", False))
    if took is not None:
        worst = _quantile([value for _, value in curve.finite("step_s")], 0.95)
        rows.append(("Step time", f"{plain(took, 3)} s", f"median; 95 % within {plain(worst, 3)} s", False))
    waits = dict(curve.finite("data_s"))
    both = [(waits[step], value) for step, value in curve.finite("step_s") if step in waits]
    if both and sum(value for _, value in both) > 0:
        share = sum(wait for wait, _ in both) / sum(value for _, value in both)
        rows.append(("Waiting for data", percent(share), "of the step time, in rank 0", False))
    for name, value in used.values.items():
        rows.append((f"MFU, {name}", percent(value), flops.CONVENTIONS[name], name == used.main))
    for name, words in (("memory_gib", "GPU memory"), ("rss_gib", "Memory of the process")):
        values = [value for _, value in curve.finite(name)]
        if values:
            rows.append((words, f"{plain(max(values), 2)} GiB", "highest, in rank 0", False))
    return rows


def _quantile(values: list[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def hours(curve: Curve) -> float | None:
    """Hours that the devices were held for the training: from its own clock, else the sum of its steps."""
    clock = [value for _, value in curve.finite("elapsed_s")]
    steps = [value for _, value in curve.finite("step_s")]
    seconds = max(clock) if clock else sum(steps)
    return seconds / 3600 if seconds > 0 else None


def power(recipe: dict[str, Any], curve: Curve) -> tuple[list[tuple[str, str, str, bool]], str]:
    """Rows of the energy and carbon table as `table`'s, and why there are none."""
    watts, source = _watts(recipe, curve)
    size, spent = devices(recipe), hours(curve)
    if watts is None:
        return [], f"No energy: {source}; cluster.gpu_tdp_w states it."
    used, factors = account(recipe, curve), _site(recipe)
    if used is None or size is None or spent is None:
        return [], ""
    rows = [
        ("Power", f"{plain(watts, 0)} W", source, False),
        ("Time", duration(3600 * spent), f"{count(size * spent)} device hours", False),
        ("Energy of the devices", f"{plain(used.device_kwh, 2)} kWh", _carbon(used.device_kgco2), False),
        ("Energy in all", f"{plain(used.kwh, 2)} kWh", _factors(factors), False),
    ]
    if used.kgco2 is not None:
        intensity = f"at {plain(factors['kgco2_per_kwh'])} kgCO2 a kWh"
        rows.append(("Carbon", f"{plain(used.kgco2, 2)} kgCO2", intensity, True))
    return rows, "" if used.kgco2 is not None else "No carbon: cluster.kgco2_per_kwh is not stated."


def account(recipe: dict[str, Any], curve: Curve) -> energy.Energy | None:
    """What the training used so far, None where power or time are not known."""
    watts, _ = _watts(recipe, curve)
    size, spent = devices(recipe), hours(curve)
    if watts is None or size is None or spent is None:
        return None
    return energy.account(device_kwh=energy.device_kwh(watts=watts, devices=size, hours=spent), **_site(recipe))


def _watts(recipe: dict[str, Any], curve: Curve) -> tuple[float | None, str]:
    """(watts of one device, whence), or (None, why they are not known)."""
    if curve.watts is not None:
        return curve.watts, "measured by NVML, mean of one GPU"
    name, stated = lookup(recipe, "cluster.gpu"), positive(recipe, "cluster.gpu_tdp_w")
    on_cpu = lookup(recipe, "cluster.device") == "cpu"
    watts = hardware.tdp_w(name if isinstance(name, str) and not on_cpu else None, stated)
    if watts is None:
        return None, "a CPU's power is not read" if on_cpu else "power was not measured, and the GPU's is not known"
    return watts, f"not measured: the limit of {'a device as stated' if stated else text(name, 40)}"


def _site(recipe: dict[str, Any]) -> dict[str, float | None]:
    """The site's factors, without those that cannot be."""
    factors = {key: number(lookup(recipe, f"cluster.{key}")) for key in ("node_overhead", "pue", "kgco2_per_kwh")}
    bad = [key for key, value in factors.items() if value is not None and value < (0 if key == "kgco2_per_kwh" else 1)]
    return factors | dict.fromkeys(bad)


def _carbon(value: float | None) -> str:
    return "" if value is None else f"{plain(value, 2)} kgCO2"


def _factors(factors: dict[str, float | None]) -> str:
    words = [
        f"{what} {plain(factors[key])}" if factors[key] is not None else f"{what} not stated, counted as 1"
        for key, what in (("node_overhead", "node over its GPUs"), ("pue", "PUE"))
    ]
    return "; ".join(words)
