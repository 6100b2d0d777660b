"""Registers the generators."""

from __future__ import annotations

from robustok_core.hookspecs import Register, hookimpl


@hookimpl
def robustok_register(register: Register) -> None:
    """Nothing yet."""
