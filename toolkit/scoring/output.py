"""Scores as files: written, read again, and put together of several folders without a change to any number.

Decides the two files' form; leaves what the numbers mean to `evaluate`.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit import files
from toolkit.errors import DataError

if TYPE_CHECKING:
    from toolkit.scoring.evaluate import Score

SCORES, PREDICTIONS = "scores.json", "predictions.jsonl"


def write(folder: str | Path, scores: Sequence[Score]) -> None:
    """`scores.json` (a list) and `predictions.jsonl` (a line an item) in `folder`, each whole or not at all.

    Raises DiskFull.
    """
    folder = Path(folder)
    with files.atomic_write(folder / PREDICTIONS) as handle:
        for result in scores:
            head = {"model": result.model, "benchmark": result.benchmark, "mode": result.mode}
            for prediction in result.predictions:
                row = head | {key: value for key, value in dataclasses.asdict(prediction).items() if value != ()}
                handle.write(json.dumps(row, ensure_ascii=False) + "\n")
    files.write_json(folder / SCORES, [result.as_dict() for result in scores])


def read(folder: str | Path) -> list[dict[str, Any]]:
    """The scores that `write` left, each as `Score.as_dict` gives it.

    Raises DataError: a file that is missing or damaged, or predictions that are not as many as the scores' items.
    """
    folder = Path(folder)
    try:
        scores = files.read_json(folder / SCORES)
        expected = sum(score["n"] for score in scores)
        with open(folder / PREDICTIONS, "rb") as lines:
            found = sum(line.endswith(b"\n") for line in lines)
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as err:
        raise DataError("no scores that can be read", where=folder, why=str(err), do="score again") from err
    if found != expected:
        raise DataError(f"{found} predictions, expected {expected}", where=folder, do="score again")
    return scores


def merge(folders: Sequence[str | Path], out: str | Path) -> list[dict[str, Any]]:
    """Write to `out` what `write` would have written of all scores in `folders`, in their order; returns the scores.

    Raises as `read`, and DiskFull.
    """
    out, scores = Path(out), [score for folder in folders for score in read(folder)]
    with files.atomic_write(out / PREDICTIONS, "wb") as whole:
        for folder in folders:
            with open(Path(folder) / PREDICTIONS, "rb") as piece:
                shutil.copyfileobj(piece, whole)
    files.write_json(out / SCORES, scores)
    return scores
