"""Rows of CSV files that others made, each with its place for messages. Decides what valid CSV is, not its meaning."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from toolkit.errors import DataError


def csv_rows(path: Path, text: str) -> Iterator[tuple[str, list[str]]]:
    """("file:line", cells) of each row of the file's `text` that is not empty. Raises `DataError`."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as err:
            where = f"{path}:{reader.line_num}"
            raise DataError("is not valid CSV", where=where, why=str(err), do="fetch or make the file again") from None
        if cells:
            yield f"{path}:{reader.line_num}", cells
