"""HF model -> Megatron checkpoint that a weights-only restore takes at any TP and PP, with room for new tokens.

Decides the values of new and padding rows and the layout of the output folder; leaves the mapping to `mapping`.
"""

from __future__ import annotations

import hashlib
import json
import math
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from toolkit import files, hf_folder
from toolkit.checkpoint import distcp, hf, mapping, numbers, output, tensorfile
from toolkit.checkpoint.nemo_context import HF_CONFIG
from toolkit.checkpoint.pieces import BLOCK, Files, Matrix, blocks, cut, write
from toolkit.checkpoint.writing import NewFile, Part, growing, literal, write_files
from toolkit.errors import CheckpointError, UsageError
from toolkit.hf_folder import CONFIG

NewRows = Literal["copy_last", "mean"]
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
    workers: int | None = None,
    progress: bool = True,
) -> Imported:
    """Write `out/weights` (torch_dist), `out/hf_config.json` and `out/import.json` from a Hugging Face Llama folder,
    and beside them its generation_config.json and tokenizer, so that an export finds them.

    vocab_size: tokens after extension (default: the base's). Rows beyond the base, padding included, are copies of
    the base's last row ("copy_last", what MEDITRON's published weight conversion does) or its mean row.
    padded_vocab_size: rows written (default: `vocab_size` rounded up to 128); a model with more rows than that still
    loads, the rest being zero. Types are kept. `out` appears whole or not at all. Raises `CheckpointError`,
    `UsageError`, `DiskFull`.
    """
    model = hf.check_hf(Path(hf_folder))
    base = model.shape.vocab_size
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
    layout = _layout(model, padded)
    source = _source_fingerprint(model)
    facts = {
        "source": {"name": model.folder.resolve().name, "sha256": source},
        "vocab_size": vocab,
        "base_vocab_size": base,
        "padded_vocab_size": padded,
        "new_rows": new_rows,
        "parameters": _parameters(model),
    }
    target = output.check_place(out, sources=(model.folder,), record=output.IMPORT_RECORD)
    with growing(target, output.identity(**facts)) as new:
        total = sum(layout.sizes.values())
        output.check_room(out, total - sum(row["bytes"] for row in new.finished.values()))
        weights = new.folder / distcp.WEIGHTS
        weights.mkdir(exist_ok=True)
        with Files(total) as opened, output.byte_progress("import", total, progress) as bar:
            rows = _Rows(model, opened, padded, new_rows)
            found = write_files(_files(layout, rows), new, opened, bar=bar, workers=workers)
        layout.finish(weights)
        files.write_json(new.folder / HF_CONFIG, {**model.config, "vocab_size": vocab})
        hf.write_generation_config(model.config, new.folder, model.folder / hf.GENERATION)
        if vocab == base and hf.has_tokenizer(model.folder):  # with tokens added, it is no longer the model's
            hf.copy_tokenizer(model.folder, new.folder)
        imported = Imported(
            path=Path(out),
            parameters=facts["parameters"],
            vocab_size=vocab,
            base_vocab_size=base,
            padded_vocab_size=padded,
            nbytes=sum(p.stat().st_size for p in weights.iterdir()),
            source_sha256=source,
        )
        tensors = {name: list(t.dims) for name, t in model.tensors.items()}
        contents = output.hashes(new.folder, found)
        files.write_json(new.folder / output.IMPORT_RECORD, {**facts, "tensors": tensors, "files": contents})
    return imported


def _layout(model: hf.HfModel, padded: int) -> distcp.Layout:
    layout, shape = distcp.Layout(), model.shape
    for row, layer in mapping.walk(shape):
        dims = row.fused_dims(shape)
        dims = (padded, *dims[1:]) if row.vocab else dims
        dtype = model.tensors[row.names(layer)[0]].dtype
        layout.add(PREFIX + row.megatron, dtype, dims, layer=layer, layers=shape.layers)
    for key in mapping.EXTRA_STATE_PER_LAYER:
        for layer in range(shape.layers):
            layout.add_object(f"{PREFIX}{key}/shard_{layer}_{shape.layers}")
    for key in mapping.EXTRA_STATE_ONCE:
        layout.add_object(f"{PREFIX}{key}/shard_0_1")
    return layout


def _files(layout: distcp.Layout, rows: _Rows) -> Sequence[NewFile]:
    def parts(name: str) -> list[Part]:
        found = [literal(begin, data) for begin, data in layout.objects(name)]
        for chunk in layout.chunks(name):
            write_it, ahead = partial(_write_chunk, rows, chunk), partial(rows.ahead, chunk)
            found.append(Part(begin=chunk.begin, nbytes=chunk.frame.total, write=write_it, ahead=ahead))
        return sorted(found, key=lambda part: part.begin)

    return [
        NewFile(name=f"{distcp.WEIGHTS}/{name}", nbytes=nbytes, parts=partial(parts, name))
        for name, nbytes in layout.sizes.items()
    ]


def _write_chunk(rows: _Rows, chunk: distcp.Placed, fd: int, buffer: bytearray, done: Callable[[int], None]) -> None:
    frame, crc = chunk.frame, 0
    at = chunk.begin + frame.head_bytes
    with files.disk_errors(Path(chunk.file)):
        for block in rows.blocks(chunk, buffer):
            crc = zlib.crc32(block, crc)
            write(fd, block, at)
            at += len(block)
            done(len(block))
        head, tail = frame.around(crc)
        write(fd, head, chunk.begin)
        write(fd, tail, at)
    done(len(head) + len(tail))


class _Rows:
    """The rows of Megatron's tensors, block by block: of the base's tensors, and of new and padding tokens."""

    def __init__(self, model: hf.HfModel, opened: Files, padded: int, new_rows: NewRows) -> None:
        self._model, self._opened, self._new_rows = model, opened, new_rows
        self._place = {(PREFIX + row.megatron, layer): (row, layer) for row, layer in mapping.walk(model.shape)}
        self._added: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def blocks(self, chunk: distcp.Placed, buffer: bytearray) -> Iterator[memoryview | bytes]:
        row, layer = self._place[chunk.key, chunk.layer]
        fused = self._fused(row, layer)
        part = _there(fused, chunk)
        for _, block in blocks(part, self._opened, buffer):
            yield block
        self._opened.behind(part)
        if (added := chunk.sizes[0] - part.rows) > 0:
            values = self._row_of_new_tokens(row, fused, chunk.dtype)
            step = max(1, len(buffer) // len(values))
            for begin in range(0, added, step):
                yield values * min(step, added - begin)

    def ahead(self, chunk: distcp.Placed) -> None:
        self._opened.ahead(_there(self._fused(*self._place[chunk.key, chunk.layer]), chunk))

    def _fused(self, row: mapping.Row, layer: int | None) -> Matrix:
        shape, pieces, width = self._model.shape, [], 0
        for name, spans in zip(row.names(layer), mapping.spans(row, shape), strict=True):
            matrix = self._model.matrix(name)
            width = matrix.row_bytes
            pieces += [piece for span in spans for piece in cut(matrix.pieces, span.hf, span.rows, span.megatron)]
        return Matrix(rows=row.fused_dims(shape)[0], row_bytes=width, pieces=tuple(pieces))

    def _row_of_new_tokens(self, row: mapping.Row, fused: Matrix, dtype: str) -> bytes:
        with self._lock:
            if row.megatron not in self._added:
                if self._new_rows == "copy_last":
                    last = tuple(cut(fused.pieces, fused.rows - 1, 1, 0))
                    one = Matrix(rows=1, row_bytes=fused.row_bytes, pieces=last)
                    found = [bytes(block) for _, block in blocks(one, self._opened, bytearray(fused.row_bytes))]
                    self._added[row.megatron] = found[0]
                else:
                    mean = numbers.Mean(fused.row_bytes // tensorfile.item_bytes(dtype), dtype)
                    for _, block in blocks(fused, self._opened, bytearray(BLOCK)):
                        mean.add(block)
                    self._added[row.megatron] = mean.row()
            return self._added[row.megatron]


def _there(fused: Matrix, chunk: distcp.Placed) -> Matrix:
    """What of the chunk the base has; rows of new and padding tokens come after it."""
    rows = max(0, min(chunk.sizes[0], fused.rows - chunk.offsets[0]))
    pieces = tuple(cut(fused.pieces, chunk.offsets[0], rows, 0))
    return Matrix(rows=rows, row_bytes=fused.row_bytes, pieces=pieces)


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


def _parameters(model: hf.HfModel) -> int:
    return sum(math.prod(tensor.dims) for tensor in model.tensors.values())


def _source_fingerprint(model: hf.HfModel) -> str:
    """SHA-256 over the config and, for each weight file, its name, size, time and header: which model it is, without
    reading its weights twice. That they arrive whole is what the hashes of the output are for.
    """
    digest = hashlib.sha256((model.folder / CONFIG).read_bytes())
    for path in sorted(hf_folder.weight_files(model.folder)):
        stat = path.stat()
        tensors = [(t.name, t.dtype, t.dims, t.begin) for t in hf_folder.read_header(path).values()]
        digest.update(json.dumps([path.name, stat.st_size, stat.st_mtime_ns, tensors]).encode())
    return digest.hexdigest()


def as_dict(imported: Imported) -> dict[str, Any]:
    return {**vars(imported), "path": str(imported.path)}
