"""One source through the rules: documents into the two parts of a corpus, every loss counted.

Decides the order of the rules and when a source's losses are too many; readers know formats, `split` the parts.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from toolkit.corpus import licence
from toolkit.corpus.document import BadRow, Document
from toolkit.corpus.split import position
from toolkit.corpus.tally import Tally
from toolkit.errors import DataError, RecipeError, nearest

KINDS = ("world", "jats", "jsonl")


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where documents come from: `kind` is world, jats or jsonl; `path` a file or folder; `subset` names its rows.

    `options` are those of the reader: `WorldOptions` fields; `text_field`, `license`, `max_line_mib` for jsonl.
    """

    kind: str
    path: str | Path | None = None
    subset: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise RecipeError(f"unknown kind of source '{self.kind}'", why=nearest(self.kind, KINDS))


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What decides about a document and about a source; the fields are those of `builder.build`."""

    seed: int
    valid_fraction: float
    allow_noncommercial: bool
    max_bad_fraction: float


@dataclass(frozen=True, kw_only=True)
class Edge:
    """A kept document and its position in [0, 1)."""

    at: float
    id: str
    subset: str


@dataclass(kw_only=True)
class Sifted:
    """What became of the documents: counts, and those with the lowest and the highest position, which are the first to
    change sides should a part be empty.
    """

    tally: Tally = field(default_factory=Tally)
    low: Edge | None = None
    high: Edge | None = None

    def see(self, low: Edge, high: Edge) -> None:
        if self.low is None or low.at < self.low.at:
            self.low = low
        if self.high is None or high.at > self.high.at:
            self.high = high

    def merge(self, later: Sifted) -> None:
        """Add the source that follows; the same as if both had been sifted in one go."""
        self.tally.merge(later.tally)
        if later.low is not None and later.high is not None:
            self.see(later.low, later.high)

    def as_state(self) -> dict[str, Any]:
        edges = {name: edge and dataclasses.asdict(edge) for name, edge in (("low", self.low), ("high", self.high))}
        return {"tally": self.tally.as_state(), **edges}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Sifted:
        edges = {name: state[name] and Edge(**state[name]) for name in ("low", "high")}
        return cls(tally=Tally.from_state(state["tally"]), **edges)


def sift(source: Source, rules: Rules, *, train: IO[bytes], valid: IO[bytes], advance: Callable[[], None]) -> Sifted:
    """Write the source's documents, a JSON line each, to `train` and `valid`; `advance` is called at every row.

    Raises `DataError` for a source without rows, and with more than `max_bad_fraction` of them unreadable.
    """
    found = Sifted()
    tally = found.tally
    rows = bad = 0
    first: BadRow | None = None
    for item in _read(source):
        rows += 1
        advance()
        if isinstance(item, BadRow):
            bad, first = bad + 1, first or item
            tally.bad(item, _subset(source))
        elif not item.text.strip():
            tally.remove("empty", item)
        elif licence.is_restricted(item.license) and not rules.allow_noncommercial:
            tally.remove("licence", item)
        else:
            at = position(rules.seed, item.id)
            part = "valid" if at < rules.valid_fraction else "train"
            line = json.dumps(item.as_dict(), ensure_ascii=False) + "\n"
            (valid if part == "valid" else train).write(line.encode())
            tally.keep(item, part)
            edge = Edge(at=at, id=item.id, subset=item.subset)
            found.see(edge, edge)
    _judge(source, rows, bad, first, rules.max_bad_fraction)
    return found


def _read(source: Source) -> Iterator[Document | BadRow]:
    # Imported here: a reader's packages are wanted only where its sources are.
    if source.kind == "world":
        from toolkit.corpus import world

        return (_named(doc, source.subset) for doc in world.make(source.options).documents())
    if source.path is None:
        raise DataError(f"a source of kind {source.kind} needs a path", do="name a file or a folder")
    from toolkit.corpus import jats, jsonl

    reader = jats if source.kind == "jats" else jsonl
    return reader.read(source.path, _subset(source), source.options)


def _subset(source: Source) -> str:
    """What the source is called, else the kind: the name of a file would differ from machine to machine."""
    return source.subset or source.kind


def _named(doc: Document, subset: str) -> Document:
    return doc if subset in ("", doc.subset) else Document(**{**doc.as_dict(), "subset": subset})


def _judge(source: Source, rows: int, bad: int, first: BadRow | None, limit: float) -> None:
    if rows == 0:
        raise DataError("holds no rows", where=source.path or source.kind, why="every line is blank")
    if first is not None and bad > limit * rows:
        where = f"{first.file}:{first.line}" if first.line else first.file
        raise DataError(
            f"{bad} of {rows} rows cannot be read, more than the {limit:.1%} allowed",
            where=source.path,
            why=f"the first is {where}: {first.why}",
            do="mend or remove them, or raise max_bad_fraction",
        )
