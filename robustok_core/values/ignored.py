"""Options that another option leaves without effect."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import attrs

from robustok_core.values.spec import Spec
from robustok_core.values.wording import short_text

_ACCEPTED: ContextVar[bool] = ContextVar("accepted", default=False)


@contextmanager
def as_it_was_made() -> Iterator[None]:
    """Until it is left, options without effect are accepted: for what exists already, they tell how it was made."""
    token = _ACCEPTED.set(True)
    try:
        yield
    finally:
        _ACCEPTED.reset(token)


def refuse_ignored(config: Any, *names: str, unless: bool, needs: str) -> None:
    """For `__attrs_post_init__`: refuses options that would be ignored, because other options give them no effect.

    Their defaults are accepted: the recipe of a run spells them out. Nothing is refused within `as_it_was_made`.

    Args:
        names: the options. unless: whether they have an effect.
        needs: what gives them one, for the message: 'schedule = "cosine"'.

    Raises:
        ValueError: if they have no effect, and the value of one is not its default.
    """
    if unless or not (ignored := refused_options(config, *names)):
        return
    values = " and ".join(f"{name} = {_text(getattr(config, name))}" for name in ignored)
    has, them = ("has", "it") if len(ignored) == 1 else ("have", "them")
    raise ValueError(f"{values} {has} an effect only with {needs}: leave {them} out, or set that")


def refused_options(config: Any, *names: str) -> list[str]:
    """Those of the named options without effect that are refused: all that are set, none within `as_it_was_made`."""
    return [] if _ACCEPTED.get() else list(changed_options(config, *names))


def changed_options(config: Any, *names: str) -> Iterator[str]:
    """Those of the named options of a configuration whose values are not their defaults."""
    for name in names:
        if not _is_default(attrs.fields_dict(type(config))[name], getattr(config, name)):
            yield name


def _is_default(option: Any, value: Any) -> bool:
    if isinstance(value, Spec) and (table := option.metadata.get("table")) is not None:
        options = {key: given for key, given in table.items() if key != "use"}
        return value.name == table["use"] and bool(value.config == value.factory.Config(**options))
    default = option.default.factory() if isinstance(option.default, attrs.Factory) else option.default  # type: ignore[arg-type]
    return bool(value == default)


def _text(value: Any) -> str:
    return value.name if isinstance(value, Spec) else short_text(value)
