"""Documents from JSON lines: one object a line with its text in a field.

Decides which rows are sound and how their fields map to a document's; leaves filtering and splitting to `build`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from toolkit.corpus import licence
from toolkit.corpus.document import BadRow, Document, content_id, has_lone_surrogate, tidy
from toolkit.corpus.inputs import DamagedStream, chunks, find
from toolkit.errors import RecipeError, nearest

SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".json", ".json.gz", ".json.zst", ".ndjson")
TEXT_FIELDS = ("text", "clean_text")
OPTIONS = ("text_field", "license", "max_line_mib")
_META_LIMIT = 500  # characters; longer extra fields are other versions of the text, not facts about it


def read(path: str | Path | None, subset: str, options: Mapping[str, Any]) -> Iterator[Document | BadRow]:
    """Every row of a file or folder as a document or a bad row.

    Options: `text_field` (default: the first of text, clean_text), `license` (of rows that state none),
    `max_line_mib` (default 64; longer lines are set aside unread).
    """
    for key in options:
        if key not in OPTIONS:
            raise RecipeError(f"unknown option '{key}' of a jsonl source", why=nearest(key, OPTIONS))
    fields = (str(options["text_field"]),) if options.get("text_field") else TEXT_FIELDS
    limit = int(float(options.get("max_line_mib", 64)) * 2**20)
    for file in find(path, SUFFIXES, "JSON lines"):
        number = 0
        try:
            for number, line in _lines(file, limit):
                if line is None:
                    yield BadRow(file=str(file), line=number, why=f"the line is longer than {limit / 2**20:g} MiB")
                elif line.strip():
                    yield _row(line, file, number, fields, subset, str(options.get("license", "")))
        except DamagedStream as err:
            yield BadRow(file=str(file), line=number + 1, why=str(err))
        else:
            if number == 0:
                yield BadRow(file=str(file), line=0, why="the file is empty")


def _lines(file: Path, limit: int) -> Iterator[tuple[int, bytes | None]]:
    """(line number, bytes), or None in place of a line over `limit` bytes, of which no more than that is held."""
    number, held, over = 1, bytearray(), False
    for piece in chunks(file):
        start = 0
        while (end := piece.find(b"\n", start)) >= 0:
            over = over or len(held) + end - start > limit
            yield number, None if over else bytes(held) + piece[start:end]
            number, held, over, start = number + 1, bytearray(), False, end + 1
        over = over or len(held) + len(piece) - start > limit
        if over:
            held = bytearray()
        else:
            held += piece[start:]
    if held or over:
        yield number, None if over else bytes(held)


def _row(line: bytes, file: Path, number: int, fields: tuple[str, ...], subset: str, default: str) -> Document | BadRow:
    def bad(why: str) -> BadRow:
        return BadRow(file=str(file), line=number, why=why, sample=line[:120].decode("utf-8", "replace"))

    try:
        row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
    except UnicodeDecodeError as err:
        return bad(f"not UTF-8 (byte {err.start + 1} of the line)")
    except RecursionError:
        return bad("not JSON: nested too deeply")
    except ValueError as err:
        return bad(f"not JSON: {err}")
    if not isinstance(row, dict):
        return bad(f"a JSON object was expected, not {type(row).__name__}")
    name = next((f for f in fields if row.get(f) is not None), None)
    if name is None:
        return bad(f"no field {' or '.join(fields)}; the row has {', '.join(list(row)[:8]) or 'none'}")
    text = row[name]
    if not isinstance(text, str):
        return bad(f"field '{name}' holds {type(text).__name__}, not text")
    if b"\\u" in line and has_lone_surrogate(json.dumps(row, ensure_ascii=False)):
        return bad("half of a surrogate pair, which no UTF-8 file can hold")
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
