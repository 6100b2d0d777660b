"""Can the images of a data set be read? Some of them are decoded before anything is computed from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from robustok_core.errors import RobustokError
from robustok_core.kinds.boundary import BrokenPromise
from robustok_core.kinds.dataset import Dataset, Images
from robustok_core.kinds.stage import tables_of
from robustok_core.recipe.recipe import NamedStage, ResolvedRecipe
from robustok_core.values.wording import some_names

SPLITS = ("train", "validation")
_FEW_IMAGES = 256  # of each split: they take seconds


def unreadable_at_start(
    recipe: ResolvedRecipe, stages: Sequence[NamedStage], dataset: Callable[[], Dataset]
) -> list[RobustokError]:
    """What `unreadable_images` finds in a few images before the first of these stages, which might find it hours later.

    It finds nothing if none of them reads [data].
    """
    reads = any("data" in tables_of(stage.spec.factory) for stage in stages) and "data" in recipe.tables
    return unreadable_images(recipe, dataset(), _FEW_IMAGES) if reads else []


def unreadable_images(recipe: ResolvedRecipe, data: Dataset, most: int | None) -> list[RobustokError]:
    """A problem for each split of which images cannot be read, counted, with the line of [data].

    Args:
        most: how many images of each split are decoded, evenly spread; None for all.

    Raises:
        BrokenPromise: the data set is not what a plugin's must be.
    """
    where = recipe.source.location(("data",))
    hint = 'mend or remove them, or set on_bad_file = "skip" where the data set has it'
    found = [_unreadable(name, getattr(data, name), most) for name in SPLITS]
    return [RobustokError(f"data: {what}", where=where, hint=hint) for what in found if what is not None]


def _unreadable(name: str, split: Images, most: int | None) -> str | None:
    total = len(split)
    looked_at = total if most is None else min(most, total)
    problems = []
    for number in range(looked_at):
        try:
            split.load([number * total // looked_at])
        except BrokenPromise:
            raise
        except RobustokError as error:
            problems.append(f"{error.where} ({error.what})")
    if not problems:
        return None
    return f"{len(problems):,} of {looked_at:,} images of {name} cannot be read: {some_names(problems)}"
