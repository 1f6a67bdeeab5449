"""A torch_dist checkpoint as torch itself writes it: its own records, its own metadata. What the project's code, which
needs no torch, is tried against.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint import filesystem
from torch.distributed.checkpoint import metadata as dcp

from toolkit import files
from toolkit.checkpoint.distcp import COMMON, FORMAT, METADATA, Reader
from toolkit.checkpoint.pieces import BLOCK, Files, Matrix, blocks


class Writer:
    """Chunk by chunk into an empty folder; the end of the block makes it a checkpoint."""

    def __init__(self, folder: Path, files: int = 1) -> None:
        self._folder, self._tensors, self._objects, self._places = folder, {}, [], []
        self._files = [open(folder / f"__{n}_0.distcp", "wb") for n in range(files)]  # noqa: SIM115 - as ranks write
        self._turn = 0

    def add(self, key: str, tensor: Tensor, *, dims: Sequence[int], offsets: Sequence[int]) -> None:
        known = self._tensors.setdefault(key, (tensor.dtype, tuple(dims), []))
        known[2].append((tuple(offsets), tuple(tensor.shape)))
        self._save(key, tuple(offsets), tensor.detach().clone())

    def add_object(self, key: str, value: Any) -> None:
        self._objects.append(key)
        self._save(key, None, [value])

    def _save(self, key: str, offsets: tuple[int, ...] | None, value: Any) -> None:
        file = self._files[self._turn % len(self._files)]
        self._turn += 1
        begin = file.tell()
        torch.save(value, file)
        self._places.append((key, offsets, Path(file.name).name, begin, file.tell() - begin))

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        for file in self._files:
            file.close()
        if kind is not None:
            return
        entries: dict[str, Any] = {
            key: dcp.TensorStorageMetadata(
                properties=dcp.TensorProperties(dtype=dtype),
                size=torch.Size(dims),
                chunks=[dcp.ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes)) for offsets, sizes in chunks],
            )
            for key, (dtype, dims, chunks) in self._tensors.items()
        }
        entries.update({key: dcp.BytesStorageMetadata() for key in self._objects})
        places = {
            dcp.MetadataIndex(key, None if at is None else torch.Size(at)): filesystem._StorageInfo(name, begin, size)
            for key, at, name, begin, size in self._places
        }
        torch.save({"content_metadata": {}}, self._folder / COMMON)
        whole = dcp.Metadata(state_dict_metadata=entries, storage_data=places, storage_meta=dcp.StorageMeta())
        (self._folder / METADATA).write_bytes(pickle.dumps(whole))
        files.write_json(self._folder / FORMAT, {"sharded_backend": "torch_dist", "sharded_backend_version": 1})


def read(reader: Reader, key: str, *, layer: int | None = None) -> Tensor:
    """A tensor of a checkpoint, put together by the project's own reader."""
    entry = reader.metadata.tensors[key]
    with Files() as opened:
        return tensor_of(reader.matrix(key, opened, layer=layer), entry.dtype, entry.dims[layer is not None :], opened)


def tensor_of(matrix: Matrix, dtype: str, dims: Sequence[int], opened: Files) -> Tensor:
    data = bytearray().join(bytes(block) for _, block in blocks(matrix, opened, bytearray(BLOCK)))
    kind = getattr(torch, dtype)
    return torch.frombuffer(data, dtype=kind).reshape(tuple(dims)) if data else torch.empty(tuple(dims), dtype=kind)
