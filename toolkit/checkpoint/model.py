"""A Megatron checkpoint seen through the mapping table: which key holds which kind of tensor, and that none is
missing or left over.

Decides prefixes (NeMo writes `module.`, bare megatron-core none) and stacked against per-layer keys; leaves bytes to
`distcp`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from toolkit.checkpoint import distcp, mapping, tensorfile
from toolkit.checkpoint.metadata import METADATA
from toolkit.checkpoint.pieces import Files, Matrix, cut
from toolkit.checkpoint.shape import LlamaShape
from toolkit.errors import CheckpointError


def is_optimizer(key: str) -> bool:
    """Whether a key is optimizer state (`optimizer.*`, or `chained_0.optimizer.*` of a chained optimizer)."""
    return key.startswith("optimizer.") or ".optimizer." in key


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where one layer of one row lies: the key, and the index along its first axis when the key stacks the layers."""

    key: str
    index: int | None


class MegatronModel:
    """The weights of a checkpoint, checked against a shape; `padded_vocab_size` is the rows of its embedding.

    Raises `CheckpointError` naming the tensor that is missing, of another shape or type, or unknown to the table.
    """

    def __init__(self, path: Path, shape: LlamaShape) -> None:
        self.reader = distcp.Reader(path)
        self.shape = shape
        self.where = self.reader.folder / METADATA
        tensors = self.reader.metadata.tensors
        self.keys = [key for key in tensors if not is_optimizer(key)]
        prefix = self._prefix()
        self._places: dict[tuple[str, int | None], Place] = {}
        vocab: set[int] = set()
        for row, layer in mapping.walk(shape):
            want = row.fused_dims(shape)
            key, index = prefix + row.megatron, layer
            if layer is not None and key not in tensors:
                key, index = prefix + row.megatron.replace(mapping.LAYERS, f"{mapping.LAYERS}{layer}.", 1), None
            if key not in tensors:
                missing = prefix + row.megatron
                tied = " (the config does not tie the output layer to the embedding)" if row.head else ""
                raise CheckpointError(
                    f"tensor '{missing}' is missing{tied}", where=self.where, do="use the config.json of this model"
                )
            entry = tensors[key]
            full = want if index is None else (shape.layers, *want)
            if row.vocab:
                vocab.add(entry.dims[0] if entry.dims else 0)
            if row.vocab and len(entry.dims) == len(full) and entry.dims[0] >= full[0] and entry.dims[1:] == full[1:]:
                pass
            elif entry.dims != full:
                atleast = "at least " if row.vocab else ""
                raise CheckpointError(
                    f"tensor '{key}' has shape {list(entry.dims)}, not {atleast}{list(full)}",
                    where=self.where,
                    why="the config says so",
                    do="use the config.json of this model",
                )
            if not tensorfile.is_float(entry.dtype):
                raise CheckpointError(
                    f"tensor '{key}' has type {entry.dtype}",
                    where=self.where,
                    why="only float64, float32, float16 and bfloat16 weights are converted",
                )
            self._places[(row.megatron, layer)] = Place(key=key, index=index)
        extra = set(self.keys) - {place.key for place in self._places.values()}
        if extra:
            raise CheckpointError(
                f"holds {len(extra)} tensors that the config does not foresee, such as '{min(extra)}'",
                where=self.where,
                why="leaving them out would change the model",
                do="use the config.json of this model (only Llama models are converted)",
            )
        self.padded_vocab_size = min(vocab)

    def _prefix(self) -> str:
        tail = mapping.TABLE[0].megatron
        found = [key.removesuffix(tail) for key in self.keys if key == tail or key.endswith("." + tail)]
        if len(found) != 1:
            raise CheckpointError(
                f"tensor '{tail}' is missing" if not found else f"'{tail}' is there {len(found)} times",
                where=self.where,
                why="every Llama checkpoint of Megatron has it once",
            )
        return found[0]

    def specs(self, dtype: str | None = None) -> list[tensorfile.Spec]:
        """The Hugging Face tensors that this checkpoint gives, in walking order; `dtype` overrides theirs."""
        return [
            tensorfile.Spec(name=name, dtype=dtype or self.dtype(row, layer), dims=dims)
            for row, layer in mapping.walk(self.shape)
            for name, dims in zip(row.names(layer), row.dims(self.shape), strict=True)
        ]

    def dtype(self, row: mapping.Row, layer: int | None) -> str:
        """torch's name of the type in which the checkpoint has the tensor."""
        return self.reader.metadata.tensors[self._places[(row.megatron, layer)].key].dtype

    def matrices(self, row: mapping.Row, layer: int | None, files: Files) -> list[Matrix]:
        """Where the bytes of each tensor in `row.names(layer)` are, padding rows left out.

        Raises `CheckpointError` for files that are missing or damaged.
        """
        place = self._places[(row.megatron, layer)]
        fused = self.reader.matrix(place.key, files, layer=place.index)
        return [
            Matrix(
                rows=dims[0],
                row_bytes=fused.row_bytes,
                pieces=tuple(piece for span in spans for piece in cut(fused.pieces, span.megatron, span.rows, span.hf)),
            )
            for dims, spans in zip(row.dims(self.shape), mapping.spans(row, self.shape), strict=True)
        ]
