"""l-DeTok's tokenizers compute what the published code computes, read from published-style files."""

from __future__ import annotations

import pytest
import torch
from einops import rearrange
from safetensors.torch import save_file

from published import Case, export, import_file, millions
from robustok.testing import check_component
from robustok_core.errors import RobustokError
from robustok_core.values.latents import Latents
from robustok_tokenizers.gaussian_posterior import GaussianPosterior

OPTIONS = {"encoder_num_heads": 3, "decoder_num_heads": 2}


@pytest.fixture
def case() -> Case:
    return Case("ldetok_a")


@torch.no_grad()
def test_it_computes_what_the_published_code_computes(case, tmp_path):
    _, tokenizer, _ = case.load("ldetok", tmp_path, **OPTIONS)
    given = case.inputs
    moments = tokenizer.encoder(given["image"])
    posterior = GaussianPosterior.of_moments(moments)
    latents = tokenizer.encode(given["image"])
    recon = tokenizer.decode(latents)
    normalised = (latents.vectors - given["stat_mean"]) / given["stat_std"]  # as a generator of ours does

    order = given["mask_noise"].argsort(dim=1)
    visible = order[:, : case.outputs["masked_tokens"].shape[1]]
    tokens = GaussianPosterior.of_moments(tokenizer.encoder(given["image"], visible)).mean
    hidden = torch.ones(order.shape, dtype=torch.bool).scatter(1, visible, value=False)
    masked = Latents(vectors=tokenizer._with_hidden(tokens, visible), hidden=hidden)
    case.check(
        moments=moments,
        mode=latents.vectors,
        logvar_clamped=posterior.log_variance,
        sample=posterior.mean + posterior.std * given["noise"],
        recon=recon,
        latent_normalised=rearrange(normalised, "b (h w) d -> b d h w", h=4),
        recon01=((recon + 1) / 2).clamp(0, 1),
        decoded_given=tokenizer.decode_vectors(given["latent"]),
        masked_tokens=tokens,
        masked_ids_restore=order.argsort(dim=1),
        masked_recon=tokenizer.decode(masked),
    )


def test_training_hides_the_share_that_the_published_code_hides(case, tmp_path):
    table, tokenizer, _ = case.load("ldetok", tmp_path, **OPTIONS)
    torch.manual_seed(0)
    latents = tokenizer.train().encode(case.inputs["image"])
    assert latents.hidden.dtype == torch.bool
    assert not latents.vectors[latents.hidden].any()
    assert latents[1:].hidden.shape == (1, 16), "what is hidden follows the latents"
    assert tokenizer.decode(latents).shape == (2, 3, 16, 16)
    assert (table["mask_low"], table["mask_high"]) == (-0.1, 0.7)


def test_its_sizes_are_read_from_its_weights(case, tmp_path):
    table, tokenizer, report = case.load("ldetok", tmp_path, **OPTIONS)
    config = case.config
    assert (table["image_size"], table["patch_size"]) == (config["img_size"], config["patch_size"])
    assert (table["encoder"]["width"], table["encoder"]["depth"]) == (config["enc_width"], config["enc_layers"])
    assert (table["decoder"]["width"], table["decoder"]["depth"]) == (config["dec_width"], config["dec_layers"])
    assert tokenizer.space.width == config["token_channels"]
    assert tokenizer.space.grid == (4, 4)
    assert "not in the file" in report["statistics"]


def test_export_is_the_inverse_of_import(case, tmp_path):
    _, tokenizer, _ = case.load("ldetok", tmp_path, **OPTIONS)
    assert case.same_weights(export("ldetok", tokenizer))
    check_component("importer", "ldetok", OPTIONS, file=tmp_path / "weights.safetensors")


def test_averages_are_taken(case, tmp_path):
    zeros = {name: torch.zeros_like(value) for name, value in case.weights.items()}
    torch.save({"model": zeros, "model_ema": case.weights, "epoch": 3}, tmp_path / "detok.pth")
    _, tokenizer, report = import_file("ldetok", tmp_path / "detok.pth", **OPTIONS)
    assert tokenizer.last_layer.any()
    assert report["weights"] == "model_ema"


def test_all_wrong_weights_are_named_in_one_message(case, tmp_path):
    weights = dict(case.weights)
    del weights["decoder.transformer.1.mlp.w3.bias"]
    weights["encoder.ln_post.weight"] = torch.ones(3)
    weights["mystery.weight"] = torch.ones(1)
    save_file(weights, tmp_path / "file.safetensors")
    with pytest.raises(RobustokError) as caught:
        import_file("ldetok", tmp_path / "file.safetensors", **OPTIONS)
    for part in (
        "missing decoder.transformer.1.mlp.w3.bias",
        "wrong shape encoder.ln_post.weight",
        "unexpected mystery.weight",
    ):
        assert part in caught.value.what


def test_a_titok_file_is_refused(tmp_path):
    save_file(Case("titok_rgb_a").weights, tmp_path / "file.safetensors")
    with pytest.raises(RobustokError, match="this is not a DeTok tokenizer: it lacks"):
        import_file("ldetok", tmp_path / "file.safetensors")


def test_bb_has_its_number_of_parameters():
    assert millions("tokenizer", {"use": "vit_kl", "style": "detok"}) == pytest.approx(171.71, abs=0.005)
