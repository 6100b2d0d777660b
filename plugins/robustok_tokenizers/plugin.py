"""Registers the tokenizers."""

from __future__ import annotations

from robustok_core.recipe.hookspecs import Register, hookimpl
from robustok_tokenizers.conv_vq import ConvVQ
from robustok_tokenizers.diffusers_vae import DiffusersVAE
from robustok_tokenizers.gigatok import GigaTok
from robustok_tokenizers.kl_vae import KLVAE
from robustok_tokenizers.mae_tok import MAETok
from robustok_tokenizers.maskgit_vq import MaskGITVQ
from robustok_tokenizers.open_magvit2 import OpenMAGVIT2
from robustok_tokenizers.rae import RAE
from robustok_tokenizers.titok import TiTok
from robustok_tokenizers.vit_kl import ViTKL
from robustok_tokenizers.vit_vq import ViTVQ


@hookimpl
def robustok_register(register: Register) -> None:
    """Registers each tokenizer under its name in recipes."""
    register("tokenizer", "conv_vq", ConvVQ)
    register("tokenizer", "vit_vq", ViTVQ)
    register("tokenizer", "titok", TiTok)
    register("tokenizer", "gigatok", GigaTok)
    register("tokenizer", "maskgit_vq", MaskGITVQ)
    register("tokenizer", "open_magvit2", OpenMAGVIT2)
    register("tokenizer", "kl_vae", KLVAE)
    register("tokenizer", "mae_tok", MAETok)
    register("tokenizer", "vit_kl", ViTKL)
    register("tokenizer", "rae", RAE)
    register("tokenizer", "diffusers_vae", DiffusersVAE)
