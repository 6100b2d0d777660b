"""Registers the generators."""

from __future__ import annotations

from robustok_core.hookspecs import Register, hookimpl
from robustok_generators.maskgit import MaskGIT


@hookimpl
def robustok_register(register: Register) -> None:
    """The generators of this package."""
    register("generator", "maskgit", MaskGIT)
