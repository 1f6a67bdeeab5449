"""A Hugging Face model folder on disk: its config, its index, and the headers of its safetensors files.

Decides whether every file is there and whole, without reading a weight; leaves to those who use the folder which
tensors a model must have.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.errors import CheckpointError

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
AGAIN = "copy, download or export it again"

# safetensors' names -> torch's, for the types that models are made of
FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_BITS = {
    **dict.fromkeys(["F64", "I64", "U64", "C64"], 64),
    **dict.fromkeys(["F32", "I32", "U32"], 32),
    **dict.fromkeys(["F16", "BF16", "I16", "U16"], 16),
    **dict.fromkeys(["BOOL", "I8", "U8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"], 8),
    **dict.fromkeys(["F6_E2M3", "F6_E3M2"], 6),
    "F4": 4,
}
_HEADER_LIMIT = 100_000_000  # bytes; the limit of the reference implementation
_PICKLED = ("*model*.bin", "*.pt", "*.pth")


@dataclass(frozen=True, kw_only=True)
class Stored:
    """One tensor in a file: `begin` is absolute, `nbytes` its length. `dtype` is torch's name for the four float
    types that models are made of, else the format's own."""

    file: Path
    name: str
    dtype: str
    dims: tuple[int, ...]
    begin: int
    nbytes: int


def config_file(path: Path) -> Path:
    """`path` itself when it is a file, else its `config.json`. Raises `CheckpointError` when there is none."""
    path = Path(path)
    file = path / CONFIG if path.is_dir() else path
    if not file.is_file():
        why = f"a folder where {CONFIG} is missing is no Hugging Face model"
        raise CheckpointError(
            f"no {CONFIG}", where=path, why=why, do=f"give a Hugging Face folder or the {CONFIG} of one"
        )
    return file


def read_json_object(file: Path) -> dict[str, Any]:
    """A JSON object from a UTF-8 file; anything else is a `CheckpointError` that names the file."""
    try:
        value = json.loads(Path(file).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as err:
        raise CheckpointError("is not valid JSON", where=file, why=str(err), do=AGAIN) from err
    except OSError as err:
        raise CheckpointError("cannot be read", where=file, why=err.strerror or str(err)) from err
    if not isinstance(value, dict):
        raise CheckpointError(f"holds a {type(value).__name__} where an object is expected", where=file, do=AGAIN)
    return value


def read_index(folder: Path) -> dict[str, Any] | None:
    """The index of a folder whose weights lie in several files; its `weight_map` (tensor -> file) names only files
    that are there. None when they lie in one file, which counts before an index, as transformers has it.

    Raises `CheckpointError`: no weights, only pickled ones, an index that is damaged or names a file that is missing
    or outside the folder.
    """
    folder = Path(folder)
    if (folder / WEIGHTS).is_file():
        return None
    file = folder / INDEX
    if not file.is_file():
        pickled = any(any(folder.glob(pattern)) for pattern in _PICKLED)
        why = "it has only pickled weights, which are never loaded" if pickled else ""
        do = "convert them to safetensors" if pickled else "give the folder of a complete model saved as safetensors"
        raise CheckpointError(f"no weights: neither {WEIGHTS} nor {INDEX}", where=folder, why=why, do=do)
    index = read_json_object(file)
    names = index.get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise CheckpointError("has no 'weight_map' of tensor names to file names", where=file, do=AGAIN)
    for name in sorted(set(names.values())):
        if Path(name).name != name:
            raise CheckpointError(f"names the file {name!r}, which is outside its folder", where=file)
        if not (folder / name).is_file():
            raise CheckpointError(f"names the file {name}, which is missing", where=file, do=AGAIN)
    return index


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder: the one, or those that its index names. Raises as `read_index` does."""
    index = read_index(folder)
    return [Path(folder) / name for name in (sorted(set(index["weight_map"].values())) if index else [WEIGHTS])]


def read_tensors(folder: Path) -> dict[str, Stored]:
    """Every tensor in the weight files of a folder. Raises `CheckpointError` where `read_index` and `read_header` do,
    and for a tensor that is in two files.
    """
    found: dict[str, Stored] = {}
    for file in weight_files(folder):
        for name, stored in read_header(file).items():
            if name in found:
                raise CheckpointError(f"tensor {name!r} is also in {found[name].file.name}", where=file)
            found[name] = stored
    return found


def read_header(file: Path) -> dict[str, Stored]:
    """Every tensor of a safetensors file. Raises `CheckpointError` when the file is truncated, too long or lies about
    itself.
    """
    # 8 bytes little-endian header length, a JSON object, then the bytes of the tensors, one after the other. Parsed
    # here because the safetensors package opens files through numpy or torch alone, and says less of what is wrong.
    file = Path(file)

    def bad(why: str, what: str = "has a damaged safetensors header") -> CheckpointError:
        return CheckpointError(what, where=file, why=why, do=AGAIN)

    try:
        size = file.stat().st_size
        with open(file, "rb") as handle:
            start = handle.read(8)
            length = int.from_bytes(start, "little")
            if len(start) < 8 or length > min(_HEADER_LIMIT, size - 8):
                claim = f"its header claims {length} bytes, and the file has {size}"
                why = claim if len(start) == 8 else f"it has {size} bytes"
                raise bad(why, "is cut short or no safetensors file")
            raw = handle.read(length)
    except OSError as err:
        raise CheckpointError("cannot be read", where=file, why=err.strerror or str(err)) from err
    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=_each_once)
    except (ValueError, RecursionError) as err:
        raise bad(f"its header is not JSON ({err})") from err
    if not isinstance(header, dict):
        raise bad("its header is not a JSON object")
    header.pop("__metadata__", None)
    at = 8 + length
    tensors = [_stored(file, name, entry, at, bad) for name, entry in header.items()]
    for tensor in sorted(tensors, key=lambda t: (t.begin, t.nbytes)):
        if tensor.begin != at:
            raise bad(f"the bytes of {tensor.name!r} begin at {tensor.begin}, those before it end at {at}")
        at += tensor.nbytes
    if at != size:
        why = f"its tensors end at byte {at}, and the file has {size}"
        raise bad(why, "is cut short" if size < at else "is too long")
    return {tensor.name: tensor for tensor in tensors}


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{max(names, key=names.count)!r} is there twice")
    return found


def _stored(file: Path, name: str, entry: Any, base: int, bad: Callable[[str], CheckpointError]) -> Stored:
    try:
        code, dims, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    except (TypeError, KeyError, ValueError) as err:
        raise bad(f"the header's entry for {name!r} is malformed") from err
    if not isinstance(dims, list) or not all(type(n) is int and n >= 0 for n in [*dims, begin, end]):
        raise bad(f"the header's entry for {name!r} is malformed")
    if not isinstance(code, str) or code not in _BITS:
        raise bad(f"{name!r} has the unknown type {code!r}")
    if (end - begin) * 8 != math.prod(dims) * _BITS[code]:
        raise bad(f"{name!r} is {code} {dims} and has {end - begin} bytes")
    dtype = FLOATS.get(code, code)
    return Stored(file=file, name=name, dtype=dtype, dims=tuple(dims), begin=base + begin, nbytes=end - begin)
