"""Recipes: what to run. `compose` turns a name and overrides into a checked, frozen `Recipe`; `load` reads a resolved
one back.
"""

from toolkit.recipe.compose import Composed, compose, list_recipes, load, save
from toolkit.recipe.paths import absolute
from toolkit.recipe.schema import Recipe

__all__ = ["Composed", "Recipe", "absolute", "compose", "list_recipes", "load", "save"]
