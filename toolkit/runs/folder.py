"""A run's folder: its name, its files, how it is made and found again."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit import files
from toolkit.errors import RunError, nearest
from toolkit.recipe import Recipe, absolute, load, save
from toolkit.runs.manifest import manifest


@dataclass(frozen=True, kw_only=True)
class Run:
    """One launch of a recipe. Everything in it is a file below `path`."""

    path: Path
    recipe: Recipe

    @property
    def id(self) -> str:
        return self.path.name

    def stage(self, ident: str) -> Path:
        return self.path / "stages" / ident


def create(
    recipe: Recipe,
    *,
    command: Sequence[str],
    plan: Mapping[str, Any],
    ident: str = "",
    image: Mapping[str, Any] | None = None,
) -> Run:
    """Make `runs/<recipe>-<date>-<short id>/` with recipe.yaml, plan.json, manifest.json and jobs.json; `ident` is the
    short id, a random one when not given, `image` the identity of the image that its jobs are to start.
    """
    recipe = absolute(recipe)
    root = Path(recipe.runs)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    path = (root / f"{recipe.name}-{stamp}-{ident or secrets.token_hex(2)}").resolve()
    try:
        with files.atomic_folder(path) as part:
            save(recipe, part / "recipe.yaml")
            files.write_json(part / "plan.json", plan)
            files.write_json(part / "manifest.json", manifest(path.name, command, image))
            files.write_json(part / "jobs.json", {"stages": []})
            (part / "stages").mkdir()
    except OSError as err:
        raise RunError(
            f"the run's folder cannot be made: {err.strerror}", where=path, do="give another folder with runs=FOLDER"
        ) from None
    return Run(path=path, recipe=recipe)


def find(name: str, root: str | Path = "runs") -> Run:
    """A run by path, or by its name (or `last`) below `root`. Raises `RunError`."""
    path = Path(name)
    if not (path / "recipe.yaml").is_file():
        known = sorted((p.parent for p in Path(root).glob("*/recipe.yaml")), key=_started)
        if name == "last" and known:
            path = known[-1]
        else:
            path = Path(root) / name
            if not (path / "recipe.yaml").is_file():
                raise RunError(
                    f"no run '{name}'",
                    where=root,
                    do=nearest(name, [p.name for p in known]) or "start one with recipe=NAME",
                )
    return Run(path=path.resolve(), recipe=load(path / "recipe.yaml"))


def read_json_or_fail(path: Path, kind: type = object) -> Any:
    """The JSON value in `path`. Raises `RunError` when it is missing, damaged or no `kind`."""
    try:
        value = files.read_json(path)
    except OSError as err:
        raise RunError(f"cannot be read: {err.strerror}", where=path) from None
    except (ValueError, RecursionError) as err:
        raise RunError(f"damaged: {err}", where=path) from None
    if not isinstance(value, kind):
        raise RunError(f"damaged: not a JSON {'object' if kind is dict else kind.__name__}", where=path)
    return value


def _started(run: Path) -> int:
    """When a run began: its recipe is written once, while the folder's own time moves with every launch."""
    return (run / "recipe.yaml").stat().st_mtime_ns
