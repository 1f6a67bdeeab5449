"""The texts of files that shards are made of, for who needs them before they are ids, such as a tokenizer's training.

Decides nothing: what is a row is `rows`' to say, what is a text `encode`'s.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from toolkit.shards import rows
from toolkit.shards.document import document


def texts(path: str | Path, text_field: str = "text") -> Iterator[str]:
    """The text of each row, in order; bad rows are passed over. Raises `DataError` for a damaged file."""
    path = Path(path)
    rows.check_inputs([path])
    for block in rows.blocks(path, text_field):
        for line in (block.data or b"").split(b"\n"):
            if line.strip():
                text, why, _ = document(line, text_field)
                if not why:
                    yield text
