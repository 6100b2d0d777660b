"""Whether a component can be built, and its methods called, as those of its kind are."""

from __future__ import annotations

import inspect
from types import FunctionType
from typing import Any

from robustok_core.values.distributions import package_of
from robustok_core.values.wording import short_name

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_ANY_NUMBER = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_METHODS = (FunctionType, classmethod, staticmethod)
#: What components are built with, and those of a kind that needs more.
_BUILT_WITH = ("config",)
_BUILT_WITH_MORE = {"generator": ("config", "space", "num_classes")}


def constructor_problem(kind: str, component: type) -> str | None:
    """What is wrong with a component's constructor that cannot be called as those of its kind are.

    Args:
        kind: its name, "generator". component: the class.
    """
    arguments = _BUILT_WITH_MORE.get(kind, _BUILT_WITH)
    try:
        found = inspect.signature(component)
    except (TypeError, ValueError):  # of a class that is not written in Python
        return None
    try:
        found.bind(*arguments)
    except TypeError:
        bare = _without_types(found)
        return f"its constructor takes {short_name(str(bare))}, and must take ({', '.join(arguments)})"
    return None


def signature_problem(kind: type, component: type) -> str | None:
    """What is wrong with the first public method of a component that cannot be called as that of its kind.

    A component may call positional arguments otherwise, and add optional ones.

    Args:
        kind: the abstract class. component: a subclass.
    """
    ours = [base for base in kind.__mro__ if base.__module__.startswith("robustok_core.kinds.")]  # not torch's
    for name in dict.fromkeys(name for base in ours for name in vars(base) if not name.startswith("_")):
        declared, given = (inspect.getattr_static(owner, name) for owner in (kind, component))
        if declared is given:
            continue
        if isinstance(declared, property) and isinstance(given, FunctionType):
            return f"{name} must be a property"
        if isinstance(declared, classmethod) and isinstance(given, FunctionType):
            return f"{name} must be a classmethod"
        if isinstance(declared, _METHODS) and isinstance(given, _METHODS):
            found, wanted = _signature(component, name), _signature(kind, name)
            if isinstance(declared, FunctionType):  # callers give no `self`
                wanted = wanted.replace(parameters=list(wanted.parameters.values())[1:])
            with_self = isinstance(given, FunctionType)
            if not all(_takes(found, wanted, with_self, optional=optional) for optional in (False, True)):
                return f"{name}{short_name(str(found))} must take {wanted}"
    return None


def _signature(owner: type, name: str) -> inspect.Signature:
    """A method's arguments without their types: "(self, latents, *, draws)"."""
    method = inspect.unwrap(getattr(owner, name), stop=_counts_itself)
    return _without_types(inspect.signature(method, follow_wrapped=False))


def _without_types(signature: inspect.Signature) -> inspect.Signature:
    bare = [each.replace(annotation=inspect.Parameter.empty) for each in signature.parameters.values()]
    return signature.replace(parameters=bare, return_annotation=inspect.Signature.empty)


def _counts_itself(method: Any) -> bool:
    """Whether a method's own arguments count: what torch and the core put around one passes on all."""
    module = str(getattr(method, "__globals__", {}).get("__name__"))
    return package_of(module) not in ("torch", "robustok_core")


def _takes(found: inspect.Signature, wanted: inspect.Signature, with_self: bool, *, optional: bool) -> bool:
    """Whether a method takes what callers pass: by place, or by name where only that is possible.

    Args:
        optional: whether they pass what has a default, too.
    """
    passed = [each for each in wanted.parameters.values() if optional or each.default is inspect.Parameter.empty]
    by_place = [None] * (with_self + sum(each.kind in _POSITIONAL for each in passed))
    by_name = {each.name: None for each in passed if each.kind is inspect.Parameter.KEYWORD_ONLY}
    more = any(each.kind in _ANY_NUMBER for each in wanted.parameters.values())
    bind: Any = found.bind_partial if more else found.bind
    try:
        bind(*by_place, **by_name)
    except TypeError:
        return False
    return True
