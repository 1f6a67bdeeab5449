"""The image that a run is bound to: recorded when the run is made, the only one that its jobs start.

Decides when another one is refused and how it is accepted; what makes two images the same is `images`'.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from toolkit import files, images
from toolkit.cluster import container
from toolkit.errors import ImageError
from toolkit.recipe import Recipe
from toolkit.runs import Run, held
from toolkit.runs.folder import read_json_or_fail


def of(recipe: Recipe) -> dict[str, Any] | None:
    """The identity of the image that the recipe's jobs are to start; None where they start none. A SIF that was not
    built here is read as a whole, once. Raises `PlanRefused` and `ImageError`.
    """
    path = _path(recipe)
    if path is None:
        return None
    container.check(recipe)
    return dict(images.identity(path))


def check(run: Run, *, full: bool = False) -> None:
    """Raise `ImageError` unless the image is the one that the run's manifest has recorded: by size and time, by digest
    where those differ, always by digest with `full`. A run from before images were recorded has none to compare.
    """
    path, wanted = _path(run.recipe), recorded(run)
    if path is None or wanted is None:
        return
    try:
        images.check(path, wanted, full=full)
    except ImageError as err:
        accept_it = f"or go on with what is there: python -m toolkit.launch run={run.path} --new-image"
        do = f"{err.do.rstrip('. ')}, {accept_it}" if err.do else f"put the recorded image back, {accept_it}"
        raise type(err)(err.what, where=err.where, why=err.why, do=do) from None


def recorded(run: Run) -> dict[str, Any] | None:
    """What the manifest says of the run's image. Raises `RunError` when the manifest is damaged."""
    told = read_json_or_fail(run.path / "manifest.json", dict).get("image")
    return told if isinstance(told, dict) else None


def accept(run: Run) -> bool:
    """Bind the run to the image that is there now; the one before stays in the manifest, under `earlier_images`.
    Returns whether it is another. Raises `RunBusy` while somebody works on the run, `ImageError`, `RunError`.
    """
    now = of(run.recipe)
    with held(run.path):
        before = recorded(run)
        if now is None or (before is not None and _same(before, now)):
            return False
        path = run.path / "manifest.json"
        body = read_json_or_fail(path, dict)
        earlier = body.get("earlier_images")
        gone = [{**before, "until": time.strftime("%Y-%m-%dT%H:%M:%S%z")}] if before is not None else []
        body |= {"image": now, "earlier_images": [*(earlier if isinstance(earlier, list) else []), *gone]}
        files.write_json(path, body)
    return True


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """A sandbox has no digest: what it was made from and its own date must do."""
    names = ("sha256",) if one.get("sha256") or other.get("sha256") else ("kind", "inputs", "built", "mtime_ns")
    return all(one.get(name) == other.get(name) for name in names)


def _path(recipe: Recipe) -> Path | None:
    box = recipe.container
    if box.runtime != "apptainer" or box.image is None:
        return None
    return Path(box.image).expanduser().absolute()
