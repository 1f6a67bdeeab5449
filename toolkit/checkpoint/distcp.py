"""Tensors in and out of a torch_dist checkpoint (`.distcp` files with their `.metadata`), one layer of one tensor at
a time.

Decides how boxes of a global tensor are found, checked and put together, and how a checkpoint is laid out that
megatron-core's own loader takes; leaves what the keys mean to `mapping`. Reads tensors with `weights_only` alone.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from toolkit import files
from toolkit.checkpoint.metadata import METADATA, Chunk, Entry, read_metadata
from toolkit.errors import CheckpointError
from toolkit.hf_folder import read_json_object

if TYPE_CHECKING:
    from torch import Tensor

FORMAT, COMMON, WEIGHTS = "metadata.json", "common.pt", "weights"
_FILE_BYTES = 4 << 30  # a new .distcp file begins after this many


def weights_folder(path: Path) -> Path:
    """Where the tensors are: `path/weights` of a NeMo checkpoint, or `path` itself. Raises `CheckpointError`."""
    path = Path(path)
    for folder in (path / WEIGHTS, path):
        if (folder / METADATA).is_file():
            return folder
    if not path.is_dir():
        raise CheckpointError(
            "no such folder", where=path, do="give a checkpoint folder such as .../checkpoints/step=999"
        )
    raise CheckpointError(
        f"no checkpoint: neither {WEIGHTS}/{METADATA} nor {METADATA} is there",
        where=path,
        do="give a folder that was saved to its end",
    )


class Reader:
    """Reads parts of the global tensors of one checkpoint. Memory: the part asked for plus one chunk and its bytes."""

    def __init__(self, path: Path) -> None:
        self.folder = weights_folder(path)
        kind = self.folder / FORMAT
        if kind.is_file():
            backend = read_json_object(kind).get("sharded_backend")
            if backend != "torch_dist":
                raise CheckpointError(
                    f"the checkpoint's format is {backend!r}", where=kind, why="only torch_dist is read"
                )
        self.metadata = read_metadata(self.folder)
        self._kept: tuple[Chunk, Tensor] | None = None  # a chunk that spans layers is wanted again for the next one

    def read(self, key: str, *, layer: int | None = None, rows: int | None = None) -> Tensor:
        """The tensor, or its `layer` along the first axis (which goes away), or its first `rows`.

        Raises `CheckpointError` when a file is missing or damaged, or the chunks do not cover the part exactly once.
        """
        import torch

        entry = self.metadata.tensors[key]
        low, high = [0] * len(entry.dims), list(entry.dims)
        if layer is not None:
            low[0], high[0] = layer, layer + 1
        if rows is not None:
            high[0] = rows
        dims = [h - b for b, h in zip(low, high, strict=True)]
        out = torch.empty(dims, dtype=getattr(torch, entry.dtype))
        boxes: list[list[tuple[int, int]]] = []
        for chunk in entry.chunks:
            box = [(max(b, o), min(h, o + s)) for b, h, o, s in zip(low, high, chunk.offsets, chunk.sizes, strict=True)]
            if any(first >= last for first, last in box):
                continue
            if any(all(a < d and c < b for (a, b), (c, d) in zip(box, other, strict=True)) for other in boxes):
                raise self._damaged(chunk, f"two chunks of '{key}' overlap")
            boxes.append(box)
            tensor = self._chunk(key, entry, chunk)
            if layer is not None and chunk.sizes[0] > 1:
                self._kept = (chunk, tensor)
            source = tuple(slice(f - o, e - o) for (f, e), o in zip(box, chunk.offsets, strict=True))
            target = tuple(slice(f - b, e - b) for (f, e), b in zip(box, low, strict=True))
            out[target] = tensor[source]
        if sum(math.prod(last - first for first, last in box) for box in boxes) != math.prod(dims):
            raise CheckpointError(
                f"the chunks of tensor '{key}' do not cover it",
                where=self.folder / METADATA,
                do="use a complete checkpoint",
            )
        return out if layer is None else out[0]

    def _damaged(self, chunk: Chunk, why: str) -> CheckpointError:
        return CheckpointError(
            "damaged checkpoint file",
            where=self.folder / chunk.file,
            why=why,
            do="use another step, or copy the checkpoint again",
        )

    def _chunk(self, key: str, entry: Entry, chunk: Chunk) -> Tensor:
        import torch

        if self._kept is not None and self._kept[0] == chunk:
            return self._kept[1]
        self._kept = None
        try:
            with open(self.folder / chunk.file, "rb") as handle:
                size = os.fstat(handle.fileno()).st_size
                if size < chunk.begin + chunk.nbytes:
                    raise self._damaged(chunk, f"it has {size} bytes, and '{key}' ends at {chunk.begin + chunk.nbytes}")
                handle.seek(chunk.begin)
                data = handle.read(chunk.nbytes)
        except FileNotFoundError as err:
            raise CheckpointError(
                "checkpoint file is missing",
                where=self.folder / chunk.file,
                why=f"it holds a part of '{key}'",
                do="use a complete checkpoint",
            ) from err
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                    raise self._damaged(chunk, f"the part of '{key}' is compressed, which torch never does")
            tensor = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        except (zipfile.BadZipFile, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as err:
            raise self._damaged(
                chunk, f"the part of '{key}' at byte {chunk.begin} is no tensor ({_brief(err)})"
            ) from err
        found = (tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")) if torch.is_tensor(tensor) else ()
        if found != (chunk.sizes, entry.dtype):
            raise self._damaged(
                chunk, f"the part of '{key}' at byte {chunk.begin} is not {entry.dtype} {list(chunk.sizes)}"
            )
        return tensor


def _brief(err: Exception) -> str:
    return (str(err).strip().splitlines() or [type(err).__name__])[0][:200].rstrip(". ")


class _Stream(io.RawIOBase):
    """Passes writes on and remembers why one failed: torch.save answers a full disk, or Ctrl-C, with an error of its
    own.
    """

    def __init__(self, handle: IO[bytes]) -> None:
        self._handle = handle
        self.error: BaseException | None = None

    def write(self, data: Any) -> int:
        try:
            return self._handle.write(data)
        except BaseException as err:
            self.error = err
            raise

    def writable(self) -> bool:
        return True


class Writer:
    """Writes a torch_dist checkpoint of model weights into an empty folder, chunk by chunk, none kept in memory.

    `finish` makes it a checkpoint; before that the folder is not one. Raises `DiskFull`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tensors: dict[str, tuple[str, tuple[int, ...], list[tuple[tuple[int, ...], tuple[int, ...]]]]] = {}
        self._objects: list[str] = []
        self._places: list[tuple[str, tuple[int, ...] | None, str, int, int]] = []
        self._file: IO[bytes] | None = None
        self._count = 0

    def add(self, key: str, tensor: Tensor, *, dims: Sequence[int], offsets: Sequence[int]) -> None:
        """A chunk of the global tensor `key` of shape `dims`; `tensor` has as many axes as that."""
        dtype = str(tensor.dtype).removeprefix("torch.")
        known = self._tensors.setdefault(key, (dtype, tuple(dims), []))
        if known[:2] != (dtype, tuple(dims)):
            raise ValueError(f"{key}: {known[:2]} before, now {(dtype, tuple(dims))}")
        known[2].append((tuple(offsets), tuple(tensor.shape)))
        self._save(key, tuple(offsets), tensor.detach().contiguous())

    def add_object(self, key: str, value: Any) -> None:
        """A byte object, such as the `_extra_state` of a module (`key` ends in `/shard_<i>_<n>`)."""
        self._objects.append(key)
        self._save(key, None, [value])

    def _save(self, key: str, offsets: tuple[int, ...] | None, value: Any) -> None:
        import torch

        if self._file is None or self._file.tell() >= _FILE_BYTES:
            self._close()
            self._name = f"__0_{self._count}.distcp"
            self._file = open(self._folder / self._name, "wb")  # noqa: SIM115 - open across calls
            self._count += 1
        begin = self._file.tell()
        stream = _Stream(self._file)
        with files.disk_errors(self._folder):
            try:
                torch.save(value, stream)
            except Exception:
                if stream.error is not None:
                    raise stream.error from None
                raise
        self._places.append((key, offsets, self._name, begin, self._file.tell() - begin))

    def _close(self) -> None:
        if self._file is not None:
            with files.disk_errors(self._folder), self._file as handle:
                handle.flush()
                os.fsync(handle.fileno())
            self._file = None

    def finish(self) -> None:
        import torch
        from torch.distributed.checkpoint import filesystem
        from torch.distributed.checkpoint import metadata as dcp

        self._close()
        entries: dict[str, Any] = {
            key: dcp.TensorStorageMetadata(
                properties=dcp.TensorProperties(dtype=getattr(torch, dtype)),
                size=torch.Size(dims),
                chunks=[dcp.ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes)) for offsets, sizes in chunks],
            )
            for key, (dtype, dims, chunks) in self._tensors.items()
        }
        entries.update({key: dcp.BytesStorageMetadata() for key in self._objects})
        places = {
            dcp.MetadataIndex(key, None if offsets is None else torch.Size(offsets)): filesystem._StorageInfo(
                name, begin, nbytes
            )
            for key, offsets, name, begin, nbytes in self._places
        }
        # no optimizer state and no trainer state: a restore of weights alone asks for nothing else
        with files.disk_errors(self._folder), open(self._folder / COMMON, "wb") as handle:
            torch.save({"content_metadata": {}}, handle)
        with files.atomic_write(self._folder / METADATA, "wb") as handle:
            pickle.dump(
                dcp.Metadata(state_dict_metadata=entries, storage_data=places, storage_meta=dcp.StorageMeta()), handle
            )
        files.write_json(
            self._folder / FORMAT,
            {
                "sharded_backend": "torch_dist",
                "sharded_backend_version": 1,
                "common_backend": "torch",
                "common_backend_version": 1,
            },
        )

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.finish()
        elif self._file is not None:
            self._file.close()
