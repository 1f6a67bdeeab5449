"""Layouts that a search proposes, those it drops, and changes that make a recipe fit: nothing that launch refuses."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from toolkit import hardware
from toolkit.errors import RecipeError, UsageError
from toolkit.plan import limits, memory, search, setup, speed, trainings
from toolkit.plan.promise import promise
from toolkit.plan.search import Found
from toolkit.recipe import Recipe, compose, rules

GPUS = ["a100_40gb_sxm", "a100_80gb_sxm", "h100_80gb_sxm", "h200_141gb_sxm"]


@pytest.fixture(scope="module")
def base() -> Recipe:
    return compose("pretrain_70b").recipe


@pytest.fixture(scope="module")
def found(base: Recipe) -> Found:
    return search.search(base)


def test_the_papers_question(found: Found) -> None:
    """16 nodes x 8 A100 with one 200 Gb NIC each: TP=8 PP=8 is among the best three layouts."""
    best = [(one.setup.tp, one.setup.pp) for one in found.layouts()[:3]]
    print(best)
    assert (8, 8) in best
    assert found.gpus == 128 and all(one.setup.world == 128 for one in found.ranked)
    assert found.tried == len(found.ranked) + sum(fallen.count for fallen in found.fallen)
    assert len(found.ranked) > 100


def test_fastest_first_and_each_as_told(found: Found) -> None:
    times = [one.step.seconds for one in found.ranked]
    assert times == sorted(times)
    assert len({one.overrides for one in found.ranked}) == len(found.ranked)
    for one in found.ranked[:: len(found.ranked) // 5]:
        own = compose("pretrain_70b", list(one.overrides)).recipe
        assert setup.of(own) == one.setup
        assert memory.worst(one.setup) == one.memory and speed.step(one.setup) == one.step
        assert one.tokens_per_s == pytest.approx(512 * 4096 / one.step.seconds)
    told = found.as_dict(3)
    assert [row["overrides"] for row in told["best"]] == [list(one.overrides) for one in found.ranked[:3]]
    assert told["tried"] == found.tried and told["fit"] == len(found.ranked)


def test_every_size_is_tried() -> None:
    found = search.search(compose("pretrain_70b", ["stages=[pretrain]", "~finetune"]).recipe)
    for name, least in (("tp", 3), ("pp", 3), ("vp", 3), ("cp", 2), ("micro_batch", 3), ("recompute", 3)):
        assert len({getattr(one.setup, name) for one in found.ranked}) >= least, name
    assert all(8 % one.setup.tp == 0 for one in found.ranked), "within a node"
    # Of layouts that need the same memory and time, as cp=2 with a micro batch of 2 would, none hides another.
    assert len({one.overrides for one in found.ranked}) == len(found.ranked) > 500


def test_why_the_others_fall(base: Recipe, found: Found) -> None:
    """Each example falls for the reason that it is told with."""
    counts = [fallen.count for fallen in found.fallen]
    assert counts == sorted(counts, reverse=True) and len(counts) >= 2
    for fallen in found.fallen:
        try:
            own = compose("pretrain_70b", fallen.example.split()).recipe
        except RecipeError as err:
            assert err.what == fallen.why
            continue
        stage, _, gib = fallen.why.partition(" needs ")
        need = memory.worst(setup.of(trainings.of_stage(own, stage)))
        assert gib.startswith(f"{need.gib:.1f} GiB"), fallen
        assert need.gib > memory.limit_gib(A100)
    assert any(" needs " in fallen.why for fallen in found.fallen)


A100 = hardware.GPUS["a100_80gb_sxm"]


@given(
    recipe=st.sampled_from(["pretrain_7b", "pretrain_70b", "pretrain_8b", "pretrain_llama3_70b", "finetune_70b"]),
    gpu=st.sampled_from(GPUS),
    nodes=st.sampled_from([1, 2, 3, 8]),
    per_node=st.sampled_from([4, 8]),
    batch=st.sampled_from([24, 128, 512]),
    limit=st.sampled_from([None, 60, 1440]),
    budget=st.sampled_from([None, 1e5]),
    pick=st.floats(0, 1),
)
@settings(max_examples=10, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
def test_never_what_launch_refuses(
    recipe: str, gpu: str, nodes: int, per_node: int, batch: int, limit: int | None, budget: float | None, pick: float
) -> None:
    plain = compose(recipe).recipe
    site = replace(plain.cluster, gpu=gpu, devices_per_node=per_node, nics=8, time_limit_min=limit)
    asked = replace(
        plain, cluster=replace(site, max_gpu_hours=budget), train=replace(plain.train, global_batch=batch)
    )  # fmt: skip
    layouts = search.search(asked, gpus=nodes * per_node)
    assert layouts.gpus == nodes * per_node
    if not layouts.ranked:
        assert layouts.fallen
        return
    for place in {0, int(pick * (len(layouts.ranked) - 1)), len(layouts.ranked) - 1}:
        own = _made(asked, layouts.ranked[place].overrides)
        rules.check(own)
        assert promise(own).broken == ()
        assert all(memory.fits(setup.of(trainings.of_stage(own, stage))) for stage in trainings.stages(own))


def _made(recipe: Recipe, words: tuple[str, ...]) -> Recipe:
    """`recipe` with the words as overrides, without a file behind it."""
    for word in words:
        key, _, text = word.partition("=")
        section, name = key.split(".")
        value = {"null": None, "true": True, "false": False}.get(text, text)
        part = replace(getattr(recipe, section), **{name: int(text) if text.isdigit() else value})
        recipe = replace(recipe, **{section: part})
    return recipe


@pytest.mark.parametrize(
    ("recipe", "overrides", "size"),
    [
        ("pretrain_70b", ["train.micro_batch=8"], 1),
        ("pretrain_70b", ["train.micro_batch=4", "train.layers=local"], 1),
        ("pretrain_70b", ["parallel.pp=1", "train.micro_batch=1"], 1),
        ("pretrain_70b", ["cluster.gpu=a100_40gb_sxm"], 1),
        ("pretrain_70b", ["cluster.gpu=a100_40gb_sxm", "train.micro_batch=4"], 2),
        ("pretrain_7b", ["train.micro_batch=100"], 1),
        ("finetune_70b", ["finetune.micro_batch=16"], 1),
    ],
)
def test_the_cheapest_change_fits(recipe: str, overrides: list[str], size: int) -> None:
    asked = compose(recipe, overrides).recipe
    assert not _fits(asked)
    words = search.cheapest_change(asked).split()
    assert 1 <= len(words) <= size
    changed = compose(recipe, [*overrides, *words]).recipe
    assert _fits(changed)
    if len(words) == 2:
        assert not any(_fits(_made(asked, (word,))) for word in words), "one would do"


def _fits(recipe: Recipe) -> bool:
    return all(memory.fits(setup.of(trainings.of_stage(recipe, stage))) for stage in trainings.stages(recipe))


def test_a_change_is_the_fastest_that_fits_and_none_where_none_is_needed(base: Recipe) -> None:
    assert search.cheapest_change(base) == ""
    asked = compose("pretrain_70b", ["train.micro_batch=8"]).recipe
    chosen = setup.of(_made(asked, tuple(search.cheapest_change(asked).split())))
    for words in ("train.micro_batch=2", "train.micro_batch=1", "parallel.recompute=full", "parallel.pp=16"):
        other = setup.of(_made(asked, (words,)))
        if memory.fits(other):
            assert speed.step(chosen).seconds <= speed.step(other).seconds


def test_too_few_gpus_are_told_how_many_more() -> None:
    asked = compose("pretrain_70b", ["cluster.nodes=1", "parallel.pp=1"]).recipe
    words = search.cheapest_change(asked).split()
    nodes = next(int(word.partition("=")[2]) for word in words if word.startswith("cluster.nodes="))
    assert nodes > 1 and math.log2(nodes) % 1 == 0
    changed = _made(asked, tuple(words))
    rules.check(changed)
    assert _fits(changed)
    assert limits.attempt(changed, "pretrain", speed.step(setup.of(changed)).low) is None


@pytest.mark.parametrize(
    ("gpus", "told"),
    [(0, "--gpus 0 are no GPUs"), (-8, "--gpus -8 are no GPUs"), (100, "no whole nodes of cluster.devices_per_node=8")],
)
def test_no_gpus_and_parts_of_nodes(base: Recipe, gpus: int, told: str) -> None:
    with pytest.raises(UsageError, match=told) as caught:
        search.search(base, gpus=gpus)
    if gpus == 100:
        assert caught.value.do == "nearest: 96 or 104"


def test_fewer_gpus_than_a_node_has() -> None:
    few = search.search(compose("pretrain_7b").recipe, gpus=4)
    assert few.gpus == 4 and few.ranked
    assert {"cluster.nodes=1", "cluster.devices_per_node=4"} <= set(few.ranked[0].overrides)
    assert search.search(compose("pretrain_70b").recipe, gpus=1).ranked == ()


def test_recipes_that_have_nothing_to_search() -> None:
    with pytest.raises(UsageError, match="recipe score trains no model"):
        search.search(compose("score").recipe)
    with pytest.raises(RecipeError, match="cpu"):
        search.search(compose("demo").recipe)


def test_seven_gpus_a_node(base: Recipe) -> None:
    """Tensor ranks stay within a node, so there is one of each; 80 layers divide into no such pipeline."""
    odd = replace(base, cluster=replace(base.cluster, devices_per_node=7))
    layouts = search.search(odd, gpus=14)
    assert layouts.ranked == () and layouts.fallen
