"""From a recipe's name and overrides to a checked `Recipe`, by Hydra's compose over `recipes/`; and where each value came from.

Decides how files, groups and overrides meet. What keys exist is the schema's, what goes together the rules'.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from toolkit import files
from toolkit.errors import RecipeError, RunError, nearest
from toolkit.recipe import rules
from toolkit.recipe.schema import Recipe
from toolkit.recipe.typed import KeyProblem, build

GROUPS = ("model", "parallel", "train", "data", "corpus", "cluster")
_COMMAND_LINE = "command line"
_DEFAULT = "default"


@dataclass(frozen=True, kw_only=True)
class Composed:
    """A checked recipe, and for every dotted key that some file or argument states, which one."""

    recipe: Recipe
    origin: Mapping[str, str]

    def where(self, key: str) -> str:
        return self.origin.get(key, _DEFAULT)


def recipes_dir() -> Path:
    """`$TOOLKIT_RECIPES`, else the folder beside the package."""
    return Path(os.environ.get("TOOLKIT_RECIPES") or Path(__file__).resolve().parents[2] / "recipes")


def list_recipes() -> list[tuple[str, str]]:
    """(name, title) of every recipe, by name."""
    return [(path.stem, str(_raw(path).get("title", ""))) for path in sorted(recipes_dir().glob("*.yaml"))]


def compose(name: str, overrides: Sequence[str] = ()) -> Composed:
    """Compose, type and check recipe `name`. Raises `RecipeError`; writes nothing."""
    folder = recipes_dir()
    path = folder / f"{name}.yaml"
    names = [p.stem for p in folder.glob("*.yaml")]
    if name not in names:
        raise RecipeError(f"unknown recipe '{name}'", where=folder, do=nearest(name, names))
    choices, arguments = _arguments(folder, overrides)
    origin = _origins(folder, path, choices, arguments)
    values = _hydra(folder, name, [f"{g}={c}" for g, c in choices.items()], arguments)
    try:
        recipe = build(Recipe, {"name": name, **values})
    except KeyProblem as err:
        raise RecipeError(err.what, where=_nearest_origin(origin, err.key, path), do=err.do) from None
    rules.check(recipe, where=str(path))
    return Composed(recipe=recipe, origin=origin)


def save(recipe: Recipe, path: Path) -> None:
    files.write_text(path, yaml.safe_dump(_plain(dataclasses.asdict(recipe)), sort_keys=False, allow_unicode=True))


def load(path: Path) -> Recipe:
    """A resolved recipe as `save` wrote it. Raises `RunError` when it is missing or damaged."""
    try:
        recipe = build(Recipe, yaml.safe_load(path.read_text(encoding="utf-8")))
        rules.check(recipe, where=str(path))
        return recipe
    except FileNotFoundError:
        raise RunError("no resolved recipe here", where=path, do="give the folder of a run") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecipeError) as err:
        raise RunError(f"damaged recipe: {_first_line(err)}", where=path) from None


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def _raw(path: Path) -> dict[str, Any]:
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as err:
        mark = getattr(err, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise RecipeError(f"not valid YAML: {_first_line(err)}", where=f"{path}{line}") from None
    except OSError as err:
        raise RecipeError(f"cannot be read: {err.strerror}", where=path) from None
    if not isinstance(value, dict):
        raise RecipeError("must be a mapping of keys to values", where=path)
    return value


def _arguments(folder: Path, overrides: Sequence[str]) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Overrides as ({group: choice}, [(dotted key, override for Hydra)]). `a.b=c` may set any key that the schema has."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    choices: dict[str, str] = {}
    arguments: list[tuple[str, str]] = []
    for text in overrides:
        try:
            (parsed,) = OverridesParser.create().parse_overrides([text])
        except HydraException as err:
            raise RecipeError(f"cannot read '{text}': {_first_line(err)}", where=_COMMAND_LINE, do="write key=value, with quotes around text that has spaces or commas") from None
        key = parsed.key_or_group
        if parsed.is_sweep_override():
            raise RecipeError(f"'{text}' gives several values", where=_COMMAND_LINE, do=f"give one, or a list as {key}=[a,b]")
        if key in GROUPS and not parsed.is_delete():
            choice = str(parsed.value())
            known = [p.stem for p in (folder / key).glob("*.yaml")]
            if choice not in known:
                raise RecipeError(f"unknown {key} '{choice}'", where=_COMMAND_LINE, do=nearest(choice, known))
            choices[key] = choice
        elif (folder / key).is_dir():
            raise RecipeError(f"'{key}' is not chosen like this", where=_COMMAND_LINE, do="name benchmarks in score.benchmarks=[...]")
        else:
            bare = text.lstrip("+")
            arguments.append((key, text if parsed.is_delete() else f"++{bare}"))
    return choices, arguments


def _hydra(folder: Path, name: str, choices: Sequence[str], arguments: Sequence[tuple[str, str]]) -> dict[str, Any]:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        with initialize_config_dir(config_dir=str(folder.resolve()), version_base="1.3"):
            config = hydra_compose(config_name=name, overrides=[*choices, *(text for _, text in arguments)])
        return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore[return-value]
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, UnicodeDecodeError) as err:
        raise RecipeError(f"cannot be composed: {_first_line(err)}", where=folder / f"{name}.yaml") from None


def _origins(folder: Path, path: Path, choices: Mapping[str, str], arguments: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Later ones win: group files in the order of the defaults list, then the recipe itself, then the command line."""
    raw = _raw(path)
    origin: dict[str, str] = {}
    for item in raw.pop("defaults", []):
        for group, choice in item.items() if isinstance(item, dict) else ():
            file = folder / str(group) / f"{choices.get(group, choice)}.yaml"
            origin.update({key: f"{group}/{file.name}" for key in _leaves(_raw(file), str(group))})
    origin.update({key: path.name for key in _leaves(raw)})
    origin.update({key: _COMMAND_LINE for key, _ in arguments})
    return origin


def _leaves(value: Any, key: str = "") -> list[str]:
    if isinstance(value, Mapping) and value:
        return [leaf for name, item in value.items() for leaf in _leaves(item, f"{key}.{name}" if key else str(name))]
    return [key]


def _nearest_origin(origin: Mapping[str, str], key: str, path: Path) -> str:
    """The origin of `key`, of the mapping that holds it, or of the first value inside it."""
    for stated, where in reversed(origin.items()):
        if stated == key or key.startswith((f"{stated}.", f"{stated}[")) or stated.startswith(f"{key}."):
            return where
    return path.name


def _first_line(err: BaseException) -> str:
    return next((line.strip() for line in str(err).splitlines() if line.strip()), type(err).__name__)
