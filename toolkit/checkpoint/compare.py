"""Two models, tensor by tensor, bit for bit: two HF folders, two checkpoints, or one of each.

Decides what counts as equal (type, shape and every bit); leaves reading to `hf` and `model`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.checkpoint import distcp, hf, mapping
from toolkit.checkpoint.look import kind_of
from toolkit.checkpoint.model import MegatronModel, is_optimizer

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A tensor that is not the same. `max_abs` is the largest |a - b|, NaN where exactly one is NaN, None when shapes
    differ.
    """

    name: str
    a: str
    b: str
    max_abs: float | None


@dataclass(frozen=True, kw_only=True)
class Diff:
    """`compared` counts tensors with one name in both; optimizer state is not compared."""

    compared: int
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    differing: tuple[Difference, ...]

    @property
    def equal(self) -> bool:
        return not (self.only_a or self.only_b or self.differing)


# name -> (dtype, shape, reader of its parts: one, or one per layer of a stacked tensor)
_Tensors = Mapping[str, tuple[str, tuple[int, ...], list[Callable[[], "Tensor"]]]]


def diff(a: Path, b: Path) -> Diff:
    """Compare two models. A checkpoint against an HF folder is read under the folder's config and names.

    Raises `CheckpointError` when either cannot be read.
    """
    a, b = Path(a), Path(b)
    kinds = (kind_of(a), kind_of(b))
    if kinds == ("checkpoint", "hf"):
        tensors_a, tensors_b = _as_hf(a, b), _of_hf(b)
    elif kinds == ("hf", "checkpoint"):
        tensors_a, tensors_b = _of_hf(a), _as_hf(b, a)
    else:
        tensors_a, tensors_b = (
            _of_hf(p) if kind == "hf" else _of_checkpoint(p) for p, kind in zip((a, b), kinds, strict=True)
        )
    differing = []
    common = [name for name in tensors_a if name in tensors_b]
    for name in common:
        (type_a, dims_a, parts_a), (type_b, dims_b, parts_b) = tensors_a[name], tensors_b[name]
        words = (f"{type_a} {list(dims_a)}", f"{type_b} {list(dims_b)}")
        if dims_a != dims_b or len(parts_a) != len(parts_b):
            differing.append(Difference(name=name, a=words[0], b=words[1], max_abs=None))
            continue
        found = [_compare(x(), y()) for x, y in zip(parts_a, parts_b, strict=True)]
        if not all(same for same, _ in found):
            import math

            values = [value for _, value in found]
            worst = math.nan if any(math.isnan(value) for value in values) else max(values)
            differing.append(Difference(name=name, a=words[0], b=words[1], max_abs=worst))
    return Diff(
        compared=len(common),
        only_a=tuple(n for n in tensors_a if n not in tensors_b),
        only_b=tuple(n for n in tensors_b if n not in tensors_a),
        differing=tuple(differing),
    )


def _compare(a: Tensor, b: Tensor) -> tuple[bool, float]:
    import torch

    def raw(tensor: Tensor) -> Tensor:
        return tensor.contiguous().reshape(-1).view(torch.uint8)

    if a.dtype == b.dtype and torch.equal(raw(a), raw(b)):
        return True, 0.0
    x, y = a.double(), b.double()
    gap = (x - y).abs()
    gap[(x == y) | (x.isnan() & y.isnan())] = 0.0  # equal infinities have no difference
    return False, float(gap.max()) if gap.numel() else 0.0


def _of_hf(folder: Path) -> _Tensors:
    model = hf.check_hf(folder)
    return {name: (t.dtype, t.dims, [lambda name=name: model.read(name)]) for name, t in model.tensors.items()}


def _of_checkpoint(path: Path) -> _Tensors:
    reader = distcp.Reader(path)
    out = {}
    for key, entry in sorted(reader.metadata.tensors.items()):
        if is_optimizer(key):
            continue
        stacked = [row for row in mapping.TABLE if row.per_layer and key.endswith(row.megatron)]
        layers = range(entry.dims[0]) if stacked else [None]
        out[key] = (
            entry.dtype,
            entry.dims,
            [lambda key=key, layer=layer: reader.read(key, layer=layer) for layer in layers],
        )
    return out


def _as_hf(path: Path, folder: Path) -> _Tensors:
    model = MegatronModel(path, hf.check_hf(folder).shape)
    return {spec.name: (spec.dtype, spec.dims, [lambda name=spec.name: model.read(name)]) for spec in model.specs()}


def as_dict(found: Diff) -> dict[str, Any]:
    return {"equal": found.equal, **vars(found), "differing": [vars(each) for each in found.differing]}


def as_text(found: Diff) -> str:
    lines = [f"only in the first: {name}" for name in found.only_a] + [
        f"only in the second: {name}" for name in found.only_b
    ]
    for each in found.differing:
        gap = "other shape" if each.max_abs is None else f"max |a-b| {each.max_abs:.6g}"
        lines.append(f"differs: {each.name}: {each.a} | {each.b}: {gap}")
    verdict = "equal, bit for bit" if found.equal else "not equal"
    return "\n".join([*lines, f"{found.compared} tensors compared: {verdict}"])
