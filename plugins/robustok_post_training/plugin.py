"""Registers the post-trainers."""

from __future__ import annotations

from robustok_core.recipe.hookspecs import Register, hookimpl
from robustok_post_training.decoder import Decoder


@hookimpl
def robustok_register(register: Register) -> None:
    register("post_trainer", "decoder", Decoder)
