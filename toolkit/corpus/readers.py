"""The kinds of sources and the modules that read them.

Decides which reader a kind has and which files of a folder are its own; leaves formats to the readers. A reader is a
module with `SUFFIXES`, `OPTIONS` (name -> help), `check(options)`, `read(file, subset, options)` for one file, and
where it must see a whole source first, `prepare(paths, options, folder)`.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from stat import S_ISREG
from types import ModuleType
from typing import Any, NamedTuple

from toolkit import files
from toolkit.errors import DataError, RecipeError, nearest

# Kind -> (module, what it reads).
KINDS: Mapping[str, tuple[str, str]] = {
    "pmc": ("jats", "articles of PubMed Central: JATS XML, single files or .tar.gz packages"),
    "s2orc": ("s2orc", "full texts of Semantic Scholar (S2ORC), JSON lines"),
    "abstracts": ("abstracts", "abstracts: PubMed's XML, or Semantic Scholar's JSON lines"),
    "guidelines": ("guidelines", "clinical guidelines: HTML, PDF, Markdown, text, JSON lines"),
    "replay": ("replay", "a sample of general text or code: JSON lines or Parquet"),
    "jsonl": ("jsonl", "documents that are JSON lines already"),
    "world": ("world", "the invented pharmacopoeia, which the toolkit writes itself"),
    "jats": ("jats", "another name for pmc"),
}
WITHOUT_INPUT = ("world",)


class File(NamedTuple):
    """A file of a source: where it lies, its name below the input, its size in bytes and its time in nanoseconds."""

    path: Path
    name: str
    size: int
    mtime_ns: int


def module(kind: str) -> ModuleType:
    """The reader of a kind. Raises `RecipeError` for one that does not exist."""
    if kind not in KINDS:
        raise RecipeError(f"unknown kind of source '{kind}'", why=nearest(kind, KINDS))
    return importlib.import_module(f"toolkit.corpus.{KINDS[kind][0]}")


def files_of(kind: str, path: str | Path) -> Iterator[File]:
    """`path` itself, or the reader's files below a folder, in the order of their names; hidden ones are passed over.

    Nothing is held but one folder's names. Raises `DataError` when there is nothing to read.
    """
    suffixes, what = tuple(module(kind).SUFFIXES), KINDS[kind][1]
    path = Path(path)
    try:
        if not path.is_dir():
            stat = path.stat()
            if not path.name.lower().endswith(suffixes) and (others := _readers_of(path.name, kind)):
                raise DataError(f"{kind} does not read such files", where=path, do=f"kinds that do: {others}")
            if not S_ISREG(stat.st_mode):
                raise DataError("is no regular file", where=path, do="give a file, which can be read again")
            yield File(path.absolute(), path.name, stat.st_size, stat.st_mtime_ns)
            return
        root, found = str(path.absolute()), False
        for entry in files.walk(root, hidden=False):
            if entry.name.lower().endswith(suffixes):
                found, stat = True, entry.stat()
                yield File(Path(entry.path), entry.path[len(root) :].lstrip("/"), stat.st_size, stat.st_mtime_ns)
    except FileNotFoundError as err:
        raise DataError("no such file or folder", where=err.filename or path, why=f"{what} was expected") from err
    except OSError as err:
        raise DataError("cannot be read", where=err.filename or path, why=str(err.strerror)) from err
    if not found:
        raise DataError(
            f"the folder holds no file for {kind}", where=path, why=f"looked for names ending in {', '.join(suffixes)}"
        )


def _readers_of(name: str, but: str) -> str:
    kinds = [kind for kind in KINDS if kind not in (but, "jats", *WITHOUT_INPUT)]
    return ", ".join(kind for kind in kinds if name.lower().endswith(tuple(module(kind).SUFFIXES)))


def check(kind: str, options: Mapping[str, Any]) -> None:
    """Raise `RecipeError` for options that the reader does not know or cannot take."""
    module(kind).check(options)
