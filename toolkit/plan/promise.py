"""Everything that a plan promises of a recipe: memory, time, cost, carbon, rhythm of saves and disk, put together.

Decides when a launch is refused; each figure is another module's: `speed`, `memory`, `cost`, `goodput`, `disk`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from toolkit import flops
from toolkit.cleaning import NO_BENCHMARKS
from toolkit.errors import PlanRefused, RecipeError
from toolkit.hardware import Gpu
from toolkit.plan import cost, disk, goodput, limits, memory, parameters, setup, speed, trainings
from toolkit.plan.calibrated import PARAMS, Params
from toolkit.plan.cost import Cost, Explained
from toolkit.plan.disk import Use
from toolkit.plan.goodput import Rhythm, Saving
from toolkit.plan.layout import layout, shape
from toolkit.plan.limits import Broken
from toolkit.plan.memory import Memory
from toolkit.plan.parameters import StageParameters
from toolkit.plan.setup import Setup
from toolkit.plan.speed import StepTime
from toolkit.recipe.schema import Published, Recipe

_NONE_KEPT = 1e-6  # of a training's time: then it never comes to a save
_LEAST_KEPT = 0.05  # of a training's time; with less it does not come to its end


@dataclass(frozen=True, kw_only=True)
class Training:
    """What one training of a recipe takes.

    `steps` is None where its rows are not counted yet: then there are no hours, and no cost; `counted` is False where
    they come from the rows that its benchmarks are known to have. `cost` is that of the steps alone, `held` with saves,
    failures and restarts at the recipe's own rhythm. `own` is that rhythm, `best` the one that loses least, `sizes`
    what it would be on other numbers of GPUs.
    """

    stage: str
    setup: Setup
    steps: int | None
    counted: bool
    stages: tuple[Memory, ...]
    parameters: tuple[StageParameters, ...]
    worst: Memory
    limit_gib: float
    step: StepTime
    mfu: dict[str, float]
    checkpoint_bytes: int
    saving: Saving
    young_s: float
    daly_s: float
    own: Rhythm
    best: Rhythm
    sizes: tuple[Rhythm, ...]
    cost: Cost | None
    held: Cost | None

    @property
    def fits(self) -> bool:
        return self.worst.gib <= self.limit_gib

    @property
    def tokens_per_step(self) -> int:
        return self.setup.global_batch * self.setup.seq

    @property
    def tokens_per_s(self) -> float:
        return self.tokens_per_step / self.step.seconds


@dataclass(frozen=True, kw_only=True)
class Repeated:
    """The pretraining with the software that the published one ran with, on the recipe's layout: what is predicted of
    it, and `memory` by micro-batch.
    """

    limit_gib: float
    memory: dict[int, float]
    step: StepTime
    tokens_per_s: float
    cost: Cost


@dataclass(frozen=True, kw_only=True)
class Promise:
    """Of a recipe; no trainings where it has none, or none on GPUs: a CPU's speed and memory are not predicted."""

    recipe: str
    parameters: int
    trainings: tuple[Training, ...]
    disk: tuple[Use, ...]
    published: Published | None
    explained: Explained | None
    repeated: Repeated | None
    broken: tuple[Broken, ...]
    warnings: tuple[str, ...]

    @property
    def gpu_hours(self) -> float | None:
        """Of all trainings whose steps are known, failures and restarts counted in; None where there are none."""
        known = [one.held.gpu_hours for one in self.trainings if one.held is not None]
        return sum(known) if known else None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "parameters": self.parameters,
            "trainings": [_training(one) for one in self.trainings],
            "gpu_hours": self.gpu_hours,
            "disk": [dataclasses.asdict(use) for use in self.disk],
            "disk_bytes": disk.total(self.disk),
            "published": self.published and dataclasses.asdict(self.published),
            "explained": self.explained and dataclasses.asdict(self.explained),
            "repeated": self.repeated and dataclasses.asdict(self.repeated),
            "refused": [dataclasses.asdict(one) for one in self.broken],
            "warnings": list(self.warnings),
        }


def promise(recipe: Recipe) -> Promise:
    """Raises `RecipeError` for a GPU that nothing is known of, or a layout that is none, in the recipe's trainings."""
    found = []
    if recipe.cluster.device == "gpu":
        found = [_plan(recipe, stage) for stage in trainings.foretold(recipe)]
    told = recipe.published if "pretrain" in recipe.stages else None
    return Promise(
        recipe=recipe.name,
        parameters=layout(recipe).parameters,
        trainings=tuple(found),
        disk=disk.disk(recipe),
        published=told,
        explained=told and cost.explain(told),
        repeated=_repeated(recipe, told, found),
        broken=tuple(_broken(recipe, found)),
        warnings=tuple(_warnings(recipe, found)),
    )


def refuse(recipe: Recipe, found: Promise) -> None:
    """Raise `PlanRefused` for the first thing that cannot work, with the cheapest change that would make it."""
    if found.broken:
        first = found.broken[0]
        raise PlanRefused(
            first.what, where=recipe.name, why=first.why, do=f"{first.do}; --force starts it all the same"
        )


def params(recipe: Recipe) -> Params:
    """What `speed` counts with on this recipe's cluster: as published, or as the site's own runs were."""
    if recipe.cluster.calibration is None:
        return PARAMS
    from toolkit.plan import calibrate

    return calibrate.params(recipe)


def _plan(recipe: Recipe, stage: str) -> Training:
    own = trainings.of_stage(recipe, stage)
    try:
        asked = setup.of(own)
    except RecipeError as err:
        raise RecipeError(err.what, where=err.where or recipe.name, why=err.why, do=err.do) from None
    site, train = recipe.cluster, own.train
    took = speed.step(asked, params(recipe))
    stages = tuple(memory.per_stage(asked))
    saves = limits.saving(recipe, stage)
    known = trainings.known(train)
    hours = train.steps * took.seconds / 3600 if known else 24.0
    most = train.steps if known else train.save_every
    watts = asked.gpu.tdp_w or None
    spent = held = None
    if known:
        spent = cost.cost(site, hours=hours, gpus=asked.world, watts=watts)
        kept = limits.share(recipe, train, saves, took.seconds)
        held = cost.cost(site, hours=hours / kept, gpus=asked.world, watts=watts) if kept >= _NONE_KEPT else None
    return Training(
        stage=stage,
        setup=asked,
        steps=train.steps if known else None,
        counted=stage == "pretrain" or (recipe.finetune is not None and recipe.finetune.steps is not None),
        stages=stages,
        parameters=tuple(parameters.per_stage(asked)),
        worst=max(stages, key=lambda one: one.gib),
        limit_gib=memory.limit_gib(asked.gpu),
        step=took,
        mfu=_mfu(recipe, asked, took),
        checkpoint_bytes=disk.checkpoints(recipe, stage).checkpoint_bytes,
        saving=saves,
        young_s=goodput.young(saves),
        daly_s=goodput.daly(saves),
        own=goodput.of(
            saves,
            gpus=asked.world,
            interval_s=min(train.save_every, most) * took.seconds,
            hours=hours,
            steps=min(train.save_every, most),
        ),
        best=goodput.best(saves, gpus=asked.world, step_s=took.seconds, most_steps=most, hours=hours),
        sizes=tuple(_at(recipe, stage, gpus, hours) for gpus in goodput.SIZES),
        cost=spent,
        held=held,
    )


def _repeated(recipe: Recipe, told: Published | None, found: list[Training]) -> Repeated | None:
    one = next((one for one in found if one.stage == "pretrain"), None)
    if told is None or one is None:
        return None
    own = dataclasses.replace(
        one.setup,
        fused=told.fused and one.setup.fused,
        distributed_optimizer=told.distributed_optimizer and one.setup.distributed_optimizer,
        overlap_dp=told.distributed_optimizer and one.setup.overlap_dp,
    )
    took = speed.step(own, params(recipe))
    hours = recipe.train.steps * took.seconds / 3600
    fitting = [size for size in told.micro_batches if size * own.dp <= own.global_batch]
    return Repeated(
        limit_gib=one.limit_gib,
        memory={size: memory.worst(dataclasses.replace(own, micro_batch=size)).gib for size in fitting},
        step=took,
        tokens_per_s=own.tokens / took.seconds,
        cost=cost.cost(recipe.cluster, hours=hours, gpus=own.world, watts=told.gpu_w or own.gpu.tdp_w or None),
    )


def _at(recipe: Recipe, stage: str, gpus: int, hours: float) -> Rhythm:
    saves = limits.saving(recipe, stage, gpus=gpus)
    return goodput.of(saves, gpus=gpus, interval_s=goodput.best_interval_s(saves), hours=hours)


def _mfu(recipe: Recipe, asked: Setup, took: StepTime) -> dict[str, float]:
    gpu: Gpu = asked.gpu
    rate = asked.global_batch * asked.seq / took.seconds
    needed = flops.by_convention(shape(recipe), asked.seq, recipe.model.nominal_parameters)
    peak = gpu.bf16_tflops or 0.0
    return {name: flops.mfu(rate, asked.world, peak, each) for name, each in needed.items()} if peak else {}


def _broken(recipe: Recipe, found: list[Training]) -> Iterator[Broken]:
    large = [one for one in found if not one.fits]
    if large:
        from toolkit.plan.search import cheapest_change  # most plans need none

        change = cheapest_change(recipe, params(recipe))
        yield from (_too_much(one, change) for one in large)
    for one in found:
        if late := limits.attempt(recipe, one.stage, one.step.low):
            yield late
    for one in found:
        kept = one.cost.hours / one.held.hours if one.cost is not None and one.held is not None else 0.0
        if one.cost is not None and kept < _LEAST_KEPT:
            better = one.best.goodput.mean >= _LEAST_KEPT
            section = "finetune" if one.stage == "finetune" else "train"
            yield Broken(
                what=f"{one.stage} would get on in {100 * kept:.2g} % of its time",
                why=f"its GPUs fail every {one.saving.mtbf_s:,.0f} s, and it saves every {one.own.interval_s:,.0f} s",
                do=f"{section}.save_every={one.best.steps}" if better else "no rhythm of saves would do",
            )
    known = {one.stage: one.held.gpu_hours for one in found if one.held is not None}
    if over := limits.budget(recipe, sum(known.values()), known.get("pretrain", 0.0)):
        yield over


def _too_much(one: Training, change: str) -> Broken:
    parts = sorted(one.worst.parts.items(), key=lambda part: -part[1])[:3]
    told = ", ".join(f"{name} {gib:.1f}" for name, gib in parts)
    return Broken(
        what=f"{one.stage} takes {one.worst.gib:.1f} GiB on a GPU of pipeline stage {one.worst.pp_rank}, and a "
        f"{one.setup.gpu.title} has {one.limit_gib:.1f} for it",
        why=f"the largest parts are {told} GiB",
        do=f"the cheapest change that fits: {change}" if change else "no layout fits, on however many of these GPUs",
    )


def _warnings(recipe: Recipe, found: list[Training]) -> Iterator[str]:
    site = recipe.cluster
    if recipe.cluster.device == "gpu" and trainings.foretold(recipe) != trainings.stages(recipe):
        yield "finetune.peft: memory and time of adapters are not predicted"
    for one in found:
        train = trainings.settings(recipe, one.stage)
        section = "finetune" if one.stage == "finetune" else "train"
        if one.best.steps and one.own.steps and one.best.goodput.mean - one.own.goodput.mean > 0.01:
            lost = 100 * (one.best.goodput.mean - one.own.goodput.mean)
            yield (
                f"{section}.save_every={train.save_every} loses {lost:.1f} % of the time to failures that "
                f"{section}.save_every={one.best.steps} would not"
            )
        before = site.alive.signal_before_s
        if site.time_limit_min is not None and one.step.high + one.saving.write_s > before:
            yield (
                f"a step and a save take {one.step.high + one.saving.write_s:,.0f} s, more than "
                f"cluster.alive.signal_before_s={before}: what is trained since the last save is lost at the time limit"
            )
    named = recipe.corpus.decontaminate.benchmarks or any(path != "world" for path in recipe.score.paths.values())
    if "corpus" in recipe.stages and recipe.corpus.decontaminate.mode != "off" and not named:
        yield NO_BENCHMARKS
    most, known = site.max_gpu_hours, [one for one in found if one.held is not None]
    high = sum(one.held.gpu_hours * one.step.high / one.step.seconds for one in known if one.held is not None)
    if most is not None and sum(one.held.gpu_hours for one in known if one.held) <= most < high:
        yield f"at its slowest it takes {high:,.0f} GPU-hours, more than cluster.max_gpu_hours={most:,.0f}"


def _training(one: Training) -> dict[str, Any]:
    """Plain values of a training; the setup's own are the recipe's."""
    took, rate = one.step, one.tokens_per_s
    return {
        "stage": one.stage,
        "gpu": dataclasses.asdict(one.setup.gpu),
        "gpus": one.setup.world,
        "steps": one.steps,
        "steps_counted": one.counted,
        "tokens_per_step": one.tokens_per_step,
        "parameters": [{**dataclasses.asdict(part), "total": part.total} for part in one.parameters],
        "memory": {
            "gib": one.worst.gib,
            "pp_rank": one.worst.pp_rank,
            "limit_gib": one.limit_gib,
            "fits": one.fits,
            "parts": dict(one.worst.parts),
            "stages": [{"pp_rank": m.pp_rank, "gib": m.gib, "parts": dict(m.parts)} for m in one.stages],
        },
        "step_s": took.seconds,
        "step_s_low": took.low,
        "step_s_high": took.high,
        "step_parts_s": dict(took.parts),
        "tokens_per_s": rate,
        "tokens_per_s_low": one.tokens_per_step / took.high,
        "tokens_per_s_high": one.tokens_per_step / took.low,
        "tokens_per_s_gpu": rate / one.setup.world,
        "mfu": one.mfu,
        "cost": one.cost and {**dataclasses.asdict(one.cost), "days": one.cost.days},
        "held": one.held and {**dataclasses.asdict(one.held), "days": one.held.days},
        "checkpoint": {
            "bytes": one.checkpoint_bytes,
            **{name: _finite(value) for name, value in dataclasses.asdict(one.saving).items()},
            "young_s": _finite(one.young_s),
            "daly_s": _finite(one.daly_s),
            "own": dataclasses.asdict(one.own),
            "best": dataclasses.asdict(one.best),
            "sizes": [dataclasses.asdict(size) for size in one.sizes],
        },
    }


def _finite(value: float) -> float | None:
    """None for ever: JSON has no infinity."""
    return value if math.isfinite(value) else None
