"""Rows out of benchmark files: JSON lines, a JSON array, a JSON object by id, CSV without a header.

Decides what a well-formed file is and where in it a fault lies; leaves the meaning of the fields to `benchmarks`.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from toolkit.errors import DataError

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
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as err:
            raise DataError("is not valid CSV", where=f"{path}:{reader.line_num}", why=str(err), do=_AGAIN) from None
        where = f"{path}:{reader.line_num}"
        if not cells:
            continue
        if len(cells) != columns:
            why = f"{len(cells)} cells, {columns} expected: the question, the options, the answer's letter"
            raise DataError("the row is not a question of this benchmark", where=where, why=why)
        yield where, cells
