"""Days, GPU-hours, energy, carbon and money; the paper's own run by its own numbers; disk and the site's limits."""

from __future__ import annotations

import dataclasses

import pytest

from toolkit.errors import RecipeError
from toolkit.plan import cost, disk, limits
from toolkit.plan.layout import layout, shape
from toolkit.recipe import compose, list_recipes
from toolkit.recipe.schema import Cluster, Published, Recipe


def recipe(*overrides: str, name: str = "pretrain_70b") -> Recipe:
    return compose(name, overrides).recipe


def test_the_paper_s_own_run_by_its_own_numbers() -> None:
    """48.1e9 tokens at 40,200 a second: 332 h, 42,496 GPU-hours, 486 kgCO2 (arXiv 2311.16079, appendix A)."""
    told = recipe().published
    assert told is not None and (told.gpus, told.tokens_per_s) == (128, 40_200)
    found = cost.explain(told)
    assert found.hours == pytest.approx(48.1e9 / 40_200 / 3600)
    assert (found.whole_hours, found.gpu_hours) == (332, 42_496)
    assert found.kgco2 is not None and round(found.kgco2) == 486
    assert found.device_kwh == pytest.approx(0.4 * 42_496)
    # What was published agrees with what follows from it.
    assert (told.hours, told.gpu_hours, told.kgco2) == (332, 42_496, 486)


def test_what_was_not_published_is_not_made_up() -> None:
    bare = cost.explain(Published(source="x", gpus=8))
    assert set(dataclasses.asdict(bare).values()) == {None}
    assert cost.explain(Published(source="x", gpus=8, hours=10.7)).gpu_hours == 80


def test_the_site_s_factors() -> None:
    site = recipe("cluster.price_per_gpu_hour=1.5").cluster
    found = cost.cost(site, hours=332, gpus=128, watts=400)
    assert found.gpu_hours == 42_496 and found.days == pytest.approx(332 / 24)
    assert found.kgco2 == pytest.approx(486.15, abs=0.01) and found.money == pytest.approx(1.5 * 42_496)
    bare = cost.cost(Cluster(name="x"), hours=10, gpus=8, watts=None)
    assert (bare.kwh, bare.kgco2, bare.money, bare.gpu_hours) == (None, None, None, 80)
    clean = cost.cost(Cluster(name="x"), hours=10, gpus=8, watts=500)
    assert clean.kwh == clean.device_kwh == 40 and clean.kgco2 is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["cluster.price_per_gpu_hour=nan"], "must be a finite number"),
        (["cluster.price_per_gpu_hour=-1"], "cluster.price_per_gpu_hour=-1.0 must be at least 0"),
        (["cluster.price_per_gpu_hour=inf"], "must be a finite number"),
        (["cluster.price_per_gpu_hour=cheap"], "must be a number"),
        (["cluster.max_gpu_hours=0"], "cluster.max_gpu_hours=0.0 must be above 0"),
        (["cluster.disk_gb_s=0"], "cluster.disk_gb_s=0.0 must be above 0"),
        (["cluster.restart_min=-1"], "cluster.restart_min=-1.0 must be at least 0"),
        (["cluster.ask_gpu_hours=-5"], "cluster.ask_gpu_hours=-5.0 must be at least 0"),
        (["cluster.failures_per_gpu_hour=-1"], "must be at least 0"),
        (["cluster.gpu_memory_gib=0"], "cluster.gpu_memory_gib=0.0 must be above 0"),
        (["cluster.currency='Swiss francs'"], "is no currency"),
        (["cluster.currency=''"], "is no currency"),
        (["published.gpus=0"], "published.gpus=0 must be above 0"),
        (["published.pue=0.5"], "published.pue=0.5 must be at least 1"),
        (["published.tokens_per_s=nan"], "must be a finite number"),
    ],
)
def test_nonsense_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe(*words)
    assert said in str(caught.value) and caught.value.exit_code == 2


def test_disk_of_the_paper_s_run() -> None:
    found = {use.id: use for use in disk.disk(recipe())}
    assert list(found) == [
        *("corpus", "shards", "import", "pretrain", "export-pretrain", "finetune", "export-finetune", "score"),
        "report",
    ]
    # 14 bytes a parameter, padding rows included; two are kept while the next is written and one is on its way.
    padded = dataclasses.replace(shape(recipe()), vocab=32_768).parameters
    assert found["pretrain"].bytes == pytest.approx(4 * 14 * padded, rel=0.011) and found["pretrain"].exact
    assert found["export-pretrain"].bytes == 2 * layout(recipe()).parameters
    # Two bytes a token, as Megatron stores ids below 65,500.
    assert found["shards"].bytes == pytest.approx(2 * 48.23e9, rel=0.01) and not found["shards"].exact
    assert disk.total(disk.disk(recipe())) == sum(use.bytes for use in found.values())


def test_checkpoints_kept_for_ever_are_counted() -> None:
    kept = next(use for use in disk.disk(recipe("train.keep_every=1000")) if use.id == "pretrain")
    assert kept.grows_to is not None and kept.grows_to - kept.bytes == 23 * kept.bytes // 4
    assert "23 more kept for ever" in kept.what
    assert disk.total(disk.disk(recipe("train.keep_every=1000"))) - disk.total(disk.disk(recipe())) == (
        kept.grows_to - kept.bytes
    )


def test_every_recipe_has_a_disk() -> None:
    for name, _ in list_recipes():
        uses = disk.disk(recipe(name=name))
        assert uses and all(use.bytes > 0 and use.what for use in uses)


def test_ids_of_a_large_vocabulary_take_four_bytes() -> None:
    small = {use.id: use.bytes for use in disk.disk(recipe())}
    large = {use.id: use.bytes for use in disk.disk(recipe("model.base_vocab=128000"))}
    assert 1.9 < large["shards"] / small["shards"] < 2


def test_what_a_save_takes() -> None:
    """975 GB in the background of 128 GPUs: written at the site's rate, while the training waits for the copies."""
    saves = limits.saving(recipe("cluster.disk_gb_s=20"), "pretrain")
    assert saves.write_s == pytest.approx(975.5 / 20, rel=0.001)
    assert saves.restart_s == pytest.approx(600 + saves.write_s)
    assert 0.1 <= saves.stall_s <= 5
    front = limits.saving(recipe("cluster.disk_gb_s=20", "train.async_save=false"), "pretrain")
    assert front.stall_s == front.write_s == saves.write_s
    # Without a stated rate that of Llama 3's storage, for each node.
    assert limits.saving(recipe(), "pretrain").write_s == pytest.approx(975.5 / (16 * 2000 / 2048), rel=0.001)
    assert limits.saving(recipe(), "pretrain", gpus=1024).write_s == pytest.approx(
        limits.saving(recipe(), "pretrain").write_s / 8
    )


@pytest.mark.parametrize(
    ("words", "said", "do"),
    [
        ([], None, None),
        # Nothing fits between a start and the end: not even a step.
        (
            ["cluster.time_limit_min=12", "cluster.restart_min=12"],
            "a start, one step and a save take",
            "time_limit_min",
        ),
        # Its saves are too far apart for the limit, and it is asked to save too late for a checkpoint to be written.
        (
            ["cluster.time_limit_min=120", "cluster.alive.signal_before_s=60"],
            "train.save_every=500 takes",
            "train.save_every=",
        ),
        # A slower disk than the warning is long; but the saves on the way come in time.
        (["cluster.disk_gb_s=1", "train.save_every=100"], None, None),
        (["cluster.disk_gb_s=1", "train.save_every=2000"], "train.save_every=2000 takes", "train.save_every="),
        (["cluster.time_limit_min=null"], None, None),
    ],
)
def test_what_an_attempt_must_hold(words: list[str], said: str | None, do: str | None) -> None:
    asked = recipe(*words)
    broken = limits.attempt(asked, "pretrain", 52.0)
    if said is None:
        assert broken is None
        return
    assert broken is not None and said in broken.what and do is not None and do in broken.do
    # What is proposed is accepted, and is the largest of its kind.
    change = broken.do.split(", or ")[0]
    assert limits.attempt(recipe(*words, change), "pretrain", 52.0) is None
    key, _, value = change.partition("=")
    further = int(value) + (1 if key == "train.save_every" else -1)
    assert limits.attempt(recipe(*words, f"{key}={further}"), "pretrain", 52.0) is not None


def test_a_budget_is_kept_by_fewer_steps() -> None:
    asked = recipe("cluster.max_gpu_hours=20000")
    broken = limits.budget(asked, 43_000.0, 43_000.0)
    assert broken is not None and "43,000 GPU-hours are more than cluster.max_gpu_hours=20,000" in broken.what
    assert broken.do == f"train.steps={23_000 * 20_000 // 43_000} would fit"
    assert limits.budget(asked, 20_000.0, 20_000.0) is None and limits.budget(recipe(), 1e9, 1e9) is None
    other = limits.budget(asked, 43_000.0, 10_000.0)  # what is left out of the training would not do
    assert other is not None and "train.steps" not in other.do
