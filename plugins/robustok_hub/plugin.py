"""Registers the importers."""

from __future__ import annotations

from robustok_core.recipe.hookspecs import Register, hookimpl
from robustok_hub.gigatok import GigaTokImporter
from robustok_hub.ldetok import LDeTokImporter
from robustok_hub.lightningdit import LightningDiTImporter
from robustok_hub.llamagen_gpt import LlamaGenGPTImporter
from robustok_hub.llamagen_vq import LlamaGenVQ
from robustok_hub.maetok import MAETokImporter
from robustok_hub.rar import RARImporter
from robustok_hub.robustok import RobusTok
from robustok_hub.sit import SiTImporter
from robustok_hub.softvq import SoftVQImporter
from robustok_hub.titok import TiTokImporter


@hookimpl
def robustok_register(register: Register) -> None:
    register("importer", "robustok", RobusTok)
    register("importer", "llamagen_vq", LlamaGenVQ)
    register("importer", "rar", RARImporter)
    register("importer", "llamagen_gpt", LlamaGenGPTImporter)
    register("importer", "sit", SiTImporter)
    register("importer", "lightningdit", LightningDiTImporter)
    register("importer", "maetok", MAETokImporter)
    register("importer", "titok", TiTokImporter)
    register("importer", "gigatok", GigaTokImporter)
    register("importer", "softvq", SoftVQImporter)
    register("importer", "ldetok", LDeTokImporter)
