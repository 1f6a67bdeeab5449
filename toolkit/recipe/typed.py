"""Plain mappings into frozen dataclasses, strictly: an unknown key, a missing one or a wrong type is a `RecipeError`.

Decides what counts as a value of a type (an int is a float, "1e-4" is not an int); leaves meaning to the rules.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union

from toolkit.errors import RecipeError, nearest

T = TypeVar("T")


class KeyProblem(RecipeError):
    """A recipe error that knows the dotted key it is about, so that the caller can say which file or argument gave
    it.
    """

    def __init__(self, key: str, what: str, do: str = "") -> None:
        super().__init__(what, do=do)
        self.key = key


def build(cls: type[T], value: Any, key: str = "") -> T:
    """`value` (a mapping) as a `cls`; `key` is the dotted path so far. Raises `KeyProblem`."""
    if not isinstance(value, Mapping):
        raise KeyProblem(key, f"'{key or cls.__name__}' must be a mapping, not {_show(value)}")
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for name in value:
        if name not in fields:
            path = _join(key, str(name))
            raise KeyProblem(path, f"unknown key '{path}'", _suggest(key, str(name), fields))
    made = {}
    for name, spec in fields.items():
        path = _join(key, name)
        if name in value:
            made[name] = _convert(hints[name], value[name], path)
        elif spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING:
            raise KeyProblem(path, f"'{path}' is missing", f"add {path}={_example(hints[name])}")
    try:
        return cls(**made)
    except RecipeError as err:  # a value that its own class finds impossible
        what = f"{err.where}: {err.what}" if err.where else err.what
        raise KeyProblem(key, f"'{key}': {what}", err.do or err.why) from None


def _convert(kind: Any, value: Any, key: str) -> Any:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return _convert(next(a for a in args if a is not type(None)), value, key)
    if dataclasses.is_dataclass(kind):
        return build(kind, value, key)
    if origin is Literal:
        if value in args and not isinstance(value, bool):
            return value
        raise KeyProblem(key, f"'{key}' is {_show(value)}", nearest(str(value), map(str, args)))
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise _wrong(key, "a list", value)
        return tuple(_convert(args[0], item, f"{key}[{i}]") for i, item in enumerate(value))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise _wrong(key, "a mapping", value)
        return {str(k): _convert(args[1], v, _join(key, str(k))) for k, v in value.items()}
    if kind is Any:
        return value
    return _scalar(kind, value, key)


def _scalar(kind: Any, value: Any, key: str) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if kind is float and isinstance(value, str):  # YAML 1.1 reads 1e-4 as text
        with contextlib.suppress(ValueError):
            value = float(value)
    if kind is str and isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    if type(value) is not kind:
        raise _wrong(key, {int: "a whole number", float: "a number", bool: "true or false", str: "text"}[kind], value)
    if kind is float and not math.isfinite(value):
        raise _wrong(key, "a finite number", value)
    return value


def _wrong(key: str, wanted: str, value: Any) -> KeyProblem:
    return KeyProblem(key, f"'{key}' must be {wanted}, not {_show(value)}")


def _show(value: Any) -> str:
    return f"{value!r} ({type(value).__name__})" if value is not None else "null"


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _suggest(key: str, name: str, fields: Mapping[str, Any]) -> str:
    hint = nearest(name, fields)
    return hint.replace("'", f"'{key}.", 1) if key and hint.startswith("did you mean") else hint


def _example(kind: Any) -> str:
    return {int: "1", float: "0.1", bool: "true"}.get(kind, "VALUE")
