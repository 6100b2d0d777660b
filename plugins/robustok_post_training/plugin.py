"""Registers the post-trainers."""

from __future__ import annotations

from robustok_core.recipe.hookspecs import Register, hookimpl
from robustok_post_training.decoder import Decoder
from robustok_post_training.perturbed_decoder import PerturbedDecoder


@hookimpl
def robustok_register(register: Register) -> None:
    register("post_trainer", "decoder", Decoder)
    register("post_trainer", "perturbed_decoder", PerturbedDecoder)
