"""The rows of a Parquet file, as JSON lines of their text alone, in little memory however large the file.

Decides how a table becomes rows; leaves the meaning of a row to `encode`. pyarrow is imported when a table is read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from toolkit.errors import DataError, MissingPackage

SUFFIX = ".parquet"
_ROWS = 256  # decoded at once: a document may have megabytes


def lines(path: Path, text_field: str) -> Iterator[tuple[int, bytes, float]]:
    """(row from 1, `{"text_field": ...}` as JSON, share of the file read so far) of each row, row group by row group.

    A row without a text has null, which is a bad row like any other. Raises `DataError` for what is no Parquet file, a
    damaged one, and one without a column `text_field`.
    """
    try:
        import pyarrow as arrow
        import pyarrow.parquet as table
    except ImportError as err:
        raise MissingPackage("pyarrow is not installed", do="install the toolkit's 'data' extra") from err
    number = 0
    try:
        with table.ParquetFile(path, memory_map=False) as opened:
            names = opened.schema_arrow.names
            if text_field not in names:
                raise DataError(
                    f"no column '{text_field}'",
                    where=path,
                    why=f"its columns: {', '.join(names[:12]) or 'none'}",
                    do="name the column with the text",
                )
            total = max(1, opened.metadata.num_rows)
            for batch in opened.iter_batches(batch_size=_ROWS, columns=[text_field], use_threads=False):
                for value in batch.column(0):
                    number += 1
                    yield number, _row(text_field, value), number / total
    except PermissionError as err:
        raise DataError("may not be read", where=path, do="check its permissions") from err
    except (arrow.ArrowException, OSError) as err:
        raise DataError(
            "the Parquet file is damaged or truncated", where=path, why=str(err)[:300], do="get or make it again"
        ) from err


def _row(text_field: str, value: object) -> bytes:
    try:
        found = value.as_py()  # type: ignore[attr-defined]
    except UnicodeDecodeError:  # a column of strings that are none
        found = value.as_buffer().to_pybytes().decode("utf-8", "replace")  # type: ignore[attr-defined]
    return json.dumps({text_field: found}, ensure_ascii=False, default=str).encode("utf-8", "replace")
