"""Builds a corpus folder from sources, whole or not at all.

Decides the order of the rules, when losses are too many, and what is written; readers know formats, `split` the parts.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolkit import files
from toolkit.corpus import licence
from toolkit.corpus.document import BadRow, Document
from toolkit.corpus.split import position
from toolkit.corpus.tally import Tally
from toolkit.errors import DataError, RecipeError, nearest
from toolkit.progress import progress

KINDS = ("world", "jats", "jsonl")
PARTS = ("train", "valid")


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
class CorpusReport:
    """Counts of documents; `removed` is rule -> number, and documents_in = documents_out + its sum.

    The whole of it, with examples and rows set aside, is `report.json` in `out`.
    """

    out: Path
    documents_in: int
    documents_out: int
    train: int
    valid: int
    set_aside: int
    characters: int
    removed: Mapping[str, int]
    unknown_licence: int


def build(
    *,
    sources: Sequence[Source],
    out: str | Path,
    seed: int,
    valid_fraction: float,
    allow_noncommercial: bool = False,
    max_bad_fraction: float = 0.01,
) -> CorpusReport:
    """Write `out/train.jsonl`, `out/valid.jsonl` and `out/report.json`; a corpus that stood there is replaced last.

    A document validates when a hash of `seed` and its id falls below `valid_fraction`; should that leave one part
    empty, the nearest document changes sides. Raises `DataError` for missing or empty input, for no documents left,
    and when more than `max_bad_fraction` of a source's rows cannot be read; `RecipeError` for impossible values.
    """
    out = Path(out).absolute()
    _check(sources, out, valid_fraction, max_bad_fraction)
    tally = Tally()
    with files.atomic_folder(out) as folder:
        edges = _write(folder, sources, tally, seed, valid_fraction, allow_noncommercial, max_bad_fraction)
        if tally.kept == 0:
            reasons = ", ".join(f"{rule} {count}" for rule, count in tally.removed.items())
            raise DataError(
                "no documents are left",
                where=", ".join(str(s.path or s.kind) for s in sources),
                why=f"all {tally.read} were removed ({reasons})",
                do="allow non-commercial licences, if your use permits it" if tally.removed["licence"] else "",
            )
        moved = _fill_empty_part(folder, tally, edges, valid_fraction)
        settings = {"seed": seed, "valid_fraction": valid_fraction, "allow_noncommercial": allow_noncommercial}
        settings |= {"max_bad_fraction": max_bad_fraction, "sources": [_described(source) for source in sources]}
        files.write_json(folder / "report.json", {**settings, **tally.as_dict(), "moved": moved})
    return CorpusReport(
        out=out,
        documents_in=tally.read,
        documents_out=tally.kept,
        train=tally.part("train"),
        valid=tally.part("valid"),
        set_aside=tally.removed["bad_row"],
        characters=tally.characters,
        removed=dict(tally.removed),
        unknown_licence=tally.licences[licence.UNKNOWN],
    )


def _described(source: Source) -> dict[str, Any]:
    return {**dataclasses.asdict(source), "path": str(source.path or "")}


def _check(sources: Sequence[Source], out: Path, valid_fraction: float, max_bad_fraction: float) -> None:
    if not sources:
        raise RecipeError("a corpus needs at least one source")
    for name, value, below in (("valid_fraction", valid_fraction, 1), ("max_bad_fraction", max_bad_fraction, math.inf)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < below or value > 1:
            limit = "at least 0 and below 1" if below == 1 else "between 0 and 1"
            raise RecipeError(f"{value!r} is not possible", where=name, why=f"it must be {limit}")
    if out.exists() and not (out.is_dir() and ((out / "report.json").exists() or not any(out.iterdir()))):
        raise DataError("would be replaced, and it is no corpus", where=out, do="choose another output folder")
    for source in sources:
        if source.path is not None and out.resolve() in (path := Path(source.path).resolve(), *path.parents):
            raise DataError("the input lies in the output folder", where=source.path, do="choose another output folder")


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


@dataclass(frozen=True, kw_only=True)
class _Edge:
    """The kept document with the lowest or highest position: the first to change sides."""

    at: float
    id: str
    subset: str


def _write(
    folder: Path,
    sources: Sequence[Source],
    tally: Tally,
    seed: int,
    valid_fraction: float,
    allow_restricted: bool,
    limit: float,
) -> dict[str, _Edge]:
    edges: dict[str, _Edge] = {}
    with (
        open(folder / "train.jsonl", "w", encoding="utf-8", newline="\n") as train,
        open(folder / "valid.jsonl", "w", encoding="utf-8", newline="\n") as valid,
        progress("corpus", unit="docs") as bar,
    ):
        for source in sources:
            rows = bad = 0
            first: BadRow | None = None
            for item in _read(source):
                rows += 1
                bar.advance()
                if isinstance(item, BadRow):
                    bad, first = bad + 1, first or item
                    tally.bad(item, _subset(source))
                elif not item.text.strip():
                    tally.remove("empty", item)
                elif licence.is_restricted(item.license) and not allow_restricted:
                    tally.remove("licence", item)
                else:
                    at = position(seed, item.id)
                    part = "valid" if at < valid_fraction else "train"
                    (valid if part == "valid" else train).write(json.dumps(item.as_dict(), ensure_ascii=False) + "\n")
                    tally.keep(item, part)
                    edge = _Edge(at=at, id=item.id, subset=item.subset)
                    if "low" not in edges or at < edges["low"].at:
                        edges["low"] = edge
                    if "high" not in edges or at > edges["high"].at:
                        edges["high"] = edge
            _judge(source, rows, bad, first, limit)
    return edges


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


def _fill_empty_part(folder: Path, tally: Tally, edges: Mapping[str, _Edge], valid_fraction: float) -> str:
    """Small corpora can fall on one side altogether; then the document nearest to the border changes sides."""
    if tally.part("train") == 0:
        old, new, edge = "valid", "train", edges["high"]
    elif tally.part("valid") == 0 and valid_fraction > 0 and tally.kept > 1:
        old, new, edge = "train", "valid", edges["low"]
    else:
        return ""
    with (
        open(folder / f"{old}.jsonl", encoding="utf-8", newline="\n") as given,
        open(folder / f"{new}.jsonl", "w", encoding="utf-8", newline="\n") as taken,
        open(folder / "rest", "w", encoding="utf-8", newline="\n") as rest,
    ):
        for line in given:
            row = json.loads(line)
            if row["id"] == edge.id:
                tally.move(row["subset"], old, new)
            (taken if row["id"] == edge.id else rest).write(line)
    (folder / "rest").replace(folder / f"{old}.jsonl")
    return f"{edge.id} moved from {old} to {new}, which would be empty"
