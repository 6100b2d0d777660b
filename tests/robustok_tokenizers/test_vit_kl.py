"""The plain ViT with a Gaussian posterior: hidden patches, positions, sizes and errors."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from project import STEPS_PER_EPOCH, Project
from robustok_blocks.rotary import rotate
from robustok_core import Latents, LatentSpace, ProblemsError
from robustok_core.recipe.registry import load_registry
from robustok_tokenizers.detok_blocks import channel_rotations, turn_channels

SMALL = {"width": 16, "depth": 2, "num_heads": 2}
TINY = {"use": "vit_kl", "image_size": 16, "patch_size": 4, "latent_width": 4, "encoder": SMALL, "decoder": SMALL}


def make(**options: object):
    torch.manual_seed(0)
    return load_registry().build("tokenizer", {**TINY, **options})


def images(count: int = 2) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


def size(encoder: str, decoder: str) -> int:
    with torch.device("meta"):
        table = {"use": "vit_kl", "encoder": {"preset": encoder}, "decoder": {"preset": decoder}}
        tokenizer = load_registry().build("tokenizer", table)
    assert tokenizer.space == LatentSpace(kind="continuous", num_tokens=256, width=16, grid=(16, 16))
    return sum(parameter.numel() for parameter in tokenizer.parameters())


# --- hidden patches -------------------------------------------------------------------------------


def test_the_share_of_hidden_patches_is_uniform_and_clipped_at_0():
    tokenizer = make(image_size=64)  # 256 patches
    shares = []
    for seed in range(400):
        torch.manual_seed(seed)
        visible = tokenizer._visible(torch.empty(2, 3, 64, 64))
        assert all(len(set(row.tolist())) == visible.shape[1] for row in visible)
        shares.append(1 - visible.shape[1] / 256)
    sorted_shares = torch.tensor(shares).sort().values
    expected = (-0.1 + 0.8 * (torch.arange(400) + 0.5) / 400).clamp(min=0.0)
    assert (sorted_shares - expected).abs().max() < 0.8 * 1.63 / 20 + 1 / 256  # Kolmogorov, p = 0.01
    assert (sorted_shares == 0).float().mean().item() == pytest.approx(0.125, abs=0.06)


def test_the_encoder_does_not_see_hidden_patches_and_visible_ones_have_their_positions():
    tokenizer = make().eval()
    with torch.no_grad():
        for parameter in tokenizer.encoder.blocks.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape))  # initial weights attend uniformly
    visible = torch.tensor([[0, 3, 6, 9], [15, 1, 2, 4]])  # not 5: row 1, column 1
    changed = images()
    changed[:, :, 4:8, 4:8] = 0.0
    assert torch.equal(tokenizer.encoder(images(), visible), tokenizer.encoder(changed, visible))
    everything = torch.arange(16).flip(0).repeat(2, 1)
    shuffled = tokenizer.encoder(images(), everything)
    torch.testing.assert_close(shuffled.flip(1), tokenizer.encoder(images()), atol=1e-4, rtol=1e-3)


def test_hidden_patches_share_one_learned_vector_and_have_no_divergence():
    tokenizer = make(mask_low=0.5, mask_high=0.5, kl_weight=1.0).train()
    latents = tokenizer.encode(images())
    hidden = (latents.features == tokenizer.mask_latent).all(dim=2)  # (B, N)
    assert hidden.sum(dim=1).tolist() == [8, 8]
    assert torch.equal(latents.vectors[hidden], tokenizer.mask_latent.expand(2, 8, -1).flatten(0, 1))
    tokenizer.decode(latents).square().sum().backward()
    assert tokenizer.mask_latent.grad.abs().sum() > 0
    with torch.no_grad():
        tokenizer.mask_latent.fill_(1e3)
    torch.manual_seed(0)
    assert tokenizer.encode(images()).losses["kl"] < 100


def test_without_masking_training_reads_every_patch():
    tokenizer = make(mask_high=0.0, kl_weight=0.0).train()
    means = tokenizer.encode(images()).features
    assert torch.equal(means, tokenizer.eval().encode(images()).vectors)


def test_training_reaches_every_parameter_for_any_hidden_share():
    """Data parallelism waits for the gradient of each parameter."""
    for low in (-0.9, 0.5):
        tokenizer = make(mask_low=low, mask_high=0.5 if low > 0 else 1e-9).train()
        tokenizer.decode(tokenizer.encode(images())).square().sum().backward()
        assert all(parameter.grad is not None for parameter in tokenizer.parameters())


# --- sizes and mistakes ---------------------------------------------------------------------------


def test_the_published_size_with_two_bs_has_172_million_parameters():
    assert round(size("B", "B") / 1e6) == 172


def test_presets_grow_and_are_counted_apart():
    sizes = [size(preset, preset) for preset in ("S", "B", "L", "XL")]
    assert sizes == sorted(sizes)
    assert size("S", "L") + size("L", "S") == sizes[0] + sizes[2]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"image_size": 18}, "image_size 18 is not a multiple of patch_size 4"),
        ({"encoder": {"width": 18, "depth": 1, "num_heads": 3}}, "width 18 over num_heads 3 must be a multiple of 4"),
        ({"mask_low": 0.5, "mask_high": 0.2}, "mask_low 0.5 is above mask_high 0.2"),
        ({"decoder": {"preset": "M"}}, "decoder.preset"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, complaint):
    with pytest.raises(ProblemsError, match=complaint):
        make(**options)


# --- the style of the released files --------------------------------------------------------------


def test_in_the_style_of_the_released_files_the_decoder_does_not_read_hidden_latents():
    tokenizer = make(style="detok")
    hidden = torch.zeros(2, 16, dtype=torch.bool)
    hidden[:, 3] = True
    vectors = torch.randn(2, 16, 4)
    other = vectors.clone()
    other[:, 3] = 9.0
    with torch.no_grad():
        drawn = tokenizer.decode(Latents(vectors=vectors, hidden=hidden))
        assert torch.equal(tokenizer.decode(Latents(vectors=other, hidden=hidden)), drawn)
        assert not torch.allclose(tokenizer.decode(Latents(vectors=vectors)), drawn)
        assert not torch.allclose(tokenizer.decode(Latents(vectors=other)), tokenizer.decode(Latents(vectors=vectors)))


def test_channels_turn_by_the_published_angles():
    rotations = channel_rotations((2, 3), 8)  # 2 frequencies on each axis
    angles = torch.atan2(rotations[..., 1], rotations[..., 0])
    turns = 2 * torch.pi * torch.tensor([7.0, 7e-4, 7.0, 7e-4])
    row_1_column_1 = torch.cat([1.0 * turns, 0.5 * turns])
    torch.testing.assert_close(rotations[4], torch.stack([row_1_column_1.cos(), row_1_column_1.sin()], -1))
    assert not angles[0].any()


def test_with_equal_angles_in_a_pair_turning_is_a_rotation():
    angles = torch.randn(5, 3)
    pairs = torch.stack([angles.cos(), angles.sin()], dim=-1)
    x = torch.randn(2, 5, 6)
    torch.testing.assert_close(turn_channels(x, pairs.repeat_interleave(2, dim=1)), rotate(x, pairs))


def test_it_trains_in_a_recipe_with_hidden_patches_and_noise(tmp_path):
    table = {**TINY, "style": "detok", "image_size": 32, "patch_size": 8}
    project = Project(tmp_path, tokenizer=table, perturbation={"use": "interpolate", "gamma": 3.0}).run()
    assert len(project.logged()) == STEPS_PER_EPOCH
