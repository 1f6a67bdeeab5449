"""What a plan promises, what it refuses, and how it says so: on real recipes, by the verb where users meet it."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from toolkit import cli
from toolkit.errors import PlanRefused, RecipeError
from toolkit.plan import __main__ as verb
from toolkit.plan.promise import Promise, promise, refuse
from toolkit.plan.show_promise import promise_text
from toolkit.recipe import compose, list_recipes
from toolkit.recipe.schema import Recipe

HEAVY = ("torch", "numpy", "nemo", "megatron", "transformers", "pandas", "scipy")


def planned(*overrides: str, name: str = "pretrain_70b") -> tuple[Recipe, Promise]:
    recipe = compose(name, overrides).recipe
    return recipe, promise(recipe)


def told(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = cli.run(verb.main, list(words))
    out, err = capsys.readouterr()
    return code, out, err


def test_the_paper_s_run() -> None:
    """What is predicted of it, each from what stands before it; and beside it what the paper published."""
    recipe, found = planned()
    one = found.trainings[0]
    assert (one.stage, one.steps, one.setup.world, one.tokens_per_step) == ("pretrain", 23_000, 128, 2_097_152)
    assert one.fits and one.worst.gib <= one.limit_gib <= 80 and len(one.stages) == 8
    assert one.tokens_per_s == pytest.approx(2_097_152 / one.step.seconds)
    assert one.step.low < one.step.seconds < one.step.high
    assert one.cost is not None and one.held is not None
    assert one.cost.hours == pytest.approx(23_000 * one.step.seconds / 3600)
    assert one.cost.gpu_hours == pytest.approx(128 * one.cost.hours)
    assert one.cost.kgco2 == pytest.approx(one.cost.gpu_hours * 0.4 * 1.625 * 1.1 * 0.016)
    assert 1 < one.held.hours / one.cost.hours < 1.1
    assert one.mfu["paper"] == pytest.approx(6 * 70e9 * one.tokens_per_s / (128 * 312e12))
    assert found.explained is not None and found.explained.gpu_hours == 42_496
    text = promise_text(recipe, found)
    for said in ("332", "42,496", "486", "40,200", "48.10B", "MEDITRON paper"):
        assert said in text, said


def test_the_paper_s_own_software_is_predicted_too() -> None:
    """At 40,200 tokens/s within 5 %, micro-batch 2 fits and 4 does not: so the paper; and by today's layers 4 would."""
    _, found = planned()
    again = found.repeated
    assert again is not None and set(again.memory) == {2, 4}
    assert again.tokens_per_s == pytest.approx(40_200, rel=0.05)
    assert again.memory[2] <= again.limit_gib < again.memory[4]
    assert again.cost.gpu_hours == pytest.approx(42_496, rel=0.06) and again.cost.kgco2 == pytest.approx(486, rel=0.06)
    assert found.trainings[0].tokens_per_s > again.tokens_per_s
    assert found.trainings[0].worst.gib < again.memory[2]
    # Of another recipe, whatever it repeats, nothing was published.
    assert planned(name="pretrain_7b")[1].repeated is None and planned("stages=[corpus]")[1].published is None


def test_per_rank_parameters_sum_to_the_model() -> None:
    _, found = planned()
    one = found.trainings[0]
    held = sum(8 * stage.sharded + stage.repeated for stage in one.parameters)
    told_of = found.as_dict()["trainings"][0]["parameters"]
    assert [part["total"] for part in told_of] == [part.total for part in one.parameters]
    padding = 2 * (32_768 - 32_017) * 8192
    assert held == found.parameters + padding


@pytest.mark.parametrize("name", [name for name, _ in list_recipes()])
def test_every_recipe_of_ours_is_promised_and_accepted(name: str) -> None:
    recipe, found = planned(name=name)
    refuse(recipe, found)
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert promise_text(recipe, found)
    on_gpus = recipe.cluster.device == "gpu" and {"pretrain", "finetune"} & set(recipe.stages)
    assert bool(found.trainings) == bool(on_gpus)


@pytest.mark.parametrize(
    "words",
    [
        ["train.micro_batch=8"],
        ["parallel.pp=2", "parallel.distributed_optimizer=false"],
        ["parallel.tp=1", "parallel.sequence=false", "cluster.gpu=a100_40gb_sxm"],
    ],
)
def test_what_does_not_fit_is_refused_with_a_change_that_would(words: list[str]) -> None:
    recipe, found = planned(*words)
    with pytest.raises(PlanRefused) as caught:
        refuse(recipe, found)
    said, worst = str(caught.value), found.trainings[0].worst
    assert caught.value.exit_code == 3
    assert f"{worst.gib:.1f} GiB" in said and f"{found.trainings[0].limit_gib:.1f}" in said and "--force" in said
    change = found.broken[0].do.partition("fits: ")[2]
    assert change, said
    recipe, found = planned(*words, *change.split())
    assert found.trainings[0].fits, change


def test_what_an_allocation_does_not_cover_is_refused_with_what_would() -> None:
    recipe, found = planned("cluster.max_gpu_hours=10000", "stages=[pretrain]")
    with pytest.raises(PlanRefused, match=r"GPU-hours are more than cluster.max_gpu_hours=10,000.*train.steps="):
        refuse(recipe, found)
    change = found.broken[0].do.split()[0]
    recipe, found = planned("cluster.max_gpu_hours=10000", "stages=[pretrain]", change, "train.warmup_steps=10")
    refuse(recipe, found)
    assert found.gpu_hours is not None and 9_900 < found.gpu_hours <= 10_000


def test_a_time_limit_that_lets_nothing_through_is_refused() -> None:
    recipe, found = planned("cluster.time_limit_min=12")
    with pytest.raises(PlanRefused, match=r"cluster.time_limit_min=\d+"):
        refuse(recipe, found)


def test_without_failures_there_is_no_infinity_in_json() -> None:
    _, found = planned("cluster.failures_per_gpu_hour=0")
    plain = found.as_dict()
    json.dumps(plain, allow_nan=False)
    assert plain["trainings"][0]["checkpoint"]["mtbf_s"] is None
    assert math.isinf(found.trainings[0].saving.mtbf_s)


@pytest.mark.parametrize(("rate", "do"), [("0.01", "train.save_every="), ("100", "no rhythm of saves would do")])
def test_where_it_fails_faster_than_it_saves_it_is_refused(rate: str, do: str) -> None:
    recipe, found = planned(f"cluster.failures_per_gpu_hour={rate}", "train.save_every=2000", "stages=[pretrain]")
    with pytest.raises(PlanRefused, match=r"would get on in [\d.e-]+ % of its time"):
        refuse(recipe, found)
    assert do in found.broken[0].do
    if do.startswith("train."):
        refuse(*planned(f"cluster.failures_per_gpu_hour={rate}", found.broken[0].do, "stages=[pretrain]"))


def test_a_rhythm_that_loses_is_warned_of() -> None:
    _, found = planned("cluster.failures_per_gpu_hour=0.002")
    assert any("train.save_every=500 loses" in line and "train.save_every=" in line for line in found.warnings)
    assert planned("score.paths.medqa4=medqa.jsonl")[1].warnings == ()


@pytest.mark.parametrize(
    ("more", "warned"),
    [
        ((), True),
        (("score.paths.medqa4=medqa.jsonl",), False),
        (("corpus.decontaminate.benchmarks.medqa=medqa.jsonl",), False),
        (("corpus.decontaminate.mode=off",), False),
        (("stages=[pretrain]",), False),
    ],
)
def test_a_corpus_to_be_kept_clear_of_no_benchmark_is_warned_of(more: tuple[str, ...], warned: bool) -> None:
    assert any("no benchmark is given" in line for line in planned(*more)[1].warnings) is warned


def test_a_price_is_told_in_its_currency() -> None:
    recipe, found = planned("cluster.price_per_gpu_hour=2", "cluster.currency=CHF")
    held = found.trainings[0].held
    assert held is not None and held.money == pytest.approx(2 * held.gpu_hours)
    assert f"{held.money:,.0f} CHF" in promise_text(recipe, found)


def test_a_finetuning_s_steps_come_from_its_benchmark_s_rows() -> None:
    """MedMCQA: 182,822 rows, of which 640 are held out; three epochs of batches of 64."""
    recipe, found = planned(name="finetune_70b")
    one = found.trainings[0]
    assert (one.stage, one.counted) == ("finetune", False)
    assert recipe.finetune is not None and one.steps is not None
    assert 0 <= one.steps - 3 * (182_822 - recipe.finetune.held_out) / 64 < recipe.finetune.steps_multiple + 1
    stated = planned("finetune.steps=123", name="finetune_70b")[1].trainings[0]
    assert (stated.steps, stated.counted) == (123, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["cluster.nodes=0"], "cluster.nodes is 0"),
        (["cluster.devices_per_node=0"], "cluster.devices_per_node is 0"),
        (["cluster.devices_per_node=7"], "does not divide cluster.nodes=16 x cluster.devices_per_node=7 = 112"),
        (
            ["cluster.devices_per_node=7", "cluster.nodes=64"],
            "parallel.tp=8 does not divide cluster.devices_per_node=7",
        ),
        (["train.seq_length=-4096"], "train.seq_length is -4096"),
        (["train.micro_batch=0"], "train.micro_batch is 0"),
        (["cluster.gpu=v100_32gb_sxm"], "has no bf16"),
        (["cluster.gpu=null"], "no GPU type is stated"),
        (["cluster.gpu=r100", "cluster.peak_tflops=5000"], "cluster.gpu_memory_gib"),
        (["cluster.gpu=a100_80gb"], "Did you mean"),
        (["cluster.price_per_gpu_hour=nan"], "must be a finite number"),
        (["--gpus", "0"], "--gpus 0 is no number of GPUs"),
        (["--gpus=-8"], "--gpus -8 is no number of GPUs"),
        (["--gpus", "many"], "--gpus many is no number of GPUs"),
        (["--gpus", "60"], "--gpus 60 are no whole nodes of 8. Give 56 or 64"),
        (["--gpus", "7"], "does not divide"),
        (["--search", "--instantiate"], "exclude each other"),
        (["--search", "--gpus", "0"], "--gpus 0 is no number of GPUs"),
    ],
)
def test_nonsense_is_one_clear_message(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = told(capsys, "recipe=pretrain_70b", *words)
    assert code == 2 and said in err and err.count("\n") == 1 and out == ""


def test_nonsense_is_one_document_too(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = told(capsys, "recipe=pretrain_70b", "cluster.gpu=v100_32gb_sxm", "--json")
    assert code == json.loads(out)["exit_code"] == 2 and "has no bf16" in json.loads(out)["what"] + err


def test_other_gpus_by_number(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = told(capsys, "recipe=pretrain_70b", "--gpus", "256", "--json")
    assert code == 0
    shown: dict[str, Any] = json.loads(out)
    assert shown["layout"]["world"] == 256 and shown["layout"]["nodes"] == 32
    assert shown["promise"]["trainings"][0]["gpus"] == 256


def test_a_gpu_of_which_all_is_stated_is_planned_with() -> None:
    words = ["cluster.gpu=r100", "cluster.peak_tflops=5000", "cluster.gpu_memory_gib=288"]
    words += ["cluster.gpu_memory_gb_s=13000", "cluster.gpu_nvlink_gb_s=3600", "cluster.gpu_tdp_w=1800"]
    recipe, found = planned(*words)
    assert found.trainings[0].step.seconds < planned()[1].trainings[0].step.seconds
    assert "r100" in promise_text(recipe, found)


def test_more_bandwidth_is_never_slower_and_more_memory_never_fits_less() -> None:
    slow, fast = (planned(f"cluster.nic_gbps={rate}")[1].trainings[0] for rate in (100, 400))
    assert fast.step.seconds < slow.step.seconds
    small, large = (planned(f"cluster.gpu_memory_gib={size}")[1].trainings[0] for size in (20, 90))
    assert large.limit_gib > small.limit_gib and not small.fits and large.fits


def test_a_plan_loads_nothing_heavy_and_writes_nothing(tmp_path: Any) -> None:
    code = (
        "import sys; from toolkit import cli; from toolkit.plan.__main__ import main; rc = cli.run(main);"
        f"print(rc, sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    for words in (["--json"], ["--search", "--json"]):
        done = subprocess.run(
            [sys.executable, "-c", code, "recipe=pretrain_70b", *words], capture_output=True, text=True, cwd=tmp_path,
            env={"PATH": "/usr/bin", "PYTHONPATH": str(verb.__file__).rpartition("/toolkit/")[0],
                 "PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
        assert done.stderr == "" and done.stdout.splitlines()[-1] == "0 []"
    assert list(tmp_path.iterdir()) == []


def test_a_search_proposes_what_a_launch_accepts(capsys: pytest.CaptureFixture[str]) -> None:
    """The best, the last and one between of those that fit; and TP = PP = 8 is among the best three of tp and pp."""
    code, out, _ = told(capsys, "recipe=pretrain_70b", "--search", "--json")
    found = json.loads(out)
    assert code == 0 and found["gpus"] == 128 and found["fit"] == len(found["best"]) or found["fit"] > 20
    assert (8, 8) in [(one["tp"], one["pp"]) for one in found["by_tp_and_pp"][:3]]
    for one in (found["best"][0], found["best"][-1], found["by_tp_and_pp"][-1]):
        recipe, there = planned(*one["overrides"])
        refuse(recipe, there)
        assert there.trainings[0].tokens_per_s == pytest.approx(one["tokens_per_s"])
    assert sum(fallen["count"] for fallen in found["fallen"]) + found["fit"] == found["tried"]
    code, out, _ = told(capsys, "recipe=pretrain_70b", "--search")
    assert code == 0 and "why the others fall" in out and "such as parallel." in out


def test_a_search_on_other_gpus(capsys: pytest.CaptureFixture[str]) -> None:
    """64 GPUs, which the recipe's own layout divides, and 40, which it does not."""
    for gpus in ("64", "40"):
        code, out, _ = told(
            capsys, "recipe=pretrain_70b", "train.global_batch=480", "--search", "--gpus", gpus, "--json"
        )
        assert code == 0 and json.loads(out)["gpus"] == int(gpus)


def test_a_picture_of_the_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn = tmp_path / "memory.svg"
    code, out, _ = told(capsys, "recipe=pretrain_70b", "--picture", str(drawn))
    assert code == 0 and "promise of pretraining" in out
    assert ElementTree.parse(drawn).getroot().tag.endswith("svg")
    nowhere = str(tmp_path / "not" / "there" / "memory.svg")
    for words, said in (
        (["recipe=demo", "--picture", str(tmp_path / "other.svg")], "no memory to draw"),
        (["recipe=pretrain_70b", "--picture", str(tmp_path)], "cannot be written"),
        (["recipe=pretrain_70b", "--search", "--picture", nowhere], "--picture goes with the plan of one layout"),
    ):
        code, _, err = told(capsys, *words)
        assert code == 2 and said in err and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == [drawn]


def test_a_cpu_s_speed_is_not_predicted() -> None:
    recipe, found = planned(name="demo")
    assert found.trainings == () and found.gpu_hours is None and found.broken == ()
    assert "predicted of GPUs alone" in promise_text(recipe, found)


def test_an_unknown_gpu_s_error_says_where(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RecipeError, match="no GPU type is stated"):
        planned("cluster.gpu=null")
