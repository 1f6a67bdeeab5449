"""How the payload is started: in an Apptainer image, or in an environment of the host.

Decides the command, what of the host the image sees, and the environment that gets through to it. Nothing passes a
shell.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import toolkit
from toolkit.cluster.rank import for_image
from toolkit.errors import PlanRefused
from toolkit.recipe import Recipe
from toolkit.recipe.compose import recipes_dir
from toolkit.recipe.paths import outside

_PACKAGE = Path(toolkit.__file__).resolve().parent
# The image runs the same code as the host. It is bound to a place of its own: beside the package on the host there may
# be a whole environment, which must not hide that of the image.
_INSIDE = "/opt/toolkit-source"
_FABRIC = "nccl.env"


def check(recipe: Recipe) -> None:
    """Raise `PlanRefused` when the recipe's image is not there or a path cannot be shown to it."""
    box = recipe.container
    if box.runtime != "apptainer":
        return
    choose = "give container.image=FILE, or container=none for an environment of the host"
    if box.image is None:
        raise PlanRefused("no image is named", where="container.image", do=choose)
    if not os.path.exists(Path(box.image).expanduser()):
        raise PlanRefused("the image is not there", where=f"container.image={box.image}", do=choose)
    binds(recipe, Path(recipe.runs).expanduser().absolute())


def payload(recipe: Recipe, run: Path, words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """`python -m WORDS` as the recipe's container starts it: its command, and what to add to the environment.

    `run` is the run's folder; called in a job, on its batch host. Raises `PlanRefused` for a path with ':' or ','.
    """
    box = recipe.container
    if box.runtime == "none":
        return [box.python or sys.executable, "-m", *words], {}
    check(recipe)
    command = [recipe.cluster.apptainer.command, "exec"]
    if recipe.cluster.device == "gpu":
        command.append("--nv")
    if (run / _FABRIC).is_file():
        command += ["--env-file", str(run / _FABRIC)]
    for bind in binds(recipe, run):
        command += ["--bind", bind]
    # Its own working folder may be one that the image does not see.
    command += [
        "--pwd",
        str(run),
        *recipe.cluster.apptainer.options,
        str(box.image),
        box.python or "python3",
        "-m",
        *words,
    ]
    # Inside only: the host's own processes keep their paths.
    return command, for_image({"PYTHONPATH": _INSIDE, "TOOLKIT_RECIPES": f"{_INSIDE}/recipes"})


def binds(recipe: Recipe, run: Path) -> list[str]:
    """Everything of the host that the image is shown, as --bind takes it, each once and none below another.

    The run's folder, the toolkit and its recipes, the files that the recipe names from outside, the job's scratch
    folder where the site has one, and what the recipe binds itself. Raises `PlanRefused` for a path with ':' or ','.
    """
    paths = [run]
    for path in (Path(name).expanduser().absolute() for name in outside(recipe)):
        paths += [path, *_linked(path)] if path.exists() else []  # a stage that needs it says so better than Apptainer
    scratch = os.environ.get("TMPDIR") if recipe.cluster.scratch else None
    if scratch:
        paths.append(Path(scratch))
    # A symbolic link is bound under its own name; what it leads to is what Apptainer then mounts there.
    shown = [path for path in dict.fromkeys(paths) if not any(other in path.parents for other in paths)]
    made = [_bindable(path) for path in shown]
    for source, name in ((_PACKAGE, "toolkit"), (recipes_dir().resolve(), "recipes")):
        made.append(f"{_bindable(source)}:{_INSIDE}/{name}:ro")
    return [*made, *(bind for bind in recipe.cluster.apptainer.binds if bind not in made)]


def _linked(folder: Path) -> list[Path]:
    """Where the links in a folder lead: a model in the hub's cache is a folder of links to files beside it."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return list({Path(entry.path).resolve().parent for entry in entries if entry.is_symlink()})


def _bindable(path: Path) -> str:
    text = str(path)
    if ":" in text or "," in text:
        raise PlanRefused(
            "a path with ':' or ',' cannot be shown to an image",
            where=text,
            why="Apptainer's --bind reads them as marks of its own",
            do="give it another name, or a symbolic link without them; or use container=none",
        )
    return text
