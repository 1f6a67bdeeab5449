"""Megatron checkpoint -> complete Hugging Face folder: weights, configs, tokenizer, a card and the hashes of all of it.

Decides what the folder holds; leaves the mapping to `model` and `mapping` and the weights' format to `hf`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from toolkit import files
from toolkit import tokenizer as tokenizers
from toolkit.checkpoint import card, complete, hf, mapping, nemo_context, numbers, output, tensorfile
from toolkit.checkpoint.metadata import METADATA
from toolkit.checkpoint.model import MegatronModel
from toolkit.checkpoint.nemo_context import HF_CONFIG
from toolkit.checkpoint.pieces import Files, Matrix, blocks, move, write
from toolkit.checkpoint.shape import shape_of
from toolkit.checkpoint.writing import NewFile, Part, growing, literal, write_files
from toolkit.errors import CheckpointError, ToolkitError, UsageError, nearest
from toolkit.hf_folder import CONFIG, config_file, read_json_object

SHARD_BYTES = 5 * 10**9  # transformers' own default
_SHORT = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


@dataclass(frozen=True, kw_only=True)
class Exported:
    """`step` is the number in the checkpoint's name (NeMo counts from 0), where it has one. `files` are relative
    names; `tokenizer`: whether there is one among them.
    """

    path: Path
    parameters: int
    vocab_size: int
    padded_vocab_size: int
    dtype: str
    step: int | None
    nbytes: int
    files: tuple[str, ...]
    tokenizer: bool


def export_hf(
    checkpoint: Path,
    out: Path,
    *,
    config: Path | None = None,
    tokenizer: Path | None = None,
    vocab_size: int | None = None,
    dtype: str | None = None,
    shard_bytes: int = SHARD_BYTES,
    origin: Mapping[str, str] | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> Exported:
    """Write a Hugging Face Llama folder from a NeMo step folder or a bare torch_dist folder.

    config: config.json, or a folder with one, that states the shape; its other fields are carried over. Default: that
    of the import, where the checkpoint is one, else what NeMo's context beside the weights says. tokenizer: a folder,
    default the config's own where that has one for as many tokens. vocab_size: tokens, default the config's; padding
    rows beyond are cut. dtype: "float32", "bfloat16" or "float16", default the
    checkpoint's. origin: further lines of the card, such as the recipe and the data. workers: threads that write, by
    default by the cores. `out` appears whole or not at all; what was interrupted is gone on with by the same call.
    Raises `CheckpointError`, `UsageError`, `DiskFull`, `RunBusy`.
    """
    checkpoint = Path(checkpoint)
    dtype = _SHORT.get(dtype, dtype) if dtype else None
    if dtype is not None and not tensorfile.is_float(dtype):
        raise UsageError(f"unknown dtype '{dtype}'", why=nearest(dtype, ("float32", "bfloat16", "float16", *_SHORT)))
    if vocab_size is not None and vocab_size <= 0:
        raise UsageError(f"vocab_size is {vocab_size}")
    source_config, base = _config(checkpoint, config, vocab_size)
    shape = shape_of(base, where=source_config)
    if tokenizer is not None:
        _check_tokens(Path(tokenizer), vocab_size or shape.vocab_size)
    elif vocab_size in (None, shape.vocab_size) and hf.has_tokenizer(source_config.parent):
        tokenizer = source_config.parent
    if vocab_size is not None:
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
    step = complete.step_of(checkpoint)
    facts = {
        "source": {
            "name": checkpoint.resolve().name,
            "step": step,
            "metadata_sha256": files.sha256_file(model.reader.folder / METADATA),
        },
        "parameters": sum(spec.nbytes // tensorfile.item_bytes(spec.dtype) for spec in specs),
        "vocab_size": shape.vocab_size,
        "padded_vocab_size": model.padded_vocab_size,
        "dtype": written,
        "origin": dict(origin or {}),
    }
    sources = (model.reader.folder, source_config, *([Path(tokenizer)] if tokenizer else []))
    target = output.check_place(out, sources=sources, record=output.EXPORT_RECORD)
    stamp = files.stat_fingerprint(model.reader.folder)
    same = output.identity(facts=facts, config=merged, shard_bytes=shard_bytes, source=stamp)
    with growing(target, same) as new:
        output.check_room(out, nbytes - sum(row["bytes"] for row in new.finished.values()))
        if tokenizer is not None:
            hf.copy_tokenizer(Path(tokenizer), new.folder)
        files.write_json(new.folder / CONFIG, merged)
        hf.write_generation_config(merged, new.folder, source_config.parent / hf.GENERATION)
        made = hf.shards(specs, shard_bytes)
        hf.write_index(new.folder, made)
        with Files(nbytes) as opened, output.byte_progress("export", nbytes, progress) as bar:
            found = write_files(new_files(model, made, opened), new, opened, bar=bar, workers=workers)
        files.write_text(new.folder / card.CARD, card.render(facts, shape))
        contents = output.hashes(new.folder, found)
        files.write_json(new.folder / output.EXPORT_RECORD, {**facts, "files": contents})
    return Exported(
        path=Path(out),
        parameters=facts["parameters"],
        vocab_size=shape.vocab_size,
        padded_vocab_size=model.padded_vocab_size,
        dtype=written,
        step=step,
        nbytes=nbytes,
        files=(*contents, output.EXPORT_RECORD),
        tokenizer=tokenizer is not None,
    )


def _check_tokens(folder: Path, vocab_size: int) -> None:
    """Raise `CheckpointError` for a tokenizer that gives ids beyond the model's rows."""
    known = 0
    with contextlib.suppress(ToolkitError, OSError, ValueError, TypeError, KeyError):  # copied as it is
        if tokenizers.model_file(folder).name == tokenizers.MODEL:
            known = tokenizers.load(folder).vocab_size
        else:  # its last ids are those of added tokens; all of a large vocabulary would take 200 MB
            text = (folder / "tokenizer.json").read_text(encoding="utf-8")
            added, _ = json.JSONDecoder().raw_decode(text, text.index("[", text.index('"added_tokens"')))
            known = max((row["id"] + 1 for row in added), default=0)
    if known > vocab_size:
        raise CheckpointError(
            f"the tokenizer has {known:,} tokens, and the model is cut to {vocab_size:,}",
            where=folder,
            why="a token without a row makes a model fail when it meets it",
            do=f"give the model's own tokenizer, or --vocab-size {known} (its config, too) where this is what it knows",
        )


def _config(checkpoint: Path, config: Path | None, vocab_size: int | None) -> tuple[Path, dict[str, Any]]:
    """(the file, what it says as a config.json)."""
    checkpoint = nemo_context.owner(checkpoint)
    own = checkpoint / HF_CONFIG
    if config is not None or own.is_file():
        file = config_file(Path(config)) if config is not None else own
        return file, read_json_object(file)
    told = nemo_context.config(checkpoint)
    if told is None:
        raise UsageError(
            "the checkpoint does not say which model it is",
            where=checkpoint,
            why=f"it has neither {HF_CONFIG}, as an import, nor NeMo's {nemo_context.FILE}",
            do="give the config.json, or the folder, of the model that it was trained from: --config BASE",
        )
    if vocab_size is None and "vocab_size" not in told:
        raise UsageError(
            "NeMo's context does not say how many tokens the model knows",
            where=checkpoint / nemo_context.FILE,
            do="give it, without padding, as its tokenizer has it: --vocab-size N",
        )
    return checkpoint / nemo_context.FILE, {"vocab_size": vocab_size, **told}


def new_files(
    model: MegatronModel, made: Sequence[tuple[str, Sequence[tensorfile.Spec]]], opened: Files
) -> Sequence[NewFile]:
    """The weight files, each with a part for its header and one for each tensor."""
    place = {name: (row, layer) for row, layer in mapping.walk(model.shape) for name in row.names(layer)}

    def parts(name: str, specs: Sequence[tensorfile.Spec]) -> list[Part]:
        head, begins = tensorfile.header(specs)
        return [
            literal(0, head),
            *(_part(model, place[spec.name], spec, opened, at, name) for spec, at in zip(specs, begins, strict=True)),
        ]

    return [
        NewFile(
            name=name,
            nbytes=len(tensorfile.header(specs)[0]) + sum(spec.nbytes for spec in specs),
            parts=partial(parts, name, specs),
        )
        for name, specs in made
    ]


def _part(
    model: MegatronModel,
    place: tuple[mapping.Row, int | None],
    spec: tensorfile.Spec,
    opened: Files,
    at: int,
    name: str,
) -> Part:
    row, layer = place
    source = model.dtype(row, layer)
    index = row.names(layer).index(spec.name)

    @cache
    def located() -> Matrix:
        return model.matrices(row, layer, opened)[index]

    def write_tensor(fd: int, buffer: bytearray, done: Callable[[int], None]) -> None:
        matrix = located()
        if source == spec.dtype:
            move(matrix, opened, fd, at, path=Path(name), buffer=buffer, done=done)
            opened.behind(matrix)
            return
        begin = at
        with files.disk_errors(Path(name)):
            for _, block in blocks(matrix, opened, buffer):
                data = numbers.convert(block, source, spec.dtype)
                write(fd, data, begin)
                begin += len(data)
                done(len(data))
        opened.behind(matrix)

    return Part(begin=at, nbytes=spec.nbytes, write=write_tensor, ahead=lambda: opened.ahead(located()))


def as_dict(exported: Exported) -> dict[str, Any]:
    return {**vars(exported), "path": str(exported.path)}
