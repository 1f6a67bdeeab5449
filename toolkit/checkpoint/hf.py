"""Hugging Face Llama folders: what makes one complete, reading its tensors, writing it in shards.

Decides which tensors a folder must have; leaves whether its files are whole to `toolkit.hf_folder`, the meaning of the
tensors to `mapping` and their bytes to `tensorfile`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit import files, hf_folder
from toolkit.checkpoint import mapping, numbers, tensorfile
from toolkit.checkpoint.pieces import BLOCK, Files, Matrix, blocks
from toolkit.checkpoint.shape import LlamaShape, shape_of
from toolkit.errors import CheckpointError
from toolkit.hf_folder import CONFIG, INDEX, WEIGHTS, Stored

if TYPE_CHECKING:
    from torch import Tensor

GENERATION = "generation_config.json"
TOKENIZER_FILES = (
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
)
_IGNORED = ".rotary_emb.inv_freq"  # older conversions stored this buffer; it follows from the config


@dataclass(frozen=True, kw_only=True)
class HfModel:
    """An HF folder whose config, file list and tensor shapes have been checked. `tensors` are those of the mapping
    table.
    """

    folder: Path
    config: Mapping[str, Any]
    shape: LlamaShape
    tensors: Mapping[str, Stored]

    def matrix(self, name: str) -> Matrix:
        """Where the bytes of a tensor are."""
        return tensorfile.matrix_of(self.tensors[name])

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())


def check_hf(folder: Path) -> HfModel:
    """Open an HF Llama folder without reading a weight: config, every file whole, every tensor of the table with its
    shape.

    Raises `CheckpointError` naming the file or tensor at fault: missing or damaged config or weights, a tensor that is
    missing, of another shape, in two files, of a type that cannot be converted, or unknown to the table.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError("no such folder", where=folder, do="give a Hugging Face model folder")
    config = hf_folder.read_json_object(hf_folder.config_file(folder))
    shape = shape_of(config, where=folder / CONFIG)
    stored = hf_folder.read_tensors(folder)
    found = {name: tensor for name, tensor in stored.items() if not name.endswith(_IGNORED)}
    expected = mapping.hf_tensors(shape)
    extra = set(found) - set(expected)
    if shape.tied and extra == {"lm_head.weight"}:  # some writers store the shared tensor under both names
        _same(found["lm_head.weight"], found.get("model.embed_tokens.weight"))
        extra = set()
    for name, dims in expected.items():
        if name not in found:
            raise CheckpointError(
                f"tensor '{name}' is missing",
                where=folder,
                why=f"the config asks for {len(expected)} tensors",
                do="use the complete model",
            )
        if found[name].dims != dims:
            raise CheckpointError(
                f"tensor '{name}' has shape {list(found[name].dims)}, not {list(dims)}",
                where=found[name].file,
                why=f"{CONFIG} says {list(dims)}",
            )
        if not tensorfile.is_float(found[name].dtype):
            raise CheckpointError(
                f"tensor '{name}' has type {found[name].dtype}",
                where=found[name].file,
                why="only float64, float32, float16 and bfloat16 weights are converted",
            )
    if extra:
        raise CheckpointError(
            f"holds {len(extra)} tensors that no Llama has, such as '{min(extra)}'",
            where=folder,
            why="leaving them out would change the model",
        )
    return HfModel(folder=folder, config=config, shape=shape, tensors={name: found[name] for name in expected})


def _same(head: Stored, embedding: Stored | None) -> None:
    if embedding is not None and (head.nbytes, head.dtype) == (embedding.nbytes, embedding.dtype):
        with Files() as opened:
            pairs = zip(
                blocks(tensorfile.matrix_of(head), opened, bytearray(BLOCK)),
                blocks(tensorfile.matrix_of(embedding), opened, bytearray(BLOCK)),
                strict=True,
            )
            if all(numbers.same(a, b) for (_, a), (_, b) in pairs):
                return
    raise CheckpointError(
        "'lm_head.weight' differs from the embedding",
        where=head.file,
        why="the config says that they are tied",
        do="set tie_word_embeddings to false",
    )


def shards(specs: Iterable[tensorfile.Spec], shard_bytes: int) -> list[tuple[str, list[tensorfile.Spec]]]:
    """(file name, its tensors) for files of at most `shard_bytes`, or of one tensor that is larger."""
    found: list[list[tensorfile.Spec]] = [[]]
    used = 0
    for spec in specs:
        if found[-1] and used + spec.nbytes > shard_bytes:
            found.append([])
            used = 0
        found[-1].append(spec)
        used += spec.nbytes
    count = len(found)
    names = [WEIGHTS] if count == 1 else [f"model-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)]
    return list(zip(names, found, strict=True))


def write_index(folder: Path, made: Sequence[tuple[str, Sequence[tensorfile.Spec]]]) -> None:
    """The index of weights in several files; nothing for one file."""
    if len(made) > 1:
        total = sum(spec.nbytes for _, specs in made for spec in specs)
        where = {spec.name: name for name, specs in made for spec in specs}
        files.write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": where})


class ShardedWriter:
    """Writes the tensors of a small model, given in the announced order, into files of at most `shard_bytes` and their
    index.
    """

    def __init__(self, folder: Path, specs: Iterable[tensorfile.Spec], shard_bytes: int) -> None:
        made = shards(specs, shard_bytes)
        write_index(folder, made)
        self._folder, self._left = folder, made[::-1]
        self._open: tensorfile.Writer | None = None
        self._count = 0

    def write(self, name: str, tensor: Tensor) -> None:
        if self._open is None:
            file, specs = self._left.pop()
            self._open, self._count = tensorfile.Writer(self._folder / file, specs), len(specs)
        self._open.write(name, tensor)
        self._count -= 1
        if not self._count:
            self.close(whole=True)

    def close(self, *, whole: bool) -> None:
        if self._open is not None:
            self._open.close(whole=whole)
            self._open = None

    def __enter__(self) -> ShardedWriter:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.close(whole=kind is None)
        if kind is None and self._left:
            raise ValueError(f"{self._folder}: {len(self._left)} files were announced and not written")


def has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("tokenizer.model", "tokenizer.json", "vocab.json"))


def copy_tokenizer(source: Path, out: Path) -> list[str]:
    """Copy the tokenizer's files as they are; the names copied. Raises `CheckpointError` when there are none."""
    source = Path(source)
    present = [name for name in TOKENIZER_FILES if (source / name).is_file()]
    if not has_tokenizer(source):
        raise CheckpointError(
            "no tokenizer",
            where=source,
            why="neither tokenizer.model nor tokenizer.json is there",
            do="give the folder that `shards` used",
        )
    for name in present:
        with files.disk_errors(out / name):
            shutil.copyfile(source / name, out / name)
    return present


def write_generation_config(config: Mapping[str, Any], out: Path, source: Path | None = None) -> None:
    """The base's generation_config.json where there is one, else the token ids of the config."""
    if source is not None and source.is_file():
        files.write_json(out / GENERATION, hf_folder.read_json_object(source))
        return
    ids = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id") if config.get(key) is not None}
    files.write_json(out / GENERATION, {"_from_model_config": True, **ids})
