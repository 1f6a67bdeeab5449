"""Which layouts of a recipe fit on its GPUs and how fast each would be; and the cheapest way to make one fit that does
not. What is possible at all is the recipe's rules to say; memory and time are `memory`'s and `speed`'s.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from toolkit.errors import RecipeError, UsageError
from toolkit.plan import limits, memory, setup, speed, trainings
from toolkit.plan.calibrated import PARAMS, Params
from toolkit.plan.memory import Memory
from toolkit.plan.setup import Recompute, Setup
from toolkit.plan.speed import StepTime
from toolkit.recipe import layout_rules, rules
from toolkit.recipe.schema import Parallel, Recipe

RECOMPUTE: tuple[Recompute, ...] = ("none", "selective", "full")
CONTEXT = (1, 2, 4, 8, 16)
MOST_MICRO_BATCH = 16
_TIMES = (2, 4, 8, 16, 32, 64)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A layout that fits. `overrides` are the words that make the recipe so; `tokens_per_s` is of all GPUs."""

    setup: Setup
    step: StepTime
    memory: Memory
    overrides: tuple[str, ...]

    @property
    def tokens_per_s(self) -> float:
        return self.setup.tokens / self.step.seconds


@dataclass(frozen=True, kw_only=True)
class Fallen:
    """Layouts that fell for one reason: how many, the reason in the words of the first of them, and which that is."""

    why: str
    count: int
    example: str


@dataclass(frozen=True, kw_only=True)
class Found:
    """`ranked` fastest first; `fallen` by how many fell."""

    gpus: int
    tried: int
    ranked: tuple[Candidate, ...]
    fallen: tuple[Fallen, ...]

    def layouts(self) -> tuple[Candidate, ...]:
        """The best candidate of each (tp, pp), fastest first."""
        best: dict[tuple[int, int], Candidate] = {}
        for one in self.ranked:
            best.setdefault((one.setup.tp, one.setup.pp), one)
        return tuple(best.values())

    def as_dict(self, most: int = 20) -> dict[str, Any]:
        """Plain values: the best `most` layouts, and why the others fell."""
        rows = [
            {
                "overrides": list(one.overrides),
                "step_s": one.step.seconds,
                "low_s": one.step.low,
                "high_s": one.step.high,
                "tokens_per_s": one.tokens_per_s,
                "memory_gib": one.memory.gib,
            }
            for one in self.ranked[:most]
        ]
        fallen = [{"why": one.why, "count": one.count, "example": one.example} for one in self.fallen]
        return {"gpus": self.gpus, "tried": self.tried, "fit": len(self.ranked), "best": rows, "fallen": fallen}


def search(recipe: Recipe, gpus: int | None = None, params: Params = PARAMS) -> Found:
    """Try every (tp, pp, vp, cp, micro batch, recomputation) on the recipe's GPUs, or on `gpus` of them in whole nodes.

    tp stays within a node, where NVLink is. What is ranked has passed the recipe's own rules and fits in memory, all
    trainings of the recipe in turn; the time is the first one's. Raises `UsageError` where so many GPUs are no whole
    nodes or nothing is trained, `RecipeError` where the recipe itself is for no GPU.
    """
    base = _on(recipe, gpus)
    cases = _cases(base)
    if not cases:
        raise UsageError(f"recipe {recipe.name} trains no model whose memory is foretold", do="search another recipe")
    (stage, first), rest = cases[0], cases[1:]
    fallen: dict[str, Fallen] = {}
    ranked: list[Candidate] = []
    tried = 0
    sound = False  # whether all has been found well that is no matter of the layout

    def fell(why: str, one: Recipe, how: Recompute, count: int = 1) -> None:
        nonlocal tried
        tried += count
        kind = re.sub(r"\d+(\.\d+)?", "N", why)
        if kind in fallen:
            fallen[kind] = replace(fallen[kind], count=fallen[kind].count + count)
        else:
            fallen[kind] = Fallen(why=why, count=count, example=" ".join(_words(one, how, recipe, stage, gpus)))

    for par, dp in _parallels(base):
        beside: dict[Recompute, tuple[str, float]] = {}
        for size in _sizes(first.train.global_batch, dp):
            one = _with(base, par, stage, size)
            if why := _refusal(one, layout_rules.check_layout if sound else rules.check):
                fell(why, one, "none", len(RECOMPUTE))
                continue
            sound = True
            own = replace(first, parallel=par, train=replace(first.train, micro_batch=size))
            least = setup.of(replace(own, parallel=replace(par, recompute="full")))
            limit = memory.limit_gib(least.gpu)
            if why := _too_much(stage, memory.worst(least), limit):
                fell(why, one, "full", len(RECOMPUTE))
                continue
            for how in RECOMPUTE:
                here = replace(least, recompute=how)
                need = memory.worst(here)
                if why := _too_much(stage, need, limit):
                    fell(why, one, how)
                    continue
                if how not in beside:
                    beside[how] = _beside(_recomputing(one, how), rest, limit, params)
                took = speed.step(here, params)
                why, hours = _takes(one, stage, own, took)
                if why := beside[how][0] or why or _over_budget(one, stage, hours, beside[how][1]):
                    fell(why, one, how)
                    continue
                tried += 1
                words = _words(one, how, recipe, stage, gpus)
                ranked.append(Candidate(setup=here, step=took, memory=need, overrides=words))
    ranked.sort(key=lambda one: (one.step.seconds, one.memory.gib, one.overrides))
    told = sorted(fallen.values(), key=lambda one: (-one.count, one.why))
    world = base.cluster.nodes * base.cluster.devices_per_node
    return Found(gpus=world, tried=tried, ranked=tuple(ranked), fallen=tuple(told))


def cheapest_change(recipe: Recipe, params: Params = PARAMS) -> str:
    """What to change so that all trainings of a recipe fit, in its own words, or '' where they do or nothing helps.

    A single change where one is enough, else two, on the same GPUs; of those the one with the fastest step. Else the
    fewest nodes that have a layout, of 2, 4, 8 ... 64 times as many.
    """
    if _fits(recipe):
        return ""
    single = [(words, changed) for words, changed in _changes(recipe) if not _refusal(changed)]
    pairs = (
        (f"{words} {more}", both)
        for words, changed in single
        for more, both in _changes(changed)
        if more.partition("=")[0] not in words and not _refusal(both)
    )
    for options in (single, pairs):
        fitting = [(_step_s(changed, params), words) for words, changed in options if _fits(changed)]
        if fitting:
            return min(fitting)[1]
    gpus = recipe.cluster.nodes * recipe.cluster.devices_per_node
    for times in _TIMES:
        found = search(recipe, gpus=times * gpus, params=params)
        if found.ranked:
            return " ".join(found.ranked[0].overrides)
    return ""


def _cases(recipe: Recipe) -> list[tuple[str, Recipe]]:
    """The trainings in their order, each with the recipe as it is for it; adapters alone are not foretold."""
    return [(stage, trainings.of_stage(recipe, stage)) for stage in trainings.foretold(recipe)]


def _fits(recipe: Recipe) -> bool:
    return all(memory.fits(setup.of(own)) for _, own in _cases(recipe))


def _step_s(recipe: Recipe, params: Params) -> float:
    return speed.step(setup.of(_cases(recipe)[0][1]), params).seconds


def _refusal(recipe: Recipe, check: Callable[[Recipe], None] = rules.check) -> str:
    try:
        check(recipe)
    except RecipeError as err:
        return err.what
    return ""


def _too_much(stage: str, need: Memory, limit: float) -> str:
    return f"{stage} needs {need.gib:.1f} GiB and a GPU has {limit:.1f} for it" if need.gib > limit else ""


def _beside(recipe: Recipe, cases: Sequence[tuple[str, Recipe]], limit: float, params: Params) -> tuple[str, float]:
    """Of the trainings after the first: why one of them cannot be, or '', and their GPU-hours."""
    total = 0.0
    for stage, own in cases:
        asked = setup.of(replace(own, parallel=recipe.parallel))
        why = _too_much(stage, memory.worst(asked), limit)
        if not why:
            why, hours = _takes(recipe, stage, own, speed.step(asked, params))
            total += hours
        if why:
            return why, 0.0
    return "", total


def _takes(recipe: Recipe, stage: str, own: Recipe, took: StepTime) -> tuple[str, float]:
    """Which of the site's limits one training breaks with such steps, or '', in the words that launch has for it; and
    its GPU-hours with saves and failures, counted where the site has a budget of them.
    """
    site, train = recipe.cluster, own.train
    if site.time_limit_min is not None and (late := limits.attempt(recipe, stage, took.low)):
        return late.what, 0.0
    if site.max_gpu_hours is None or not trainings.known(train):
        return "", 0.0
    kept = limits.share(recipe, train, limits.saving(recipe, stage), took.seconds)
    if kept <= 0:
        return f"{stage} would hardly ever come to a save", 0.0
    return "", train.steps * took.seconds / 3600 / kept * site.nodes * site.devices_per_node


def _over_budget(recipe: Recipe, stage: str, hours: float, beside: float) -> str:
    over = limits.budget(recipe, hours + beside, hours if stage == "pretrain" else 0.0)
    return over.what if over else ""


def _sizes(global_batch: int, dp: int) -> list[int]:
    """Micro batches that divide what a data rank gets; 1 where nothing does, for the rules to say so."""
    each = global_batch // dp if global_batch % dp == 0 else 1
    return [n for n in range(1, MOST_MICRO_BATCH + 1) if each % n == 0]


def _with(recipe: Recipe, par: Parallel, stage: str, micro_batch: int) -> Recipe:
    changed = replace(recipe, parallel=par)
    if stage == "finetune" and recipe.finetune is not None:
        return replace(changed, finetune=replace(recipe.finetune, micro_batch=micro_batch))
    return replace(changed, train=replace(recipe.train, micro_batch=micro_batch))


def _recomputing(recipe: Recipe, how: Recompute) -> Recipe:
    return replace(recipe, parallel=replace(recipe.parallel, recompute=how))


def _on(recipe: Recipe, gpus: int | None) -> Recipe:
    if gpus is None:
        return recipe
    each = recipe.cluster.devices_per_node
    if gpus < 1:
        raise UsageError(f"--gpus {gpus} are no GPUs", do="give 1 or more")
    if gpus < each:
        return replace(recipe, cluster=replace(recipe.cluster, nodes=1, devices_per_node=gpus))
    if gpus % each:
        raise UsageError(
            f"--gpus {gpus} are no whole nodes of cluster.devices_per_node={each}",
            do=f"nearest: {gpus // each * each} or {(gpus // each + 1) * each}",
        )
    return replace(recipe, cluster=replace(recipe.cluster, nodes=gpus // each))


def _parallels(recipe: Recipe) -> Iterator[tuple[Parallel, int]]:
    """Sizes that divide the GPUs and the layers, and the dp that is left."""
    layers, stated, per_node = recipe.model.layers, recipe.parallel, recipe.cluster.devices_per_node
    world = recipe.cluster.nodes * per_node
    for tp in _divisors(per_node):
        # Where a recipe has tensor ranks and does not split the sequence among them, it has its reason.
        along = tp > 1 and (stated.sequence or stated.tp == 1)
        for cp in (n for n in CONTEXT if world // tp % n == 0):
            for pp in _divisors(layers):
                if world % (tp * cp * pp):
                    continue
                for vp in [None, *(n for n in _divisors(layers // pp) if n > 1 and pp > 1)]:
                    sizes = replace(stated, tp=tp, pp=pp, cp=cp, vp=vp, sequence=along)
                    yield replace(sizes, tp_overlap=stated.tp_overlap and along), world // (tp * cp * pp)


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]


def _words(one: Recipe, how: Recompute, recipe: Recipe, stage: str, gpus: int | None) -> tuple[str, ...]:
    """What makes `recipe` into `one` with that recomputation, the searched sizes always among it."""
    par, section = one.parallel, "finetune" if stage == "finetune" else "train"
    asked = one.finetune if stage == "finetune" and one.finetune is not None else one.train
    words = [
        f"parallel.tp={par.tp}",
        f"parallel.pp={par.pp}",
        f"parallel.vp={'null' if par.vp is None else par.vp}",
        f"parallel.cp={par.cp}",
        f"parallel.recompute={how}",
        f"{section}.micro_batch={asked.micro_batch}",
    ]
    for name in ("sequence", "tp_overlap"):
        if getattr(par, name) != getattr(recipe.parallel, name):
            words.append(f"parallel.{name}={str(getattr(par, name)).lower()}")
    if gpus is not None:
        words += [f"cluster.{key}={getattr(one.cluster, key)}" for key in ("nodes", "devices_per_node")
                  if getattr(one.cluster, key) != getattr(recipe.cluster, key)]  # fmt: skip
    return tuple(words)


def _changes(recipe: Recipe) -> Iterator[tuple[str, Recipe]]:
    """Each smaller by one value; dp takes up what tensor and pipeline ranks leave."""
    par, train, asked = recipe.parallel, recipe.train, recipe.finetune

    def parallel(**values: Any) -> tuple[str, Recipe]:
        words = " ".join(f"parallel.{name}={_word(value)}" for name, value in values.items())
        return words, replace(recipe, parallel=replace(par, **values))

    if train.attention == "unfused" or (train.layers == "local" and train.attention == "auto"):
        yield "train.attention=flash", replace(recipe, train=replace(train, attention="flash"))
    if not par.distributed_optimizer:
        yield parallel(distributed_optimizer=True)
    if par.tp > 1 and not par.sequence:
        yield parallel(sequence=True)
    for how in RECOMPUTE[RECOMPUTE.index(par.recompute) + 1 :]:
        yield parallel(recompute=how)
    stages = [stage for stage, _ in _cases(recipe)]
    if "finetune" in stages and asked is not None:
        for size in range(asked.micro_batch - 1, 0, -1):
            yield f"finetune.micro_batch={size}", replace(recipe, finetune=replace(asked, micro_batch=size))
    if "pretrain" in stages:
        for size in range(train.micro_batch - 1, 0, -1):
            yield f"train.micro_batch={size}", replace(recipe, train=replace(train, micro_batch=size))
    if par.vp is not None:
        yield parallel(vp=None)
    for tp in _divisors(recipe.cluster.devices_per_node):
        if tp > par.tp:
            yield parallel(tp=tp) if par.sequence or par.tp > 1 else parallel(tp=tp, sequence=True)
    for pp in _divisors(recipe.model.layers):
        if pp > par.pp:
            yield parallel(pp=pp)


def _word(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
