"""HF model -> Megatron checkpoint that a weights-only restore takes at any TP and PP, with room for new tokens.

Decides the values of new and padding rows and the layout of the output folder; leaves the mapping to `mapping`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from toolkit import files, hf_folder
from toolkit.checkpoint import distcp, hf, mapping, output
from toolkit.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

NewRows = Literal["copy_last", "mean"]
HF_CONFIG = "hf_config.json"
PREFIX = "module."  # NeMo wraps the model
PAD_TO = 128  # Megatron's make_vocab_size_divisible_by


@dataclass(frozen=True, kw_only=True)
class Imported:
    """`parameters` counts those of the base; the embedding has `padded_vocab_size` rows, of which `vocab_size` are
    tokens.
    """

    path: Path
    parameters: int
    vocab_size: int
    base_vocab_size: int
    padded_vocab_size: int
    nbytes: int
    source_sha256: str


def import_hf(
    hf_folder: Path,
    out: Path,
    *,
    vocab_size: int | None = None,
    padded_vocab_size: int | None = None,
    new_rows: NewRows = "copy_last",
    progress: bool = True,
) -> Imported:
    """Write `out/weights` (torch_dist), `out/hf_config.json` and `out/import.json` from a Hugging Face Llama folder.

    vocab_size: tokens after extension (default: the base's). Rows beyond the base, padding included, are copies of
    the base's last row ("copy_last", what MEDITRON's published weight conversion does) or its mean row.
    padded_vocab_size: rows written (default: `vocab_size` rounded up to 128); a model with more rows than that still
    loads, the rest being zero. Types are kept. `out` appears whole or not at all. Raises `CheckpointError`,
    `UsageError`, `DiskFull`.
    """
    model = hf.check_hf(Path(hf_folder))
    shape, base = model.shape, model.shape.vocab_size
    vocab = base if vocab_size is None else vocab_size
    padded = -(-vocab // PAD_TO) * PAD_TO if padded_vocab_size is None else padded_vocab_size
    if vocab < base:
        raise UsageError(
            f"vocab_size {vocab} is below the base model's {base}",
            where=hf_folder,
            why="tokens are added to a base, never taken away",
        )
    if padded < vocab:
        raise UsageError(f"padded_vocab_size {padded} is below vocab_size {vocab}", where=hf_folder)
    if new_rows not in get_args(NewRows):
        raise UsageError(f"new_rows is {new_rows!r}, not one of {', '.join(get_args(NewRows))}")
    _check_types(model)
    with (
        output.new_folder(out, sources=(model.folder,), nbytes=model.nbytes) as part,
        output.byte_progress("import", model.nbytes, progress) as bar,
    ):
        weights = part / distcp.WEIGHTS
        weights.mkdir()
        with distcp.Writer(weights) as writer:
            for row, layer in mapping.walk(shape):
                parts = [model.read(name) for name in row.names(layer)]
                fused = mapping.fuse(row, parts, shape)
                if row.vocab:
                    fused = _extended(fused, padded, new_rows)
                if layer is None:
                    writer.add(PREFIX + row.megatron, fused, dims=fused.shape, offsets=[0] * fused.ndim)
                else:
                    writer.add(
                        PREFIX + row.megatron,
                        fused[None],
                        dims=(shape.layers, *fused.shape),
                        offsets=[layer] + [0] * fused.ndim,
                    )
                if bar is not None:
                    bar.advance(sum(part.nbytes for part in parts), note=row.hf[0].format(layer=layer))
            for key in mapping.EXTRA_STATE_PER_LAYER:
                for layer in range(shape.layers):
                    writer.add_object(f"{PREFIX}{key}/shard_{layer}_{shape.layers}", None)
            for key in mapping.EXTRA_STATE_ONCE:
                writer.add_object(f"{PREFIX}{key}/shard_0_1", None)
        files.write_json(part / HF_CONFIG, {**model.config, "vocab_size": vocab})
        source = _source_fingerprint(model)
        imported = Imported(
            path=Path(out),
            parameters=_parameters(model),
            vocab_size=vocab,
            base_vocab_size=base,
            padded_vocab_size=padded,
            nbytes=sum(p.stat().st_size for p in weights.iterdir()),
            source_sha256=source,
        )
        files.write_json(
            part / output.IMPORT_RECORD,
            {
                "source": {"name": model.folder.resolve().name, "sha256": source},
                "vocab_size": vocab,
                "base_vocab_size": base,
                "padded_vocab_size": padded,
                "new_rows": new_rows,
                "parameters": imported.parameters,
                "tensors": {name: list(t.dims) for name, t in model.tensors.items()},
                "files": output.hashes(part),
            },
        )
    return imported


def _check_types(model: hf.HfModel) -> None:
    """A Megatron tensor has one type, and so has every Hugging Face tensor that goes into it."""
    for row in mapping.TABLE:
        names = [n for r, layer in mapping.walk(model.shape) if r is row for n in r.names(layer)]
        first = {model.tensors[name].dtype: name for name in reversed(names)}
        if len(first) > 1:
            (a, name_a), (b, name_b) = list(first.items())[:2]
            raise CheckpointError(
                f"'{name_a}' is {a} and '{name_b}' is {b}",
                where=model.folder,
                why="they become one tensor of the checkpoint",
                do="save the model in one type",
            )


def _extended(tensor: Tensor, rows: int, new_rows: NewRows) -> Tensor:
    import torch

    base = tensor.shape[0]
    if rows == base:
        return tensor
    row = tensor[-1] if new_rows == "copy_last" else tensor.mean(dim=0, dtype=torch.float64).to(tensor.dtype)
    out = tensor.new_empty((rows, *tensor.shape[1:]))
    out[:base], out[base:] = tensor, row
    return out


def _parameters(model: hf.HfModel) -> int:
    from math import prod

    return sum(prod(tensor.dims) for tensor in model.tensors.values())


def _source_fingerprint(model: hf.HfModel) -> str:
    """SHA-256 over config and weight files, in the form of `files.fingerprint` (so that other files beside them do
    not count).
    """
    import hashlib

    names = [model.folder / hf_folder.CONFIG, *hf_folder.weight_files(model.folder)]
    lines = sorted(f"{path.name}\0{files.sha256_file(path)}\n" for path in names)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def as_dict(imported: Imported) -> dict[str, Any]:
    return {**vars(imported), "path": str(imported.path)}
