"""The checkpoints of watched trainings: which there are, whether they are whole, and what they are exported with.

Decides what a run, a training and a checkpoint are on disk; leaves which of them are due to the night. Light.
"""

from __future__ import annotations

import glob
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from toolkit import checkpoint, files
from toolkit.errors import RecipeError, ToolkitError
from toolkit.night import Found
from toolkit.plan import layout, steps
from toolkit.recipe import Recipe
from toolkit.recipe.layout_rules import TRAINING_STAGES
from toolkit.recipe.schema import Due
from toolkit.runs import Run, find
from toolkit.stages.context import Context
from toolkit.stages.training import CHECKPOINTS


def find_all(watch: Sequence[str]) -> tuple[list[Found], list[str]]:
    """Every checkpoint of what `watch` names, in order of training and step, and what could not be looked at, as lines.

    A name may be that of a run (its trainings), of a folder of checkpoints, or hold * and ?. Raises `RecipeError` for
    one that is no pattern and does not exist.
    """
    found: dict[tuple[str, int], Found] = {}
    told: list[str] = []
    for place in _places(watch):
        try:
            for folder in _folders(place):
                found.update({(one.series, one.step): one for one in _checkpoints(folder)})
        except (ToolkitError, OSError) as err:
            told.append(f"{place}: {err}")
    return sorted(found.values(), key=lambda one: (one.series, one.step)), told


def due(one: Found, recipe: Recipe, night: Run | None = None) -> Due:
    """What a job needs to export it: from the run that it belongs to, else from the night's own recipe.

    Raises `RecipeError` where neither says of which shape and tokenizer it is, `RunError` for a damaged run.
    """
    run = _run_of(one.path)
    if run is not None:
        step = next(s for s in steps(run.recipe) if s.id == one.path.parents[1].name)
        context = Context(run=run, step=step)
        config, tokenizer, vocab = context.hf_base(), context.tokenizer(), layout(run.recipe).vocab
    else:
        if recipe.model.base in (None, "make"):
            raise RecipeError(
                f"{one.path.parent} belongs to no run, so nothing says what model it is of",
                where="model.base",
                do="give model.base=FOLDER, the HF model that the training began with",
            )
        config = Path(str(recipe.model.base)).absolute()
        shards = recipe.inputs.shards
        tokenizer = Path(shards).absolute() / "tokenizer" if shards is not None else config
        vocab = layout(recipe).vocab if shards is not None else None
    return Due(
        path=str(one.path),
        series=one.series,
        step=one.step,
        config=str(config),
        tokenizer=str(tokenizer),
        vocab=vocab,
    )


def _places(watch: Iterable[str]) -> Iterator[Path]:
    for text in watch:
        pattern = str(Path(text).expanduser())
        places = [Path(pattern)] if Path(pattern).is_dir() else sorted(map(Path, glob.glob(pattern)))
        if not places and not glob.has_magic(pattern):
            raise RecipeError(f"night.watch: there is no folder {text}", do="name a run, or a folder of checkpoints")
        yield from (place.resolve() for place in places if place.is_dir())


def _folders(place: Path) -> list[Path]:
    """The folders of checkpoints of a run, of the runs in a folder, or the folder itself."""
    if (place / "stages").is_dir():
        return [f for stage in TRAINING_STAGES if (f := place / "stages" / stage / CHECKPOINTS).is_dir()]
    runs = sorted(path.parent for path in place.glob("*/recipe.yaml"))
    return [folder for run in runs for folder in _folders(run)] if runs else [place]


def _checkpoints(folder: Path) -> Iterator[Found]:
    """One for each step: at equal steps a whole one before a broken one, then NeMo's -last before the other."""
    series, by_step = _series(folder), dict[int, list[tuple[bool, bool, str, Path]]]()
    for path in folder.iterdir():
        step = checkpoint.step_of(path) if path.is_dir() and not path.name.startswith(".") else None
        if step is not None:
            bad = checkpoint.incomplete_reason(path) or ""
            by_step.setdefault(step, []).append((not bad, path.name.endswith("-last"), bad, path))
    for step, ones in by_step.items():
        _, _, bad, path = max(ones, key=lambda one: (one[:2], one[3].name))
        yield Found(series=series, path=path, step=step, fingerprint=files.stat_fingerprint(path), bad=bad)


def _series(folder: Path) -> str:
    """A name that is harmless as a folder's, and of this training alone."""
    said = f"{folder.parents[2].name}-{folder.parent.name}" if folder.name == CHECKPOINTS else folder.name
    harmless = re.sub(r"[^A-Za-z0-9_.-]+", "_", said).lstrip(".-")[:100] or "training"
    return f"{harmless}-{hashlib.sha256(str(folder).encode(errors='surrogateescape')).hexdigest()[:8]}"


def _run_of(path: Path) -> Run | None:
    """The run that trained it, by where it lies: RUN/stages/STAGE/checkpoints/step=N."""
    if path.parent.name != CHECKPOINTS or len(path.parents) < 4:
        return None
    root = path.parents[3]
    return find(str(root)) if (root / "recipe.yaml").is_file() else None
