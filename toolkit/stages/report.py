"""Stage report: the run's page, and one of its scores with more of them."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from toolkit import report
from toolkit.errors import ToolkitError
from toolkit.report import scores
from toolkit.report.scores_read import PREDICTIONS, SCORES
from toolkit.scoring.compare import compare
from toolkit.stages.context import Context, Result


def run(context: Context) -> Result:
    root, told = context.run.path, context.run.stage("score")
    if (told / SCORES).is_file():
        try:
            with tempfile.TemporaryDirectory(dir=context.folder) as models:
                made = scores.build([root], context.folder / "scores", changes=_changes(told, Path(models)))
            for path in (made.html, made.markdown):
                (root / path.name).write_bytes(path.read_bytes())
        except ToolkitError as err:  # the run's own page says what is there all the same
            print(f"no page of the scores: {err}", flush=True)
    page = report.build(root)
    copy = context.folder / "report.html"
    copy.write_bytes(page.read_bytes())
    return Result(outputs={"report": copy}, figures={"page": str(page)})


def _changes(told: Path, out: Path) -> list[dict[str, Any]]:
    """Every later model against the first: base to pretrained, base to finetuned."""
    models = _by_model(told, out)
    found = []
    for one in models[1:]:
        try:
            found.append(compare(models[0], one).as_dict())
        except ToolkitError as err:
            print(f"not compared: {err}", flush=True)
    return found


def _by_model(told: Path, out: Path) -> list[Path]:
    """A file of predictions for each model, as a comparison takes them, in the order of the file."""
    handles: dict[str, Any] = {}
    try:
        with open(told / PREDICTIONS, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    model = str(json.loads(line).get("model"))
                except (ValueError, AttributeError, RecursionError):
                    continue
                if model not in handles:
                    handles[model] = open(out / f"{len(handles)}.jsonl", "w", encoding="utf-8")  # noqa: SIM115
                handles[model].write(line)
    finally:
        for handle in handles.values():
            handle.close()
    return [Path(handle.name) for handle in handles.values()]
