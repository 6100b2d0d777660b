"""Where code of plugins is called: what its methods return is checked, and a breach names the component and method."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from attrs import frozen

from robustok_core.errors import RunError
from robustok_core.values.distributions import owner_of

#: A check of what a method returned: `check(call, result, *args, **kwargs)` with the arguments of the method.
Check = Callable[..., None]

_NAME = "_robustok_name"
_SEEN = "_robustok_values_seen"


class BrokenPromise(RunError):
    """A component does not do what its kind promises."""


class Boundary:
    """A class that plugins subclass.

    Attributes:
        returns: the check of what a method returns, by the method's name. It is made wherever the method is called
            from; where an override calls the method that it overrides, only what the override returns is checked.
        built: a check of the attributes, after the constructor.
    """

    returns: ClassVar[Mapping[str, Check]] = {}
    built: ClassVar[Check | None] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, check in cls.returns.items():
            method: Any = getattr(cls, name, None)
            is_code = inspect.isfunction(method) and not getattr(method, "__isabstractmethod__", False)
            if is_code and not hasattr(method, "checks_result"):
                setattr(cls, name, _checked(method, name, check))

    def built_as(self, name: str) -> None:
        """Called when it is built: `name` is its registered name, for messages.

        Raises:
            BrokenPromise: an attribute is not what its kind promises.
        """
        if hasattr(self, "__dict__"):
            self.__dict__[_NAME] = name
        if (check := type(self).built) is not None:
            check(Call(self, "__init__"))


@frozen
class Call:
    """A call of a component's method, whose result is checked."""

    component: Any
    method: str

    def require(self, holds: bool, message: str) -> None:
        """Raises BrokenPromise, which names the component and the method, unless `holds`."""
        if not holds:
            kind, name, factory = kind_of(self.component), name_of(self.component), type(self.component)
            where = f"{factory.__module__}.{factory.__qualname__}.{self.method}"
            hint = f"it comes from {owner_of(factory.__module__)}; `robustok.testing.check_component` checks it"
            raise BrokenPromise(f"{kind} {name!r}: {message}", where=where, hint=hint)

    def looks_at_values(self) -> bool:
        """Whether this call's values are checked too: those of the first one, since reading them waits for a device."""
        seen = getattr(self.component, "__dict__", {}).setdefault(_SEEN, set())
        key = (self.method, torch.is_grad_enabled())
        if key in seen:
            return False
        seen.add(key)
        return True


def name_of(component: Any) -> str:
    """The registered name of a component, or its class's name if it was built by hand."""
    name = getattr(component, "__dict__", {}).get(_NAME)
    return name if isinstance(name, str) else type(component).__name__


def kind_of(component: Any) -> str:
    """The kind of a component in words: "sample metric", "images"."""
    kinds = [base for base in type(component).__mro__ if base.__module__.startswith("robustok_core.kinds.")]
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kinds[0].__name__).lower() if kinds else "component"


def _checked(method: Callable[..., Any], name: str, check: Check) -> Callable[..., Any]:
    @functools.wraps(method)
    def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = method(self, *args, **kwargs)
        if getattr(type(self), name, None) is checked:  # else an override called it, whose own result is checked
            check(Call(self, name), result, *args, **kwargs)
        return result

    checked.checks_result = True  # type: ignore[attr-defined]
    return checked
