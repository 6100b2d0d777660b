"""GigaTok's tokenizers compute what the published code computes, read from published-style files."""

from __future__ import annotations

import pytest
import torch
from einops import rearrange
from safetensors.torch import save_file
from torch import Tensor

from published import Case, export, import_file, millions
from robustok.testing import check_component
from robustok_core.errors import RobustokError
from robustok_core.recipe.registry import load_registry

OPTIONS = {"encoder_num_heads": 2, "decoder_num_heads": 3, "norm_groups": 4, "semantic_depth": 1}


def as_row(vectors: Tensor) -> Tensor:
    return rearrange(vectors, "b n d -> b d 1 n")


@pytest.fixture
def case() -> Case:
    return Case("gigatok_a")


@torch.no_grad()
def test_it_computes_what_the_published_code_computes(case, tmp_path):
    _, tokenizer, _ = case.load("gigatok", tmp_path, **OPTIONS)
    images = case.inputs["image"]
    latents = tokenizer.encode(images)
    given = tokenizer.quantizer.lookup(case.inputs["indices"])
    case.check(
        cnn_features=tokenizer.encoder(images),
        z=as_row(latents.features),
        indices=latents.codes,
        z_q=as_row(latents.vectors),
        recon=tokenizer.decode(latents),
        decoder_features=tokenizer.map_decoder(tokenizer.post_quant_conv(latents.vectors)),
        inner_feat=tokenizer.semantic_features(latents.vectors),
        z_q_given=as_row(given),
        decoded_given=tokenizer.decode_vectors(given),
    )


def test_its_sizes_are_read_from_its_weights(case, tmp_path):
    table, tokenizer, _ = case.load("gigatok", tmp_path, **OPTIONS)
    config = case.config
    assert table["image_size"] == tokenizer.image_size == config["image"]
    assert table["channel_multipliers"] == config["encoder_ch_mult"]
    assert (table["encoder"]["depth"], table["decoder"]["depth"]) == (2, 2)
    assert (table["num_latent_tokens"], tokenizer.space.grid) == (config["num_latent_tokens"], None)
    assert table["semantic"]["outputs"] == config["out_inner_dim"]
    assert "network" not in table["semantic"], "nothing has to be downloaded to use it"


def test_a_decoder_with_other_channels_than_the_encoder_is_read(case, tmp_path):
    tiny = {"width": 8, "depth": 1, "num_heads": 2}
    table, _, _ = case.load("gigatok", tmp_path, **OPTIONS)
    other = {**table, "decoder_channel_multipliers": [2, 1, 3], "encoder": tiny, "decoder": tiny}
    other.pop("semantic")
    made = load_registry().build("tokenizer", other)
    save_file(dict(export("gigatok", made)), tmp_path / "other.safetensors")
    read, _, _ = import_file("gigatok", tmp_path / "other.safetensors", **{**OPTIONS, "decoder_num_heads": 2})
    assert read["decoder_channel_multipliers"] == [2, 1, 3]
    assert "semantic" not in read


def test_export_is_the_inverse_of_import(case, tmp_path):
    _, tokenizer, _ = case.load("gigatok", tmp_path, **OPTIONS)
    assert case.same_weights(export("gigatok", tokenizer))
    check_component("importer", "gigatok", OPTIONS, file=tmp_path / "weights.safetensors")


def test_averages_are_taken_and_the_window_of_codes_is_dropped_with_a_word(case, tmp_path):
    average = {f"module.{name}": value for name, value in case.weights.items()}
    average["module.quantize.codebook_used"] = torch.zeros(65536)
    zeros = {name: torch.zeros_like(value) for name, value in case.weights.items()}
    torch.save({"model": zeros, "ema": average, "steps": 3}, tmp_path / "VQ.pt")
    _, tokenizer, report = import_file("gigatok", tmp_path / "VQ.pt", **OPTIONS)
    assert tokenizer.quantizer.embedding.any()
    assert report["weights"] == "ema"
    assert "dropped" in report["quantize.codebook_used"]


def test_all_wrong_weights_are_named_in_one_message(case, tmp_path):
    weights = dict(case.weights)
    del weights["s1to2decoder.transformer.1.self_attn.in_proj_bias"]
    weights["s2to1encoder.ln_post.weight"] = torch.ones(3)
    weights["mystery.weight"] = torch.ones(1)
    save_file(weights, tmp_path / "file.safetensors")
    with pytest.raises(RobustokError) as caught:
        import_file("gigatok", tmp_path / "file.safetensors", **OPTIONS)
    for part in (
        "missing s1to2decoder.transformer.1.self_attn.in_proj_bias",
        "wrong shape s2to1encoder.ln_post.weight",
        "unexpected mystery.weight",
    ):
        assert part in caught.value.what


def test_a_llamagen_file_is_refused(tmp_path):
    save_file(Case("llamagen_vq_a").weights, tmp_path / "file.safetensors")
    with pytest.raises(RobustokError, match=r"not a GigaTok tokenizer: it lacks s2to1encoder"):
        import_file("gigatok", tmp_path / "file.safetensors")


@pytest.mark.parametrize(
    ("encoder", "decoder", "published"),
    [("S", "S", 136.1), ("S", "B", 232.4), ("B", "L", 621.6), ("XL", "XXL", 2894.0)],
)
def test_a_published_size_has_its_number_of_parameters(encoder, decoder, published):
    table = {"use": "gigatok", "encoder": {"preset": encoder}, "decoder": {"preset": decoder}, "semantic": {}}
    assert millions("tokenizer", table) == pytest.approx(published, abs=0.1)
