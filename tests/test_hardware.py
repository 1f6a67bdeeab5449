"""What is known of GPUs, and how a type that is not known is stated."""

from __future__ import annotations

import pytest

from toolkit import hardware
from toolkit.errors import RecipeError


@pytest.mark.parametrize(
    ("name", "tflops", "watts"),
    [
        ("a100_80gb_sxm", 312.0, 400), ("a100_80gb_pcie", 312.0, 300), ("h100_80gb_sxm", 989.4, 700),
        ("h100_80gb_pcie", 756.5, 350), ("h200_141gb_sxm", 989.4, 700), ("b200_180gb_sxm", 2250.0, 1000),
        ("a40", 149.7, 300), ("l40s", 362.05, 350), ("v100_32gb_sxm", None, 300),
    ],
)  # fmt: skip
def test_the_data_sheets(name: str, tflops: float | None, watts: int) -> None:
    assert hardware.peak_tflops(name) == tflops and hardware.tdp_w(name) == watts


def test_names_say_the_memory() -> None:
    for name, gpu in hardware.GPUS.items():
        if "gb" in name:
            assert f"_{gpu.memory_gib:g}gb" in name and f"{gpu.memory_gib:g}GB" in gpu.title
        assert 20 < gpu.tdp_w <= 1200 and (gpu.bf16_tflops is None or 100 < gpu.bf16_tflops < 3000)


@pytest.mark.parametrize(
    ("name", "memory_gb_s", "nvlink", "nic"),
    [
        ("a100_40gb_sxm", 1555, 600, 200), ("a100_80gb_sxm", 2039, 600, 200), ("h100_80gb_sxm", 3350, 900, 400),
        ("h200_141gb_sxm", 4800, 900, 400), ("b200_180gb_sxm", 8000, 1800, 400), ("gh200_96gb", 4000, 900, 400),
        ("gh200_144gb", 4900, 900, 400), ("a100_80gb_pcie", 1935, None, None), ("v100_32gb_sxm", 900, 300, 50),
    ],
)  # fmt: skip
def test_bandwidths(name: str, memory_gb_s: float, nvlink: float | None, nic: float | None) -> None:
    gpu = hardware.GPUS[name]
    assert (gpu.memory_gb_s, gpu.nvlink_gb_s, gpu.nic_gbps) == (memory_gb_s, nvlink, nic)


def test_a_gpu_is_described_by_what_is_stated_instead_of_its_type_s() -> None:
    known = hardware.GPUS["a100_80gb_sxm"]
    assert hardware.described("a100_80gb_sxm") == known
    slow = hardware.described("a100_80gb_sxm", peak_tflops=300.0, tdp_w=350.4)
    assert (slow.bf16_tflops, slow.tdp_w, slow.memory_gib) == (300.0, 350, 80.0)
    new = hardware.described("r100", peak_tflops=5000.0, memory_gib=288.0, memory_gb_s=13000.0, nvlink_gb_s=3600.0)
    assert (new.title, new.bf16_tflops, new.memory_gib, new.memory_gb_s) == ("r100", 5000.0, 288.0, 13000.0)
    assert new.nvlink_gb_s == 3600.0 and new.nic_gbps is None and new.tdp_w == 0
    old = hardware.described("v100_32gb_sxm", peak_tflops=15.7)
    assert (old.bf16_tflops, old.memory_gib) == (15.7, 32.0)


@pytest.mark.parametrize(
    ("name", "stated", "said"),
    [
        (None, {}, "no GPU type is stated. Not stated: cluster.peak_tflops, cluster.gpu_memory_gib"),
        ("r100", {}, "unknown GPU type 'r100'. Not stated: cluster.peak_tflops"),
        ("r100", {"peak_tflops": 5000.0}, "Not stated: cluster.gpu_memory_gib, cluster.gpu_memory_gb_s. "),
        ("a100_80gb_sxn", {}, "Did you mean 'a100_80gb_sxm'?"),
        ("v100_32gb_sxm", {}, "a V100-32GB SXM2 has no bf16, so there is no peak to plan with. cluster.peak_tflops=N"),
    ],
)
def test_a_gpu_without_a_peak_is_an_error_that_says_how_to_state_it(
    name: str | None, stated: dict[str, float], said: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        hardware.described(name, **stated)
    assert said in str(caught.value) and "cluster.peak_tflops=N" in str(caught.value)
    assert caught.value.exit_code == 2


def test_an_unknown_type_is_an_error_that_says_how_to_state_it() -> None:
    for ask in (hardware.gpu, hardware.peak_tflops):
        with pytest.raises(RecipeError) as caught:
            ask("a100_80gb_sxm4")
        assert caught.value.what == "unknown GPU type 'a100_80gb_sxm4'"
        assert "did you mean 'a100_80gb_sxm'?" in caught.value.do
        assert "cluster.peak_tflops=N" in caught.value.do and "cluster.gpu_tdp_w=N" in caught.value.do


def test_what_is_stated_wins() -> None:
    assert hardware.peak_tflops("new", 5000.0) == 5000.0 == hardware.peak_tflops("a40", 5000.0)
    assert hardware.tdp_w("a40", 250.0) == 250.0
    assert hardware.peak_tflops(None) is None and hardware.tdp_w(None) is None and hardware.tdp_w("new") is None
