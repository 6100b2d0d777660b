"""Registers the quantizers."""

from __future__ import annotations

from robustok_core.hookspecs import Register, hookimpl
from robustok_quantizers.vq import VQ


@hookimpl
def robustok_register(register: Register) -> None:
    """Registers each quantizer under its name in recipes."""
    register("quantizer", "vq", VQ)
