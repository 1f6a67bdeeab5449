"""Which kind of place this is, and what each kind should have. Decides from names, labels and the pins alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.doctor.packages import KERNELS, Wanted, installed
from toolkit.pins import Pins, canonical

PROFILES = ("login", "cpu", "train", "train-from-wheels", "score")
CUDA = "cuda"
"""What --without takes, and what an image's label says was left out."""

_LABELS = ".singularity.d/labels.json"
# What the toolkit imports itself, or what NeMo needs and does not say.
_DIRECT = ("numpy", "psutil", "transformers", "safetensors", "sentencepiece", "nemo-run", "lightning", "fiddle")
_NEED_CUDA = (*KERNELS, "vllm")
_NO_PACKAGES = ("cuda",)  # names in gpu_image.container that are no Python packages


@dataclass(frozen=True, kw_only=True)
class Place:
    """`profile` and `why` it is that one; `image`: this is inside of one; `without`: what was left out of it."""

    profile: str
    why: str
    image: bool
    without: frozenset[str] = frozenset()


def place(
    profile: str = "auto", *, without: frozenset[str] = frozenset(), root: Path = Path("/"), env: Mapping[str, str]
) -> Place:
    """Where this is. `auto` asks the image's labels, then what is installed."""
    labels = _labels(root)
    image = labels is not None or any(name in env for name in ("APPTAINER_CONTAINER", "SINGULARITY_CONTAINER"))
    said = labels or {}
    if str(said.get("meditron.cuda", "")).lower() == "no":
        without |= {CUDA}
    if profile != "auto":
        return Place(profile=profile, why="asked for", image=image, without=without)
    if said.get("meditron.profile") in PROFILES:
        return Place(profile=said["meditron.profile"], why="the image's label", image=image, without=without)
    torch = installed("torch")
    if torch is None:
        return Place(profile="login", why="no torch is installed here", image=image, without=without)
    if installed("vllm") and not installed("nemo-toolkit"):
        return Place(profile="score", why="vLLM is installed here, and no NeMo", image=image, without=without)
    if torch.endswith("+cpu"):
        return Place(profile="cpu", why="torch's CPU build is installed here", image=image, without=without)
    return Place(profile="train", why="torch is installed here, and not its CPU build", image=image, without=without)


def wanted(where: Place, pins: Pins) -> list[Wanted]:
    """The packages of a place, in the order in which they are imported; the heaviest and most dependent last."""
    if where.profile == "login":
        found = _exact(pins.of("core"))
    elif where.profile == "cpu":
        found = [*_exact(pins.of("core", "train", "score", "data", "dev", cpu=True)), *_kernels()]
    elif where.profile == "score":
        found = [
            *_section(pins, "score_image"),
            *_exact(pins.of("core")),
            *_any(("numpy",)),
            *_lenient(pins.of("score")),
        ]
    elif where.profile == "train-from-wheels":
        found = [*_section(pins, "wheels_image"), *_exact(pins.of("core", "train", "gpu-image"))]
    else:
        found = [*_exact(pins.of("gpu-image")), *_container(pins), *_lenient(pins.of("core")), *_any(_DIRECT)]
    if where.profile != "login":
        found += [Wanted(name=name, version=pins.packages[name].version, needed=False, strict=False)
                  for name in ("wandb", "mlflow-skinny") if name in pins.packages]  # fmt: skip
    once: dict[str, Wanted] = {}
    for want in found:
        once.setdefault(want.name, want)
    if CUDA in where.without:
        once |= {
            name: Wanted(name=name, version=want.version, leading=want.leading, strict=False, needed=False)
            for name, want in once.items()
            if name in _NEED_CUDA
        }
        if "torch" in once and where.profile != "cpu":  # a stand-in's
            once["torch"] = Wanted(name="torch", version=once["torch"].version, strict=False)
    last = ("torch", "transformers", "megatron-core", "nemo-toolkit")
    return sorted(once.values(), key=lambda want: last.index(want.name) if want.name in last else -1)


def _exact(versions: Mapping[str, str]) -> list[Wanted]:
    return [Wanted(name=name, version=version) for name, version in versions.items()]


def _lenient(versions: Mapping[str, str]) -> list[Wanted]:
    return [Wanted(name=name, version=version, strict=False) for name, version in versions.items()]


def _any(names: tuple[str, ...]) -> list[Wanted]:
    return [Wanted(name=name) for name in names]


def _kernels() -> list[Wanted]:
    """Looked at where they are not wanted too: a broken one breaks what imports it."""
    return [Wanted(name=name, needed=False) for name in KERNELS]


def _container(pins: Pins) -> list[Wanted]:
    """What the vendor's container brings. NeMo and Megatron-core are the pair that the toolkit is written for; the rest
    is as it was built, and the table's figures for it are the vendor's.
    """
    container = pins.gpu_image.get("container")
    return [
        Wanted(
            name=canonical(name), version=str(version), leading=True, strict=name in ("nemo-toolkit", "megatron-core")
        )
        for name, version in (container.items() if isinstance(container, dict) else ())
        if name not in _NO_PACKAGES
    ]


def _section(pins: Pins, name: str) -> list[Wanted]:
    """Packages of a section of the table: {name: {version: ...}}."""
    section: Any = pins.raw.get(name)
    packages = section.get("packages") if isinstance(section, dict) else None
    return [
        Wanted(name=canonical(package), version=str(pin["version"]))
        for package, pin in (packages.items() if isinstance(packages, dict) else ())
        if isinstance(pin, dict) and "version" in pin
    ]


def _labels(root: Path) -> dict[str, Any] | None:
    """The labels of the image that this is in; {} when they cannot be read, None outside of one."""
    if not (root / _LABELS).parent.is_dir():
        return None
    try:
        labels = json.loads((root / _LABELS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return labels if isinstance(labels, dict) else {}
