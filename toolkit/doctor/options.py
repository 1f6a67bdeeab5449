"""Which options of a recipe go here, by what was found. Decides what each needs; finds nothing itself.

What options need of each other is `toolkit.recipe.rules`' to say; this is what they need of the place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from toolkit.doctor.finding import Finding, Option
from toolkit.doctor.profiles import Place

_ELSEWHERE = "not told here: ask where trainings run, such as `apptainer exec --nv IMAGE python3 -m toolkit.doctor`"


def options(where: Place, findings: Sequence[Finding]) -> list[Option]:
    by_key = {finding.key: finding for finding in findings}
    made = [*_place(where, by_key)]
    if where.profile == "login":
        return [*made, *(Option(name=name, enabled=None, why=_ELSEWHERE) for name in ("cluster=local", *_TRAINING))]
    if where.profile != "score":
        made += _training(by_key)
    return [*made, *_data(by_key), *_watch(by_key)]


_TRAINING = (
    *(
        "train.layers=te",
        "train.layers=local",
        "train.attention=flash",
        "train.attention=fused",
        "train.precision=bf16",
    ),
    *("train.async_save", "parallel.tp_overlap", "parallel.cp>1", "data.reset_attention"),
)


def _place(where: Place, found: Mapping[str, Finding]) -> list[Option]:
    made = []
    if "slurm" in found:
        made.append(_one("cluster.executor=slurm", found, "slurm"))
    if "apptainer" in found:
        made.append(_one("container=apptainer", found, "apptainer"))
    if where.profile == "login" and not where.image:
        made.append(
            Option(name="container=none", enabled=None, why="container.python names an environment that has torch")
        )
    return made


def _training(found: Mapping[str, Finding]) -> list[Option]:
    engine = ("torch", "megatron-core", "nemo-toolkit")
    trains, why = _all(found, engine)
    gpu = _works(found.get("gpus"))
    te, te_why = _all(found, (*engine, "transformer-engine", "te"))
    flash, flash_why = _all(found, ("flash-attn", "flash"))
    local = trains and _works(found.get("attention"))
    does = "Transformer Engine does it" if gpu else "Transformer Engine can be imported; its kernels were not tried"
    on_gpus = "" if gpu else "; no GPU is visible here, and cluster.device=cpu does without"
    made = [
        _local(found),
        Option(name="train.layers=te", enabled=te, why=(te_why or does) + on_gpus),
        Option(name="train.layers=local", enabled=trains, why=why or "Megatron's own layers need nothing else"),
    ]
    if te and flash:
        made.append(Option(name="train.attention=flash", enabled=True, why="flash-attn for layers=te" + on_gpus))
    else:
        own = "with train.layers=local, by PyTorch's own kernel" + (
            f"; not with te: {flash_why or te_why}" if gpu else ""
        )
        made.append(
            Option(name="train.attention=flash", enabled=local, why=own if local else why or _said(found, "attention"))
        )
    fused = te and (not gpu or _works(found.get("cudnn")))
    fused_why = te_why or (does if fused else _said(found, "cudnn"))
    made += [
        Option(name="train.attention=fused", enabled=fused, why=fused_why + on_gpus),
        Option(name="parallel.tp_overlap", enabled=te, why=(te_why or does) + on_gpus),
        Option(name="parallel.cp>1", enabled=te, why=(te_why or does) + on_gpus),
        _reset(trains, why, te, flash or fused),
        _bf16(found, gpu),
        _async(trains, why, gpu),
    ]
    return made


def _local(found: Mapping[str, Finding]) -> Option:
    able, why = _all(found, ("torch", "megatron-core", "nemo-toolkit", "sentencepiece", "allreduce"))
    return Option(name="cluster=local", enabled=able, why=why or "processes on this machine train with gloo or NCCL")


def _reset(trains: bool, why: str, te: bool, packs: bool) -> Option:
    if te and not packs:
        return Option(
            name="data.reset_attention",
            enabled=True,
            why="with train.layers=local; te packs with flash or fused attention only",
        )
    return Option(name="data.reset_attention", enabled=trains, why=why or "attention ends with the document")


def _async(trains: bool, why: str, gpu: bool) -> Option:
    able = "checkpoints are written while the training goes on" if gpu else "on GPUs alone; a CPU saves at once"
    return Option(name="train.async_save", enabled=trains and gpu, why=why or able)


def _bf16(found: Mapping[str, Finding], gpu: bool) -> Option:
    name = "train.precision=bf16"
    if not _works(found.get("matmul")):
        return Option(name=name, enabled=False, why=_said(found, "matmul"))
    gpus = found["gpus"].detail.get("gpus", []) if gpu else []
    old = sorted({str(g.get("name")) for g in gpus if not g.get("bf16")})
    if old:
        return Option(
            name=name, enabled=False, why=f"{', '.join(old)}: no bf16 before compute capability 8.0; give fp32"
        )
    return Option(name=name, enabled=True, why="a product in bf16 is right" + ("" if gpu else " on this CPU"))


def _data(found: Mapping[str, Finding]) -> list[Option]:
    return [
        _one("corpus=jats", found, "zstandard", "numpy", "lxml"),
        _one("corpus=jsonl", found, "zstandard", "numpy"),
        _one("corpus=gap_replay", found, "lxml", "pypdfium2", "pyarrow", "xxhash", "ftfy", "fasttext-predict"),
        _one("stages: base, shards", found, "sentencepiece", "numpy"),
        _one("stages: score", found, "torch", "transformers"),
    ]


def _watch(found: Mapping[str, Finding]) -> list[Option]:
    made = [_one("watch.tensorboard", found, "tensorboard")] if "tensorboard" in found else []
    for name, package in (("watch.wandb", "wandb"), ("watch.mlflow", "mlflow-skinny")):
        option = _one(name, found, package)
        made.append(
            option if option.enabled else Option(name=name, enabled=False, why=f"{option.why}; an extra of the toolkit")
        )
    return made


def _one(name: str, found: Mapping[str, Finding], *keys: str) -> Option:
    able, why = _all(found, keys)
    return Option(
        name=name, enabled=able, why=why or ", ".join(f"{found[key].what}: {found[key].found}" for key in keys)
    )


def _all(found: Mapping[str, Finding], keys: Sequence[str]) -> tuple[bool, str]:
    """Whether all of them are there and whole; a kernel not tried for want of a GPU is no reason."""
    for key in keys:
        if key in ("te", "flash") and (key not in found or found[key].state == "absent"):
            continue
        if not _works(found.get(key)):
            return False, _said(found, key)
    return True, ""


def _works(finding: Finding | None) -> bool:
    return finding is not None and finding.state in ("ok", "warn")


def _said(found: Mapping[str, Finding], key: str) -> str:
    return f"{found[key].what}: {found[key].found}" if key in found else f"{key} was not looked for here"
