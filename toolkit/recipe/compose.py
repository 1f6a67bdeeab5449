"""From a recipe's name and overrides to a checked `Recipe`, by Hydra's compose, and where each value came from.

Decides how files, groups and overrides meet. What keys exist is the schema's, what goes together the rules'.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from toolkit import files, mixture
from toolkit.errors import RecipeError, RunError, nearest
from toolkit.recipe import rules
from toolkit.recipe.schema import Recipe
from toolkit.recipe.typed import KeyProblem, build

GROUPS = ("model", "parallel", "train", "data", "corpus", "cluster", "container")
_COMMAND_LINE = "command line"
_DEFAULT = "default"
_LAST = dataclasses.fields(Recipe)[-1].name  # of a whole file: defaults would hide that the rest was cut off
# `${train.lr}` may refer to another key. Nothing else in `${}` is read: a resolver such as `${oc.env:TOKEN}` would
# carry what the environment holds into the files of the run.
# Checkpoints are called step=100; for Hydra's grammar a second `=` needs quotes.
_PATH_WITH_EQUALS = re.compile(r"""(\+{0,2}[\w.]+)=([^\s"'{}\[\](),\\$=]*=[^\s"'{}\[\](),\\$]*)""")
_REFERENCE = re.compile(r"\$\{[\w.\[\]]+\}")


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
    try:
        values = _hydra(folder, name, [f"{g}={c}" for g, c in choices.items()], arguments)
        recipe = build(Recipe, {"name": name, **values})
        _known_benchmarks(recipe, folder)
    except KeyProblem as err:
        raise RecipeError(err.what, where=_nearest_origin(origin, err.key, path), do=err.do) from None
    try:
        rules.check(recipe)
    except RecipeError as err:
        raise RecipeError(err.what, where=_named(origin, err.what) or path, why=err.why, do=err.do) from None
    return Composed(recipe=recipe, origin=origin)


def save(recipe: Recipe, path: Path) -> None:
    files.write_text(path, yaml.safe_dump(_plain(dataclasses.asdict(recipe)), sort_keys=False))


def load(path: Path) -> Recipe:
    """A resolved recipe as `save` wrote it. Raises `RunError` when it is missing or damaged."""
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
        if isinstance(value, dict) and _LAST not in value:
            raise ValueError(f"it ends before '{_LAST}'")
        recipe = build(Recipe, value)
        rules.check(recipe)
        return recipe
    except FileNotFoundError:
        raise RunError("no resolved recipe here", where=path, do="give the folder of a run") from None
    except OSError as err:
        raise RunError(f"cannot be read: {err.strerror}", where=path) from None
    except (yaml.YAMLError, ValueError, RecursionError, RecipeError) as err:
        again = "start a new run with recipe=NAME"
        raise RunError(f"damaged recipe: {_first_line(err)}", where=path, do=again) from None


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def _raw(path: Path) -> dict[str, Any]:
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as err:
        mark = getattr(err, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise RecipeError(f"not valid YAML: {_first_line(err)}", where=f"{path}{line}") from None
    except OSError as err:
        raise RecipeError(f"cannot be read: {err.strerror}", where=path) from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RecipeError("must be a mapping of keys to values", where=path)
    return value


def _arguments(folder: Path, overrides: Sequence[str]) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Overrides as ({group: choice}, [(dotted key, override for Hydra)]). `a.b=c` may set any key that the schema
    has.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    choices: dict[str, str] = {}
    arguments: list[tuple[str, str]] = []
    for given in overrides:
        equals = _PATH_WITH_EQUALS.fullmatch(given)
        text = f'{equals[1]}="{equals[2]}"' if equals else given
        try:
            text.encode("utf-8")
            (parsed,) = OverridesParser.create().parse_overrides([text])
        except (HydraException, UnicodeEncodeError, RecursionError) as err:
            told = "" if isinstance(err, RecursionError) or "Lexer" in str(err) else _first_line(err)
            raise RecipeError(
                f"cannot read {text!r}",
                where=_COMMAND_LINE,
                why=told,
                do="write key=value, with quotes inside quotes around other text: 'key=\"some, text\"'",
            ) from None
        key = parsed.key_or_group
        if parsed.is_sweep_override():
            raise RecipeError(
                f"'{text}' gives several values", where=_COMMAND_LINE, do=f"give one, or a list as {key}=[a,b]"
            )
        if parsed.package is not None:
            raise RecipeError(f"'@{parsed.package}' has no meaning here", where=_COMMAND_LINE, do=f"write {key}=VALUE")
        if key in GROUPS and parsed.is_delete():
            raise RecipeError(f"'{key}' cannot be left out", where=_COMMAND_LINE, do=f"choose one with {key}=CHOICE")
        if key in GROUPS:
            choices[key] = _known_choice(folder, key, str(parsed.value()), _COMMAND_LINE)
        elif (folder / key).is_dir():
            raise RecipeError(
                f"'{key}' is not chosen like this", where=_COMMAND_LINE, do="name benchmarks in score.benchmarks=[...]"
            )
        elif key.split(".")[0] == "hydra":
            raise RecipeError(f"unknown key '{key}'", where=_COMMAND_LINE, do="Hydra's own settings are fixed here")
        else:
            bare = text.lstrip("+")
            arguments.append((key, text if parsed.is_delete() else f"++{bare}"))
    return choices, arguments


def _known_choice(folder: Path, group: str, choice: str, where: object) -> str:
    known = [p.stem for p in (folder / group).glob("*.yaml")]
    if choice not in known:
        raise RecipeError(f"unknown {group} '{choice}'", where=where, do=nearest(choice, known))
    return choice


def _known_benchmarks(recipe: Recipe, folder: Path) -> None:
    known = [p.stem for p in (folder / "benchmark").glob("*.yaml")]
    asked = [(f"score.benchmarks[{i}]", name) for i, name in enumerate(recipe.score.benchmarks)]
    if recipe.finetune is not None:
        asked += [("finetune.benchmark", name) for name in mixture.parse(recipe.finetune.benchmark)]
    for key, name in asked:
        if name not in known and not name.endswith((".yaml", ".yml")):  # a file of one's own is looked for by its job
            raise KeyProblem(key, f"unknown benchmark '{name}' in {key.partition('[')[0]}", nearest(name, known))


def _hydra(folder: Path, name: str, choices: Sequence[str], arguments: Sequence[tuple[str, str]]) -> dict[str, Any]:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        with initialize_config_dir(config_dir=str(folder.resolve()), version_base="1.3"):
            config = hydra_compose(config_name=name, overrides=[*choices, *(text for _, text in arguments)])
        _refuse_resolvers(OmegaConf.to_container(config, resolve=False))
        return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore[return-value]
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError, RecursionError) as err:
        told, key = _first_line(err), str(getattr(err, "full_key", None) or "")
        mark = getattr(err, "problem_mark", None)
        if mark is not None:
            raise RecipeError(f"not valid YAML: {told}", where=f"{mark.name}:{mark.line + 1}") from None
        key = next((key for key, _ in arguments if not key or key in told), key)
        raise KeyProblem(key, f"cannot be composed: {told}") from None


def _refuse_resolvers(value: Any, key: str = "") -> None:
    if isinstance(value, Mapping):
        for name, item in value.items():
            _refuse_resolvers(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _refuse_resolvers(item, f"{key}[{index}]")
    elif isinstance(value, str) and "${" in _REFERENCE.sub("", value):
        raise KeyProblem(
            key,
            f"'{key}' is {value!r}, and only references to other keys are read",
            "write the value itself, or refer to another key as ${section.key}",
        )


def _origins(
    folder: Path, path: Path, choices: Mapping[str, str], arguments: Sequence[tuple[str, str]]
) -> dict[str, str]:
    """Later ones win: group files in the order of the defaults list, then the recipe itself, then the command line."""
    raw = _raw(path)
    defaults = raw.pop("defaults", None) or []
    if not isinstance(defaults, list):
        raise RecipeError("'defaults' must be a list of groups and choices", where=path)
    if "hydra" in raw:
        raise RecipeError("unknown key 'hydra'", where=path, do="Hydra's own settings are fixed here")
    origin: dict[str, str] = {}
    for item in defaults:
        if isinstance(item, str) and (folder / f"{item}.yaml").is_file() and "/" not in item and item != path.stem:
            origin.update(_origins(folder, folder / f"{item}.yaml", choices, ()))  # a recipe on top of another
        elif isinstance(item, dict):
            for name, choice in item.items():
                group = str(name).removeprefix("override ").lstrip("/")
                if group not in GROUPS:
                    raise RecipeError(f"unknown group '{group}' in defaults", where=path, do=nearest(group, GROUPS))
                chosen = choices.get(group) or _known_choice(folder, group, str(choice), path)
                file = folder / group / f"{chosen}.yaml"
                origin.update({key: f"{group}/{file.name}" for key in _leaves(_raw(file), group)})
        elif item != "_self_":
            raise RecipeError(f"unknown entry {item!r} in defaults", where=path, do="write group: choice, or _self_")
    origin.update({key: path.name for key in _leaves(raw)})
    for key, text in arguments:
        if text.startswith("~") and not any(stated == key or stated.startswith(f"{key}.") for stated in origin):
            raise RecipeError(
                f"'{key}' is not stated, so it cannot be left out", where=_COMMAND_LINE, do=nearest(key, origin)
            )
    origin.update({key: _COMMAND_LINE for key, _ in arguments})
    return origin


def _named(origin: Mapping[str, str], text: str) -> str:
    """Which files (or arguments) state the keys that `text` speaks of."""
    return " and ".join(dict.fromkeys(origin[word] for word in re.findall(r"[\w.]+", text) if word in origin))


def _leaves(value: Any, key: str = "") -> list[str]:
    if isinstance(value, Mapping) and value:
        return [leaf for name, item in value.items() for leaf in _leaves(item, f"{key}.{name}" if key else str(name))]
    return [key]


def _nearest_origin(origin: Mapping[str, str], key: str, path: Path) -> str:
    """The origin of `key`, of the mapping that holds it, or of the first value inside it."""
    holder = key.rpartition(".")[0] or key
    for near in (key, holder):
        for stated, where in reversed(origin.items()):
            if stated == near or near.startswith((f"{stated}.", f"{stated}[")) or stated.startswith(f"{near}."):
                return where
    return path.name


def _first_line(err: BaseException) -> str:
    told = str(getattr(err, "problem", None) or err)  # YAML's own message begins with what it was doing
    return next((line.strip() for line in told.splitlines() if line.strip()), type(err).__name__)
