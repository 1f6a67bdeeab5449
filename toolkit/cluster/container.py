"""How the payload is started: in an Apptainer image, or in an environment of the host.

Decides the command, what of the host the image sees, and the environment that gets through to it. No shell reads a word
of a recipe.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import toolkit
from toolkit.cluster.rank import for_image
from toolkit.errors import ImageError, PlanRefused
from toolkit.images import command
from toolkit.recipe import Recipe
from toolkit.recipe.compose import recipes_dir
from toolkit.recipe.paths import outside
from toolkit.recipe.schema import Apptainer

_PACKAGE = Path(toolkit.__file__).resolve().parent
# The image runs the same code as the host. It is bound to a place of its own: beside the package on the host there may
# be a whole environment, which must not hide that of the image.
_INSIDE = "/opt/toolkit-source"
# In the image, since a value from outside would replace the image's own: a vendor's may name where its packages are.
_ENTER = f'PYTHONPATH={_INSIDE}${{PYTHONPATH:+:$PYTHONPATH}} exec "$0" "$@"'
_FABRIC = "nccl.env"
_PINS = "env/versions.yaml"
_FEWER_RIGHTS = {"--no-privs", "--userns", "-u", "--fakeroot", "-f", "--drop-caps"}


def check(recipe: Recipe) -> None:
    """Raise `PlanRefused` when the recipe's image is not there or a path cannot be shown to it."""
    box = recipe.container
    if box.runtime != "apptainer":
        return
    choose = (
        "give container.image=FILE (python -m toolkit.images build makes one), or container=none for the host's own"
    )
    if box.image is None:
        raise PlanRefused("no image is named", where="container.image", do=choose)
    if not os.path.exists(Path(box.image).expanduser()):
        raise PlanRefused("the image is not there", where=f"container.image={box.image}", do=choose)
    binds(recipe, Path(recipe.runs).expanduser().absolute())


def payload(
    recipe: Recipe, run: Path, words: Sequence[str], *, image: Path | None = None
) -> tuple[list[str], dict[str, str]]:
    """`python -m WORDS` as the recipe's container starts it: its command, and what to add to the environment.

    `run` is the run's folder, `image` a copy to start instead of the recipe's own; called in a job, on its batch host.
    Raises `PlanRefused` for a path with ':' or ','.
    """
    box = recipe.container
    if box.runtime == "none":
        return [box.python or sys.executable, "-m", *words], {}
    check(recipe)
    starting = [_starter(recipe.cluster.apptainer), "exec"]
    if recipe.cluster.device == "gpu":
        starting.append("--nv")
    if (run / _FABRIC).is_file():
        starting += ["--env-file", str(run / _FABRIC)]
    for bind in binds(recipe, run):
        starting += ["--bind", bind]
    # Its own working folder may be one that the image does not see.
    starting += [
        "--pwd",
        str(run),
        *_rights(recipe.cluster.apptainer.options),
        *recipe.cluster.apptainer.options,
        str(image or box.image),
        *("/bin/sh", "-c", _ENTER, box.python or "python3"),
        "-m",
        *words,
    ]
    return starting, for_image({"TOOLKIT_RECIPES": f"{_INSIDE}/recipes"})  # inside only


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
    pins = _PACKAGE.parent / _PINS
    made += [f"{_bindable(pins)}:{_INSIDE}/{_PINS}:ro"] if pins.is_file() else []  # what an image is held against
    return [*made, *(bind for bind in recipe.cluster.apptainer.binds if bind not in made)]


def _starter(site: Apptainer) -> str:
    """The site's command. Where a machine has none by that name, the one that env/apptainer/install has brought."""
    if site.command == Apptainer().command and shutil.which(site.command) is None:
        with contextlib.suppress(ImageError):
            return command.find()
    return site.command


def _rights(options: Sequence[str]) -> list[str]:
    """Root starts images with every right that Linux has, and Apptainer fails where root itself lacks one, as it does
    in many a virtual machine and container: then the image gets none of them.
    """
    given = {option.partition("=")[0] for option in options}
    return [] if given & _FEWER_RIGHTS else command.without_privileges()


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
