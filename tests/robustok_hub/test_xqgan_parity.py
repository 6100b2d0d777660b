"""XQGAN's tokenizers, which the importer `robustok` reads, compute what the published code computes."""

from __future__ import annotations

import pytest
import torch
from einops import rearrange
from torch import Tensor

from published import Case, export, millions


def as_map(vectors: Tensor) -> Tensor:
    return rearrange(vectors, "b (h w) d -> b d h w", h=int(vectors.shape[1] ** 0.5))


@torch.no_grad()
def test_it_computes_what_the_published_code_computes(tmp_path):
    case = Case("xqgan_a")
    table, tokenizer, _ = case.load("robustok", tmp_path, num_heads=case.config["num_heads"])
    latents = tokenizer.encode(case.inputs["image"])
    recon = tokenizer.decode(latents)
    given = tokenizer.quantizer.lookup(case.inputs["indices"])
    case.check(
        encoder_tokens=tokenizer.encoder(case.inputs["image"]),
        z=as_map(latents.features),
        indices=latents.codes,
        z_q=as_map(latents.vectors),
        recon=recon,
        recon_clamped=recon.clamp(-1, 1),
        z_q_given=as_map(given),
        decoded_given=tokenizer.decode_vectors(given),
    )
    assert table["quantizer"]["width"] == case.config["codebook_embed_dim"]


def test_export_is_the_inverse_of_import(tmp_path):
    case = Case("xqgan_a")
    _, tokenizer, _ = case.load("robustok", tmp_path, num_heads=4)
    assert case.same_weights(export("robustok", tokenizer))


@pytest.mark.parametrize(("codes", "width"), [(4096, 64), (8192, 32)])
def test_a_published_size_has_its_number_of_parameters(codes, width):
    table = {"use": "vit_vq", "quantizer": {"use": "vq", "codebook_size": codes, "width": width}}
    assert millions("tokenizer", table) == pytest.approx(172.3, abs=0.1)
