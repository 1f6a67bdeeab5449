"""Scores as files: written, read again, and put together of several folders without a change to any number.

Decides the two files' form; leaves what the numbers mean to `scores`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit import files
from toolkit.errors import DataError
from toolkit.scoring.scores import over_seeds

if TYPE_CHECKING:
    from toolkit.scoring.scores import Score

SCORES, PREDICTIONS = "scores.json", "predictions.jsonl"
HEAD = ("model", "benchmark", "mode", "shots", "seed")
"""What a line of predictions says of the score that it belongs to."""


def write(folder: str | Path, scores: Sequence[Score]) -> None:
    """`scores.json` (a list) and `predictions.jsonl` (a line an item) in `folder`, each whole or not at all.

    Where there are several seeds the list ends with a row for them together, which has `seeds`. Raises DiskFull.
    """
    folder = Path(folder)
    with files.atomic_write(folder / PREDICTIONS) as handle:
        for result in scores:
            head = {key: getattr(result, key) for key in HEAD}
            for prediction in result.predictions:
                handle.write(json.dumps(head | prediction.as_dict(), ensure_ascii=False) + "\n")
    rows = [result.as_dict() for result in scores]
    files.write_json(folder / SCORES, rows + over_seeds(rows))


def read(folder: str | Path) -> list[dict[str, Any]]:
    """The scores that `write` left, each as `Score.as_dict` gives it.

    Raises DataError: a file that is missing or damaged, or predictions that are not as many as the scores' items.
    """
    folder = Path(folder)
    try:
        scores = files.read_json(folder / SCORES)
        expected = sum(score["n"] for score in scores if "seeds" not in score)
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
    out = Path(out)
    scores = [score for folder in folders for score in read(folder) if "seeds" not in score]
    scores += over_seeds(scores)
    with files.atomic_write(out / PREDICTIONS, "wb") as whole:
        for folder in folders:
            with open(Path(folder) / PREDICTIONS, "rb") as piece:
                shutil.copyfileobj(piece, whole)
    files.write_json(out / SCORES, scores)
    return scores
