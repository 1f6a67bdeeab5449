"""Mappings into typed values: what comes back is what went in, and nothing of another type gets through."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toolkit.errors import RecipeError
from toolkit.recipe import compose, load, save
from toolkit.recipe.schema import Recipe, Train
from toolkit.recipe.typed import KeyProblem, build

TRAIN = {"steps": 3, "seq_length": 8, "micro_batch": 1, "global_batch": 2, "lr": 1e-3}
TYPES = {name: hint for name, hint in get_type_hints(Train).items() if hint in (int, float)}
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)


@given(name=st.sampled_from(sorted(TYPES)), value=anything)
def test_a_value_is_of_its_type_or_refused(name: str, value: Any) -> None:
    try:
        made = getattr(build(Train, {**TRAIN, name: value}), name)
    except KeyProblem as err:
        assert err.key == name and f"'{name}'" in err.what
        return
    assert type(made) is TYPES[name]
    assert math.isfinite(made)
    assert made == (float(value) if TYPES[name] is float else value)
    assert not isinstance(value, bool)


@given(value=anything)
def test_no_value_makes_anything_but_a_recipe_or_a_recipe_error(value: Any) -> None:
    with pytest.raises(RecipeError):
        build(Recipe, value)


@given(
    title=text,
    lr=st.floats(min_value=1e-12, max_value=10),
    seed=st.integers(min_value=1, max_value=2**31),
    path=st.none() | text,
    options=st.dictionaries(text, st.booleans() | st.integers() | text, max_size=3),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_save_and_load_are_each_others_inverse(
    tmp_path: Path, title: str, lr: float, seed: int, path: str | None, options: dict[str, Any]
) -> None:
    recipe = compose_once()
    source = dataclasses.replace(recipe.corpus.sources["world"], path=path, options=options)
    recipe = dataclasses.replace(
        recipe,
        title=title,
        train=dataclasses.replace(recipe.train, lr=lr, min_lr=0.0, seed=seed),
        corpus=dataclasses.replace(recipe.corpus, sources={"world": source}),
    )
    save(recipe, tmp_path / "recipe.yaml")
    assert load(tmp_path / "recipe.yaml") == recipe


_MADE: list[Recipe] = []


def compose_once() -> Recipe:
    if not _MADE:
        _MADE.append(compose("demo").recipe)
    return _MADE[0]


def test_yaml_1_1_reads_some_numbers_as_text_and_they_count() -> None:
    assert yaml.safe_load("1e-4") == "1e-4"
    assert build(Train, {**TRAIN, "lr": "1e-4"}).lr == 1e-4
    with pytest.raises(KeyProblem):
        build(Train, {**TRAIN, "steps": "1e4"})


def test_whole_numbers_are_numbers() -> None:
    made = build(Train, {**TRAIN, "lr": 1})
    assert made.lr == 1.0 and type(made.lr) is float


def test_values_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        compose_once().train.steps = 1  # type: ignore[misc]


def test_every_field_of_the_schema_has_a_kind_that_is_checked() -> None:
    """A new field of a kind that `typed` does not know would be accepted unread."""

    def kinds(hint: Any) -> list[Any]:
        if dataclasses.is_dataclass(hint):
            return [kind for inner in get_type_hints(hint).values() for kind in kinds(inner)]
        if str(get_origin(hint)) == "typing.Literal":
            return [str]
        args = [a for a in get_args(hint) if a not in (type(None), Ellipsis)]
        return [kind for arg in args for kind in kinds(arg)] if args else [hint]

    assert set(kinds(Recipe)) <= {int, float, str, bool, Any}
