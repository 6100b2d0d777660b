"""The VQGAN family's tokenizers compute what the published code computes, read from files in taming's layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from einops import rearrange
from safetensors.torch import save_file
from torch import Tensor

from published import Case, export
from robustok.testing import check_component
from robustok_core.errors import RobustokError
from robustok_core.recipe.registry import load_registry
from robustok_tokenizers.gaussian_posterior import GaussianPosterior

FIXTURES = {"taming_vq": "taming_vq_a", "vqgan_lc": "vqgan_lc_a", "ibq": "ibq_a", "ldm_vae": "vavae_a"}
DISCRETE = ["taming_vq", "vqgan_lc", "ibq"]
OPTIONS = {"image_size": 16, "norm_groups": 4}
#: Quantizers of these formats, as small as can be.
QUANTIZERS = {
    "taming_vq": {"use": "vq", "codebook_size": 16, "width": 5, "l2_normalise": False},
    "vqgan_lc": {"use": "projected_vq", "codebook_size": 16, "width": 5, "table_width": 7},
    "ibq": {"use": "ibq", "codebook_size": 16, "width": 5},
}
SMALL = {"image_size": 16, "channels": 8, "norm_groups": 4, "z_channels": 6, "num_res_blocks": 1}
#: The published sizes: the options that differ from those of `conv_vq` and `kl_vae`, and millions of numbers.
PUBLISHED = {
    "taming f16 16384": ("taming_vq", {}, {"codebook_size": 16384, "width": 256}, 76.07),
    "taming f16 1024": ("taming_vq", {}, {"codebook_size": 1024, "width": 256}, 76.07 - 0.256 * 15.36),
    "IBQ 16384": ("ibq", {"num_res_blocks": 4}, {"codebook_size": 16384, "width": 256}, 110.98),
    "IBQ 262144": ("ibq", {"num_res_blocks": 4}, {"codebook_size": 262144, "width": 256}, 110.98 + 0.256 * 245.76),
    "VQGAN-LC": ("vqgan_lc", {}, {"codebook_size": 100_000, "width": 8, "table_width": 768}, 71.76 + 76.8),
    "VA-VAE": ("ldm_vae", {"z_channels": 32, "width": 32}, None, 69.84),
    "Stable Diffusion": (
        "ldm_vae",
        {"channel_multipliers": [1, 2, 4, 4], "attention_levels": [], "z_channels": 4, "width": 4},
        None,
        83.65,
    ),
}


def table_of(importer: str, options: dict[str, Any], quantizer: dict[str, Any] | None) -> dict[str, Any]:
    """The recipe table of a tokenizer that an importer's format holds."""
    if importer == "ldm_vae":
        return {"use": "kl_vae", "double_z": True, **options}
    return {"use": "conv_vq", **options, "quantizer": {**QUANTIZERS[importer], **(quantizer or {})}}


def read(importer: str, weights: dict[str, Tensor], folder: Path, **options: object):
    save_file(weights, folder / "file.safetensors")
    registry = load_registry()
    built = registry.build("importer", {"use": importer, **OPTIONS, **options})
    return built.load(folder / "file.safetensors", registry)


def refusal(importer: str, weights: dict[str, Tensor], folder: Path) -> str:
    with pytest.raises(RobustokError) as caught:
        read(importer, weights, folder)
    return caught.value.what


def as_map(vectors: Tensor) -> Tensor:
    return rearrange(vectors, "b (h w) d -> b d h w", h=int(vectors.shape[1] ** 0.5))


@torch.no_grad()
@pytest.mark.parametrize("importer", DISCRETE)
def test_discrete_tokenizers_compute_what_the_published_code_computes(importer, tmp_path):
    case = Case(FIXTURES[importer])
    _, tokenizer, _ = read(importer, case.weights, tmp_path)
    latents = tokenizer.encode(case.inputs["image"])
    given = tokenizer.quantizer.lookup(case.inputs["indices"])
    more = {"codebook": tokenizer.quantizer.codebook} if importer == "vqgan_lc" else {}
    case.check(
        z=as_map(latents.features),
        indices=latents.codes,
        z_q=as_map(latents.vectors),
        recon=tokenizer.decode(latents),
        z_q_given=as_map(given),
        decoded_given=tokenizer.decode_vectors(given),
        **more,
    )


@torch.no_grad()
def test_va_vae_computes_what_the_published_code_computes(tmp_path):
    case = Case("vavae_a")
    _, tokenizer, _ = read("ldm_vae", case.weights, tmp_path)
    latents = tokenizer.encode(case.inputs["image"])
    moments = tokenizer.tokens(case.inputs["image"])
    posterior = GaussianPosterior.of_moments(moments)
    case.check(
        moments=as_map(moments),
        mode=as_map(latents.vectors),
        logvar_clamped=as_map(posterior.log_variance),
        sample=as_map(posterior.mean) + as_map(posterior.std) * case.inputs["noise"],
        recon=tokenizer.decode(latents),
        decoded_given=tokenizer.decode_vectors(rearrange(case.inputs["latent"], "b d h w -> b (h w) d")),
    )


@pytest.mark.parametrize("importer", FIXTURES)
def test_export_is_the_inverse_of_import(importer, tmp_path):
    weights = Case(FIXTURES[importer]).weights
    exported = export(importer, read(importer, weights, tmp_path)[1])
    assert exported.keys() == weights.keys()
    assert all(torch.equal(exported[name], value) for name, value in weights.items())


@pytest.mark.parametrize("importer", FIXTURES)
def test_an_importer_keeps_what_its_kind_promises(importer, tmp_path):
    save_file(Case(FIXTURES[importer]).weights, tmp_path / "file.safetensors")
    check_component("importer", importer, OPTIONS, registry=load_registry(), file=tmp_path / "file.safetensors")


@pytest.mark.parametrize("importer", FIXTURES)
@pytest.mark.parametrize(
    "options",
    [
        {"channel_multipliers": [1, 2, 1]},
        {"channel_multipliers": [1, 3], "attention_levels": [0, 1], "num_res_blocks": 2},
        {"channel_multipliers": [2, 1], "attention_levels": []},
        {"channel_multipliers": [1], "attention": False},
    ],
)
def test_sizes_follow_from_the_weights(importer, options, tmp_path):
    torch.manual_seed(0)
    table = table_of(importer, SMALL | options, None)
    tokenizer = load_registry().build("tokenizer", table).eval()
    found, again, _ = read(importer, export(importer, tokenizer), tmp_path)
    assert found["channel_multipliers"] == options["channel_multipliers"]
    assert found["num_res_blocks"] == options.get("num_res_blocks", 1)
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    assert torch.equal(again.decode(again.encode(images)), tokenizer.decode(tokenizer.encode(images)))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes_have_the_published_number_of_parameters(name):
    importer, options, quantizer, millions = PUBLISHED[name]
    with torch.device("meta"):
        tokenizer = load_registry().build("tokenizer", table_of(importer, options, quantizer))
    count = sum(value.numel() for value in export(importer, tokenizer).values())
    assert count / 1e6 == pytest.approx(millions, abs=0.01)


@pytest.mark.parametrize("importer", FIXTURES)
def test_running_averages_are_read_where_the_file_has_them(importer, tmp_path):
    weights = Case(FIXTURES[importer]).weights
    raw = {name: torch.zeros_like(value) for name, value in weights.items()}
    averages = {f"model_ema.{name.replace('.', '')}": value for name, value in weights.items()}
    counters = {"model_ema.decay": torch.tensor(0.999), "model_ema.num_updates": torch.tensor(7)}
    _, tokenizer, report = read(importer, raw | averages | counters, tmp_path)
    assert all(torch.equal(value, weights[name]) for name, value in export(importer, tokenizer).items())
    assert "model_ema" in report["weights"]


def test_an_average_without_a_weight_is_named(tmp_path):
    weights = Case("ibq_a").weights
    assert "unexpected model_ema.mystery" in refusal("ibq", weights | {"model_ema.mystery": torch.ones(1)}, tmp_path)


@pytest.mark.parametrize(
    ("importer", "prefix"),
    [
        ("taming_vq", "loss.perceptual_loss."),
        ("ibq", "loss.discriminator."),
        ("vqgan_lc", "discriminator."),
        ("vqgan_lc", "perceptual_loss."),
        ("ldm_vae", "foundation_model."),
        ("ldm_vae", "linear_proj."),
    ],
)
def test_what_only_training_needs_is_dropped_and_reported(importer, prefix, tmp_path):
    weights = Case(FIXTURES[importer]).weights | {f"{prefix}weight": torch.ones(2)}
    report = read(importer, weights, tmp_path)[2]
    (line,) = [text for name, text in report.items() if prefix.startswith(name.removesuffix("*"))]
    assert "dropped 1 weights" in line


def test_the_autoencoder_in_a_whole_diffusion_checkpoint_is_read(tmp_path):
    weights = {f"first_stage_model.{name}": value for name, value in Case("vavae_a").weights.items()}
    unet = {"model.diffusion_model.weight": torch.ones(2), "model_ema.diffusion_modelweight": torch.ones(2)}
    _, tokenizer, report = read("ldm_vae", weights | unet, tmp_path)
    assert torch.equal(tokenizer.quant_conv.weight, weights["first_stage_model.quant_conv.weight"])
    assert "dropped 2 weights" in report["the others"]


def test_an_autoencoder_without_convolutions_at_its_latents_is_read(tmp_path):
    table = table_of("ldm_vae", SMALL | {"channel_multipliers": [1, 2], "latent_convs": False, "width": 6}, None)
    tokenizer = load_registry().build("tokenizer", table)
    found, again, _ = read("ldm_vae", export("ldm_vae", tokenizer), tmp_path)
    assert found["latent_convs"] is False
    assert torch.equal(again.pixel_decoder.conv_in.weight, tokenizer.pixel_decoder.conv_in.weight)


@pytest.mark.parametrize("importer", FIXTURES)
def test_missing_unexpected_and_misshaped_weights_are_named_together(importer, tmp_path):
    weights = Case(FIXTURES[importer]).weights
    del weights["decoder.up.1.block.0.conv1.weight"]
    weights |= {"mystery": torch.ones(1), "decoder.conv_out.bias": torch.ones(4)}
    what = refusal(importer, weights, tmp_path)
    assert "missing decoder.up.1.block.0.conv1.weight" in what
    assert "unexpected mystery" in what
    assert "wrong shape decoder.conv_out.bias: (4,) instead of (3,)" in what


@pytest.mark.parametrize("importer", FIXTURES)
def test_files_of_other_systems_are_refused(importer, tmp_path):
    assert "it lacks encoder.down.0.block.0.conv1.weight" in refusal(importer, Case("llamagen_vq_a").weights, tmp_path)


def test_only_vqgan_lc_has_a_projected_table(tmp_path):
    assert "it lacks quantize.embedding.weight" in refusal("ibq", Case("vqgan_lc_a").weights, tmp_path)
    assert "it lacks tok_embeddings.weight" in refusal("vqgan_lc", Case("ibq_a").weights, tmp_path)


@pytest.mark.parametrize("importer", FIXTURES)
def test_tokenizers_that_the_format_cannot_hold_are_not_exported(importer):
    others = [table_of(name, SMALL | {"channel_multipliers": [1, 1]}, None) for name in FIXTURES if name != importer]
    own = table_of(importer, SMALL | {"channel_multipliers": [1, 1]}, None)
    others += [own | {"decoder_channel_multipliers": [1, 2]}, own | {"stem_patch": 2}, own | {"middle": False}]
    for table in others:
        tokenizer = load_registry().build("tokenizer", table)
        with pytest.raises(RobustokError, match="this published format holds only"):
            export(importer, tokenizer)
