"""Tensors in and out of a torch_dist checkpoint: `.distcp` files with their `.metadata`.

Decides how boxes of a global tensor are found, checked and put together, and how a checkpoint is laid out that
megatron-core's own loader takes; leaves what the keys mean to `mapping` and the records to `record`. Needs no torch.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit import files
from toolkit.checkpoint import record
from toolkit.checkpoint.metadata import METADATA, Chunk, Entry, read_metadata
from toolkit.checkpoint.pickling import Call, Made, Name, Pairs, dumps
from toolkit.checkpoint.pieces import Files, Matrix, Piece
from toolkit.errors import CheckpointError
from toolkit.hf_folder import read_json_object

FORMAT, COMMON, WEIGHTS = "metadata.json", "common.pt", "weights"
FILE_BYTES = 4 << 30  # a new .distcp file begins after this many
RECORD_BYTES = 1 << 30  # a tensor larger than that is written in several chunks
_AGAIN = "use another step, or copy the checkpoint again"


def weights_folder(path: Path) -> Path:
    """Where the tensors are: `path/weights` of a NeMo checkpoint, or `path` itself. Raises `CheckpointError`."""
    path = Path(path)
    for folder in (path / WEIGHTS, path):
        if (folder / METADATA).is_file():
            return folder
    if not path.is_dir():
        raise CheckpointError(
            "is a file, not a folder" if path.is_file() else "no such folder",
            where=path,
            do="give a checkpoint folder such as .../checkpoints/step=999",
        )
    raise CheckpointError(
        f"no checkpoint: neither {WEIGHTS}/{METADATA} nor {METADATA} is there",
        where=path,
        do="give a folder that was saved to its end",
    )


class Reader:
    """Says where the bytes of a checkpoint's tensors are. Reads headers of records alone."""

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

    def matrix(self, key: str, files: Files, *, layer: int | None = None) -> Matrix:
        """A tensor, or its `layer` along the first axis (which goes away); what is no matrix counts as one of the first
        axis' length.

        Raises `CheckpointError` when a file is missing or damaged, or the chunks do not cover the tensor exactly once.
        """
        entry = self.metadata.tensors[key]
        item = record.TYPES[entry.dtype][0]
        skip = 0 if layer is None else 1
        dims = entry.dims[skip:] or (1,)
        row_bytes = math.prod(dims[1:]) * item
        pieces: list[Piece] = []
        boxes: list[tuple[tuple[int, int], ...]] = []
        for chunk in entry.chunks:
            if layer is not None and not chunk.offsets[0] <= layer < chunk.offsets[0] + chunk.sizes[0]:
                continue
            offsets, sizes = chunk.offsets[skip:] or (0,), chunk.sizes[skip:] or (1,)
            box = tuple((o, o + s) for o, s in zip(offsets, sizes, strict=True))
            if any(a == b for a, b in box):
                continue
            if any(all(a < d and c < b for (a, b), (c, d) in zip(box, other, strict=True)) for other in boxes):
                raise self._damaged(chunk, f"two chunks of '{key}' overlap")
            boxes.append(box)
            if sizes[2:] != dims[2:]:
                raise self._damaged(chunk, f"'{key}' is split along its axis {skip + 2} or a later one")
            inner = math.prod(sizes[2:]) * item
            width = sizes[1] * inner if len(sizes) > 1 else item
            begin = self._locate(key, entry, chunk, files).begin
            if layer is not None:
                begin += (layer - chunk.offsets[0]) * sizes[0] * width
            column = offsets[1] * inner if len(sizes) > 1 else 0
            file = self.folder / chunk.file
            pieces.append(
                Piece(file=file, begin=begin, stride=width, row=offsets[0], rows=sizes[0], column=column, width=width)
            )
        if sum(math.prod(b - a for a, b in box) for box in boxes) != math.prod(dims):
            raise CheckpointError(
                f"the chunks of tensor '{key}' do not cover it",
                where=self.folder / METADATA,
                do="use a complete checkpoint",
            )
        return Matrix(rows=dims[0], row_bytes=row_bytes, pieces=tuple(pieces))

    def _locate(self, key: str, entry: Entry, chunk: Chunk, files: Files) -> record.Raw:
        fd = files.fd(self.folder / chunk.file)
        size = os.fstat(fd).st_size
        if size < chunk.begin + chunk.nbytes:
            raise self._damaged(chunk, f"it has {size} bytes, and '{key}' ends at {chunk.begin + chunk.nbytes}")
        try:
            return record.locate(fd, chunk.begin, chunk.nbytes, dtype=entry.dtype, dims=chunk.sizes)
        except record.Unreadable as err:
            raise self._damaged(chunk, f"the part of '{key}' at byte {chunk.begin}: {err}") from None

    def _damaged(self, chunk: Chunk, why: str) -> CheckpointError:
        return CheckpointError("damaged checkpoint file", where=self.folder / chunk.file, why=why, do=_AGAIN)


Box = tuple[tuple[int, ...], tuple[int, ...]]  # offsets and sizes in a tensor


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A chunk that is to be written: the box at `offsets` of `sizes` of layer `layer` (None: no layers) of the tensor
    `key`; its record lies in `file` at byte `begin`.
    """

    key: str
    layer: int | None
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    dtype: str
    file: str
    begin: int

    @property
    def box(self) -> Box:
        """In the whole tensor, whose first axis are its layers."""
        if self.layer is None:
            return self.offsets, self.sizes
        return (self.layer, *self.offsets), (1, *self.sizes)

    @property
    def frame(self) -> record.Frame:
        return record.frame(self.dtype, self.box[1])


class Layout:
    """Where every record of a new checkpoint will lie, known before a byte is written."""

    def __init__(self, *, file_bytes: int = FILE_BYTES, record_bytes: int = RECORD_BYTES) -> None:
        self._file_bytes, self._record_bytes = file_bytes, record_bytes
        self._tensors: dict[str, tuple[str, tuple[int, ...], list[Placed]]] = {}
        self._objects: list[tuple[str, str, int, int]] = []
        self._sizes: list[int] = []
        self._object = record.of_object([None])

    def add(
        self,
        key: str,
        dtype: str,
        dims: Sequence[int],
        *,
        layer: int | None = None,
        layers: int = 0,
        boxes: Iterable[Box] | None = None,
    ) -> None:
        """The tensor `key` of shape `dims`, or `layer` of the `layers` that it stacks along a new first axis.

        `boxes` are its chunks, as ranks of a training would write them; without them there is one, or some where it is
        large.
        """
        dims = tuple(dims)
        whole = dims if layer is None else (layers, *dims)
        known = self._tensors.setdefault(key, (dtype, whole, []))
        if known[:2] != (dtype, whole):
            raise ValueError(f"{key}: {known[:2]} before, now {(dtype, whole)}")
        for offsets, sizes in self._boxes(dtype, dims) if boxes is None else boxes:
            stacked = sizes if layer is None else (1, *sizes)
            file, begin = self._place(record.frame(dtype, stacked).total)
            placed = Placed(
                key=key, layer=layer, offsets=tuple(offsets), sizes=tuple(sizes), dtype=dtype, file=file, begin=begin
            )
            known[2].append(placed)

    def _boxes(self, dtype: str, dims: tuple[int, ...]) -> Iterator[Box]:
        step = max(1, self._record_bytes // max(1, math.prod(dims[1:]) * record.TYPES[dtype][0]))
        for row in range(0, dims[0], step):
            yield (row, *[0] * (len(dims) - 1)), (min(step, dims[0] - row), *dims[1:])

    def add_object(self, key: str) -> None:
        """A byte object that holds nothing, such as the `_extra_state` of a module (`key` ends in `/shard_<i>_<n>`)."""
        self._objects.append((key, *self._place(len(self._object)), len(self._object)))

    def _place(self, nbytes: int) -> tuple[str, int]:
        if not self._sizes or self._sizes[-1] >= self._file_bytes:
            self._sizes.append(0)
        begin = self._sizes[-1]
        self._sizes[-1] += nbytes
        return f"__0_{len(self._sizes) - 1}.distcp", begin

    @property
    def sizes(self) -> dict[str, int]:
        """File -> bytes."""
        return {f"__0_{n}.distcp": size for n, size in enumerate(self._sizes)}

    def chunks(self, file: str) -> list[Placed]:
        return [chunk for _, _, chunks in self._tensors.values() for chunk in chunks if chunk.file == file]

    def objects(self, file: str) -> list[tuple[int, bytes]]:
        """(begin, record) of the byte objects in a file."""
        return [(begin, self._object) for _, name, begin, _ in self._objects if name == file]

    def finish(self, folder: Path) -> None:
        """Write what makes `folder`, whose `.distcp` files are there, a checkpoint. Raises `DiskFull`."""
        # no optimizer state and no trainer state: a restore of weights alone asks for nothing else
        with files.atomic_write(folder / COMMON, "wb") as handle:
            handle.write(record.of_object({"content_metadata": {}}))
        with files.atomic_write(folder / METADATA, "wb") as handle:
            handle.write(dumps(self._metadata()))
        files.write_json(
            folder / FORMAT,
            {
                "sharded_backend": "torch_dist",
                "sharded_backend_version": 1,
                "common_backend": "torch",
                "common_backend_version": 1,
            },
        )

    def _metadata(self) -> Made:
        """As torch.distributed.checkpoint pickles its own `Metadata`."""
        entries: dict[str, Made] = {}
        places: list[tuple[str, tuple[int, ...] | None, str, int, int]] = []
        for key, (dtype, dims, chunks) in self._tensors.items():
            boxes = [
                Made(of=_dcp("ChunkStorageMetadata"), state={"offsets": _size(offsets), "sizes": _size(sizes)})
                for offsets, sizes in (each.box for each in chunks)
            ]
            entries[key] = Made(
                of=_dcp("TensorStorageMetadata"),
                state={"properties": _properties(dtype), "size": _size(dims), "chunks": boxes},
            )
            places += [(key, each.box[0], each.file, each.begin, each.frame.total) for each in chunks]
        entries |= {key: Made(of=_dcp("BytesStorageMetadata")) for key, *_ in self._objects}
        places += [(key, None, name, begin, nbytes) for key, name, begin, nbytes in self._objects]
        return Made(
            of=_dcp("Metadata"),
            state={
                "state_dict_metadata": entries,
                "planner_data": None,
                "storage_data": Pairs(pairs=tuple((_index(key, at), _stored(*where)) for key, at, *where in places)),
                "storage_meta": Made(
                    of=_dcp("StorageMeta"),
                    state={"checkpoint_id": None, "save_id": None, "load_id": None, "modules": []},
                ),
                "version": None,
            },
        )


def _dcp(name: str) -> Name:
    return Name(module="torch.distributed.checkpoint.metadata", name=name)


def _size(dims: Sequence[int]) -> Call:
    return Call(what=Name(module="torch", name="Size"), args=(tuple(dims),))


def _properties(dtype: str) -> Made:
    strided = Call(what=Name(module="torch.serialization", name="_get_layout"), args=("torch.strided",))
    dense = Call(what=_dcp("_MEM_FORMAT_ENCODING"), args=(0,))
    return Made(of=_dcp("TensorProperties"), state=(Name(module="torch", name=dtype), strided, False, dense, False))


def _index(key: str, offset: tuple[int, ...] | None) -> Made:
    return Made(
        of=_dcp("MetadataIndex"),
        state={"fqn": key, "index": None, "offset": None if offset is None else _size(offset)},
    )


def _stored(name: str, begin: int, nbytes: int) -> Made:
    info = Name(module="torch.distributed.checkpoint.filesystem", name="_StorageInfo")
    return Made(of=info, state={"relative_path": name, "offset": begin, "length": nbytes})
