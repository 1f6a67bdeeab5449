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
