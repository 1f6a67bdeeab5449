"""The `.metadata` file of a torch_dist checkpoint: which tensor lies where. It is a pickle, so it is read as a
hostile file.

Decides what such a pickle may name (an allow-list of inert stand-ins: no class of torch or Megatron is touched,
nothing is executed) and checks what it says; leaves the bytes of the tensors to `distcp`.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.errors import CheckpointError

METADATA = ".metadata"
_DTYPES = (
    "float64",
    "float32",
    "float16",
    "bfloat16",
    "int64",
    "int32",
    "int16",
    "int8",
    "uint8",
    "bool",
    "float8_e4m3fn",
    "float8_e5m2",
    "complex64",
    "complex128",
)
_DCP = "torch.distributed.checkpoint."
_RECORDS = {
    _DCP + "metadata": (
        "Metadata",
        "TensorStorageMetadata",
        "BytesStorageMetadata",
        "ChunkStorageMetadata",
        "TensorProperties",
        "MetadataIndex",
        "StorageMeta",
        "_MEM_FORMAT_ENCODING",
    ),
    _DCP + "filesystem": ("_StorageInfo",),
    _DCP + "planner": ("SavePlan", "WriteItem", "WriteItemType", "TensorWriteData", "BytesIOWriteData"),
    "torch.distributed._shard.sharded_tensor.metadata": ("TensorProperties", "MEM_FORMAT_ENCODING"),
    "megatron.core.dist_checkpointing.strategies.torch": ("MCoreMetadata", "MCoreSavePlan"),
}


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A box of a tensor: where it lies in the tensor, and the bytes that hold it (a `torch.save` of its own) in
    `file`.
    """

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    file: str
    begin: int
    nbytes: int


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One global tensor: torch's name of its dtype, its shape, its chunks."""

    dtype: str
    dims: tuple[int, ...]
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """Tensors by key, keys of byte objects, and how many bytes each file must have at least."""

    folder: Path
    tensors: Mapping[str, Entry]
    objects: tuple[str, ...]
    file_bytes: Mapping[str, int]


class _Inert:
    """Stands in for a class of the pickle: keeps what it is given and does nothing."""

    def __init__(self, *args: Any) -> None:
        self.args = args

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)
        else:
            self.state = state


def _joined(*parts: Any) -> str:
    return "/".join(str(part) for part in parts)


def _member(cls: Any, name: Any) -> _Inert:
    """What Python before 3.11.4 writes for an enum's member is `getattr(Class, name)`. Nothing is looked up here."""
    if not (isinstance(cls, type) and issubclass(cls, _Inert) and isinstance(name, str)):
        raise pickle.UnpicklingError("it asks for an attribute of something that is no enum of a checkpoint")
    return cls(name)


class _Unpickler(pickle.Unpickler):
    """Every name that a pickle can reach is in `_names`, made anew for each file so that no file can alter what the
    next one meets. Opcodes only build lists, dicts and tuples, and call these names."""

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream)
        self._names: dict[tuple[str, str], Any] = {("torch", dtype): dtype for dtype in _DTYPES}
        self._names[("torch", "Size")] = lambda sizes=(): tuple(sizes)
        self._names[("torch.serialization", "_get_layout")] = lambda name: name
        self._names[("collections", "OrderedDict")] = lambda items=(): OrderedDict(items)
        self._names[("builtins", "getattr")] = _member
        self._names[("builtins", "set")] = lambda items=(): set(items)
        self._names[("pathlib", "PosixPath")] = _joined
        self._names[("pathlib._local", "PosixPath")] = _joined  # Python 3.13
        for module, names in _RECORDS.items():
            self._names.update({(module, name): type(name, (_Inert,), {}) for name in names})

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._names[(module, name)]
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no checkpoint needs") from None

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to an object outside the file")


def read_metadata(folder: Path) -> Metadata:
    """What `folder/.metadata` says, checked for sense (not against the other files: see `complete`).

    Raises `CheckpointError` when it is missing, damaged, names anything outside the allow-list or contradicts itself.
    """
    file = Path(folder) / METADATA

    def bad(why: str) -> CheckpointError:
        return CheckpointError(
            "not the metadata of a torch_dist checkpoint",
            where=file,
            why=why,
            do="use a complete checkpoint that you trust",
        )

    try:
        raw = file.read_bytes()
    except FileNotFoundError as err:
        raise CheckpointError(
            "no .metadata file",
            where=folder,
            why="without it nothing says where the tensors lie",
            do="use a checkpoint that was saved to its end",
        ) from err
    except OSError as err:
        raise CheckpointError("cannot be read", where=file, why=err.strerror or str(err)) from err
    try:
        top = _Unpickler(io.BytesIO(raw)).load()
    except Exception as err:  # whatever a damaged or hostile pickle provokes
        raise bad(str(err) or type(err).__name__) from err
    try:
        return _checked(Path(folder), top, bad)
    except (AttributeError, TypeError, ValueError, KeyError, IndexError) as err:
        raise bad(f"its contents have another form ({err})") from err


def _ints(value: Any) -> tuple[int, ...]:
    if not isinstance(value, tuple | list) or not all(type(n) is int and n >= 0 for n in value):
        raise ValueError(f"{value!r} is no shape")
    return tuple(value)


def _checked(folder: Path, top: Any, bad: Callable[[str], CheckpointError]) -> Metadata:
    places: dict[tuple[str, tuple[int, ...] | None], tuple[str, int, int]] = {}
    file_bytes: dict[str, int] = {}
    for index, info in top.storage_data.items():
        name, begin, nbytes = info.relative_path, info.offset, info.length
        if not isinstance(name, str) or Path(name).name != name or name.startswith("."):
            raise bad(f"it points to the file {name!r}, outside the checkpoint")
        begin, nbytes = _ints((begin, nbytes))
        if getattr(info, "transform_descriptors", None):
            raise bad(f"'{index.fqn}' is stored compressed, which is not read")
        offset = getattr(index, "offset", None)  # byte objects have none
        places[(index.fqn, None if offset is None else _ints(offset))] = (name, begin, nbytes)
        file_bytes[name] = max(file_bytes.get(name, 0), begin + nbytes)
    tensors: dict[str, Entry] = {}
    objects: list[str] = []
    for key, value in top.state_dict_metadata.items():
        if not isinstance(key, str):
            raise bad(f"it has the key {key!r}")
        if type(value).__name__ == "BytesStorageMetadata":
            objects.append(key)
            continue
        dims = _ints(value.size)
        chunks = []
        for chunk in value.chunks:
            offsets, sizes = _ints(chunk.offsets), _ints(chunk.sizes)
            if (
                len(offsets) != len(dims)
                or len(sizes) != len(dims)
                or any(o + s > d for o, s, d in zip(offsets, sizes, dims, strict=True))
            ):
                raise bad(f"a chunk of '{key}' lies outside the tensor")
            place = places.get((key, offsets))
            if place is None:
                raise bad(f"no file holds the chunk of '{key}' at {list(offsets)}")
            chunks.append(Chunk(offsets=offsets, sizes=sizes, file=place[0], begin=place[1], nbytes=place[2]))
        dtype = value.properties.state[0] if hasattr(value.properties, "state") else value.properties.dtype
        if dtype not in _DTYPES:
            raise bad(f"'{key}' has the unknown type {dtype!r}")
        tensors[key] = Entry(dtype=dtype, dims=dims, chunks=tuple(chunks))
    return Metadata(folder=folder, tensors=tensors, objects=tuple(objects), file_bytes=file_bytes)
