"""Autoencoders of diffusers compute what diffusers computes, continuous and discrete."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from robustok.testing import check_component
from robustok_core import LatentSpace, RobustokError
from robustok_core.recipe.registry import load_registry

COMMON = {
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "block_out_channels": (8, 16),
    "norm_num_groups": 4,
    "latent_channels": 4,
}
DEEP = {
    "latent_channels": 4,
    "attention_head_dim": 4,
    "scaling_factor": 0.5,
    **{f"{half}_block_types": ("ResBlock", "EfficientViTBlock") for half in ("encoder", "decoder")},
    **{f"{half}_block_out_channels": (8, 16) for half in ("encoder", "decoder")},
    **{f"{half}_layers_per_block": (1, 1) for half in ("encoder", "decoder")},
    **{f"{half}_qkv_multiscales": ((), (5,)) for half in ("encoder", "decoder")},
}
OPTIONS = {
    "AutoencoderKL": {"scaling_factor": 0.5, "shift_factor": 0.25},
    "VQModel": {"num_vq_embeddings": 16, "vq_embed_dim": 3},
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Callable[..., tuple[object, str]]:
    """A diffusers model of a kind with random weights, and the folder it is saved in."""
    import diffusers

    def make(kind: str, **options: object) -> tuple[object, str]:
        torch.manual_seed(0)
        sizes = DEEP if kind == "AutoencoderDC" else {**COMMON, **OPTIONS[kind]} if kind in OPTIONS else {}
        model = getattr(diffusers, kind)(**{**sizes, **options}).eval()
        folder = tmp_path_factory.mktemp(kind)
        model.save_pretrained(folder)
        return model, str(folder)

    return make


def build(source: str, **options: object):
    return load_registry().build("tokenizer", {"use": "diffusers_vae", "source": source, "image_size": 16, **options})


def images() -> Tensor:
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


def as_map(vectors: Tensor) -> Tensor:
    return vectors.transpose(1, 2).unflatten(2, (8, 8))


# --- continuous -----------------------------------------------------------------------------------


@torch.no_grad()
def test_latents_are_those_that_its_diffusion_models_read(saved):
    model, folder = saved("AutoencoderKL")
    tokenizer = build(folder).eval()
    mean = model.encode(images()).latent_dist.mode()
    latents = tokenizer.encode(images())
    torch.testing.assert_close(as_map(latents.vectors), (mean - 0.25) * 0.5)
    torch.testing.assert_close(tokenizer.decode(latents), model.decode(mean).sample, atol=1e-5, rtol=1e-4)
    assert tokenizer.space == LatentSpace(kind="continuous", num_tokens=64, width=4, grid=(8, 8))


def test_training_samples_from_the_posterior_with_the_divergence_in_the_posteriors_units(saved):
    model, folder = saved("AutoencoderKL")
    tokenizer = build(folder, kl_weight=0.5).train()
    posterior = model.encode(images()).latent_dist
    torch.testing.assert_close(tokenizer.encode(images()).losses["kl"], 0.5 * posterior.kl().mean())
    draws = torch.stack([tokenizer.encode(images()).vectors for _ in range(300)])
    expected = posterior.std.flatten(2).transpose(1, 2) * 0.5
    assert (draws.std(0) / expected - 1).abs().max() < 5 / 600**0.5


@torch.no_grad()
@pytest.mark.parametrize("without", [{}, {"use_quant_conv": False, "use_post_quant_conv": False, "shift_factor": None}])
def test_models_without_quant_convolutions_or_shift_work_too(saved, without):
    model, folder = saved("AutoencoderKL", **without)
    tokenizer = build(folder).eval()
    expected = model(images()).sample
    torch.testing.assert_close(tokenizer.decode(tokenizer.encode(images())), expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_deep_compression_autoencoder_is_deterministic_and_scaled(saved):
    model, folder = saved("AutoencoderDC")
    tokenizer = build(folder).eval()
    latent = model.encode(images()).latent
    latents = tokenizer.encode(images())
    torch.testing.assert_close(as_map(latents.vectors), 0.5 * latent)
    torch.testing.assert_close(tokenizer.decode(latents), model.decode(latent).sample, atol=1e-5, rtol=1e-4)
    assert not tokenizer.train().encode(images()).losses
    with pytest.raises(RobustokError, match="holds a AutoencoderDC, which has no posterior"):
        build(folder, kl_weight=0.5)


def test_a_deep_compression_autoencoder_keeps_what_its_kind_promises(saved):
    _, folder = saved("AutoencoderDC")
    check_component("tokenizer", "diffusers_vae", {"source": folder, "image_size": 16}, registry=load_registry())


def representation_autoencoder(saved: Callable[..., tuple[object, str]]) -> tuple[object, str]:
    """An AutoencoderRAE for images of 16 x 16, in 2 x 2 tokens."""
    pytest.importorskip("transformers")
    sizes = {"encoder_hidden_size": 64, "encoder_num_hidden_layers": 1, "encoder_input_size": 28, "patch_size": 8}
    decoder = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    statistics = {"latents_mean": torch.randn(64, 2, 2), "latents_std": torch.rand(64, 2, 2) + 0.5}
    options = {f"decoder_{name}": value for name, value in decoder.items()}
    return saved("AutoencoderRAE", **sizes, **options, **statistics, scaling_factor=0.5, noise_tau=0.8)


@torch.no_grad()
def test_a_representation_autoencoder_gives_normalised_features(saved):
    model, folder = representation_autoencoder(saved)
    tokenizer = build(folder).eval()
    latent = model.encode((images() + 1) / 2).latent
    latents = tokenizer.encode(images())
    torch.testing.assert_close(latents.vectors.transpose(1, 2).unflatten(2, (2, 2)), latent)
    torch.testing.assert_close(tokenizer.decode(latents), 2 * model.decode(latent).sample - 1, atol=1e-5, rtol=1e-4)
    with pytest.raises(RobustokError, match="is for images of 16 pixels, not of 32"):
        build(folder, image_size=32)


def test_a_representation_autoencoder_keeps_what_its_kind_promises(saved):
    _, folder = representation_autoencoder(saved)
    check_component("tokenizer", "diffusers_vae", {"source": folder, "image_size": 16}, registry=load_registry())


def test_an_encoder_of_a_package_that_is_missing_is_refused_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "AutoencoderRAE"}))
    with pytest.raises(RobustokError, match="has an encoder of the package transformers"):
        build(str(tmp_path))


# --- discrete -------------------------------------------------------------------------------------


@torch.no_grad()
def test_codes_are_those_of_the_models_quantizer(saved):
    model, folder = saved("VQModel")
    tokenizer = build(folder).eval()
    hidden = model.encode(images()).latents
    codewords, _, (_, _, codes) = model.quantize(hidden)
    latents = tokenizer.encode(images())
    assert torch.equal(latents.codes.flatten(), codes)
    assert len(codes.unique()) > 1
    torch.testing.assert_close(as_map(latents.vectors), codewords, atol=1e-6, rtol=1e-5)
    expected = model.decode(hidden).sample
    torch.testing.assert_close(tokenizer.decode(latents), expected, atol=1e-5, rtol=1e-4)
    assert torch.equal(tokenizer.decode(latents.evolve(vectors=None)), tokenizer.decode(latents))
    assert tokenizer.space == LatentSpace(kind="discrete", num_tokens=64, width=3, codebook_size=16, grid=(8, 8))


def test_the_codebook_is_trained_and_the_gradient_passes_straight_through(saved):
    _, folder = saved("VQModel")
    tokenizer = build(folder).train()
    latents = tokenizer.encode(images())
    weights = torch.randn(latents.vectors.shape)
    gradient = torch.autograd.grad((latents.vectors * weights).sum(), latents.features, retain_graph=True)[0]
    assert torch.equal(gradient, weights)
    latents.losses["codebook"].backward(retain_graph=True)
    assert tokenizer.quantizer.embedding.grad.abs().sum() > 0
    assert tokenizer.encoder.conv_in.weight.grad is None
    latents.losses["commitment"].backward()
    assert tokenizer.encoder.conv_in.weight.grad.abs().sum() > 0
    torch.testing.assert_close(latents.losses["commitment"], 0.25 * latents.losses["codebook"])


def test_the_papers_perturbation_works_on_its_codes(saved):
    from robustok_core import Draws

    _, folder = saved("VQModel")
    tokenizer = build(folder).eval()
    perturbation = load_registry().build("perturbation", {"use": "top_delta", "beta": 1.0, "delta": 4})
    perturbation.check(tokenizer.space, 2)
    latents = tokenizer.encode(images())
    perturbed, mask = perturbation.perturb(latents, tokenizer.quantizer, draws=Draws.for_rows(0, 2), progress=0.0)
    assert mask.all()
    assert not torch.equal(perturbed.codes, latents.codes)


# --- where it comes from --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", OPTIONS)
def test_the_meta_device_needs_no_weights(kind, saved):
    _, folder = saved(kind)
    expected = build(folder).state_dict().keys()
    Path(folder, "diffusion_pytorch_model.safetensors").unlink()
    with torch.device("meta"):
        planned = build(folder)
    assert planned.state_dict().keys() == expected
    assert all(value.is_meta for value in planned.state_dict().values())


def test_a_model_inside_a_pipeline_is_found_in_its_subfolder(saved):
    model, folder = saved("AutoencoderKL")
    model.save_pretrained(Path(folder) / "vae")
    assert build(folder, subfolder="vae").space.width == 4
    with pytest.raises(RobustokError, match="has no subfolder 'unet'"):
        build(folder, subfolder="unet")


def test_foreign_models_sizes_and_sources_are_refused_in_one_line(saved, tmp_path):
    _, folder = saved("AutoencoderKL")
    with pytest.raises(RobustokError, match="image_size 15 is not a multiple of 2"):
        build(folder, image_size=15)
    with pytest.raises(RobustokError, match="holds a VQModel, which has no posterior"):
        build(saved("VQModel")[1], kl_weight=0.5)
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    weights = broken / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(RobustokError, match="broken cannot be loaded"):
        build(str(broken))
    with pytest.raises(RobustokError, match="no such folder: '/nowhere/at/all'"):
        build("/nowhere/at/all")
    with pytest.raises(RobustokError, match="cannot be loaded"):
        build(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "AutoencoderTiny"}))
    with pytest.raises(RobustokError, match='holds "AutoencoderTiny"; supported: AutoencoderKL, VQModel'):
        build(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "VQModel", "norm_type": "spatial"}))
    with pytest.raises(RobustokError, match='has norm_type = "spatial"'):
        build(str(tmp_path))


def test_without_the_package_the_error_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(RobustokError, match="needs the package diffusers") as raised:
        build(str(tmp_path))
    assert raised.value.hint == 'pip install "robustok[diffusers]"'
