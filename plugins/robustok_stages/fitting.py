"""Whether the parts of a recipe fit each other, found out before anything runs."""

from __future__ import annotations

from robustok_core.errors import RobustokError
from robustok_core.interfaces import Tokenizer
from robustok_core.stages import StageContext


def check_tokenizer(context: StageContext) -> Tokenizer:
    """[tokenizer] on the meta device, after its image size was compared with that of [data].

    Raises:
        RobustokError: where the sizes differ.
    """
    tokenizer: Tokenizer = context.sketch("tokenizer")
    check_size(tokenizer, context)
    return tokenizer


def check_size(tokenizer: Tokenizer, context: StageContext) -> None:
    """Compares a tokenizer's image size with that of [data].

    Raises:
        RobustokError: where they differ.
    """
    size = context.dataset().image_size
    if tokenizer.image_size != size:
        raise RobustokError(
            f"tokenizer.image_size is {tokenizer.image_size}, but the images of [data] are {size} pixels wide",
            where=context.recipe.source.place(("tokenizer",)),
            hint=f"set tokenizer.image_size = {size}, or data.image_size = {tokenizer.image_size}",
        )
