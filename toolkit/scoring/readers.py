"""Rows out of benchmark files: JSON lines, a JSON array, a JSON object by id, CSV with and without a header, parquet.

Decides what a well-formed file is and where in it a fault lies; leaves the meaning of the fields to `benchmarks`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from toolkit.cells import csv_rows as cells_of
from toolkit.errors import DataError, MissingPackage

_PARQUET = b"PAR1"  # the first and last four bytes of every parquet file
_AGAIN = "fetch or make the file again"


def read_text(path: Path) -> str:
    """The file as text (UTF-8, with or without a byte-order mark). Raises DataError: missing, empty, not UTF-8."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise DataError("no such benchmark file", where=path, do="give the benchmark's own file or folder") from None
    except OSError as err:
        raise DataError(f"cannot be read: {err.strerror}", where=path) from err
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        line = raw.count(b"\n", 0, err.start) + 1
        raise DataError("is not UTF-8 text", where=f"{path}:{line}", do="save the file as UTF-8") from None
    if not text.strip():
        raise DataError("the benchmark file is empty", where=path, do=_AGAIN)
    return text


def is_parquet(path: Path) -> bool:
    """Whether the file says that it is one, by its name or its first bytes."""
    if path.suffix == ".parquet":
        return True
    try:
        with open(path, "rb") as handle:
            return handle.read(4) == _PARQUET
    except OSError:
        return False  # whoever reads it says what is wrong


def table_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, row) of a file of records, each by its column names: parquet, CSV with a header (`.csv`), else JSON."""
    if is_parquet(path):
        yield from _parquet_rows(path)
    elif path.suffix == ".csv":
        yield from _header_rows(path)
    else:
        yield from json_rows(path)


def _parquet_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise DataError("no such benchmark file", where=path, do="give the benchmark's own file or folder") from None
    except OSError as err:
        raise DataError(f"cannot be read: {err.strerror}", where=path) from err
    if not size:
        raise DataError("the benchmark file is empty", where=path, do=_AGAIN)
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as err:
        raise MissingPackage("reading parquet needs pyarrow", where=path, do="install the extra 'data'") from err
    try:
        with parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path} row {number}", row
    except (pyarrow.ArrowException, OSError, ValueError) as err:
        why = " ".join(str(err).split())[:200]
        raise DataError("is not a readable parquet file", where=path, why=why, do=_AGAIN) from None


def _header_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    names: list[str] | None = None
    for where, cells in cells_of(path, read_text(path)):
        if names is None:
            names = [cell.strip() for cell in cells]
            if len(set(names)) < len(names) or not all(names):
                raise DataError("the header names a column twice or not at all", where=where, why=f"{names}"[:200])
        elif len(cells) != len(names):
            why = f"{len(cells)} cells, where the header has {len(names)}"
            raise DataError(
                "the row does not fit the header", where=where, why=why, do=f"it may be cut short: {_AGAIN}"
            )
        else:
            yield where, dict(zip(names, cells, strict=True))


def _parse(text: str, where: str, **options: Any) -> Any:
    try:
        return json.loads(text, **options)
    except RecursionError:
        raise DataError("is nested too deeply for a benchmark file", where=where) from None
    except ValueError as err:
        line = f" (line {err.lineno}, column {err.colno})" if isinstance(err, json.JSONDecodeError) else ""
        why = f"{getattr(err, 'msg', err)}{line}"
        raise DataError("is not valid JSON", where=where, why=why, do=f"the file may be cut short: {_AGAIN}") from None


def need_object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"a row must be a JSON object, not {type(value).__name__}", where=where)
    return value


def json_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, row) of a JSON-lines file, or of one JSON array of objects. Blank lines are skipped."""
    text = read_text(path)
    if text.lstrip().startswith("["):
        for number, value in enumerate(_parse(text, str(path)), 1):
            where = f"{path} row {number}"
            yield where, need_object(value, where)
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            where = f"{path}:{number}"
            yield where, need_object(_parse(line, where), where)


def json_by_id(path: Path) -> Iterator[tuple[str, str, Any]]:
    """(where, id, value) of one JSON object. Raises DataError for a key that an object holds twice."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise DataError(f"the key '{key}' appears twice", where=path, do=_AGAIN)
            found[key] = value
        return found

    value = _parse(read_text(path), str(path), object_pairs_hook=unique)
    if not isinstance(value, dict):
        raise DataError(f"must be one JSON object of items by id, not a {type(value).__name__}", where=path)
    for key, row in value.items():
        yield f"{path} '{key}'", key, row


def csv_rows(path: Path, columns: int) -> Iterator[tuple[str, list[str]]]:
    """(where, cells) of a CSV file without header, each row of exactly `columns` cells."""
    for where, cells in cells_of(path, read_text(path)):
        if len(cells) != columns:
            why = f"{len(cells)} cells, {columns} expected: the question, the options, the answer's letter"
            raise DataError("the row is not a question of this benchmark", where=where, why=why)
        yield where, cells
