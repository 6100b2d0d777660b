"""MaskGIT's VQGAN and Open-MAGVIT2 compute what the published code computes, read from published-style files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from einops import rearrange
from safetensors.torch import save_file
from torch import Tensor

from published import Case, export, import_file, millions
from robustok.testing import check_component
from robustok_core.errors import RobustokError
from robustok_core.recipe.registry import load_registry

SYSTEMS = ["maskgit_vq", "open_magvit2"]
QUANTIZERS = {
    "maskgit_vq": {"use": "vq", "codebook_size": 16, "width": 5, "l2_normalise": False},
    "open_magvit2": {"use": "lfq", "width": 5, "lowest_bit_first": True},
}
SMALL = {"image_size": 16, "channels": 8, "norm_groups": 4, "num_res_blocks": 1}
every = pytest.mark.parametrize("system", SYSTEMS)


def fixture(system: str, folder: Path):
    """The parity file, and the table, tokenizer and report of its importer."""
    case = Case(f"{system}_a")
    return case, *case.load(system, folder, image_size=16, norm_groups=case.config["group_norm_groups"])


def small(system: str, **options: Any):
    torch.manual_seed(0)
    table = {"use": system, **SMALL, "channel_multipliers": [1, 2], "quantizer": QUANTIZERS[system], **options}
    return load_registry().build("tokenizer", table).eval()


def read(system: str, weights: dict[str, Tensor], folder: Path):
    save_file(weights, folder / "file.safetensors")
    return import_file(system, folder / "file.safetensors", image_size=16, norm_groups=4)


def as_map(vectors: Tensor) -> Tensor:
    return rearrange(vectors, "b (h w) d -> b d h w", h=int(vectors.shape[1] ** 0.5))


@torch.no_grad()
def test_maskgits_vqgan_computes_what_the_published_code_computes(tmp_path):
    case, _, tokenizer, _ = fixture("maskgit_vq", tmp_path)
    latents = tokenizer.encode(2 * case.inputs["image"] - 1)
    recon = (tokenizer.decode(latents) + 1) / 2
    given = tokenizer.quantizer.lookup(case.inputs["indices"])
    case.check(
        z=as_map(latents.features),
        z_q=as_map(latents.vectors),
        indices=latents.codes,
        recon=recon,
        recon_clamped=recon.clamp(0, 1),
        decoded_given=(tokenizer.decode_vectors(given) + 1) / 2,
    )


@torch.no_grad()
def test_open_magvit2_computes_what_the_published_code_computes(tmp_path):
    case, _, tokenizer, _ = fixture("open_magvit2", tmp_path)
    latents = tokenizer.encode(case.inputs["image"])
    given = tokenizer.quantizer.lookup(case.inputs["indices"])
    case.check(
        z=as_map(latents.features),
        indices=latents.codes,
        z_q=as_map(latents.vectors),
        recon=tokenizer.decode(latents),
        z_q_given=as_map(given),
        decoded_given=tokenizer.decode_vectors(given),
    )


@every
def test_export_is_the_inverse_of_import(system, tmp_path):
    case, _, tokenizer, _ = fixture(system, tmp_path)
    assert case.same_weights(export(system, tokenizer))


@every
@pytest.mark.parametrize(
    "options",
    [{"channel_multipliers": [3]}, {"channel_multipliers": [2, 1, 1], "num_res_blocks": 2}, {"channels": 16}],
)
def test_sizes_follow_from_the_weights(system, options, tmp_path):
    tokenizer = small(system, **options)
    table, again, _ = read(system, dict(export(system, tokenizer)), tmp_path)
    assert {name: table[name] for name in options} == options
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    assert torch.equal(again.decode(again.encode(images)), tokenizer.decode(tokenizer.encode(images)))


@pytest.mark.parametrize(
    ("table", "count"),
    [({"use": "maskgit_vq"}, 54.52), ({"use": "open_magvit2"}, 115.13)],
)
def test_published_sizes_have_the_published_number_of_parameters(table, count):
    assert millions("tokenizer", table) == pytest.approx(count, abs=0.01)


@every
def test_an_importer_keeps_what_its_kind_promises(system, tmp_path):
    save_file(dict(export(system, small(system))), tmp_path / "file.safetensors")
    options = {"image_size": 16, "norm_groups": 4}
    check_component("importer", system, options, registry=load_registry(), file=tmp_path / "file.safetensors")


@every
def test_missing_unexpected_and_misshaped_weights_are_named_together(system, tmp_path):
    weights = dict(export(system, small(system)))
    del weights["decoder.up.1.block.0.conv1.weight"]
    weights |= {"mystery": torch.ones(1), "decoder.conv_out.bias": torch.ones(4)}
    with pytest.raises(RobustokError) as caught:
        read(system, weights, tmp_path)
    assert "missing decoder.up.1.block.0.conv1.weight" in caught.value.what
    assert "unexpected mystery" in caught.value.what
    assert "wrong shape decoder.conv_out.bias: (4,) instead of (3,)" in caught.value.what


@pytest.mark.parametrize(
    ("system", "other", "lacking"),
    [
        ("maskgit_vq", "taming_vq_a", "encoder.mid.0.conv1.weight"),
        ("maskgit_vq", "llamagen_vq_a", "encoder.down.0.block.0.conv1.weight"),
        ("open_magvit2", "taming_vq_a", "decoder.adaptive.0.gamma.weight"),
        ("taming_vq", "open_magvit2_a", "quantize.embedding.weight"),
        ("ldm_vae", "maskgit_vq_a", "encoder.mid.block_1.conv1.weight"),
    ],
)
def test_files_of_other_systems_are_refused(system, other, lacking, tmp_path):
    with pytest.raises(RobustokError, match=f"lacks .*{lacking}"):
        read(system, Case(other).weights, tmp_path)


def test_running_averages_of_open_magvit2_are_read_and_losses_dropped(tmp_path):
    weights = dict(export("open_magvit2", small("open_magvit2")))
    raw = {name: torch.zeros_like(value) for name, value in weights.items()}
    averages = {f"model_ema.{name.replace('.', '')}": value for name, value in weights.items()}
    losses = {"loss.perceptual_loss.lin0.model.1.weight": torch.ones(2)}
    _, tokenizer, report = read("open_magvit2", raw | averages | losses, tmp_path)
    assert all(torch.equal(value, weights[name]) for name, value in export("open_magvit2", tokenizer).items())
    assert "dropped 1 weights" in report["loss.*"]


@pytest.mark.parametrize(
    ("system", "quantizer"),
    [
        ("maskgit_vq", {"use": "vq", "codebook_size": 16, "width": 4}),
        ("maskgit_vq", {"use": "lfq", "width": 4}),
        ("open_magvit2", {"use": "lfq", "width": 4}),
        ("open_magvit2", {"use": "lfq", "width": 4, "lowest_bit_first": True, "spherical": True}),
        ("open_magvit2", {"use": "vq", "codebook_size": 16, "width": 4}),
    ],
)
def test_tokenizers_that_the_format_cannot_hold_are_not_exported(system, quantizer):
    with pytest.raises(RobustokError, match=r"the published .* format holds only"):
        export(system, small(system, quantizer=quantizer))
    with pytest.raises(RobustokError, match=r"the published .* format holds only"):
        export(system, small(next(other for other in SYSTEMS if other != system)))
