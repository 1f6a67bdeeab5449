"""One shard by several jobs: each encodes a span of the same file, and the last puts the spans together.

Decides what a part must say of itself and that the whole has the bytes of a single build; leaves rows to `build`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit import files
from toolkit import tokenizer as tokenizers
from toolkit.errors import DataError, ShardError
from toolkit.progress import progress
from toolkit.shards import format, rows
from toolkit.shards.build import BAD_SHOWN, Built, Tally, bad_file, built, fill, set_aside, settings_of
from toolkit.shards.encode import BadRow

_AGAIN = "remove the parts and make them again"


@dataclass(frozen=True, kw_only=True)
class Part:
    """Part `number` of `parts`: the bytes from `start` to `end` of a file of `size` bytes, and what became of them."""

    number: int
    parts: int
    start: int
    end: int
    size: int
    rows: int
    empty: int
    bad_rows: int
    documents: int
    tokens: int
    append_eod: bool
    text_field: str
    tokenizer: str


def build_part(
    path: str | Path,
    out: str | Path,
    *,
    number: int,
    parts: int,
    tokenizer: str | Path,
    append_eod: bool = True,
    text_field: str = "text",
    max_bad_fraction: float = 0.01,
    workers: int = 1,
) -> Part:
    """Encode part `number`, from 0, of `parts` of one JSONL file into the folder `out`, for `merge`.

    The file is cut at line ends into spans of nearly equal bytes, so a part may be empty; a compressed file is all in
    the first. The share of bad rows is judged by `merge`, over all parts, unless the file begins with nothing but bad
    ones. Raises as `build`.
    """
    path, out, folder = Path(path), Path(out), Path(tokenizer)
    rows.check_inputs([path])
    if not 0 <= number < parts or workers < 1:
        raise DataError(f"there is no part {number} of {parts} for {workers} workers", do="count parts from 0")
    size, span = path.stat().st_size, rows.cut(path, parts)[number]
    settings, _ = settings_of(folder, append_eod=append_eod, text_field=text_field)
    tally = Tally(inputs=[path], max_bad_fraction=max_bad_fraction, from_first=number == 0)
    out.mkdir(parents=True, exist_ok=True)
    (out / "part.json").unlink(missing_ok=True)
    with set_aside(out / "part") as bad, format.writer(out / "part", settings.dtype) as shard:
        fill(shard, bad, tally, [span], settings, workers)
    part = Part(
        number=number,
        parts=parts,
        start=span.start,
        end=size if span.end is None else span.end,
        size=size,
        rows=tally.rows,
        empty=tally.empty,
        bad_rows=tally.bad_rows,
        documents=len(shard.lengths),
        tokens=shard.tokens,
        append_eod=append_eod,
        text_field=text_field,
        tokenizer=_ids(folder),
    )
    files.write_json(out / "part.json", dataclasses.asdict(part))
    return part


def merge(
    path: str | Path,
    made: Sequence[str | Path],
    prefix: str | Path,
    *,
    tokenizer: str | Path,
    append_eod: bool = True,
    text_field: str = "text",
    max_bad_fraction: float = 0.01,
) -> Built:
    """The shard that `build([path], prefix, ...)` makes, byte for byte, from the folders of all its parts in order.

    Raises as `build`, and `ShardError` for a part that is missing, damaged, or was made of another file or with other
    settings.
    """
    path, folder = Path(path), Path(tokenizer)
    rows.check_inputs([path])
    settings, vocab_size = settings_of(folder, append_eod=append_eod, text_field=text_field)
    same = {"append_eod": append_eod, "text_field": text_field, "tokenizer": _ids(folder), "size": path.stat().st_size}
    parts = [_read(Path(out)) for out in made]
    _check(parts, made, same)
    tally = Tally(inputs=[path], max_bad_fraction=max_bad_fraction)
    total = sum(part.documents for part in parts)
    with (
        set_aside(prefix) as bad,
        format.writer(prefix, settings.dtype) as shard,
        progress("shards", total=total, unit="docs") as bar,
    ):
        lines = 0  # before the part, counted only as far as a bad row must be given its line in the whole file
        counted = 0
        for part, out in zip(parts, map(Path, made), strict=True):
            tally.rows += part.rows
            tally.empty += part.empty
            tally.bad_rows += part.bad_rows
            if part.bad_rows:
                if part.start > counted:
                    lines += rows.count_lines(rows.Span(path=path, start=counted, end=part.start))
                    counted = part.start
                for row in _bad_rows(out, part.bad_rows):
                    row["line"] += lines
                    bad(row)
                    if len(tally.bad) < BAD_SHOWN:
                        tally.bad.append(BadRow(file=row["file"], line=row["line"], why=row["why"]))
            for lengths, ids in format.documents(out / "part", settings.dtype, part.documents):
                shard.add(lengths, ids)
                bar.advance(len(lengths))
        tally.check(documents=len(shard.lengths))
    return built(prefix, shard, tally, settings, vocab_size)


def _ids(folder: Path) -> str:
    """A hash of all that decides which ids a text gets: the model and the tokens added to it."""
    added = json.dumps(tokenizers.load(folder).added, sort_keys=True)
    return hashlib.sha256((files.sha256_file(tokenizers.model_file(folder)) + added).encode()).hexdigest()


def _read(out: Path) -> Part:
    try:
        part = Part(**files.read_json(out / "part.json"))
    except (OSError, ValueError, TypeError, RecursionError) as err:
        raise ShardError("is no part of a shard", where=out, why=str(err), do=_AGAIN) from err
    for name in (field.name for field in dataclasses.fields(Part) if field.type == "int"):
        if type(getattr(part, name)) is not int or getattr(part, name) < 0:
            raise ShardError("is no part of a shard", where=out, why=f"{name} is {getattr(part, name)!r}", do=_AGAIN)
    return part


def _check(parts: Sequence[Part], made: Sequence[str | Path], same: dict[str, Any]) -> None:
    """All parts are there, in order, of this file as it is, and made as asked."""
    at = 0
    for number, (part, out) in enumerate(zip(parts, made, strict=True)):
        if (part.number, part.parts, part.start) != (number, len(parts), at):
            raise ShardError(f"is not part {number} of {len(parts)}", where=out, do=_AGAIN)
        for name, value in same.items():
            if getattr(part, name) != value:
                why = f"{name} is {getattr(part, name)}, expected {value}"
                raise ShardError(
                    "the part was made of another file or with other settings", where=out, why=why, do=_AGAIN
                )
        at = part.end
    if at != same["size"]:
        raise ShardError("the parts are not the whole file", where=made[-1] if made else "", do=_AGAIN)


def _bad_rows(out: Path, expected: int) -> Iterator[dict[str, Any]]:
    path, found = bad_file(out / "part"), 0
    try:
        with open(path, encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                yield {name: row[name] for name in ("file", "line", "why", "row")}
                found += 1
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as err:
        raise ShardError("cannot be read", where=path, why=str(err), do=_AGAIN) from err
    if found != expected:
        raise ShardError(f"{found} rows, expected {expected}", where=path, do=_AGAIN)
