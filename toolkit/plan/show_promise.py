"""A promise as lines for people: what is predicted of each training, of the disk, and beside it what was published.

Decides words and rounding; every figure is `promise`'s.
"""

from __future__ import annotations

from collections.abc import Iterator

from toolkit.errors import PlanRefused
from toolkit.plan import disk, picture
from toolkit.plan.cost import Cost
from toolkit.plan.promise import Promise, Training
from toolkit.plan.room import gb
from toolkit.recipe.schema import Cluster, Published, Recipe

_WHAT = {"pretrain": "pretraining", "finetune": "finetuning"}
_PARTS = 4  # the largest ones


def promise_text(recipe: Recipe, found: Promise) -> str:
    """The whole promise; its own words where there is nothing to foretell."""
    return "\n".join(_lines(recipe, found))


def _lines(recipe: Recipe, found: Promise) -> Iterator[str]:
    for one in found.trainings:
        yield f"promise of {_WHAT[one.stage]} on {one.setup.world:,} {one.setup.gpu.title}"
        yield from _training(recipe, one)
        yield ""
    if len(found.trainings) > 1 and found.gpu_hours is not None:
        yield f"all trainings take {found.gpu_hours:,.0f} GPU-hours with saves, failures and restarts"
        yield ""
    if found.trainings:
        yield "counted with"
        yield from (f"  {line}" for line in _counted(recipe.cluster, found.trainings[0]))
        yield ""
    elif recipe.cluster.device == "cpu":
        yield "no promise of memory and time: they are predicted of GPUs alone"
        yield ""
    if found.published is not None:
        yield from _published(found)
        yield ""
    yield f"disk, {gb(disk.total(found.disk))} in all"
    for use in found.disk:
        size = gb(use.bytes) if use.exact else f"about {gb(use.bytes)}"
        grown = f", {gb(use.grows_to)} by its end" if use.grows_to else ""
        yield f"  {use.id:<16} {size:>16}  {use.what}{grown}"
    for warning in found.warnings:
        yield ""
        yield f"warning: {warning}"
    for broken in found.broken:
        yield ""
        yield f"launch refuses it: {PlanRefused(broken.what, why=broken.why, do=broken.do)}"


def _training(recipe: Recipe, one: Training) -> Iterator[str]:
    worst, took = one.worst, one.step
    yield f"  parameters    {_ranks(one)}"
    state = "fits" if one.fits else "DOES NOT FIT"
    yield (
        f"  memory        {worst.gib:.1f} GiB on a GPU of stage {worst.pp_rank}, {one.limit_gib:.1f} of "
        f"{one.setup.gpu.memory_gib:g} can be used: {state}"
    )
    if one.stage == "pretrain" or not one.fits or "pretrain" not in recipe.stages:
        yield from (f"    {line}" for line in picture.bars(one.stages, one.limit_gib))
    yield f"  step          {took.seconds:.4g} s ({took.low:.4g} to {took.high:.4g}): {_shares(took.parts)}"
    low, high = one.tokens_per_step / took.high, one.tokens_per_step / took.low
    yield (
        f"  speed         {one.tokens_per_s:,.0f} tokens/s ({low:,.0f} to {high:,.0f}), "
        f"{one.tokens_per_s / one.setup.world:,.1f} a GPU"
    )
    if one.mfu:
        yield f"  MFU           {', '.join(f'{100 * value:.1f} % {name}' for name, value in one.mfu.items())}"
    yield from _costs(recipe.cluster, one)
    yield from _saves(one)


def _ranks(one: Training) -> str:
    """What a rank holds, by stages that hold alike."""
    runs: list[tuple[int, int, int]] = []
    for part in one.parameters:
        if runs and runs[-1][2] == part.total:
            runs[-1] = (runs[-1][0], part.pp_rank, part.total)
        else:
            runs.append((part.pp_rank, part.pp_rank, part.total))
    shown = runs if len(runs) <= _PARTS else [*runs[:2], *runs[-2:]]
    told = [f"{total:,} on {first if first == last else f'{first} to {last}'}" for first, last, total in shown]
    return (
        f"a rank of stage 0 holds {told[0].split()[0]}" if len(runs) == 1 else f"a rank of a stage: {', '.join(told)}"
    )


def _costs(site: Cluster, one: Training) -> Iterator[str]:
    if one.cost is None:
        yield "  time          known when its rows are counted"
        return
    if not one.counted:
        yield f"  steps         {one.steps:,}, from the rows that its benchmarks are known to have, each of full length"
    spread = [f"{one.cost.hours * bound / one.step.seconds:,.0f}" for bound in (one.step.low, one.step.high)]
    yield f"  time          {_hours(one.cost)} of steps ({' to '.join(spread)})"
    if one.held is None:
        yield "                no end with failures and restarts: it saves too seldom"
        return
    yield f"                {_hours(one.held)} with saves, failures and restarts"
    yield f"  GPU-hours     {one.cost.gpu_hours:,.0f}; {one.held.gpu_hours:,.0f} with saves, failures and restarts"
    if one.held.kwh is not None:
        carbon = f", {one.held.kgco2:,.0f} kgCO2" if one.held.kgco2 is not None else ""
        yield f"  energy        {one.held.kwh:,.0f} kWh{carbon}"
    if one.held.money is not None:
        yield f"  price         {one.held.money:,.0f} {site.currency}"


def _hours(spent: Cost) -> str:
    return f"{spent.hours:,.1f} h, {spent.days:,.1f} days"


def _saves(one: Training) -> Iterator[str]:
    saves, own, best = one.saving, one.own, one.best
    yield (
        f"  checkpoint    {gb(one.checkpoint_bytes)}, written in {_span(saves.write_s)}, the training waits "
        f"{_span(saves.stall_s)} of them"
    )
    yield (
        f"  interval      every {best.steps:,} steps, {_span(best.interval_s)}, loses least "
        f"(Young {_span(one.young_s)}, Daly {_span(one.daly_s)}); every {own.steps:,} as asked"
    )
    nine = f"nine of ten runs {100 * own.goodput.low:.1f} to {100 * own.goodput.high:.1f}"
    yield f"  goodput       {100 * own.goodput.mean:.1f} % as asked ({nine}), {100 * best.goodput.mean:.1f} % at best"
    for size in one.sizes:
        yield (
            f"                at best on {size.gpus:,} GPUs {100 * size.goodput.mean:.1f} %, with a save every "
            f"{_span(size.interval_s)}"
        )


def _counted(site: Cluster, one: Training) -> Iterator[str]:
    gpu = one.setup.gpu
    if site.calibration is not None:
        yield f"the speed of this site's own runs, {site.calibration}"
    if gpu.tdp_w:
        factors = [f"x {value:g} for the {what}" for what, value in (("node", site.node_overhead), ("PUE", site.pue))
                   if value is not None]  # fmt: skip
        yield " ".join([f"{gpu.tdp_w} W a GPU, its limit,", *factors]).rstrip(",")
    if site.kgco2_per_kwh is not None:
        yield f"{site.kgco2_per_kwh:g} kgCO2 a kWh"
    if site.price_per_gpu_hour is not None:
        yield f"{site.price_per_gpu_hour:g} {site.currency} a GPU-hour"
    failing = "as stated" if site.failures_per_gpu_hour is not None else "as published of Llama 3"
    yield f"a failure every {_span(one.saving.mtbf_s)}, {failing}"
    writing = "as stated" if site.disk_gb_s is not None else "as published of Llama 3's nodes"
    yield f"{one.checkpoint_bytes / 1e9 / one.saving.write_s:,.1f} GB/s to the disk, {writing}"
    yield f"{site.restart_min:g} min to restart, and the checkpoint's reading"


def _published(found: Promise) -> Iterator[str]:
    told, own, again = found.published, found.explained, found.repeated
    assert told is not None and own is not None
    one = next((one for one in found.trainings if one.stage == "pretrain"), None)
    here, then = one and one.cost, again and again.cost
    tokens = one and one.steps and one.steps * one.tokens_per_step
    rows = [
        ("GPUs", _n(told.gpus), "", _n(one and one.setup.world), _n(one and one.setup.world)),
        ("tokens", _billions(told.tokens), "", _billions(tokens), _billions(tokens)),
        ("tokens/s", _n(told.tokens_per_s), "", _n(again and again.tokens_per_s), _n(one and one.tokens_per_s)),
        ("hours", _n(told.hours), _n(own.hours, 1), _n(then and then.hours, 1), _n(here and here.hours, 1)),
        ("whole hours", "", _n(own.whole_hours), "", ""),
        ("GPU-hours", _n(told.gpu_hours), _n(own.gpu_hours), _n(then and then.gpu_hours), _n(here and here.gpu_hours)),
        ("kWh", "", _n(own.kwh), _n(then and then.kwh), _n(here and here.kwh)),
        ("kgCO2", _n(told.kgco2), _n(own.kgco2), _n(then and then.kgco2), _n(here and here.kgco2)),
    ]
    yield told.source
    yield f"  {'':<14} {'published':>10} {'its own sums':>13} {'predicted of it':>15} {'of this recipe':>15}"
    for what, *cells in rows:
        if any(cells):
            yield f"  {what:<14} {cells[0]:>10} {cells[1]:>13} {cells[2]:>15} {cells[3]:>15}"
    for size, gib in (again.memory if again is not None else {}).items():
        fits = "fits" if gib <= again.limit_gib else "DOES NOT FIT"
        yield f"  micro-batch {size} with its software: {gib:.1f} GiB of {again.limit_gib:.1f}, {fits}"
    yield "  Its own sums: tokens over tokens/s, and what follows from the whole hours of that with its own factors."
    yield f"  Predicted of it: on this layout with its software, {_software(told)}."
    yield "  None of them counts saves, failures and restarts."


def _software(told: Published) -> str:
    kernels = "one kernel for each norm and gate" if told.fused else "norms and gates in plain PyTorch"
    return f"{kernels}, {'a' if told.distributed_optimizer else 'no'} distributed optimizer"


def _n(value: float | None, digits: int = 0) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def _billions(value: float | None) -> str:
    return "" if not value else f"{value / 1e9:,.2f}B"


def _shares(parts: object) -> str:
    ordered = sorted(dict(parts).items(), key=lambda part: -part[1])  # type: ignore[call-overload]
    shown = [f"{name.replace('_', ' ')} {value:.3g}" for name, value in ordered[:_PARTS]]
    rest = sum(value for _, value in ordered[_PARTS:])
    return ", ".join([*shown, *([f"rest {rest:.3g}"] if len(ordered) > _PARTS else [])])


def _span(seconds: float) -> str:
    if seconds == float("inf"):
        return "never"
    for size, unit in ((86_400 * 3, "days"), (7200, "h"), (120, "min")):
        if seconds >= size:
            each = {"days": 86_400, "h": 3600, "min": 60}[unit]
            return f"{seconds / each:,.1f} {unit}"
    return f"{seconds:,.0f} s" if seconds >= 10 else f"{seconds:,.1f} s"
