"""Registers the importers."""

from __future__ import annotations

from robustok_core.recipe.hookspecs import Register, hookimpl
from robustok_hub.diffusers_layout import DiffusersLayout
from robustok_hub.dit import DiTImporter
from robustok_hub.gigatok import GigaTokImporter
from robustok_hub.ibq import IBQImporter
from robustok_hub.ldetok import LDeTokImporter
from robustok_hub.ldm_vae import LDMVAE
from robustok_hub.lightningdit import LightningDiTImporter
from robustok_hub.llamagen_gpt import LlamaGenGPTImporter
from robustok_hub.llamagen_vq import LlamaGenVQ
from robustok_hub.maetok import MAETokImporter
from robustok_hub.maskgit_vq import MaskGITVQImporter
from robustok_hub.open_magvit2 import OpenMAGVIT2Importer
from robustok_hub.rae import RAEImporter
from robustok_hub.rar import RARImporter
from robustok_hub.robustok import RobusTok
from robustok_hub.sit import SiTImporter
from robustok_hub.softvq import SoftVQImporter
from robustok_hub.taming_vq import TamingVQ
from robustok_hub.titok import TiTokImporter
from robustok_hub.vqgan_lc import VQGANLC


@hookimpl
def robustok_register(register: Register) -> None:
    register("importer", "robustok", RobusTok)
    register("importer", "llamagen_vq", LlamaGenVQ)
    register("importer", "rar", RARImporter)
    register("importer", "llamagen_gpt", LlamaGenGPTImporter)
    register("importer", "sit", SiTImporter)
    register("importer", "lightningdit", LightningDiTImporter)
    register("importer", "dit", DiTImporter)
    register("importer", "maetok", MAETokImporter)
    register("importer", "taming_vq", TamingVQ)
    register("importer", "vqgan_lc", VQGANLC)
    register("importer", "ibq", IBQImporter)
    register("importer", "ldm_vae", LDMVAE)
    register("importer", "diffusers", DiffusersLayout)
    register("importer", "maskgit_vq", MaskGITVQImporter)
    register("importer", "open_magvit2", OpenMAGVIT2Importer)
    register("importer", "titok", TiTokImporter)
    register("importer", "gigatok", GigaTokImporter)
    register("importer", "softvq", SoftVQImporter)
    register("importer", "ldetok", LDeTokImporter)
    register("importer", "rae", RAEImporter)
