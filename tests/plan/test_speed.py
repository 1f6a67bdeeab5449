"""Laws of the step's time, whatever the parameters."""

from __future__ import annotations

import timeit
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit import hardware
from toolkit.models import Shape
from toolkit.plan import setup, speed, traffic, work
from toolkit.plan.calibrated import PARAMS
from toolkit.plan.setup import Setup
from toolkit.recipe import compose

FEW = settings(max_examples=60, deadline=None)


@st.composite
def setups(draw: st.DrawFn) -> Setup:
    tp, pp, dp, cp = (draw(st.sampled_from(sizes)) for sizes in ((1, 2, 4, 8), (1, 2, 4, 8), (1, 2, 16), (1, 2)))
    vp = draw(st.sampled_from((1, 2))) if pp > 1 else 1
    micro = draw(st.integers(1, 4))
    width, kv = draw(st.sampled_from((64, 128))), draw(st.sampled_from((8, 16)))
    heads = kv * draw(st.integers(1, 4))
    return Setup(
        shape=Shape(
            layers=pp * vp * draw(st.integers(1, 6)),
            hidden=heads * width,
            ffn=128 * 8 * draw(st.integers(1, 24)),
            heads=heads,
            kv_heads=kv,
            vocab=draw(st.sampled_from((32_000, 128_256))),
        ),
        seq=1024 * draw(st.integers(1, 8)),
        micro_batch=micro,
        global_batch=micro * dp * pp * draw(st.integers(1, 4)),
        tp=tp,
        pp=pp,
        vp=vp,
        cp=cp,
        dp=dp,
        gpu=hardware.GPUS[draw(st.sampled_from(sorted(name for name in hardware.GPUS if "v100" not in name)))],
        nics=draw(st.sampled_from((1, 4, 8))),
        nic_gbps=draw(st.sampled_from((100.0, 400.0))),
        recompute=draw(st.sampled_from(("none", "selective", "full"))),
        precision=draw(st.sampled_from(("bf16", "fp8", "fp32"))),
        sequence_parallel=tp > 1 and draw(st.booleans()),
        **{name: draw(st.booleans()) for name in _FLAGS},
    )


_FLAGS = (
    *("gated", "tied", "distributed_optimizer", "flash_attention", "fused", "deepspeed", "fused_accumulation"),
    *("overlap_backward", "overlap_dp", "overlap_tp", "overlap_p2p", "dropout", "launch_blocking"),
)


def seconds(s: Setup, **changed: Any) -> float:
    return speed.step(replace(s, **changed)).seconds


def gpu(s: Setup, **changed: Any) -> hardware.Gpu:
    return replace(s.gpu, **changed)


@FEW
@given(setups())
def test_parts_add_up(s: Setup) -> None:
    took = speed.step(s)
    assert sum(took.parts.values()) == pytest.approx(took.seconds)
    assert all(part > 0 for part in took.parts.values())
    assert 0 < took.low < took.seconds < took.high
    assert speed.tokens_per_s(s) == pytest.approx(s.tokens / took.seconds)
    useful = 6 * s.shape.layers * s.layer_matrices * s.tokens
    assert useful / took.seconds < s.world * (s.gpu.bf16_tflops or 0) * 2e12, "more than the peak of fp8"


@FEW
@given(setups(), st.floats(1.01, 8))
def test_faster_links_and_memory_never_cost_time(s: Setup, factor: float) -> None:
    before = seconds(s)
    most = before * (1 + 1e-12)  # where neither link is used, or one hides behind the other, but for rounding
    assert seconds(s, nic_gbps=s.nic_gbps * factor) <= most
    assert seconds(s, gpu=gpu(s, memory_gb_s=s.gpu.memory_gb_s * factor)) < before
    assert seconds(s, gpu=gpu(s, nvlink_gb_s=(s.gpu.nvlink_gb_s or s.gpu.pcie_gb_s or 32.0) * factor)) <= most
    assert seconds(s, nics=s.nics + 1) <= most
    if s.nodes > 1 and s.pp > 1 and s.tp * s.cp * s.dp >= s.gpus_per_node and s.gpu.nvlink_gb_s:
        assert seconds(s, nic_gbps=s.nic_gbps * factor) < before


@FEW
@given(setups(), st.floats(1.01, 8))
def test_a_faster_gpu_never_costs_time(s: Setup, factor: float) -> None:
    assert seconds(s, gpu=gpu(s, bf16_tflops=(s.gpu.bf16_tflops or 0) * factor)) <= seconds(s) * (1 + 1e-12)


@FEW
@given(setups(), st.integers(1, 3))
def test_more_work_takes_longer(s: Setup, times: int) -> None:
    before, shape = seconds(s), s.shape
    assert seconds(s, seq=s.seq * (1 + times)) > before
    assert seconds(s, shape=replace(shape, layers=shape.layers + times * s.pp * s.vp)) > before
    assert seconds(s, shape=replace(shape, ffn=shape.ffn + 1024 * times)) >= before
    assert seconds(s, global_batch=s.global_batch * (1 + times)) > before
    assert seconds(s, recompute="full") >= seconds(s, recompute="selective") >= seconds(s, recompute="none")


@FEW
@given(setups())
def test_a_sites_factor_scales_all_of_it(s: Setup) -> None:
    took, slow = speed.step(s), speed.step(s, replace(PARAMS, site=1.25))
    assert slow.seconds == pytest.approx(1.25 * took.seconds)
    assert slow.parts == pytest.approx({name: 1.25 * part for name, part in took.parts.items()})


def test_bubble_of_the_papers_pipeline() -> None:
    """(8 - 1) / 128 of what the micro-batches take: arXiv 2104.04473, section 2.2."""
    s = setup.of(compose("pretrain_70b", []).recipe)
    parts = speed.step(s).parts
    through = sum(parts[name] for name in ("compute", "tensor_parallel", "accumulation", "pipeline"))
    assert parts["bubble"] == pytest.approx(through * 7 / 128)
    interleaved = speed.step(replace(s, vp=2)).parts
    assert interleaved["bubble"] < 0.55 * parts["bubble"]


def test_traffic_by_hand() -> None:
    """The 70B's: 16.8 MB of activations each way from each GPU, over an eighth of a 200 Gb NIC."""
    s = setup.of(compose("pretrain_70b", []).recipe)
    share = 200 / 8 / 8 * 1e9 * PARAMS.network * PARAMS.shared
    assert traffic.nic(s, PARAMS) == pytest.approx(share)
    assert traffic.stage_to_stage(s, PARAMS) == pytest.approx(2 * 2 * 4096 * 8192 * 2 / 8 / share)
    before, after = traffic.reduction(s, PARAMS, 1e9)
    assert (before, after) == (pytest.approx(0.5 * 4e9 / share), pytest.approx(0.5 * 2e9 / share))
    whole = traffic.reduction(replace(s, distributed_optimizer=False), PARAMS, 1e9)
    assert whole == (pytest.approx(2 * before), 0.0)
    ring = 2 * 7 / 8 * 2 * 4096 * 8192 * 2 / (300e9 * PARAMS.link)
    assert traffic.all_reduce(s, PARAMS) == pytest.approx(ring + 60e-6)


def test_data_ranks_of_one_node_have_its_nics_together() -> None:
    s = replace(setup.of(compose("pretrain_70b", []).recipe), nics=8, dp=16, pp=1, tp=1, sequence_parallel=False)
    alone = traffic.between(s, PARAMS, 8, 16)
    assert traffic.between(s, PARAMS, 4, 16) == pytest.approx(2 * alone)
    assert traffic.between(s, PARAMS, 1, 8) == traffic.link(s, PARAMS)


def test_tiles_and_waves() -> None:
    """On 108 multiprocessors, products of 108 tiles take one wave, and one tile more takes a second."""
    s = setup.of(compose("pretrain_70b", []).recipe)
    rates = work.Rates(s, PARAMS)
    assert rates.sms == 108
    one = rates.product(128 * 108, 256, 4096)
    assert rates.product(128 * 107 + 1, 256, 4096) == one
    assert rates.product(128 * 108 + 1, 256, 4096) > 1.4 * one


def test_heads_that_no_tensor_core_takes() -> None:
    """BigScience's chronicles, hidden size 13,824: 64 heads of 216 take 107 s, 96 of 144 110 s, 128 of 108 154 s."""
    row = {
        **{"src": "S4", "gpu": "A100", "n_gpu": "384", "layers": "78", "hidden": "13824", "ffn": "55296"},
        **{"vocab": "250880", "seq": "2048", "tp": "4", "pp": "12", "mbs": "4", "gbs": "2048", "recompute": "full"},
    }
    took = [speed.step(setup.of_row({**row, "heads": str(heads)})).seconds for heads in (64, 96, 128)]
    assert took == pytest.approx([106.72, 110.31, 153.90], rel=0.12)


def test_the_head_stays_in_bf16() -> None:
    s = setup.of(compose("pretrain_8b", []).recipe)
    params = PARAMS
    heads = [work.head(x, work.Rates(x, params)) for x in (s, replace(s, precision="fp8"))]
    assert heads[1] == pytest.approx(heads[0])
    layers = [work.layer(x, work.Rates(x, params), params).forward for x in (s, replace(s, precision="fp8"))]
    assert layers[1] < 0.8 * layers[0]


def test_sums_that_are_written_behind_products() -> None:
    s = setup.of(compose("pretrain_8b", []).recipe)
    for name, hidden in (("a100_80gb_sxm", False), ("h100_80gb_pcie", True), ("h100_80gb_sxm", True)):
        made = replace(s, gpu=hardware.GPUS[name])
        each = work.layer(made, work.Rates(made, PARAMS), PARAMS).accumulate
        whole = made.layer_matrices / made.tp * 6 / (made.gpu.memory_gb_s * 1e9 * PARAMS.memory)
        assert each == pytest.approx(whole * (0.3 if hidden else 1))


def test_fast_enough_to_search_thousands() -> None:
    """No bar on a time: only that a step is worked out a thousand times while a test may run."""
    s = setup.of(compose("pretrain_70b", []).recipe)
    print(f"{1e6 * timeit.timeit(lambda: speed.step(s), number=1000) / 1000:.0f} us")
