"""The manifest of shards: what was made of which input, with which tokenizer, and whether that is what stands there.

Decides what `blend.json` (of a folder) and `<prefix>.json` (of a pair) say, and when files are no longer those that
they speak of; leaves the making to `build`. Light: a login node checks with it, without numpy or a tokenizer's library.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from toolkit import files
from toolkit import tokenizer as tokenizers
from toolkit.errors import ShardError

FILE, TOKENIZER = "blend.json", "tokenizer"
FORMAT = 1
SPLITS = ("train", "valid")
Split = Literal["train", "valid"]

_HASHING = 4  # files at once; hashing leaves Python's lock to others
_AGAIN = "build the shards again, or copy the folder again"


@dataclass(frozen=True, kw_only=True)
class Input:
    """The file that a shard was made of, by its name and content. Of several, what stands for them all."""

    name: str
    sha256: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A pair: its prefix, relative to the manifest, what it holds, what both files are, and what it was made of.

    `weight` is its share of a training's samples relative to the others'; None: as many as its tokens make.
    """

    prefix: str
    subset: str
    documents: int
    tokens: int
    weight: float | None
    bin_bytes: int
    idx_bytes: int
    bin_sha256: str
    idx_sha256: str
    input: Input
    rows: int
    empty: int
    replaced: int
    bad_rows: int


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """The tokenizer that the ids are of. `sha256` is of all that ids follow from, `model_sha256` of its model file
    alone; `special` names the ids that were added to that model, `eod_id` the one that ends each document.
    """

    folder: str
    sha256: str
    model_sha256: str
    vocab_size: int
    eod_id: int | None
    special: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Made:
    """How shards were made: what decides their bytes, besides the input. `tags` are the special tokens that a text may
    name, None: all but control tokens; `versions` say who did it.
    """

    toolkit: str
    dtype: str
    append_eod: bool
    text_field: str
    tags: tuple[str, ...] | None
    tokenizer: Tokens
    versions: Mapping[str, str] = field(default_factory=dict)

    def same(self, other: Made) -> bool:
        """Whether both give an input the same bytes. Libraries' versions say who did it, and are no part of that."""
        return dataclasses.replace(self, versions={}) == dataclasses.replace(other, versions={})


@dataclass(frozen=True, kw_only=True)
class Blend:
    """The shards of a folder in their order."""

    made: Made
    train: tuple[Shard, ...]
    valid: tuple[Shard, ...] = ()

    @property
    def shards(self) -> tuple[Shard, ...]:
        return self.train + self.valid


def tokens_of(folder: Path, *, append_eod: bool) -> Tokens:
    """What the tokenizer folder is. Raises `DataError` as `tokenizer.load`."""
    loaded = tokenizers.load(folder)
    own = {name: number for name, number in loaded.added.items() if number >= loaded.base_size}
    return Tokens(
        folder=TOKENIZER,
        sha256=tokenizer_sha256(folder),
        model_sha256=files.sha256_file(tokenizers.model_file(folder)),
        vocab_size=loaded.vocab_size,
        eod_id=loaded.eod_id if append_eod else None,
        special=own,
    )


def tokenizer_sha256(folder: Path) -> str:
    """A hash of the files that ids follow from: the model, and the tokens added beside it. Raises `ShardError`."""
    try:
        digest = hashlib.sha256(files.sha256_file(tokenizers.model_file(folder)).encode())
        added = Path(folder) / tokenizers.ADDED
        if added.is_file():
            digest.update(json.dumps(files.read_json(added), sort_keys=True).encode())
    except (OSError, ValueError, RecursionError) as err:
        raise ShardError("its tokenizer cannot be read", where=folder, why=str(err), do=_AGAIN) from err
    return digest.hexdigest()


def subset_of(name: str) -> str:
    """The subset of a part: its name without the number at its end (`guidelines-00003` -> `guidelines`)."""
    return re.sub(r"-[0-9]+$", "", name) or name


def write(folder: Path, blend: Blend) -> None:
    """Write `blend.json`. Raises `DiskFull`."""
    rows = {split: [dataclasses.asdict(shard) for shard in getattr(blend, split)] for split in SPLITS}
    files.write_json(Path(folder) / FILE, {"format": FORMAT, **dataclasses.asdict(blend.made), **rows})


def write_pair(prefix: str | Path, made: Made, shard: Shard) -> None:
    """Write `<prefix>.json`, the mark that the pair is whole. Raises `DiskFull`."""
    own = dataclasses.replace(shard, prefix=Path(prefix).name)
    told = {"format": FORMAT, **dataclasses.asdict(made), "shard": dataclasses.asdict(own)}
    files.write_json(sidecar(prefix), told)


def sidecar(prefix: str | Path) -> Path:
    return Path(f"{prefix}.json")


def read(folder: str | Path) -> Blend:
    """The folder's manifest. Raises `ShardError` when there is none, or one that is damaged."""
    path = Path(folder) / FILE
    told = _read(path, missing=f"no {FILE}: it is made by `python -m toolkit.shards build`")
    try:
        parts = {split: tuple(_shard(row) for row in told[split]) for split in SPLITS}
        names = [shard.prefix for shard in parts["train"] + parts["valid"]]
        if len(set(names)) < len(names):
            raise ValueError("a shard is listed twice")
        return Blend(made=_made(told), **parts)
    except (KeyError, TypeError, ValueError) as err:
        raise _damaged(path, err) from err


def read_pair(prefix: str | Path) -> tuple[Made, Shard]:
    """What stands beside a pair of it. Raises `ShardError`."""
    path = sidecar(prefix)
    told = _read(path, missing="no such file: it says what the pair is, and is written when that is whole")
    try:
        return _made(told), _shard(told["shard"])
    except (KeyError, TypeError, ValueError) as err:
        raise _damaged(path, err) from err


def check(folder: str | Path, *, everything: bool = False, say: Callable[[str], None] = lambda line: None) -> Blend:
    """The folder's manifest, when its files are those that it speaks of. Raises `ShardError` for the first that is not.

    Sizes are always compared, contents (SHA-256) with `everything`, and of what was changed since the manifest was
    written: a file or a copy that is younger than it. `say` is given a line when that takes long.
    """
    folder = Path(folder)
    found = read(folder)
    if not found.train:
        raise ShardError("lists no shard to train on", where=folder / FILE, do=_AGAIN)
    told = (folder / FILE).stat().st_mtime_ns
    todo: list[tuple[Path, str]] = []
    for path, size, digest in _files(folder, found):
        stat = _stat(path)
        if stat.st_size != size:
            raise ShardError(
                f"expected {size:,} bytes, found {stat.st_size:,}",
                where=path,
                why=f"it is not the file that {FILE} was written for",
                do=_AGAIN,
            )
        if everything or stat.st_mtime_ns > told:
            todo.append((path, digest))
    own = folder / found.made.tokenizer.folder
    if tokenizer_sha256(own) != found.made.tokenizer.sha256:
        raise ShardError(
            "is not the tokenizer that these shards were made with",
            where=own,
            why=f"its hash is not {FILE}'s",
            do=_AGAIN,
        )
    if todo:
        size = sum(path.stat().st_size for path, _ in todo)
        if size > 1 << 30:
            why = "as asked for" if everything else f"younger than {FILE}; cp -a and rsync -a keep a copy's times"
            say(f"{folder}: comparing {len(todo)} files of {size / 1e9:.1f} GB with their hashes ({why})")
        compare(todo)
    return found


def compare(expected: Sequence[tuple[Path, str]]) -> None:
    """Raise `ShardError` for the first file whose SHA-256 is another."""
    with ThreadPoolExecutor(_HASHING) as pool:
        try:
            for (path, digest), found in zip(expected, pool.map(_sha256, [p for p, _ in expected]), strict=True):
                if found != digest:
                    raise ShardError(
                        "was changed since it was made",
                        where=path,
                        why=f"its SHA-256 begins with {found[:12]}, expected {digest[:12]}",
                        do=_AGAIN,
                    )
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def vocabulary(blend: Blend, *, vocab_size: int, model: Path | None, where: Path) -> None:
    """Raise `ShardError` unless the ids are of a model of `vocab_size` tokens and of the tokenizer in `model`."""
    own = blend.made.tokenizer
    if own.vocab_size != vocab_size:
        raise ShardError(
            f"were made with a vocabulary of {own.vocab_size:,}, and the model has {vocab_size:,}",
            where=where,
            do="build them with this model's tokenizer, or choose the model that they were built for",
        )
    names = [Path(place) / tokenizers.MODEL for place in (model, Path(where) / own.folder) if place is not None]
    # A tokenizer.json is another file when tokens were added to it; a SentencePiece model stays as it is.
    if len(names) == 2 and all(name.is_file() for name in names) and files.sha256_file(names[0]) != own.model_sha256:
        raise ShardError(
            "were made with another tokenizer than the model's",
            where=where,
            why=f"{names[0]} has another content than the {tokenizers.MODEL} that they were made with",
            do="build them with this model's tokenizer",
        )


def _files(folder: Path, blend: Blend) -> Iterator[tuple[Path, int, str]]:
    for shard in blend.shards:
        yield folder / f"{shard.prefix}.bin", shard.bin_bytes, shard.bin_sha256
        yield folder / f"{shard.prefix}.idx", shard.idx_bytes, shard.idx_sha256


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as err:
        raise ShardError(
            "no such file" if isinstance(err, FileNotFoundError) else f"cannot be read: {err.strerror}",
            where=path,
            why=f"{FILE} lists it",
            do=_AGAIN,
        ) from None


def _sha256(path: Path) -> str:
    try:
        return files.sha256_file(path)
    except OSError as err:
        raise ShardError(f"cannot be read: {err.strerror}", where=path, do=_AGAIN) from err


def _read(path: Path, *, missing: str) -> dict[str, Any]:
    try:
        told = files.read_json(path)
    except FileNotFoundError:
        raise ShardError(
            "holds no shards", where=path.parent, why=missing, do="build them, or check the path"
        ) from None
    except (OSError, ValueError, RecursionError) as err:
        raise _damaged(path, err) from err
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        kind = told.get("format") if isinstance(told, dict) else type(told).__name__
        raise ShardError(f"is no manifest of format {FORMAT}", where=path, why=f"its format is {kind!r}", do=_AGAIN)
    return told


def _damaged(path: Path, err: Exception) -> ShardError:
    return ShardError("the manifest is damaged", where=path, why=f"{type(err).__name__}: {err}"[:300], do=_AGAIN)


def _made(told: Mapping[str, Any]) -> Made:
    own = _typed(Tokens, told["tokenizer"])
    tags = None if told["tags"] is None else tuple(map(str, told["tags"]))
    return _typed(Made, {**{name: told[name] for name in _names(Made) if name in told}, "tokenizer": own, "tags": tags})


def _shard(row: Mapping[str, Any]) -> Shard:
    prefix = row["prefix"]
    if not isinstance(prefix, str) or Path(prefix).is_absolute() or ".." in Path(prefix).parts:
        raise ValueError(f"the prefix {prefix!r} leads out of its folder")
    return _typed(Shard, {**row, "input": _typed(Input, row["input"])})


def _names(kind: type) -> tuple[str, ...]:
    return tuple(each.name for each in dataclasses.fields(kind))


def _typed(kind: type, row: Mapping[str, Any]) -> Any:
    """A value of `kind`, of which the counts are counts and the texts texts."""
    if not isinstance(row, Mapping):
        raise TypeError(f"{kind.__name__} is {type(row).__name__}")
    for each in dataclasses.fields(kind):
        value = row.get(each.name)
        if each.type == "int" and (type(value) is not int or value < 0):
            raise ValueError(f"{each.name} is {value!r}")
        if each.type == "str" and not isinstance(value, str):
            raise ValueError(f"{each.name} is {value!r}")
    return kind(**{name: value for name, value in row.items() if name in _names(kind)})
