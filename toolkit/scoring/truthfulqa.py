"""TruthfulQA as questions with four options: the right answer and up to three of the wrong ones, in a drawn order.

Decides what is right and wrong in each of that benchmark's own files, which categories are scored, and the draw. The
questions of the other categories are its training split: there is no other to take demonstrations from.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from toolkit.errors import DataError, nearest
from toolkit.scoring import readers
from toolkit.scoring.items import Item
from toolkit.scoring.rows import sound
from toolkit.scoring.sources import Source

WRONG = 3
CSV, GENERATION = "TruthfulQA.csv", "generation/validation-00000-of-00001.parquet"
_QUESTION, _CATEGORY = ("Question", "question"), ("Category", "category")


def items(source: Source) -> Iterator[tuple[str, Item]]:
    """(where, item) of the scored categories, or of the others for a training split.

    `TruthfulQA.csv`: the column "Best Answer" and those of "Incorrect Answers". Multiple-choice rows: `mc1_targets`,
    an object of answers or lists of choices and labels; their categories come from the CSV or the hub's `generation`
    file beside them. Raises DataError.
    """
    spec, file = source.spec, source.file()
    rows = list(readers.table_rows(file))
    if not rows:
        raise DataError("the benchmark has no items", where=file)
    by_question = None if _get(rows[0][1], _CATEGORY) is not None else _categories(file)
    for number, (where, row) in enumerate(rows):
        question = _text(row, _QUESTION, where)
        if by_question is None:
            category = _text(row, _CATEGORY, where)
        elif (category := by_question.get(_key(question), "")) == "":
            raise DataError("the question has no category in the file beside it", where=where, why=question[:80])
        if (category in spec.groups) == (source.split == "test"):
            right, wrong = _answers(row, where)
            rng = random.Random(f"{source.seed} {number}")  # the same options whatever rows are read beside it
            drawn = rng.choices(wrong, k=WRONG) if source.compat else rng.sample(wrong, min(WRONG, len(wrong)))
            options = [right, *drawn]
            order = rng.sample(range(len(options)), len(options))
            item = Item(
                id=f"{spec.name}-{number + 1:05d}",
                question=question,
                options=tuple(options[i] for i in order),
                gold=order.index(0),
                group=category,
                source_index=number,
            )
            yield where, sound(item, where)


def _categories(file: Path) -> dict[str, str]:
    """The category of each question, by the question, from a file beside multiple-choice rows."""
    folders = (file.parent, file.parent.parent)
    for path in (folder / name for folder in folders for name in (CSV, GENERATION, f"data/{CSV}")):
        if path.is_file() and path != file:
            rows = readers.table_rows(path)
            return {_key(_text(row, _QUESTION, where)): _text(row, _CATEGORY, where) for where, row in rows}
    why = f"multiple-choice rows do not name it; looked for {CSV} and {GENERATION} beside the file"
    raise DataError("cannot tell the questions' categories", where=file, why=why, do=f"put {CSV} there, or give it")


def _key(question: str) -> str:
    return " ".join(question.split()).casefold()


def _answers(row: dict[str, Any], where: str) -> tuple[str, list[str]]:
    """(the right answer, the wrong ones, each once)."""
    target = row.get("mc1_targets")
    if target is None:
        wrong = row.get("Incorrect Answers", row.get("incorrect_answers"))
        right = _text(row, ("Best Answer", "best_answer"), where)
        texts = wrong.split(";") if isinstance(wrong, str) else wrong
        labels = [1] + [0] * len(texts) if isinstance(texts, list) else None
        texts = [right, *texts] if isinstance(texts, list) else None
    elif isinstance(target, dict) and {"choices", "labels"} == set(target):
        texts, labels = target["choices"], target["labels"]
    else:
        texts, labels = (list(target), list(target.values())) if isinstance(target, dict) else (None, None)
    if not _lists(texts, labels):
        why = "it wants Incorrect Answers, or mc1_targets with choices and labels (0 and 1)"
        raise DataError("the row has no answers that can be read", where=where, why=why)
    right_ones = [text.strip() for text, label in zip(texts, labels, strict=True) if label == 1]
    if len(right_ones) != 1 or not right_ones[0]:
        raise DataError(f"{len(right_ones)} right answers, where one is wanted", where=where)
    wrong_ones = [text.strip() for text, label in zip(texts, labels, strict=True) if label == 0]
    found = list(dict.fromkeys(text for text in wrong_ones if text and text != right_ones[0]))
    if not found:
        raise DataError("the row has no wrong answer", where=where)
    return right_ones[0], found


def _lists(texts: Any, labels: Any) -> bool:
    return (
        isinstance(texts, list)
        and isinstance(labels, list)
        and len(texts) == len(labels)
        and all(isinstance(text, str) for text in texts)
        and all(type(label) is int and label in (0, 1) for label in labels)
    )


def _get(row: dict[str, Any], names: Sequence[str]) -> Any:
    return next((row[name] for name in names if name in row), None)


def _text(row: dict[str, Any], names: Sequence[str], where: str) -> str:
    value = _get(row, names)
    if value is None:
        raise DataError(f"the field '{names[0]}' is missing", where=where, do=nearest(names[0], row))
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"the field '{names[0]}' must be text", where=where)
    return value.strip()
