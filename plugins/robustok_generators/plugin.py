"""Registers the generators."""

from __future__ import annotations

from robustok_core.recipe.hookspecs import Register, hookimpl
from robustok_generators.dit import DiT
from robustok_generators.flow_transformer import FlowTransformer
from robustok_generators.llamagen_gpt import LlamaGenGPT
from robustok_generators.maskgit import MaskGIT
from robustok_generators.rar import RAR


@hookimpl
def robustok_register(register: Register) -> None:
    register("generator", "maskgit", MaskGIT)
    register("generator", "rar", RAR)
    register("generator", "llamagen_gpt", LlamaGenGPT)
    register("generator", "flow_transformer", FlowTransformer)
    register("generator", "dit", DiT)
