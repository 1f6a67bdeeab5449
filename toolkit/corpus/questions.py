"""The questions of benchmarks, out of the files that these are published as; for finding them in a corpus.

Decides what is the question and what are its options in each format; leaves searching to `decontaminate`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.cells import csv_rows
from toolkit.errors import DataError

_SUFFIXES = (".json", ".jsonl", ".csv")
_QUESTION = ("question", "QUESTION", "Question", "query")
_CHOICES = ("options", "choices")
_MEDMCQA = ("opa", "opb", "opc", "opd", "ope")
_TRUTHFUL = ("Best Answer", "Correct Answers", "Incorrect Answers")
_AGAIN = "fetch or make the file again"


@dataclass(frozen=True, kw_only=True)
class Question:
    """One item of a benchmark as a text could contain it."""

    id: str
    text: str
    options: tuple[str, ...] = ()


def read(path: Path, *, contexts: bool = False) -> list[Question]:
    """The questions of a benchmark's file, or of all the files in a folder, by name.

    Read are JSON lines, a JSON array or an object of rows by id (MedQA, MedMCQA, PubMedQA, and any `{id, question,
    options}`), CSV without a header (MMLU: question, options, answer's letter) and TruthfulQA's CSV. With `contexts`
    those of PubMedQA are items too. Raises `DataError` for a file that is missing, empty, damaged or of another form.
    """
    path = Path(path)
    if not path.is_dir():
        return list(_file(path, contexts, ""))
    found = sorted(file for file in path.rglob("*") if file.is_file() and file.suffix in _SUFFIXES)
    if not found:
        raise DataError("the folder holds no benchmark file", where=path, why=f"looked for {', '.join(_SUFFIXES)}")
    return [item for file in found for item in _file(file, contexts, f"{file.relative_to(path).as_posix()}:")]


def _file(path: Path, contexts: bool, prefix: str) -> Iterator[Question]:
    text = _text(path)
    rows = _csv(path, text) if path.suffix == ".csv" else _json(path, text)
    for where, name, row in rows:
        if not isinstance(row, dict):
            raise DataError(f"a row must be an object, not {type(row).__name__}", where=where, do=_AGAIN)
        question = next((row[key] for key in _QUESTION if key in row), None)
        if not isinstance(question, str) or not question.strip():
            raise DataError("the row has no question", where=where, why=f"looked for {', '.join(_QUESTION)}", do=_AGAIN)
        name = prefix + (str(row["id"]) if isinstance(row.get("id"), str | int) else name)
        yield Question(id=name, text=question, options=tuple(_options(row, where)))
        if contexts:
            for number, context in enumerate(row.get("CONTEXTS") or (), 1):
                yield Question(id=f"{name} context {number}", text=_string(context, where))


def _options(row: Mapping[str, Any], where: str) -> Iterator[str]:
    for key in _CHOICES:
        given = row.get(key)
        if isinstance(given, dict):  # by letter, or beside their labels
            given = given["text"] if isinstance(given.get("text"), list) else list(given.values())
        for value in given if isinstance(given, list) else ():
            if isinstance(value, dict):  # {"key": "A", "value": "..."}, {"label": "A", "text": "..."}
                value = value.get("value", value.get("text"))
            yield _string(value, where)
    yield from (_string(row[key], where) for key in _MEDMCQA if row.get(key))
    for key in _TRUTHFUL:
        yield from (part.strip() for part in str(row.get(key) or "").split(";") if part.strip())


def _string(value: Any, where: str) -> str:
    if not isinstance(value, str | int | float):
        raise DataError(f"an option must be text, not {type(value).__name__}", where=where, do=_AGAIN)
    return str(value)


def _json(path: Path, text: str) -> Iterator[tuple[str, str, Any]]:
    first = text.lstrip().split("\n", 1)[0]
    if first.startswith("["):
        for number, value in enumerate(_parsed(text, str(path)), 1):
            yield f"{path} row {number}", str(number), value
        return
    if _is_row(first):
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                yield f"{path}:{number}", str(number), _parsed(line, f"{path}:{number}")
        return
    value = _parsed(text, str(path))
    if not isinstance(value, dict):
        raise DataError(f"must hold rows, not a {type(value).__name__}", where=path, do=_AGAIN)
    yield from ((f"{path} '{key}'", key, row) for key, row in value.items())


def _is_row(line: str) -> bool:
    """Whether a line alone is a row. An object by id could stand on one line, too."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and any(key in value for key in _QUESTION)


def _csv(path: Path, text: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    header: list[str] | None = None
    number = 0
    for where, cells in csv_rows(path, text):
        if header is None and not number and any(key in cells for key in _QUESTION):
            header = cells
            continue
        number += 1
        if header is not None:
            if len(cells) != len(header):
                raise DataError(f"{len(cells)} cells, {len(header)} expected", where=where, do=_AGAIN)
            yield where, str(number), dict(zip(header, cells, strict=True))
        elif len(cells) < 4 or not (len(cells[-1].strip()) == 1 and cells[-1].strip().isalpha()):
            raise DataError("is no question, its options and the letter of its answer", where=where, do=_AGAIN)
        else:
            yield where, str(number), {"question": cells[0], "options": cells[1:-1]}


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as err:
        why = str(err.strerror)
        raise DataError("a benchmark's file cannot be read", where=path, why=why, do="give its file or folder") from err
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        where = f"{path}:{raw.count(bytes([10]), 0, err.start) + 1}"
        raise DataError("is not UTF-8 text", where=where, do="save the file as UTF-8") from None
    if not text.strip():
        raise DataError("the benchmark's file is empty", where=path, do=_AGAIN)
    return text


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise DataError("is nested too deeply", where=where) from None
    except ValueError as err:
        raise DataError("is not valid JSON", where=where, why=str(err), do=_AGAIN) from None
