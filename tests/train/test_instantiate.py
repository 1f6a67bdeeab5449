"""The real layouts without their GPUs: what NeMo builds for every rank, and that each value of a recipe reaches it."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.train.forks import Forks
from toolkit.errors import PlanRefused
from toolkit.models import Shape
from toolkit.plan import __main__ as verb
from toolkit.plan import memory, parameters, setup
from toolkit.plan.proof import differences, proof_text, without_padding
from toolkit.recipe import compose
from toolkit.recipe.compose import recipes_dir
from toolkit.recipe.layout_rules import TRAINING_STAGES
from toolkit.recipe.schema import Data, Model, Parallel, Train

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent

# Parameters at the rows that the published checkpoints have, and with the padding of their layouts.
SIZES = {
    "pretrain_7b": (32_000, 6_738_415_616, 6_740_512_768),  # 32,256 rows
    "pretrain_70b": (32_000, 68_976_648_192, 68_989_231_104),  # 32,768 rows
    "pretrain_8b": (128_256, 8_030_261_248, 8_030_261_248),
    "pretrain_llama3_70b": (128_256, 70_553_706_496, 70_566_289_408),  # 129,024 rows
}
PLAIN = ["model.extra_tokens=none"]
VARIANTS = {
    "70B, five chunks a stage": ("pretrain_70b", ["parallel.vp=5"]),
    "70B, context parallel": ("pretrain_70b", ["parallel.cp=2", "finetune.pack=false"]),
    "70B, each optimizer whole": ("pretrain_70b", ["parallel.distributed_optimizer=false"]),
    "7B, on one tensor rank": (
        "pretrain_7b",
        ["parallel.tp=1", "parallel.sequence=false", "train.micro_batch=5", "cluster.nodes=1"],
    ),
}

# Every section.value that NeMo is to see: the override that changes it, and where that must show, as what. "a b": the
# first override belongs to the base that is compared with, too.
SMALL = ["model.layers=16", "~finetune", "stages=[pretrain]"]
REACHES: dict[str, tuple[str, dict[str, Any]]] = {
    "model.name": ("model.name=llama2_7b", {"model.class": "Llama2Config7B"}),
    "model.family": ("model.extra_tokens=none model.name=other model.family=llama3", {"model.class": "Llama3Config"}),
    "model.layers": ("model.layers=32", {"model.num_layers": 32, "rank.layers": [[0, 1, 2, 3]]}),
    "model.hidden": ("model.hidden=4096", {"model.hidden_size": 4096, "model.kv_channels": 64}),
    "model.ffn": ("model.ffn=14336", {"model.ffn_hidden_size": 14336}),
    "model.heads": ("model.heads=32", {"model.num_attention_heads": 32, "model.kv_channels": 256}),
    "model.kv_heads": ("model.kv_heads=16", {"model.num_query_groups": 16}),
    "model.base_vocab": ("model.base_vocab=64017", {"model.vocab_size": 64512, "model.vocab_rows": 64512}),
    "model.extra_tokens": ("model.base_vocab=32760 model.extra_tokens=none", {"model.vocab_rows": 32768}),
    "model.rope_base": ("model.rope_base=500000", {"model.rotary_base": 500000.0}),
    "model.norm_eps": ("model.norm_eps=1e-6", {"model.layernorm_epsilon": 1e-6, "model.norm_eps": 1e-6}),
    "parallel.tp": (
        "parallel.tp=4",
        {"model.tensor_model_parallel_size": 4, "strategy.tensor_model_parallel_size": 4, "groups.tp": [0, 1, 2, 3]},
    ),
    "parallel.pp": (
        "parallel.pp=4",
        {
            "model.pipeline_model_parallel_size": 4,
            "strategy.pipeline_model_parallel_size": 4,
            "groups.pp": [0, 32, 64, 96],
        },
    ),
    "parallel.cp": (
        "parallel.cp=2",
        {"model.context_parallel_size": 2, "strategy.context_parallel_size": 2, "groups.cp": [0, 8]},
    ),
    "parallel.vp": (
        "parallel.vp=2",
        {
            "model.virtual_pipeline_model_parallel_size": 2,
            "strategy.virtual_pipeline_model_parallel_size": 2,
            "model.overlap_p2p_comm": True,
            "model.batch_p2p_comm": False,
            "ddp.align_param_gather": True,
            "rank.layers": [[0], [8]],
        },
    ),
    "parallel.sequence": (
        "parallel.sequence=false",
        {"model.sequence_parallel": False, "strategy.sequence_parallel": False},
    ),
    "parallel.distributed_optimizer": (
        "parallel.distributed_optimizer=false",
        {
            "ddp.use_distributed_optimizer": False,
            "ddp.overlap_param_gather": False,
            "optimizer.use_distributed_optimizer": False,
            "optimizer.class": "Float16OptimizerWithFloat16Params",
        },
    ),
    "parallel.overlap": (
        "parallel.overlap=false",
        {"ddp.overlap_grad_reduce": False, "ddp.overlap_param_gather": False, "optimizer.overlap_param_gather": False},
    ),
    "parallel.tp_overlap": ("parallel.tp_overlap=true", {"model.tp_comm_overlap": True}),
    "parallel.recompute": (
        "parallel.recompute=full",
        {"model.recompute_granularity": "full", "model.recompute_method": "uniform"},
    ),
    "parallel.cuda_connections": ("parallel.cuda_connections=8", {"environment.CUDA_DEVICE_MAX_CONNECTIONS": "8"}),
    "train.steps": ("train.steps=20000", {"trainer.max_steps": 20000}),
    "train.seq_length": ("train.seq_length=2048", {"model.seq_length": 2048, "model.positions": 2048}),
    "train.micro_batch": ("train.micro_batch=4", {"data.micro_batch_size": 4, "micro_batches": 64}),
    "train.global_batch": ("train.global_batch=256", {"data.global_batch_size": 256, "micro_batches": 64}),
    "train.lr": ("train.lr=1e-4", {"optimizer.lr": 1e-4, "optimizer.group.max_lr": 1e-4}),
    "train.min_lr": ("train.min_lr=1e-5", {"schedule.min_lr": 1e-5}),
    "train.warmup_steps": ("train.warmup_steps=100", {"schedule.warmup_steps": 100}),
    "train.decay_steps": ("train.decay_steps=30000", {"schedule.max_steps": 30000}),
    "train.beta1": ("train.beta1=0.8", {"optimizer.adam_beta1": 0.8, "optimizer.group.betas": [0.8, 0.95]}),
    "train.beta2": ("train.beta2=0.99", {"optimizer.adam_beta2": 0.99, "optimizer.group.betas": [0.9, 0.99]}),
    "train.eps": ("train.eps=1e-8", {"optimizer.adam_eps": 1e-8, "optimizer.group.eps": 1e-8}),
    "train.weight_decay": ("train.weight_decay=0.2", {"optimizer.group.weight_decay": 0.2}),
    "train.clip_grad": ("train.clip_grad=0.5", {"optimizer.clip_grad": 0.5}),
    "train.precision": (
        "train.precision=fp32",
        {
            "model.params_dtype": "float32",
            "model.param_dtypes": ["float32"],
            "optimizer.bf16": False,
            "precision.precision": "32-true",
            "strategy.pipeline_dtype": "float32",
        },
    ),
    "train.layers": ("train.layers=local", {"model.core": "FlashAttention"}),
    "train.attention": (
        "train.attention=fused",
        {"model.attention_backend": "fused", "environment.NVTE_FUSED_ATTN": "1", "environment.NVTE_FLASH_ATTN": "0"},
    ),
    "train.save_every": ("train.save_every=250", {"checkpoints.every": 250}),
    "train.keep": ("train.keep=5", {"checkpoints.keep": 5}),
    "train.keep_every": ("train.keep_every=1000", {"checkpoints.keep_every": 1000}),
    "train.async_save": ("train.async_save=false", {"strategy.async_save": False}),
    "train.valid_every": ("train.valid_every=100", {"trainer.val_check_interval": 100}),
    "train.valid_full": ("train.valid_full=false", {"checkpoints.valid_full": False}),
    "train.valid_batches": ("train.valid_batches=3", {"trainer.limit_val_batches": 3}),
    "train.seed": ("train.seed=7", {"data.seed": 7}),
    "data.reset_attention": (
        "data.reset_attention=true",
        {"model.data_step_fn": "packed_data_step", "model.forward_step_fn": "forward_step"},
    ),
    "data.workers": ("data.workers=2", {"data.num_workers": 2}),
}
NOT_NEMOS = {
    "model.base": "import reads it",
    "model.new_rows": "import makes them",
    "model.init_std": "the stage base makes the weights",
    "model.max_positions": "a limit for seq_length",
    "model.nominal_parameters": "counts FLOPs for people",
    "data.append_eod": "shards writes it",
    "data.shard_workers": "shards",
    "data.shard_parts": "shards",
    "data.weights": "stand with the shards' paths",
    "data.check_shards": "who looks at the shards before",
}
# What the recipes of the paper and the new ones set for GPUs alone, in the objects built.
ON_GPUS = {
    "model.params_dtype": "bfloat16", "model.param_dtypes": ["bfloat16"], "model.bf16": True,
    "model.pipeline_dtype": "bfloat16", "model.attention_backend": "flash", "model.recompute_granularity": "selective",
    "model.sequence_parallel": True, "model.bias_activation_fusion": True, "model.bias_dropout_fusion": True,
    "model.masked_softmax_fusion": True, "model.persist_layer_norm": True, "model.cross_entropy_loss_fusion": True,
    "model.deallocate_pipeline_outputs": True, "model.tp_comm_overlap": False,
    "ddp.grad_reduce_in_fp32": True, "ddp.grad_dtypes": ["float32"], "ddp.overlap_grad_reduce": True,
    "ddp.overlap_param_gather": True, "ddp.average_in_collective": True, "ddp.use_distributed_optimizer": True,
    "optimizer.class": "DistributedOptimizer", "optimizer.bf16": True, "optimizer.shard_dtypes": ["float32"],
    "optimizer.overlap_param_gather": True, "precision.autocast_enabled": False, "strategy.async_save": True,
    "strategy.ckpt_optim_fully_reshardable": True, "environment.CUDA_DEVICE_MAX_CONNECTIONS": "1",
    "environment.NVTE_FLASH_ATTN": "1", "environment.NVTE_UNFUSED_ATTN": "0",
}  # fmt: skip
EACH = {
    "pretrain_7b": {
        "model.class": "Llama2Config7B", "model.tensor_model_parallel_size": 4, "model.pipeline_model_parallel_size": 1,
        "model.overlap_p2p_comm": False, "model.batch_p2p_comm": False, "model.seq_length": 2048,
        "model.rotary_base": 10000.0, "model.num_query_groups": 32, "trainer.world": 64,
    },
    "pretrain_70b": {
        "model.class": "Llama2Config70B", "model.tensor_model_parallel_size": 8,
        "model.pipeline_model_parallel_size": 8, "model.virtual_pipeline_model_parallel_size": None,
        "model.overlap_p2p_comm": False, "model.batch_p2p_comm": True, "model.seq_length": 4096,
        "model.rotary_base": 10000.0, "model.num_query_groups": 8, "trainer.world": 128,
    },
    "pretrain_8b": {
        "model.class": "Llama3Config8B", "model.tensor_model_parallel_size": 2, "model.pipeline_model_parallel_size": 1,
        "model.seq_length": 8192, "model.rotary_base": 500000.0, "model.num_query_groups": 8,
        "model.data_step_fn": "packed_data_step", "trainer.world": 64,
    },
    "pretrain_llama3_70b": {
        "model.class": "Llama3Config70B", "model.tensor_model_parallel_size": 8,
        "model.pipeline_model_parallel_size": 4, "model.virtual_pipeline_model_parallel_size": 5,
        "model.overlap_p2p_comm": True, "model.batch_p2p_comm": False, "ddp.align_param_gather": True,
        "model.seq_length": 8192, "model.rotary_base": 500000.0, "model.data_step_fn": "packed_data_step",
        "trainer.world": 128,
    },
}  # fmt: skip

Build = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def build(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Build:
    """`build(cases)`: what NeMo builds for each, in one process after the other's imports."""

    def run(cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
        folder = tmp_path_factory.mktemp("built")
        (folder / "spec.json").write_text(json.dumps(cases), encoding="utf-8")
        words = [sys.executable, str(HERE / "built_ranks.py"), str(folder / "spec.json"), str(folder / "out.json")]
        code = forks.run_ranks(words, processes=1, folder=folder, threads=1)
        assert code == 0, (folder / "log").read_text(encoding="utf-8", errors="replace")[-3000:]
        made: list[dict[str, Any]] = json.loads((folder / "out.json").read_text(encoding="utf-8"))
        return made

    return run


def case(recipe: str, overrides: list[str] | None = None, ranks: str = "first", rows: int | None = None) -> dict:
    return {"recipe": recipe, "overrides": overrides or [], "ranks": ranks, "rows": rows}


@pytest.fixture(scope="module")
def layouts(build: Build) -> dict[str, dict[str, Any]]:
    """All ranks of the 70B and every distinct one of the others, at the published vocabularies."""
    kinds = {name: "all" if name == "pretrain_70b" else "distinct" for name in SIZES}
    return dict(zip(kinds, build([case(name, PLAIN, kind) for name, kind in kinds.items()]), strict=True))


def at(found: dict[str, Any], path: str) -> Any:
    value: Any = found if path.split(".")[0] in found else found["built"]
    for name in path.split("."):
        value = value[name]
    return value


@pytest.mark.parametrize("name", SIZES)
def test_the_ranks_hold_the_model_once(layouts: dict[str, dict[str, Any]], name: str) -> None:
    _, published, padded = SIZES[name]
    recipe, found = compose(name, PLAIN).recipe, layouts[name]
    assert found["parameters"] == padded
    assert without_padding(recipe, found["parameters"]) == published
    assert differences(recipe, found) == []
    facts = recipe.parallel
    dp = found["world"] // (facts.tp * facts.pp * facts.cp)
    assert len(found["ranks"]) == found["world"] // (1 if name == "pretrain_70b" else facts.tp)
    assert {(one["pp"], one["dp"]) for one in found["ranks"]} == {(p, d) for p in range(facts.pp) for d in range(dp)}
    assert {device for one in found["ranks"] for device in one["devices"]} == {"meta"}
    # Said otherwise than `differences` does: all optimizer shards of all ranks are the model, its norms tp times.
    held = sum(one["optimizer_shard"] for one in found["ranks"])
    norms = (2 * recipe.model.layers + 1) * recipe.model.hidden
    times = 1 if name == "pretrain_70b" else facts.tp
    assert held * times == padded + norms * (facts.tp - 1)


def test_the_70bs_ranks_by_hand(layouts: dict[str, dict[str, Any]]) -> None:
    """Per layer and tensor rank 106,971,136; embedding or head 33,554,432 at 32,768 rows; the final norm 8,192."""
    ranks = {one["rank"]: one for one in layouts["pretrain_70b"]["ranks"]}
    assert ranks[0]["parameters"] == 10 * 106_971_136 + 33_554_432 == 1_103_265_792
    assert ranks[24]["parameters"] == 10 * 106_971_136
    assert ranks[127]["parameters"] == 10 * 106_971_136 + 33_554_432 + 8_192
    assert ranks[24]["layers"] == [list(range(10, 20))]
    assert [(ranks[n]["embedding"], ranks[n]["head"]) for n in (0, 24, 127)] == [
        (True, False), (False, False), (False, True)
    ]  # fmt: skip
    assert {one["optimizer_shard"] for one in ranks.values() if one["pp"] == 3} == {10 * 106_971_136 // 2}
    found = layouts["pretrain_70b"]
    assert found["groups"] == {
        "tp": list(range(8)), "pp": list(range(0, 128, 16)), "cp": [0], "dp": [0, 8]
    }  # fmt: skip
    assert found["micro_batches"] == 128


@pytest.mark.parametrize("name", EACH)
def test_what_is_set_for_gpus_alone_is_in_the_built_objects(layouts: dict[str, dict[str, Any]], name: str) -> None:
    wanted = {**ON_GPUS, **EACH[name]}
    assert {path: at(layouts[name], path) for path in wanted} == wanted
    assert {"SafePrinter", "Metrics", "Heartbeat", "ValidationOnResume"} <= set(at(layouts[name], "trainer.callbacks"))


def test_variants_of_the_layouts(build: Build) -> None:
    """Interleaved, context parallel, optimizers that are not shared out; and 32,000 rows without any padding."""
    cases = [case(recipe, overrides, "distinct") for recipe, overrides in VARIANTS.values()]
    made = build([*cases, case("pretrain_70b", PLAIN, "distinct", 32_000)])
    for (title, (recipe, overrides)), found in zip(VARIANTS.items(), made, strict=False):
        assert differences(compose(recipe, overrides).recipe, found) == [], title
    assert made[-1]["parameters"] == SIZES["pretrain_70b"][1]
    chunks, split = made[0], made[1]
    assert chunks["ranks"][2]["layers"] == [[2, 3], [18, 19], [34, 35], [50, 51], [66, 67]]
    assert {(one["cp"], one["dp"]) for one in split["ranks"]} == {(0, 0), (1, 0)}
    assert split["ranks"][0]["optimizer_shard"] < split["ranks"][0]["parameters"], "cp shares the optimizer out"


def test_every_other_recipe_that_trains(build: Build) -> None:
    """As it stands, on whatever device: what each rank would hold is what the plan's arithmetic has."""
    recipes = {path.stem: compose(path.stem).recipe for path in sorted(recipes_dir().glob("*.yaml"))}
    names = [name for name, one in recipes.items() if {*one.stages} & {*TRAINING_STAGES} and name not in SIZES]
    assert {"demo", "finetune_70b"} <= {*names}
    for name, found in zip(names, build([case(name, None, "distinct") for name in names]), strict=True):
        recipe = recipes[name]
        assert differences(recipe, found) == [], name
        # Rank by rank, said otherwise than `differences` does: a stage's parameters as `plan` shows them.
        stages = parameters.of_recipe(recipe)
        assert [one["parameters"] for one in found["ranks"]] == [stages[one["pp"]].total for one in found["ranks"]]
        if recipe.cluster.device == "gpu":
            assert stages == parameters.per_stage(setup.of(recipe))
            assert parameters.total(setup.of(recipe)) == found["parameters"]


def test_every_value_is_known_to_reach_nemo_or_not() -> None:
    sections = {"model": Model, "parallel": Parallel, "train": Train, "data": Data}
    keys = {f"{name}.{field.name}" for name, cls in sections.items() for field in dataclasses.fields(cls)}
    assert keys == REACHES.keys() | NOT_NEMOS.keys(), "say where a new value shows, or that it is not NeMo's"
    assert not REACHES.keys() & NOT_NEMOS.keys()


def test_every_value_reaches_what_nemo_builds(build: Build) -> None:
    """One after the other is changed, and must show in the built objects as the new value and not as the old one."""
    cases = []
    for words, _ in REACHES.values():
        first, *rest = words.split()
        cases += [case("pretrain_70b", [*SMALL, *([first] if rest else [])])]
        cases += [case("pretrain_70b", [*SMALL, first, *rest])]
    unique = list({json.dumps(one): one for one in cases}.values())
    found = dict(zip(map(json.dumps, unique), build(unique), strict=True))
    for number, (key, (_, wanted)) in enumerate(REACHES.items()):
        before, after = (found[json.dumps(cases[2 * number + i])] for i in (0, 1))
        for path, value in wanted.items():
            assert at(after, path) == value, (key, path)
            assert at(before, path) != value, (key, path)


def test_attention_by_pytorchs_kernels_is_megatrons(forks: Forks, tmp_path: Path) -> None:
    """Outputs and gradients, grouped queries, with and without documents."""
    words = [sys.executable, str(HERE / "attention_cores.py"), str(tmp_path / "out.json")]
    assert forks.run_ranks(words, processes=1, folder=tmp_path, threads=1) == 0, (tmp_path / "log").read_text()[-2000:]
    apart = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert apart.pop("across to within") > 1e-2, "documents make no difference: nothing was compared"
    assert len(apart) == 4 and max(apart.values()) < 1e-4, apart


def test_activations_are_what_pytorch_keeps(forks: Forks, tmp_path: Path) -> None:
    """Of Megatron's own layers; in `memory`'s words: fused counts less, plain PyTorch what lies between fused gates and
    gates in pieces, and a GPT's layer what Megatron's fused softmax leaves of it.
    """
    words = [sys.executable, str(HERE / "saved_activations.py"), str(tmp_path / "out.json")]
    assert forks.run_ranks(words, processes=1, folder=tmp_path, threads=1) == 0, (tmp_path / "log").read_text()[-2000:]
    kept = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    one = dataclasses.replace(
        setup.of(compose("pretrain_7b").recipe),
        shape=Shape(layers=1, hidden=512, ffn=1792, heads=8, kv_heads=1, vocab=128),
        **{"tp": 1, "pp": 1, "dp": 1, "seq": 128, "micro_batch": 8, "global_batch": 8, "recompute": "none"},
        sequence_parallel=False,
    )
    fused, plain = (memory.layer_bytes(dataclasses.replace(one, fused=yes))[0] / 2**19 for yes in (True, False))
    assert fused < kept["llama"] < plain < kept["llama, gates unfused"] < 1.8 * fused
    # What Transformer Engine does otherwise: its norms keep 4 bytes each instead of 10, its attention keeps keys and
    # values of the groups alone, the turned ones besides: 6.75 bytes instead of 8.0625.
    assert kept["llama"] - 2 * 6 - 1.3125 == pytest.approx(fused, rel=0.01)
    gpt = dataclasses.replace(
        one,
        shape=Shape(layers=1, hidden=512, ffn=2048, heads=8, kv_heads=8, vocab=128),
        **{"gated": False, "dropout": True, "flash_attention": False},
    )
    assert 1 <= kept["gpt"] / (memory.layer_bytes(gpt)[0] / 2**19) < 1.25


def test_a_difference_stops_the_recipe(layouts: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    """One weight more on one rank, one layer elsewhere, one micro-batch: each is told, with both figures."""
    recipe = compose("pretrain_70b", PLAIN).recipe
    broken: dict[str, Any] = json.loads(json.dumps(layouts["pretrain_70b"]))
    broken["ranks"][24]["sharded"] += 1
    broken["ranks"][24]["layers"][0][0] = 0
    broken["ranks"][40]["optimizer_shard"] -= 64
    broken["micro_batches"] = 64
    told = differences(recipe, broken)
    assert len(told) == 4
    assert told[0] == "micro-batches a step: 64 built, 128 planned"
    assert told[1].startswith("rank 24: layers: [[0, 11,")
    assert told[2] == "rank 24: parameters of its own: 1,069,547,521 built, 1,069,547,520 planned"
    assert told[3].startswith("optimizer elements of stage 2, tensor rank 0, over its data ranks: 1,069,711,296 built")
    import toolkit.train.instantiate as module

    monkeypatch.setattr(module, "instantiate", lambda job, ranks: broken)
    with pytest.raises(PlanRefused, match="micro-batches a step: 64 built, 128 planned") as caught:
        verb.prove(recipe)
    assert caught.value.exit_code == 3 and "(and 1 more)" in str(caught.value)


def test_what_nemo_refuses_is_one_message(build: Build) -> None:
    """A vocabulary that tensor ranks cannot share: the rules know padded rows alone."""
    (found,) = build([case("pretrain_70b", [], "distinct", 32_001)])
    assert found["refused"].startswith("llama2_70b: NeMo does not build rank 0. ")
    assert "32001 is not divisible by 8" in found["refused"]


def test_the_page_for_people(layouts: dict[str, dict[str, Any]]) -> None:
    text = proof_text(compose("pretrain_70b", PLAIN).recipe, layouts["pretrain_70b"])
    assert "68,989,231,104 parameters; 68,976,648,192 without the 768 padding rows" in text
    assert "128 of 128 ranks" in text and "128 micro-batches" in text
    assert "0, 16 ... 112 (8 ranks)" in text and "process group: torch's fake backend" in text
    assert max(map(len, text.splitlines())) <= 140


def test_the_verb_builds_in_a_process_of_its_own() -> None:
    words = [sys.executable, "-m", "toolkit.plan", "recipe=pretrain_llama3_70b", "--instantiate", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr == ""
    told = json.loads(done.stdout)
    assert told["parameters_without_padding"] == SIZES["pretrain_llama3_70b"][1]
    assert told["layout"]["vocab_padded"] == 129_024 and len(told["ranks"]) == 16


def test_sizes_by_arithmetic() -> None:
    for name, (rows, published, _) in SIZES.items():
        model = compose(name).recipe.model
        shape = Shape(
            layers=model.layers, hidden=model.hidden, ffn=model.ffn, heads=model.heads, kv_heads=model.kv_heads,
            vocab=rows,
        )  # fmt: skip
        assert shape.parameters == published


def test_a_rank_sets_what_cuda_reads_before_it_looks_for_a_gpu() -> None:
    code = (
        "import os\nfrom toolkit.errors import PlanRefused\nfrom toolkit.plan.__main__ import job\n"
        "from toolkit.recipe import compose\nfrom toolkit.train import engine\n"
        "try:\n    engine._prepare(job(compose('pretrain_70b', ['parallel.cuda_connections=8']).recipe))\n"
        "except PlanRefused as err:\n    print(err.what, os.environ['CUDA_DEVICE_MAX_CONNECTIONS'])\n"
    )
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "CUDA_DEVICE_MAX_CONNECTIONS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.stdout == "no GPU is visible to this process 8\n", done.stderr[-2000:]
