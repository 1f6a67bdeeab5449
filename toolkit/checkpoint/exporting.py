"""Megatron checkpoint -> complete Hugging Face folder: weights, configs, tokenizer, a card and the hashes of all of it.

Decides what the folder holds; leaves the mapping to `model` and `mapping` and the weights' format to `hf`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from toolkit import files
from toolkit.checkpoint import card, complete, hf, output, tensorfile
from toolkit.checkpoint.metadata import METADATA
from toolkit.checkpoint.model import MegatronModel
from toolkit.checkpoint.shape import shape_of
from toolkit.errors import CheckpointError, UsageError, nearest
from toolkit.hf_folder import CONFIG, config_file, read_json_object

SHARD_BYTES = 5 * 10**9  # transformers' own default
_SHORT = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


@dataclass(frozen=True, kw_only=True)
class Exported:
    """`step` is the number in the checkpoint's name (NeMo counts from 0), where it has one. `files` are relative
    names.
    """

    path: Path
    parameters: int
    vocab_size: int
    padded_vocab_size: int
    dtype: str
    step: int | None
    nbytes: int
    files: tuple[str, ...]


def export_hf(
    checkpoint: Path,
    out: Path,
    *,
    config: Path,
    tokenizer: Path | None = None,
    vocab_size: int | None = None,
    dtype: str | None = None,
    shard_bytes: int = SHARD_BYTES,
    progress: bool = True,
) -> Exported:
    """Write a Hugging Face Llama folder from a NeMo step folder or a bare torch_dist folder.

    config: config.json, or a folder with one, that states the shape; its other fields are carried over. vocab_size:
    tokens, default the config's; padding rows beyond are cut. dtype: "float32", "bfloat16" or "float16", default the
    checkpoint's. `out` appears whole or not at all. Raises `CheckpointError`, `UsageError`, `DiskFull`.
    """
    checkpoint = Path(checkpoint)
    dtype = _SHORT.get(dtype, dtype) if dtype else None
    if dtype is not None and not tensorfile.is_float(dtype):
        raise UsageError(f"unknown dtype '{dtype}'", why=nearest(dtype, ("float32", "bfloat16", "float16", *_SHORT)))
    source_config = config_file(Path(config))
    base = read_json_object(source_config)
    shape = shape_of(base, where=source_config)
    if vocab_size is not None:
        if vocab_size <= 0:
            raise UsageError(f"vocab_size is {vocab_size}")
        shape = replace(shape, vocab_size=vocab_size)
    if reason := complete.incomplete_reason(checkpoint):
        raise CheckpointError(
            "the checkpoint is not complete",
            where=checkpoint,
            why=reason,
            do="use another step; an interrupted one cannot be repaired",
        )
    model = MegatronModel(checkpoint, shape)
    specs = model.specs(dtype)
    written = dtype or next(spec.dtype for spec in specs)
    nbytes = sum(spec.nbytes for spec in specs)
    merged = {**base, "architectures": ["LlamaForCausalLM"], "vocab_size": shape.vocab_size, "torch_dtype": written}
    if "dtype" in merged:  # transformers 5 writes this name
        merged["dtype"] = written
    sources = (model.reader.folder, source_config, *([Path(tokenizer)] if tokenizer else []))
    with output.new_folder(out, sources=sources, nbytes=nbytes) as part:
        if tokenizer is not None:
            hf.copy_tokenizer(Path(tokenizer), part)
        files.write_json(part / CONFIG, merged)
        hf.write_generation_config(merged, part, source_config.parent / hf.GENERATION)
        with (
            output.byte_progress("export", nbytes, progress) as bar,
            hf.ShardedWriter(part, specs, shard_bytes) as writer,
        ):
            for name, tensor in model.tensors():
                values = tensor.to(_torch_dtype(dtype)) if dtype else tensor
                writer.write(name, values)
                if bar is not None:
                    bar.advance(values.nbytes, note=name)
        step = complete.step_of(checkpoint)
        parameters = sum(spec.nbytes // tensorfile.item_bytes(spec.dtype) for spec in specs)
        facts = {
            "source": {
                "name": checkpoint.resolve().name,
                "step": step,
                "metadata_sha256": files.sha256_file(model.reader.folder / METADATA),
            },
            "parameters": parameters,
            "vocab_size": shape.vocab_size,
            "padded_vocab_size": model.padded_vocab_size,
            "dtype": written,
        }
        files.write_text(part / "README.md", card.render(facts, shape))
        contents = output.hashes(part)
        files.write_json(part / output.EXPORT_RECORD, {**facts, "files": contents})
    return Exported(
        path=Path(out),
        parameters=parameters,
        vocab_size=shape.vocab_size,
        padded_vocab_size=model.padded_vocab_size,
        dtype=written,
        step=step,
        nbytes=nbytes,
        files=(*contents, output.EXPORT_RECORD),
    )


def _torch_dtype(name: str) -> Any:
    import torch

    return getattr(torch, name)


def as_dict(exported: Exported) -> dict[str, Any]:
    return {**vars(exported), "path": str(exported.path)}
