"""Which options of a recipe follow from what was found."""

from __future__ import annotations

import pytest

from toolkit.doctor.finding import Finding
from toolkit.doctor.options import options
from toolkit.doctor.profiles import Place

GPUS = {"gpus": [{"name": "NVIDIA A100-SXM4-80GB", "bf16": True}]}
WHOLE = (
    *("torch", "megatron-core", "nemo-toolkit", "transformer-engine", "te", "flash-attn", "flash", "apex"),
    *("matmul", "attention", "allreduce", "gpus", "cudnn", "sentencepiece", "numpy", "lxml", "zstandard"),
    *("transformers", "tensorboard", "wandb", "mlflow-skinny", "slurm", "apptainer"),
    *("pypdfium2", "pyarrow", "xxhash", "ftfy", "fasttext-predict"),
)


def told(profile: str = "train", image: bool = True, **states: str) -> dict[str, tuple[bool | None, str]]:
    """Options where everything is whole but what `states` names, _ for - in names."""
    changed = {name.replace("_", "-"): state for name, state in states.items()}
    found = [
        Finding(section="", key=key, what=key, found=changed.get(key, "fine"), state=changed.get(key, "ok"),  # type: ignore[arg-type]
                detail=GPUS if key == "gpus" else {})
        for key in WHOLE if changed.get(key) != "unasked"
    ]  # fmt: skip
    where = Place(profile=profile, why="", image=image)
    return {option.name: (option.enabled, option.why) for option in options(where, found)}


def test_where_everything_is_whole_everything_goes() -> None:
    assert {name: why for name, (enabled, why) in told().items() if not enabled} == {}


@pytest.mark.parametrize(
    ("broken", "ruled_out"),
    [
        ("transformer_engine", {"train.layers=te", "train.attention=fused", "parallel.tp_overlap", "parallel.cp>1"}),
        ("te", {"train.layers=te", "train.attention=fused", "parallel.tp_overlap", "parallel.cp>1"}),
        ("matmul", {"train.precision=bf16"}),
        ("lxml", {"corpus=jats", "corpus=gap_replay"}),
        ("pypdfium2", {"corpus=gap_replay"}),
        ("wandb", {"watch.wandb"}),
        ("mlflow_skinny", {"watch.mlflow"}),
        ("slurm", {"cluster.executor=slurm"}),
        ("apptainer", {"container=apptainer"}),
        ("cudnn", {"train.attention=fused"}),
        ("apex", set()),  # with Transformer Engine nothing needs it
        ("flash", set()),  # layers=local has PyTorch's
        ("sentencepiece", {"cluster=local", "stages: base, shards"}),
    ],
)
def test_what_is_broken_rules_out_what_needs_it(broken: str, ruled_out: set[str]) -> None:
    found = told(**{broken: "fault"})
    assert {name for name, (enabled, _) in found.items() if enabled is False} == ruled_out
    assert all("fault" in found[name][1] for name in ruled_out)


def test_no_torch_no_training() -> None:
    found = told(torch="fault")
    assert not any(
        found[name][0] for name in ("train.layers=te", "train.layers=local", "cluster=local", "stages: score")
    )


def test_a_cpu() -> None:
    found = told("cpu", gpus="absent", transformer_engine="absent", flash_attn="absent", te="unasked", flash="unasked")
    assert found["train.layers=te"][0] is False and "no GPU is visible" in found["train.layers=te"][1]
    assert found["train.layers=local"][0] and found["train.attention=flash"][0] and found["data.reset_attention"][0]
    assert found["train.async_save"][0] is False


def test_what_was_not_tried_for_want_of_a_gpu_is_not_ruled_out() -> None:
    """A login node may hold the image against the pins; its kernels show on a node with GPUs."""
    found = told(gpus="absent", te="absent", flash="absent")
    assert found["train.layers=te"][0] and "not tried" in found["train.layers=te"][1]


def test_an_old_gpu_has_no_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(GPUS, "gpus", [{"name": "Tesla V100", "bf16": False}])
    assert told()["train.precision=bf16"] == (
        False, "Tesla V100: no bf16 before compute capability 8.0; give fp32",
    )  # fmt: skip


def test_a_login_node_tells_of_itself_alone() -> None:
    found = told("login", image=False)
    assert found["cluster.executor=slurm"][0] and found["container=apptainer"][0]
    assert found["train.layers=te"][0] is None and "toolkit.doctor" in found["train.layers=te"][1]
