"""What a recipe or a line of a table is for speed and memory, and what is refused."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path

import pytest

from toolkit import hardware
from toolkit.errors import DataError, RecipeError, UsageError
from toolkit.plan import conventions, layout, measurements, setup
from toolkit.recipe import compose

ROW = {
    **{"id": "a", "src": "", "gpu": "A100", "n_gpu": "64", "layers": "96", "hidden": "12288", "ffn": "49152"},
    **{"heads": "96", "kv_heads": "96", "vocab": "51200", "gated": "0", "seq": "2048", "tp": "8", "pp": "8"},
    **{"vp": "3", "dp": "1", "mbs": "1", "gbs": "64", "recompute": "full", "step_s": "18.13"},
}


@pytest.mark.parametrize("name", ["pretrain_70b", "pretrain_7b", "pretrain_8b", "pretrain_llama3_70b"])
def test_of_a_recipe(name: str) -> None:
    recipe = compose(name, []).recipe
    made, facts = setup.of(recipe), layout(recipe)
    assert (made.world, made.nodes, made.dp, made.micro_batches) == (
        facts.world,
        facts.nodes,
        facts.dp,
        facts.micro_batches,
    )
    assert (made.vocab_padded, made.tokens) == (facts.vocab_padded, facts.tokens_per_step)
    assert made.stage_layers == (facts.layers_per_stage,) * made.pp
    assert made.layer_matrices == made.shape.layer_parameters - 2 * made.shape.hidden


def test_the_papers_cluster() -> None:
    made = setup.of(compose("pretrain_70b", []).recipe)
    assert made.nic_gb_s == pytest.approx(25 / 8)
    assert replace(made, dp=1, pp=1).nic_gb_s == math.inf


def test_a_fabric_that_is_not_stated() -> None:
    words = ["cluster.nics=null", "cluster.nic_gbps=null"]
    assert setup.of(compose("pretrain_70b", words).recipe).nic_gb_s == 25  # DGX A100: 200 Gb for each GPU
    with pytest.raises(RecipeError, match=r"cluster.nics=N"):
        setup.of(compose("pretrain_70b", [*words, "cluster.gpu=a100_80gb_pcie"]).recipe)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["cluster.gpu=v100_32gb_sxm", "train.precision=fp32"], "no peak"),
        (["cluster.gpu=rtx"], "unknown GPU type 'rtx'"),
        (["cluster.gpu=null"], "no GPU type is stated"),
    ],
)
def test_a_gpu_that_nobody_knows(words: list[str], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        setup.of(compose("pretrain_70b", words).recipe)


def test_a_cpu_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"cluster.device=cpu"):
        setup.of(compose("demo", []).recipe)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"seq": -4096}, "seq=-4096"),
        ({"gpus_per_node": 0}, "gpus_per_node=0"),
        ({"micro_batch": 512}, "below micro_batch=512 x dp=2"),
        ({"nics": 0}, "nics=0"),
        ({"nic_gbps": math.nan}, "nic_gbps=nan"),
        ({"pp": 81}, "pp=81"),
        ({"tp": 65}, "tp=65"),
        ({"gpu": hardware.GPUS["v100_32gb_sxm"]}, "no peak"),
        ({"gpu": replace(hardware.GPUS["a100_80gb_sxm"], bf16_tflops=-1.0)}, "no peak"),
    ],
)
def test_nonsense(changed: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        replace(setup.of(compose("pretrain_70b", []).recipe), **changed)


def test_layers_that_do_not_divide() -> None:
    """BLOOM has 70 on 12 ranks, Llama 3 405B 126 on 16: embedding and head stand for a layer each."""
    made = setup.of_row({**ROW, "layers": "70", "pp": "12", "n_gpu": "96", "vp": "1"})
    assert made.stage_layers == (5, *[6] * 10, 5)
    assert setup.of_row({**ROW, "layers": "126", "pp": "16", "n_gpu": "128", "vp": "1"}).stage_layers == (
        7,
        *[8] * 14,
        7,
    )
    assert setup.of_row({**ROW, "layers": "13", "pp": "4", "n_gpu": "32", "vp": "1"}).stage_layers == (4, 3, 3, 3)


def test_chunks_of_a_layer_each() -> None:
    """Llama 3 405B on 16 ranks: 8 chunks of each, of which the first is the embedding and the last the head."""
    llama = {**ROW, "layers": "126", "pp": "16", "n_gpu": "128"}
    assert setup.of_row({**llama, "vp": "8"}).stage_layers == (7, *[8] * 14, 7)
    for vp in ("9", "16"):
        with pytest.raises(UsageError, match=f"pp=16 x vp={vp} are more than layers=126"):
            setup.of_row({**llama, "vp": vp})


def test_what_a_line_does_not_state() -> None:
    gpt = setup.of_row(ROW)
    assert (gpt.flash_attention, gpt.sequence_parallel, gpt.fused, gpt.tied) == (False, False, True, True)
    assert gpt.nic_gb_s == 25
    assert setup.of_row({**ROW, "recompute": "sel"}).sequence_parallel
    llama = setup.of_row({**ROW, "gated": "1", "seq": "4096", "kv_heads": "8"})
    assert (llama.flash_attention, llama.fused, llama.tied, llama.grad_reduce_bytes) == (True, False, False, 4)
    hopper = setup.of_row({**ROW, "gpu": "H100", "mbs": "", "vp": "", "recompute": "none"})
    assert (hopper.micro_batch, hopper.vp, hopper.overlap_dp, hopper.nic_gb_s) == (1, 3, True, 50)
    alone = setup.of_row({**ROW, "gpu": "H100", "mbs": "", "pp": "1", "vp": "", "n_gpu": "8", "gbs": "6"})
    assert (alone.micro_batch, alone.vp) == (2, 1)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("A100", "a100_80gb_sxm"),
        ("a100 40GB", "a100_40gb_sxm"),
        ("A100-80", "a100_80gb_sxm"),
        ("A100 PCIe", "a100_80gb_pcie"),
        ("H100 SXM", "h100_80gb_sxm"),
        ("H200", "h200_141gb_sxm"),
        ("GH200", "gh200_96gb"),
        ("B200", "b200_180gb_sxm"),
        ("h100_94gb_nvl", "h100_94gb_nvl"),
    ],
)
def test_names_of_gpus(name: str, key: str) -> None:
    assert setup.of_row({**ROW, "gpu": name}).gpu == hardware.GPUS[key]


def test_what_a_line_may_state_besides() -> None:
    stated = {"nics": "1", "nic_gbps": "200", "precision": "fp8", "flash": "1", "fused": "no", "zero": "1", "cp": "2"}
    made = setup.of_row({**ROW, **stated, "n_gpu": "128", "software": "deepspeed"})
    assert (made.nic_gb_s, made.precision, made.flash_attention, made.fused) == (25 / 8, "fp8", True, False)
    assert (made.distributed_optimizer, made.cp, made.deepspeed, made.fused_accumulation) == (True, 2, True, False)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"gpu": "B300X"}, "unknown gpu='B300X'"),
        ({"gpu": ""}, "no value for gpu"),
        ({"gpu": "--"}, "unknown gpu='--'"),
        ({"gpu": "A100 99GB"}, "unknown gpu='A100 99GB'"),
        ({"gpu": "V100"}, "no peak"),
        ({"layers": "1e14", "pp": "1e9", "n_gpu": "8e9"}, "out of range"),
        ({"n_gpu": "0"}, "n_gpu=0"),
        ({"n_gpu": "63"}, "n_gpu=63 is not tp=8 x pp=8"),
        ({"seq": "-2048"}, "seq='-2048' is out of range"),
        ({"hidden": "wide"}, "hidden='wide' is no number"),
        ({"hidden": "nan"}, "hidden='nan'"),
        ({"layers": "1e400"}, "layers='1e400'"),
        ({"layers": "95.5"}, "no whole number"),
        ({"tp": "0"}, "tp=0"),
        ({"mbs": "65"}, "micro_batch=65"),
        ({"recompute": "some"}, "recompute='some'"),
        ({"precision": "fp4"}, "precision='fp4'"),
        ({"gated": "perhaps"}, "gated='perhaps'"),
        ({"software": "jax"}, "software='jax'"),
        ({"step_s": "-1"}, "step_s='-1' is no measurement"),
        ({"step_s": "inf"}, "step_s='inf'"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, changed: dict[str, str], said: str) -> None:
    path = tmp_path / "table.csv"
    with path.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, [*ROW, *(name for name in changed if name not in ROW)], lineterminator="\n")
        writer.writeheader()
        writer.writerows([ROW, {**ROW, **changed}])
    with pytest.raises(DataError) as raised:
        measurements.read(path)
    assert f"{path}:3: " in str(raised.value) and said in str(raised.value)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "the table is empty"),
        (b"id,src\n", "lacks the columns gpu"),
        (",".join([*ROW, "seq", "dp"]).encode() + b"\n", "the columns seq, dp more than once"),
        (",".join(ROW).encode() + b"\n", "no measurement"),
        (",".join(ROW).encode() + b"\n1,2\n", "more or fewer fields"),
        (",".join(ROW).encode() + b"\n" + ",".join(["1"] * (len(ROW) + 1)).encode(), "more or fewer fields"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b'id,"gpu\n', "not a CSV table"),
    ],
)
def test_a_file_that_is_no_table(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(data)
    with pytest.raises(DataError, match=said):
        measurements.read(path)
    with pytest.raises(DataError, match="cannot be read"):
        measurements.read(tmp_path / "none.csv")
    with pytest.raises(DataError, match="cannot be read"):
        measurements.read(tmp_path)


def test_seconds_from_what_a_line_has(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    lines = [{"step_s": "2.5"}, {"step_s": "", "tok_s_gpu": "1000"}, {"step_s": "", "measured": "3", "unit": "s/step"}]
    lines += [
        {"step_s": "", "measured": "OOM", "unit": "oom", "peak_mem_GiB": ">80"},
        {"step_s": "", "peak_mem_GiB": "41"},
        {"step_s": "", "measured": "113", "unit": "tok/s/GPU"},
        {"step_s": "", "measured": "138", "unit": "TF_hw_full_recompute"},
    ]
    with path.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, [*ROW, "tok_s_gpu", "measured", "unit", "peak_mem_GiB"], restval="")
        writer.writeheader()
        writer.writerows({**ROW, **line} for line in lines)
    found = measurements.read(path)
    assert [row.step_s for row in found] == [
        *(2.5, 64 * 2048 / 64 / 1000, 3.0, None, None, pytest.approx(64 * 2048 / 64 / 113)),
        pytest.approx(conventions.per_token(found[6].setup, "TF_hw_full_recompute") * 2048 / 138e12),
    ]
    assert found[6].tflops is None, "no measurement besides the time that was made of it"
    assert [row.out_of_memory for row in found] == [False, False, False, True, False, False, False]
    assert found[4].peak_gib == 41


def test_gpus_as_drivers_name_them_and_as_a_line_describes_them() -> None:
    for name in ("NVIDIA A100-SXM4-80GB", "DGX A100", "a100_80gb_sxm"):
        assert setup.of_row({**ROW, "gpu": name}).gpu == hardware.GPUS["a100_80gb_sxm"]
    assert setup.of_row({**ROW, "gpu": "NVIDIA A100-SXM4-40GB"}).gpu == hardware.GPUS["a100_40gb_sxm"]
    with pytest.raises(UsageError, match="unknown gpu='GB200'") as raised:
        setup.of_row({**ROW, "gpu": "GB200"})
    assert "by the columns peak_tflops, gpu_memory_gib, gpu_memory_gb_s" in str(raised.value)
    described = {"peak_tflops": "2450", "gpu_memory_gib": "186", "gpu_memory_gb_s": "8000", "gpu_nvlink_gb_s": "1800"}
    made = setup.of_row({**ROW, "gpu": "GB200", "nic_gbps": "400", **described})
    assert (made.gpu.title, made.gpu.bf16_tflops, made.gpu.memory_gib, made.gpu.nvlink_gb_s) == (
        "GB200",
        2450,
        186,
        1800,
    )
    assert made.flash_attention and made.overlap_dp
    with pytest.raises(UsageError, match="peak_tflops='0' must be above 0"):
        setup.of_row({**ROW, "gpu": "GB200", **described, "peak_tflops": "0"})


def test_names_of_columns_with_blanks_around_them(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(", ".join(ROW) + "\n" + ", ".join(ROW.values()) + "\n")
    assert measurements.read(path)[0].step_s == 18.13
