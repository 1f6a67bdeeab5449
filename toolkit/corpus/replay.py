"""A sample of general text and code: JSON lines or Parquet as RedPajama, FineWeb, RefinedWeb, StarCoder lay them out.

Decides which rows are taken, by a share or an exact number, and what their fields mean; leaves judging the texts to the
filters.
"""

from __future__ import annotations

import ast
import hashlib
import json
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from toolkit import files
from toolkit.corpus import licence, lines
from toolkit.corpus import replay_parquet as parquet
from toolkit.corpus.document import BadRow, Document, Item, Left, content_id, tidy
from toolkit.corpus.inputs import DamagedStream
from toolkit.errors import RecipeError, nearest

SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".json", ".json.gz", ".json.zst", ".ndjson", ".parquet")
OPTIONS = {
    "fraction": "share of the rows that is taken, 0 to 1 (default 1); the same rows whatever files they are in",
    "documents": "exact number of rows that is taken, shared out over the files by their rows",
    "text_field": "field of the text (default: the first of text, content, raw_content)",
    "license": "licence of rows that state none",
    "seed": "of the sample (default: the corpus's)",
    "max_line_mib": "longest row that is read (default 64)",
}
TEXT_FIELDS = ("text", "content", "raw_content")
_COMMON = ("markup", "tables")
_CODE = ("max_stars_repo_name", "max_stars_repo_path", "repo_name", "blob_id")
_META = ("red_pajama_subset", "dump", "file_path", "lang", "max_stars_repo_name", "max_stars_repo_path", "language")
_COUNTS = "replay.json"


def check(options: Mapping[str, Any]) -> None:
    """Raises `RecipeError` for an option that does not exist, has an impossible value, or excludes another."""
    for key in options:
        if key not in OPTIONS and key not in _COMMON and not key.startswith("_"):
            raise RecipeError(f"unknown option '{key}' of a replay source", why=nearest(key, OPTIONS))
    if options.get("fraction") is not None and options.get("documents") is not None:
        raise RecipeError("both fraction and documents are given", do="give one of them")
    fraction, documents = options.get("fraction"), options.get("documents")
    if fraction is not None and (
        isinstance(fraction, bool) or not isinstance(fraction, int | float) or not 0 <= fraction <= 1
    ):
        raise RecipeError(f"{fraction!r} is not possible", where="fraction", why="it must be between 0 and 1")
    if documents is not None and (isinstance(documents, bool) or not isinstance(documents, int) or documents < 0):
        raise RecipeError(f"{documents!r} is not possible", where="documents", why="it must be a whole number")
    seed, limit = options.get("seed", 0), options.get("max_line_mib", 64)
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise RecipeError(f"{seed!r} is not possible", where="seed", why="it must be a whole number")
    if isinstance(limit, bool) or not isinstance(limit, int | float) or limit <= 0:
        raise RecipeError(f"{limit!r} is not possible", where="max_line_mib", why="it must be a number above 0")


def prepare(paths: Sequence[Path], options: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
    """For an exact number: how many rows each file has, and how many of them are to be taken.

    Counting reads every file once; what was counted is kept in `folder` and taken again while size and time of a file
    are the same. Raises `RecipeError` when there are fewer rows than are asked for.
    """
    if options.get("documents") is None:
        return {}
    from toolkit.corpus.readers import files_of

    kept = folder / _COUNTS
    try:
        known = files.read_json(kept)
    except (OSError, ValueError):
        known = {}
    counted: dict[str, dict[str, Any]] = {}
    limit = float(options.get("max_line_mib", 64))
    for path in paths:
        for file in files_of("replay", path):
            stamp = [file.size, file.mtime_ns]
            before = known.get(str(file.path))
            same = isinstance(before, dict) and before.get("stamp") == stamp
            counted[str(file.path)] = before if same else {"stamp": stamp, "rows": _count(file.path, limit)}
    if counted != known:
        folder.mkdir(parents=True, exist_ok=True)
        files.write_json(kept, counted)
    rows = {name: entry["rows"] for name, entry in counted.items()}
    wanted, there = options["documents"], sum(rows.values())
    if wanted > there:
        raise RecipeError(f"{wanted} documents are asked for, and there are {there} rows", where="documents")
    return {"_shares": {name: [share, rows[name]] for name, share in shares(rows, wanted).items()}}


def shares(rows: Mapping[str, int], wanted: int) -> dict[str, int]:
    """`wanted` shared out by the rows of each file, to the whole number (largest remainders, then the order given)."""
    total = sum(rows.values())
    if total == 0:
        return dict.fromkeys(rows, 0)
    given = {name: wanted * count // total for name, count in rows.items()}
    order = sorted(rows, key=lambda name: -(wanted * rows[name] % total))
    for name in order[: wanted - sum(given.values())]:
        given[name] += 1
    return given


def read(file: Path, subset: str, options: Mapping[str, Any]) -> Iterator[Item]:
    """The rows that are taken; the others are counted together in one `Left` at the end of the file.

    Of an exact number, a row that turns out bad is made up for by another, by one behind it where there is one; else
    the file is read again for it.
    """
    limit = float(options.get("max_line_mib", 64))
    fields = (str(options["text_field"]),) if options.get("text_field") else TEXT_FIELDS
    need, left = (options.get("_shares") or {}).get(str(file), (0, 0))
    exact = options.get("documents") is not None
    taken: set[int] = set()  # rows of a draw of an exact number
    passed, attempt, damage = 0, 0, None
    while True:
        wants = _drawn(file, options, left, attempt) if exact else _hashed(options)
        passed = number = 0
        try:
            for number, mark, make in _rows(file, subset, fields, limit, options):
                if number in taken:
                    continue
                if not wants(mark(), need):
                    passed += 1
                    continue
                item = make()
                if exact:
                    taken.add(number)
                    need -= isinstance(item, Document)
                yield item
        except (DamagedStream, parquet.NotParquet) as err:
            damage = BadRow(file=str(file), line=number + 1, why=str(err))
        attempt, left = attempt + 1, passed
        if not (exact and need and passed):
            break
    if damage is not None:
        yield damage
    elif number == 0 and not file.name.lower().endswith(".parquet"):
        yield BadRow(file=str(file), line=0, why="the file is empty")
    if passed:
        yield Left(rule="not_sampled", count=passed)


_Row = tuple[int, Callable[[], bytes], Callable[[], Document | BadRow]]


def _rows(file: Path, subset: str, fields: Sequence[str], limit: float, options: Mapping[str, Any]) -> Iterator[_Row]:
    """Number of a row, the bytes by which it is chosen, and what it is, each made when it is asked for."""
    if file.name.lower().endswith(".parquet"):
        for number, row in parquet.rows(file, fields, limit):
            yield (
                number,
                lambda row=row: parquet.mark(row, fields),
                lambda number=number, row=row: (
                    row if isinstance(row, BadRow) else _document(file, number, row, subset, fields, options)
                ),
            )
        return
    for number, line in lines.raw(file, limit):
        if line is None or line.strip():
            yield (
                number,
                lambda line=line: line or b"",
                lambda number=number, line=line: _from_line(file, number, line, subset, fields, limit, options),
            )


def _drawn(file: Path, options: Mapping[str, Any], left: int, attempt: int) -> Callable[[bytes, int], bool]:
    """Draws from `left` rows, asked of each in turn with the number that is still missing."""
    # Knuth's selection sampling (The Art of Computer Programming, 3.4.2, S): every choice of rows is as likely.
    again = f"\0{attempt}" if attempt else ""
    draw = random.Random(f"{int(options.get('seed') or 0)}\0{file.name}\0{left}{again}").random
    rest = [left]

    def wants(_: bytes, need: int) -> bool:
        if rest[0] <= 0 or need <= 0:
            return False
        rest[0] -= 1
        return (rest[0] + 1) * draw() < need

    return wants


def _hashed(options: Mapping[str, Any]) -> Callable[[bytes, int], bool]:
    """Takes a share of all rows, by what stands in them."""
    fraction = options.get("fraction")
    if fraction is None or fraction >= 1:
        return lambda _, __: True
    key, border = int(options.get("seed") or 0).to_bytes(16, "little", signed=True), int(fraction * 2**64)

    def wants(row: bytes, _: int) -> bool:
        digest = hashlib.blake2b(row.strip(), digest_size=8, key=key).digest()
        return int.from_bytes(digest, "little") < border

    return wants


def _count(file: Path, limit: float) -> int:
    """Rows of a file, as far as it can be read: what breaks off is said when it is read."""
    count = 0
    try:
        if file.name.lower().endswith(".parquet"):
            return parquet.count(file)
        for _, line in lines.raw(file, limit):
            count += line is None or bool(line.strip())
    except (DamagedStream, parquet.NotParquet):
        pass
    return count


def _from_line(
    file: Path,
    number: int,
    line: bytes | None,
    subset: str,
    fields: Sequence[str],
    limit: float,
    options: Mapping[str, Any],
) -> Document | BadRow:
    if line is None:
        return BadRow(file=str(file), line=number, why=f"the line is longer than {limit:g} MiB")
    row, bad = lines.one(file, number, line)
    if row is None:
        assert bad is not None
        return bad
    return _document(file, number, row, subset, fields, options)


def _document(
    file: Path, number: int, row: Mapping[str, Any], subset: str, fields: Sequence[str], options: Mapping[str, Any]
) -> Document | BadRow:
    name = next((f for f in fields if row.get(f) is not None), None)
    if name is None or not isinstance(row[name], str):
        has = ", ".join(list(row)[:8]) or "none"
        why = f"field '{name}' holds no text" if name else f"no field {' or '.join(fields)}; the row has {has}"
        return BadRow(file=str(file), line=number, why=why, sample=str(dict(row))[:120])
    more = _more(row)
    code = _is_code(row, more)
    text = row[name].replace("\0", "") if code else tidy(row[name])  # blanks and empty lines mean something in code
    stated = _licence(row, more) or str(options.get("license") or "")
    return Document(
        id=_id(row, file) or content_id(f"{subset}\0{text}"),
        source=_origin(row, code),
        subset=subset,
        title=_first(row, "title", "max_stars_repo_path") or _first(more, "title"),
        text=text,
        url=_first(row, "url") or _first(more, "url"),
        license=licence.short_id([stated]) if stated else licence.UNKNOWN,
        date=_first(row, "date", "timestamp", "max_stars_repo_stars_event_min_datetime")
        or _first(more, "timestamp", "date"),
        meta={
            "file": file.name,
            **{key: value for key in _META if (value := _first(row, key))},
            **({"code": True} if code else {}),
        },
        language="none" if code else _language(row, more),
    )


def _id(row: Mapping[str, Any], file: Path) -> str:
    """The row's id; one that merely counts is told apart by the repository or the name of the file."""
    found = _first(row, "id", "uid")
    if len(found) >= 16 and not found.isdigit():
        return found
    if repository := _first(row, "max_stars_repo_name"):
        return f"{repository}/{_first(row, 'max_stars_repo_path')}"
    return f"{file.name}:{found}" if found else ""


def _more(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """RedPajama's `meta`: an object, or one written as JSON or as Python writes it (its copy on the hub)."""
    meta = row.get("meta")
    if isinstance(meta, Mapping):
        return meta
    if isinstance(meta, str) and len(meta) < 10_000 and meta.startswith("{"):
        for parse in (json.loads, ast.literal_eval):  # literal_eval reads values alone, it runs nothing
            try:
                found = parse(meta)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
            if isinstance(found, Mapping):
                return found
    return {}


def _is_code(row: Mapping[str, Any], more: Mapping[str, Any]) -> bool:
    return any(row.get(key) for key in _CODE) or "github" in (
        row.get("red_pajama_subset"), row.get("pajama-block"), more.get("source")
    )  # fmt: skip


def _origin(row: Mapping[str, Any], code: bool) -> str:
    if row.get("red_pajama_subset"):
        return f"redpajama-{row['red_pajama_subset']}"
    if row.get("max_stars_repo_name") or row.get("max_stars_repo_path"):
        return "starcoder"
    if row.get("dump"):
        return "fineweb" if "text" in row else "refinedweb"
    if "content" in row and "url" in row and "timestamp" in row:
        return "refinedweb"
    return _first(row, "source") or ("code" if code else "replay")


def _licence(row: Mapping[str, Any], more: Mapping[str, Any]) -> str:
    for place in (row, more):
        for key in ("license", "licence", "max_stars_repo_licenses", "licenses"):
            value = place.get(key)
            if isinstance(value, list | tuple):
                value = next((entry for entry in value if isinstance(entry, str)), None)
            if isinstance(value, str) and value:
                return value
    return ""


def _language(row: Mapping[str, Any], more: Mapping[str, Any]) -> str:
    value = _first(row, "language") or _first(more, "language")
    return value.lower() if len(value) == 2 and value.isascii() and value.isalpha() else ""


def _first(row: Mapping[str, Any], *keys: str) -> str:
    """The first of the fields that holds a word or a number, as text."""
    for key in keys:
        value = row.get(key)
        if isinstance(value, str) and value and len(value) <= 2000:
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if isinstance(value, float) and math.isfinite(value):
            return f"{value:g}"
        if hasattr(value, "isoformat"):  # Parquet's times
            return value.isoformat()
    return ""
