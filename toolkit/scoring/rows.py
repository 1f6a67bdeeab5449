"""From a row of a benchmark's file to an item: which field is what, and whether the row is sound.

Decides about single rows; leaves which file it is to `sources`, the file's syntax to `readers` and how answers are
counted to `counting`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import DataError, nearest
from toolkit.scoring import counting, readers
from toolkit.scoring.items import LETTERS, Item
from toolkit.scoring.sources import Source

if TYPE_CHECKING:
    from toolkit.scoring.benchmarks import Benchmark

Row = Mapping[str, Any]


def _from_rows(source: Source) -> Iterator[tuple[str, Item]]:
    spec, file = source.spec, source.file()
    rows = list(readers.table_rows(file))
    spec = _laid_out(spec, rows[0][1] if rows else {})
    yield from _items(spec, file, rows, _fold(source))


def _items(
    spec: Benchmark, file: Path, rows: list[tuple[str, dict[str, Any]]], fold: tuple[Path, set[str]] | None
) -> Iterator[tuple[str, Item]]:
    if spec.gold == "index_or_number":
        values = [(where, _need(row, str(spec.fields["answer"]), where), row) for where, row in rows]
        explained = spec.fields.get("explanation")
        explanations = [_optional(row, explained, where) for where, _, row in values]
        base = counting.base([value for _, value, _ in values], explanations, len(spec.answers))
        if base is None:
            raise counting.unknown([value for _, value, _ in values], str(spec.fields["answer"]), file)
        spec = dataclasses.replace(spec, gold=base)
    found = set()
    for number, (where, row) in enumerate(rows):
        item = _item(spec, where, row, f"{spec.name}-{number + 1:05d}", number)
        if fold is None or item.id in fold[1]:
            found.add(item.id)
            yield where, item
    _whole(fold, found)


def _from_object(source: Source) -> Iterator[tuple[str, Item]]:
    spec, file, fold = source.spec, source.file(), _fold(source)
    if readers.is_parquet(file):
        rows = list(readers.table_rows(file))
        yield from _items(_laid_out(spec, rows[0][1] if rows else {}), file, rows, fold)
        return
    found = set()
    for number, (where, key, row) in enumerate(readers.json_by_id(file)):
        if fold is None or key in fold[1]:
            found.add(key)
            yield where, _item(spec, where, readers.need_object(row, where), key, number)
    _whole(fold, found)


def _fold(source: Source) -> tuple[Path, set[str]] | None:
    """The file of the split's ids beside the data, and those ids."""
    spec, path = source.spec, source.path
    if source.split != "test" or not spec.fold or not path.is_dir() or not (path / spec.fold).is_file():
        return None
    return path / spec.fold, {key for _, key, _ in readers.json_by_id(path / spec.fold)}


def _whole(fold: tuple[Path, set[str]] | None, found: set[str]) -> None:
    if fold and (lost := fold[1] - found):
        raise DataError(f"{len(lost)} ids of the split are not in the data, '{min(lost)}' first", where=fold[0])


def _from_csv(source: Source) -> Iterator[tuple[str, Item]]:
    spec, path = source.spec, source.path
    names = {"test": spec.split, "demonstrations": "dev"}.get(source.split, source.split)
    group = path.parent.name if path.parent.name in spec.groups else path.stem.removesuffix(f"_{names}")
    found = [(group, path)]
    if path.is_dir():
        patterns = source.names or ("{group}.csv",)
        tries = [(group, path / pattern.replace("{group}", group)) for group in source.groups() for pattern in patterns]
        found = list({group: (group, file) for group, file in reversed(tries) if file.is_file()}.values())[::-1]
        if not found:
            raise source.missing()
    n = len(spec.answers)
    for group, file in found:
        if readers.is_parquet(file):
            layout = dataclasses.replace(spec, fields=spec.hub.fields if spec.hub else {}, gold=_hub_gold(spec))
            rows = [(where, row | {"group": group}) for where, row in readers.table_rows(file)]
        else:
            layout = spec
            cells = readers.csv_rows(file, n + 2)
            rows = [(w, {"question": c[0], "options": c[1 : n + 1], "answer": c[-1], "group": group}) for w, c in cells]
        fields = {**{key: key for key in ("question", "options", "answer", "group")}, **layout.fields}
        layout = dataclasses.replace(layout, fields=fields)
        for number, (where, row) in enumerate(rows):
            if number or not source.compat:  # the copy that the paper read lacks every file's first row
                yield where, _item(layout, where, row, f"{group}-{number + 1:05d}", number)


def _hub_gold(spec: Benchmark) -> str:
    return spec.hub.gold if spec.hub and spec.hub.gold else spec.gold


def _laid_out(spec: Benchmark, row: Row) -> Benchmark:
    """`spec` for files of the hub's form, where the first row has its columns and not the original's."""
    hub = spec.hub
    if hub is None or not hub.fields or _has(row, spec.fields.get("question")) or not _has(row, hub.fields["question"]):
        return spec
    return dataclasses.replace(spec, fields=hub.fields, gold=_hub_gold(spec))


def _item(spec: Benchmark, where: str, row: Row, fallback_id: str, number: int) -> Item:
    fields = spec.fields
    texts = {key: _text(row, fields[key], where) for key in ("id", "question", "prompt", "context") if key in fields}
    for key in ("question", "prompt"):
        if key in texts and not texts[key].strip():
            raise DataError(f"the field '{fields[key]}' is empty", where=where)
    options = _options(spec, row, fields.get("options"), where)
    group = _optional(row, fields.get("group"), where)
    explanation = _optional(row, fields.get("explanation"), where)
    item = Item(
        **{"id": fallback_id, **texts},
        options=options,
        gold=_gold(spec, _need(row, str(fields.get("answer", "answer")), where), options, where),
        group=group,
        listed=spec.listed,
        explanation=explanation,
        source_index=number,
    )
    return sound(item, where)


def sound(item: Item, where: str) -> Item:
    """`item`, whose texts can all be written. Raises DataError."""
    try:
        "".join(
            (item.id, item.question, item.prompt, item.context, *item.options, item.group, item.explanation)
        ).encode()
    except UnicodeEncodeError:
        raise DataError("the row holds half a character (a lone surrogate)", where=where) from None
    return item


def _has(row: Row, name: str | list[str] | None) -> bool:
    return isinstance(name, str) and _at(row, name) is not _NOTHING


_NOTHING = object()


def _at(row: Row, name: str) -> Any:
    """The field of that name; `a.b` is b inside a, unless a field is called so."""
    if name in row:
        return row[name]
    head, dot, rest = name.partition(".")
    inner = row.get(head) if dot else None
    return _at(inner, rest) if isinstance(inner, dict) else _NOTHING


def _need(row: Row, name: str, where: str) -> Any:
    value = _at(row, name)
    if value is _NOTHING:
        raise DataError(f"the field '{name}' is missing", where=where, do=nearest(name, row))
    return value


def _optional(row: Row, name: str | list[str] | None, where: str) -> str:
    """A field's text; nothing where there is no such field or it is null. A number is its digits."""
    value = _at(row, name) if isinstance(name, str) else _NOTHING
    if value is _NOTHING or value is None:
        return ""
    return str(value) if type(value) is int else _text(row, str(name), where)


def _text(row: Row, name: str | list[str], where: str) -> str:
    value = _need(row, str(name), where)
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return "\n".join(value)
    if isinstance(value, str):
        return value
    if type(value) is int and "id" in str(name):
        return str(value)
    raise DataError(f"the field '{name}' must be text, not {type(value).__name__}", where=where)


def _options(spec: Benchmark, row: Row, name: str | list[str] | None, where: str) -> tuple[str, ...]:
    if name is None:
        return spec.answers
    value = [_need(row, column, where) for column in name] if isinstance(name, list) else _need(row, name, where)
    if (
        isinstance(value, list)
        and value
        and all(isinstance(one, dict) and set(one) == {"key", "value"} for one in value)
    ):
        value = {one["key"]: one["value"] for one in value}
    if isinstance(value, dict):
        if sorted(map(str, value)) != list(LETTERS[: len(value)]):
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
    elif (number := counting.whole(value)) is not None:
        index = number - 1 if spec.gold == "number" else number
        if 0 <= index < len(options):
            return index
    kinds = {"index": f"0 to {len(options) - 1}", "number": f"1 to {len(options)}"}
    wanted = kinds.get(spec.gold) or ", ".join(spec.answers)
    why = "-1 marks rows whose answer is not public" if counting.whole(value) == -1 else ""
    raise DataError(f"the answer {value!r} is not among the options ({wanted})"[:200], where=where, why=why)


def _from_truthfulqa(source: Source) -> Iterator[tuple[str, Item]]:
    from toolkit.scoring import truthfulqa

    return truthfulqa.items(source)


READ = {"jsonl": _from_rows, "json_by_id": _from_object, "csv_folder": _from_csv, "truthfulqa": _from_truthfulqa}
