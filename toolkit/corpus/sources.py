"""What a corpus is made of and by which rules: the values that a build is given.

Decides names, defaults and what is possible at all; leaves reading to the readers and the rules to their modules.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolkit.cleaning import Decontamination, Duplicates, Filters
from toolkit.corpus import readers
from toolkit.errors import DataError, RecipeError, nearest

MARKUPS = ("tags", "plain")
TABLES = ("caption", "text")
# What a document validates with by default (MEDITRON paper, Table 1); else `Settings.valid_fraction`.
VALID_FRACTIONS = {"guidelines": 0.05, "replay": 0.0}


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where documents come from: `kind` names the reader, `paths` files or folders, `subset` the documents.

    `options` are those of the reader; `license` is that of documents that state none; `valid_fraction` overrides the
    kind's.
    """

    kind: str
    paths: tuple[str, ...] = ()
    subset: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    valid_fraction: float | None = None
    license: str = ""

    def __post_init__(self) -> None:
        readers.module(self.kind)
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", self.name):
            raise RecipeError(f"subset '{self.name}' cannot name a file", do="use letters, digits, '-', '_' and '.'")
        if self.valid_fraction is not None:
            _fraction("valid_fraction", self.valid_fraction, whole=False)

    @property
    def name(self) -> str:
        """What its documents are called: the kind when nothing is said, as a file's name differs between machines."""
        return self.subset or self.kind


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The rules of a corpus. `markup`: "tags" writes the paper's tokens around citations, figures, tables and formulas,
    "plain" leaves them out; `tables`: their "caption" alone, or their "text" too. `benchmarks` is name -> file, for
    `decontamination`. `valid_fraction` is for kinds that have none of their own.
    """

    seed: int = 0
    valid_fraction: float = 0.03
    max_bad_fraction: float = 0.01
    markup: str = "plain"
    tables: str = "caption"
    upsample: bool = False
    filters: Filters = field(default_factory=Filters)
    duplicates: Duplicates = field(default_factory=Duplicates)
    decontamination: Decontamination = field(default_factory=Decontamination)
    benchmarks: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _fraction("valid_fraction", self.valid_fraction, whole=False)
        _fraction("max_bad_fraction", self.max_bad_fraction, whole=True)
        for name, value, valid in (("markup", self.markup, MARKUPS), ("tables", self.tables, TABLES)):
            if value not in valid:
                raise RecipeError(f"unknown {name} '{value}'", why=nearest(str(value), valid))

    def share(self, source: Source) -> float:
        """The share of the source's documents that validates."""
        if source.valid_fraction is not None:
            return source.valid_fraction
        return VALID_FRACTIONS.get(source.kind, self.valid_fraction)

    @property
    def deduplicates(self) -> bool:
        return self.duplicates.ids or self.duplicates.exact or self.duplicates.near


def check(sources: Sequence[Source], out: Path) -> None:
    """Raise `RecipeError` or `DataError` for sources that cannot be read, or lie where `out` would be written."""
    if not sources:
        raise RecipeError("a corpus needs at least one source")
    for number, source in enumerate(sources):
        if source.name in (names := [other.name for other in sources[:number]]):
            raise RecipeError(f"two sources are named '{source.name}'", why=f"there are {', '.join(names)}")
        if bool(source.paths) == (source.kind in readers.WITHOUT_INPUT):
            raise DataError(
                f"a source of kind {source.kind} needs a path" if not source.paths else f"{source.kind} takes no path",
                do="name a file or a folder" if not source.paths else "",
            )
        readers.check(source.kind, source.options)
        for path in map(Path, source.paths):
            for made in (out, work_folder(out)):
                if made.resolve() in (place := path.resolve(), *place.parents):
                    raise DataError("the input lies in the output folder", where=path, do="choose another output")


def work_folder(out: Path) -> Path:
    """Where a build keeps what it has finished, until the corpus stands."""
    return out.with_name(out.name + ".work")


def _fraction(name: str, value: object, *, whole: bool) -> None:
    fits = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1 and (whole or value < 1)
    if not fits:
        limit = "between 0 and 1" if whole else "at least 0 and below 1"
        raise RecipeError(f"{value!r} is not possible", where=name, why=f"it must be {limit}")
