"""From a row of a benchmark's file to an item: which field is what, and whether the row is sound.

Decides about single rows and about how a file counts its answers; leaves the file's syntax to `readers`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import DataError, nearest
from toolkit.scoring import readers
from toolkit.scoring.items import LETTERS, Item

if TYPE_CHECKING:
    from toolkit.scoring.benchmarks import Benchmark


def _file(spec: Benchmark, path: Path) -> Path:
    """The file to read: `path` itself, or the first of `spec.files` in that folder."""
    if not path.is_dir():
        return path
    for name in spec.files:
        if (path / name).is_file():
            return path / name
    wanted = ", ".join(spec.files) or "no known file name"
    raise DataError(f"the folder has no file of benchmark '{spec.name}'", where=path, why=f"looked for: {wanted}")


def _from_rows(spec: Benchmark, path: Path) -> Iterator[tuple[str, Item]]:
    file = _file(spec, path)
    rows = list(readers.json_rows(file))
    if spec.gold == "index_or_number":
        spec = dataclasses.replace(spec, gold=_index_base(spec, file, rows))
    for number, (where, row) in enumerate(rows, 1):
        yield where, _item(spec, where, row, f"{spec.name}-{number:05d}")


def _from_object(spec: Benchmark, path: Path) -> Iterator[tuple[str, Item]]:
    fold = path / spec.fold if spec.fold and path.is_dir() and (path / spec.fold).is_file() else None
    wanted = {key for _, key, _ in readers.json_by_id(fold)} if fold else None
    found = set()
    for where, key, row in readers.json_by_id(_file(spec, path)):
        if wanted is None or key in wanted:
            found.add(key)
            yield where, _item(spec, where, readers.need_object(row, where), key)
    if wanted and wanted - found:
        first = min(wanted - found)
        raise DataError(f"{len(wanted - found)} ids of the split are not in the data, '{first}' first", where=fold)


def _from_csv(spec: Benchmark, path: Path) -> Iterator[tuple[str, Item]]:
    found = [(path.stem.removesuffix(f"_{spec.split}"), path)]
    if path.is_dir():
        patterns = spec.files or ("{group}.csv",)
        tries = [(group, path / pattern.replace("{group}", group)) for group in spec.groups for pattern in patterns]
        found = list({group: (group, file) for group, file in reversed(tries) if file.is_file()}.values())[::-1]
        if not found:
            why = f"looked for: {', '.join(file.name for _, file in tries[:4])} and the like"
            raise DataError(f"the folder has no file of benchmark '{spec.name}'", where=path, why=why)
    n = len(spec.answers)
    for group, file in found:
        for number, (where, cells) in enumerate(readers.csv_rows(file, n + 2), 1):
            row = {"question": cells[0], "options": cells[1 : n + 1], "answer": cells[-1], "group": group}
            yield where, _item(spec, where, row, f"{group}-{number:05d}", {key: key for key in row})


def _index_base(spec: Benchmark, file: Path, rows: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """`index` or `number`: MedMCQA's `cop` counts from 1 in the original file and from 0 in its copy on the hub."""
    values = {value for where, row in rows if type(value := _need(row, spec.fields["answer"], where)) is int}
    if 0 in values and len(spec.answers) not in values:
        return "index"
    if len(spec.answers) in values and 0 not in values:
        return "number"
    why = f"'{spec.fields['answer']}' holds the numbers {sorted(values)[:8]}"
    do = "score more rows, or set gold to index (0-based) or number (1-based) in a copy of the benchmark's file"
    raise DataError("cannot tell whether answers count from 0 or from 1", where=file, why=why, do=do)


def _item(
    spec: Benchmark, where: str, row: Mapping[str, Any], fallback_id: str, fields: Mapping[str, Any] | None = None
) -> Item:
    fields = spec.fields if fields is None else fields
    texts = {key: _text(row, fields[key], where) for key in ("id", "question", "prompt", "context") if key in fields}
    for key in ("question", "prompt"):
        if key in texts and not texts[key].strip():
            raise DataError(f"the field '{fields[key]}' is empty", where=where)
    options = _options(spec, row, fields.get("options"), where)
    group = row.get(fields.get("group", ""))
    group = "" if group is None else str(group)
    try:
        "".join((fallback_id, *texts.values(), *options, group)).encode()
    except UnicodeEncodeError:
        raise DataError("the row holds half a character (a lone surrogate)", where=where) from None
    return Item(
        **{"id": fallback_id, **texts},
        options=options,
        gold=_gold(spec, _need(row, fields.get("answer", "answer"), where), options, where),
        group=group,
        listed=spec.listed,
    )


def _need(row: Mapping[str, Any], name: str, where: str) -> Any:
    if name not in row:
        raise DataError(f"the field '{name}' is missing", where=where, do=nearest(name, row))
    return row[name]


def _text(row: Mapping[str, Any], name: str, where: str) -> str:
    value = _need(row, name, where)
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return "\n".join(value)
    if isinstance(value, str):
        return value
    if type(value) is int and name == "id":
        return str(value)
    raise DataError(f"the field '{name}' must be text, not {type(row[name]).__name__}", where=where)


def _options(spec: Benchmark, row: Mapping[str, Any], name: str | list[str] | None, where: str) -> tuple[str, ...]:
    if name is None:
        return spec.answers
    value = [_need(row, column, where) for column in name] if isinstance(name, list) else _need(row, name, where)
    if isinstance(value, dict):
        if sorted(value) != list(LETTERS[: len(value)]):
            raise DataError(f"the options must be under A, B, C ..., not {list(value)}"[:200], where=where)
        value = [value[key] for key in sorted(value)]
    if not isinstance(value, list) or not all(isinstance(option, str) for option in value):
        raise DataError("the options must be texts", where=where)
    if len(value) != len(spec.answers):
        raise DataError(f"{len(value)} options, where '{spec.name}' has {len(spec.answers)}", where=where)
    return tuple(value)


def _gold(spec: Benchmark, value: Any, options: tuple[str, ...], where: str) -> int:
    """The index of the right option. Letters and words are taken as they are but for blanks and case."""
    if spec.gold in ("letter", "word"):
        known = [answer.casefold() for answer in spec.answers]
        if isinstance(value, str) and value.strip().casefold() in known:
            return known.index(value.strip().casefold())
    elif type(value) is int:
        index = value - 1 if spec.gold == "number" else value
        if 0 <= index < len(options):
            return index
    kinds = {"index": f"0 to {len(options) - 1}", "number": f"1 to {len(options)}"}
    wanted = kinds.get(spec.gold) or ", ".join(spec.answers)
    why = "-1 marks rows whose answer is not public" if value == -1 else ""
    raise DataError(f"the answer {value!r} is not among the options ({wanted})"[:200], where=where, why=why)


READ = {"jsonl": _from_rows, "json_by_id": _from_object, "csv_folder": _from_csv}
