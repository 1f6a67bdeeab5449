"""Which files become which shards: of a list of files, of folders of them, and of a corpus with its two sides.

Decides names and order; leaves what is in the files to `rows`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from toolkit.errors import DataError
from toolkit.shards.blend import SPLITS, Split
from toolkit.shards.rows import SUFFIXES, check_inputs


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file, and the name of its shard below the output: `train/guidelines-00003`, or `guidelines-00003`."""

    path: Path
    name: str
    split: Split = "train"


def sources(inputs: Sequence[str | Path]) -> tuple[Source, ...]:
    """The files of `inputs` in their order; of a folder those that are directly in it, sorted by name.

    A corpus (a folder with `train/` and `valid/`, or with `train.jsonl` and `valid.jsonl`) has two sides, and its
    shards' names begin with theirs. Where files of several folders have one name, their folder's comes before it.
    Raises `DataError` for what is no input, and where that is no help.
    """
    paths = [Path(path) for path in inputs]
    plain = [path for path in paths if not path.is_dir()]
    if plain or not paths:
        check_inputs(plain)
    two_sides = any(map(is_corpus, paths))
    found: list[Source] = []
    for path in paths:
        if is_corpus(path):
            found += corpus(path)
            continue
        for file in _files(path) if path.is_dir() else [path]:
            found.append(Source(path=file, name=("train/" if two_sides else "") + part_name(file)))
    count = Counter(source.name for source in found)
    found = [source if count[source.name] == 1 else _by_folder(source) for source in found]
    seen: dict[str, Path] = {}
    for source in found:
        if source.name in seen:
            raise DataError(
                f"the shard of this file would have the name '{source.name}', as that of {seen[source.name]}",
                where=source.path,
                do="rename one of them, or build them one after the other",
            )
        seen[source.name] = source.path
    return tuple(found)


def _by_folder(source: Source) -> Source:
    """`pmc/part-0.jsonl` -> `pmc-part-0`; of a corpus its own name counts, not that of its side."""
    side, slash, name = source.name.rpartition("/")
    folder = source.path.absolute().parent
    folder = folder.parent if folder.name == side else folder
    return replace(source, name=f"{side}{slash}{folder.name}-{name}")


def corpus(folder: str | Path) -> tuple[Source, ...]:
    """The parts of a corpus: those to train on, then those to validate on. Raises `DataError`."""
    folder = Path(folder)
    found = [
        Source(path=path, name=f"{split}/{part_name(path)}", split=split)
        for split in SPLITS
        for path in _side(folder, split)
    ]
    if not any(source.split == "train" for source in found):
        raise DataError(
            "holds no text to train on" if folder.is_dir() else "no such corpus",
            where=folder,
            do=f"give a corpus: a folder with train/ and valid/, each with {', '.join(SUFFIXES)} files",
        )
    return tuple(found)


def is_corpus(path: Path) -> bool:
    return path.is_dir() and any(_side(path, split) for split in SPLITS)


def part_name(path: Path) -> str:
    """The name without what says how it is stored: `pmc-00001.jsonl.zst` -> `pmc-00001`."""
    suffix = next(suffix for suffix in sorted(SUFFIXES, key=len, reverse=True) if path.name.endswith(suffix))
    return re.sub(r"^\.+", "", path.name.removesuffix(suffix)) or "text"


def _side(folder: Path, split: Split) -> list[Path]:
    inside = _inside(folder / split)
    return inside or [folder / f"{split}{suffix}" for suffix in SUFFIXES if (folder / f"{split}{suffix}").is_file()]


def _inside(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(
        path for path in folder.iterdir() if path.name.endswith(SUFFIXES) and path.is_file() and path.name[0] != "."
    )


def _files(folder: Path) -> list[Path]:
    found = _inside(folder)
    if not found:
        raise DataError("holds no file to read", where=folder, do=f"expected {', '.join(SUFFIXES)} files in it")
    return found
