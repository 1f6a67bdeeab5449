"""Rows of a Parquet file, a few at a time and of the columns that are used.

Decides how much of a file is held and when it counts as damaged; leaves what the columns mean to `replay`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from toolkit.corpus.document import BadRow
from toolkit.errors import MissingPackage

_BATCH = 64  # rows; a row can be MiB long
_GROUP_GIB = 8  # of one row group unpacked: more than that no writer makes, only somebody who means harm
_COLUMNS = frozenset(
    re.findall(
        r"\S+",
        """id uid url title date timestamp meta source language lang dump file_path license licence licenses
        red_pajama_subset pajama-block repo_name blob_id max_stars_repo_name max_stars_repo_path max_stars_repo_licenses
        max_stars_repo_stars_event_min_datetime""",
    )
)


class NotParquet(Exception):
    """A file that is no Parquet or is damaged; the reader turns it into a bad row."""


def count(file: Path) -> int:
    """Rows of the file, by its metadata. Raises `NotParquet`."""
    with _opened(file) as table:
        return table.metadata.num_rows


def rows(file: Path, fields: Sequence[str], limit: float) -> Iterator[tuple[int, Mapping[str, Any] | BadRow]]:
    """(row number from 1, row) with the columns in use; a text over `limit` MiB is a bad row. Raises `NotParquet`."""
    import pyarrow

    number = 0
    with _opened(file) as table:
        names = [name for name in table.schema_arrow.names if name in _COLUMNS or name in fields]
        if not set(names) & set(fields):
            has = ", ".join(table.schema_arrow.names[:8])
            raise NotParquet(f"no column {' or '.join(fields)}; the file has {has}")
        try:
            for batch in table.iter_batches(batch_size=_BATCH, columns=names, use_threads=False):
                for row in _values(batch):
                    number += 1
                    long = next(
                        (f for f in fields if isinstance(row.get(f), str) and len(row[f]) > limit * 2**20), None
                    )
                    if long:
                        yield number, BadRow(file=str(file), line=number, why=f"the text is longer than {limit:g} MiB")
                    else:
                        yield number, row
        except (pyarrow.ArrowException, OSError, MemoryError, UnicodeDecodeError) as err:
            raise NotParquet(f"the Parquet file is damaged ({str(err)[:120]})") from err


def mark(row: Mapping[str, Any] | BadRow, fields: Sequence[str]) -> bytes:
    """The bytes by which a row is chosen or not: its text; ids merely count in some of these layouts."""
    if isinstance(row, BadRow):
        return f"{row.line}".encode()
    text = next((row[f] for f in fields if row.get(f) is not None), None)
    return str(row if text is None else text).encode("utf-8", "surrogatepass")


def _values(batch: Any) -> Iterator[Mapping[str, Any]]:
    """A batch's rows; text that is not UTF-8 becomes bytes, which no field takes for text."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for i in range(batch.num_rows):
            try:
                yield from batch.slice(i, 1).to_pylist()
            except UnicodeDecodeError:
                yield {name: b"not UTF-8" for name in batch.schema.names}


def _opened(file: Path) -> Any:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as err:
        raise MissingPackage("pyarrow is needed to read Parquet", where=file, do="install the extra 'data'") from err
    try:
        # Streamed from the file as it is read: neither a whole column of a row group nor the file in memory.
        table = parquet.ParquetFile(file, memory_map=False, buffer_size=1 << 20, pre_buffer=False)
    except (pyarrow.ArrowException, OSError, ValueError) as err:
        raise NotParquet(f"is no Parquet file or is damaged ({str(err)[:120]})") from err
    metadata = table.metadata
    for i in range(metadata.num_row_groups):
        if metadata.row_group(i).total_byte_size > _GROUP_GIB * 2**30:
            table.close()
            raise NotParquet(f"a row group says that it is larger than {_GROUP_GIB} GiB")
    return table
