"""Foreign values, names and exceptions in messages: in few words, however many or long they are."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Number
from typing import Any


def short(value: Any) -> str:
    """A value's type and text for a message, cut to 60 characters: "str 'abc'"."""
    return f"{type(value).__name__} {short_text(value)}"


def short_text(value: Any) -> str:
    """A value's text for a message, cut to 60 characters."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # Python refuses to print numbers of more than 4,300 digits
        return "too large to print"
    return text if len(text) <= 60 else f"{text[:60]}..."


def short_name(name: str) -> str:
    """A name for a message, cut to 200 characters."""
    return name if len(name) <= 200 else f"{name[:200]}..."


def described(value: Any) -> str:
    """A value's type, with the shape and dtype of a tensor or array: "Tensor (2, 16) of torch.int64"."""
    kind = type(value).__name__
    if isinstance(value, Number) or not (hasattr(value, "shape") and hasattr(value, "dtype")):
        return kind
    return f"{kind} {tuple(value.shape)} of {value.dtype}"


def some_names(names: Sequence[str], most: int = 3) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def reason_of(error: BaseException) -> str:
    """The first line of an exception's text, or its type."""
    return next((line for line in _text_of(error).splitlines() if line.strip()), type(error).__name__)


def failure_of(error: BaseException) -> str:
    """The type and text of what a plugin raised; an interrupt is the user's and is raised again.

    A plugin may raise what is no Exception: `sys.exit`, a cancelled task, or what an extension in Rust ends with.
    """
    if isinstance(error, KeyboardInterrupt):
        raise error
    return f"{type(error).__name__}: {_text_of(error)}"


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # the exception's own bug
        return "its text cannot be shown"
