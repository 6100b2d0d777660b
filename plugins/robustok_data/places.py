"""Paths from recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attrs import NOTHING, field

from robustok_core.errors import RobustokError


def place_field(doc: str, *, default: Any = NOTHING) -> Any:
    """An option that says where data lie. It is part of no fingerprint: that of the data covers what lies there."""
    return field(default=default, metadata={"doc": doc, "result": False})


def local(text: str, key: str = "path") -> Path:
    """A path as written in a recipe, with ~ expanded.

    Args:
        text: the path. key: the option that it is from, for the message.

    Raises:
        RobustokError: it cannot be a path.
    """
    if "\0" in text or not text:
        what = "a path cannot be empty" if not text else "a path cannot hold a NUL character"
        raise RobustokError(what, where=key, hint=f"check the key `{key}`")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # there is no such user, or no home folder
        raise RobustokError(
            f"~ is not known: {error}", where=f"{key} = {text!r}", hint="write the whole path"
        ) from error
