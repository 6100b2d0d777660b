"""What several commands do with their arguments."""

from __future__ import annotations

from robustok_core.recipe import Recipe
from robustok_core.recipe_source import parse_override


def load_recipe(name: str, changes: tuple[str, ...] = (), presets: tuple[str, ...] = ()) -> Recipe:
    """The recipe that RECIPE, --set and --preset describe."""
    return Recipe.load(name, overrides=dict(parse_override(change) for change in changes), presets=presets)
