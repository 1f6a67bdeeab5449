"""Documents from JSON lines: one object a line with its text in a field.

Decides how the fields of a row map to a document's; leaves sound lines to `lines`, filtering to the engine.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from toolkit.corpus import licence, lines
from toolkit.corpus.document import BadRow, Document, Item, content_id, tidy
from toolkit.errors import RecipeError, nearest

SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".json", ".json.gz", ".json.zst", ".ndjson")
TEXT_FIELDS = ("text", "clean_text")
OPTIONS = {
    "text_field": "field of the text (default: the first of text, clean_text)",
    "license": "licence of rows that state none",
    "max_line_mib": "longest line that is read (default 64)",
}
_COMMON = ("markup", "tables")
_META_LIMIT = 500  # characters; longer extra fields are other versions of the text, not facts about it


def check(options: Mapping[str, Any]) -> None:
    """Raises `RecipeError` for an option that does not exist or has an impossible value."""
    for key in options:
        if key not in OPTIONS and key not in _COMMON and not key.startswith("_"):
            raise RecipeError(f"unknown option '{key}' of a jsonl source", why=nearest(key, OPTIONS))
    limit = options.get("max_line_mib", lines.MAX_MIB)
    if isinstance(limit, bool) or not isinstance(limit, int | float) or limit <= 0:
        raise RecipeError(f"{limit!r} is not possible", where="max_line_mib", why="it must be a number above 0")


def read(file: Path, subset: str, options: Mapping[str, Any]) -> Iterator[Item]:
    """Every row of a file as a document or a bad row."""
    fields = (str(options["text_field"]),) if options.get("text_field") else TEXT_FIELDS
    default = str(options.get("license") or "")
    for number, row, bad in lines.rows(file, float(options.get("max_line_mib", lines.MAX_MIB))):
        if row is not None:
            yield _document(row, file, number, fields, subset, default)
        elif bad is not None:
            yield bad


def _document(
    row: Mapping[str, Any], file: Path, number: int, fields: tuple[str, ...], subset: str, default: str
) -> Document | BadRow:
    def bad(why: str) -> BadRow:
        return BadRow(file=str(file), line=number, why=why, sample=json.dumps(row)[:120])

    name = next((f for f in fields if row.get(f) is not None), None)
    if name is None:
        return bad(f"no field {' or '.join(fields)}; the row has {', '.join(list(row)[:8]) or 'none'}")
    text = row[name]
    if not isinstance(text, str):
        return bad(f"field '{name}' holds {type(text).__name__}, not text")
    text = tidy(text)
    stated = _text(row, "license") or _text(row, "licence") or default
    used = {name, "id", "source", "title", "url", "license", "licence", "date"}
    extra = {k: v for k, v in row.items() if k not in used and _is_small(v)}
    return Document(
        id=_text(row, "id") or content_id(f"{subset}\0{text}"),
        source=_text(row, "source") or "jsonl",
        subset=subset,
        title=tidy(_text(row, "title")),
        text=text,
        url=_text(row, "url"),
        license=licence.short_id([stated]) if stated else licence.UNKNOWN,
        date=_text(row, "date"),
        meta={"file": file.name, **extra},
    )


def _text(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    return value if isinstance(value, str) else str(value) if isinstance(value, int | float) else ""


def _is_small(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)  # JSON has no word for the others
    return isinstance(value, bool | int) or (isinstance(value, str) and len(value) <= _META_LIMIT)
