"""MAETok: hidden patches, targets, positions, sizes, errors. (Parity with the published code: tests/robustok_hub.)"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from robustok_core import LatentSpace, ProblemsError
from robustok_core.recipe.registry import load_registry

TINY = {
    "use": "mae_tok",
    "image_size": 16,
    "patch_size": 4,
    "width": 16,
    "depth": 2,
    "num_heads": 2,
    "num_latent_tokens": 6,
    "latent_width": 4,
    "layer_scale": 0.5,
}
SMALL_TARGET = {"width": 16, "depth": 1, "num_heads": 2}


def make(**options: object):
    torch.manual_seed(0)
    return load_registry().build("tokenizer", {**TINY, **options})


def images(count: int = 2, size: int = 16) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


# --- hidden patches -------------------------------------------------------------------------------


def test_the_hidden_share_of_an_image_follows_a_truncated_normal():
    tokenizer = make(image_size=128)  # 1,024 patches
    torch.manual_seed(0)
    masks = tokenizer._mask(torch.empty(400, 3, 128, 128))
    shares = masks.float().mean(1).sort().values
    assert shares[0] >= 0.4 - 1e-3
    assert shares[-1] <= 0.6 + 1e-3
    normal = torch.distributions.Normal(0.6, 0.25)
    low, high = normal.cdf(torch.tensor([0.4, 0.6]))
    expected = (normal.cdf(shares) - low) / (high - low)
    assert (expected - (torch.arange(400) + 0.5) / 400).abs().max() < 1.63 / 20  # Kolmogorov, p = 0.01
    often = masks.float().mean(0)
    assert (often - often.mean()).abs().max() < 4.5 * 0.5 / 20, "all patches are hidden equally often"


def test_the_encoder_does_not_see_hidden_patches():
    tokenizer = make()
    mask = torch.zeros(2, 16, dtype=torch.bool)
    mask[:, 5] = True  # row 1, column 1
    changed = images()
    changed[:, :, 4:8, 4:8] = 0.0
    assert torch.equal(tokenizer.encoder(images(), mask), tokenizer.encoder(changed, mask))
    assert not torch.allclose(tokenizer.encoder(images()), tokenizer.encoder(changed))


def test_training_hides_patches_and_evaluation_does_not():
    tokenizer = make().train()
    vectors = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        vectors.append(tokenizer.encode(images()).vectors)
    assert torch.equal(vectors[0], vectors[1])
    assert not torch.allclose(vectors[0], vectors[2])
    tokenizer.encoder.eval()
    assert torch.equal(tokenizer.encode(images()).vectors, tokenizer.encode(images()).vectors)


def test_without_masking_training_sees_all_patches():
    tokenizer = make(mask_smallest=0.0, mask_largest=0.0).train()
    assert not hasattr(tokenizer.encoder, "mask_token")
    assert torch.equal(tokenizer.encode(images()).vectors, tokenizer.encode(images()).vectors)


# --- targets --------------------------------------------------------------------------------------


def test_targets_count_only_hidden_patches_and_reach_the_encoder():
    tokenizer = make(hog=SMALL_TARGET, dino={**SMALL_TARGET, "network": {"use": "fashion_classifier"}})
    latents = tokenizer.train().encode(images())
    assert set(latents.losses) == {"hog", "dino"}
    sum(latents.losses.values()).backward()
    assert tokenizer.encoder.patch_embed.weight.grad.abs().sum() > 0
    assert tokenizer.last_layer.grad is None
    mask = torch.zeros(2, 16, dtype=torch.bool)
    mask[:, 0] = True
    far = images()
    far[:, :, 8:, 8:] = 0.0  # patches that do not touch a hidden one
    vectors = latents.vectors.detach()
    hog = tokenizer.targets["hog"]
    assert torch.equal(hog(vectors, images(), mask), hog(vectors, far, mask))
    assert not torch.equal(hog(vectors, images(), None), hog(vectors, far, None))


def test_a_target_learns_what_it_is_charged_for():
    tokenizer = make(hog=SMALL_TARGET).train()
    optimizer = torch.optim.Adam(tokenizer.parameters(), 1e-2)
    losses = []
    for step in range(30):
        torch.manual_seed(step)
        optimizer.zero_grad()
        loss = tokenizer.encode(images()).losses["hog"]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_the_weight_scales_a_targets_loss_and_evaluation_has_none():
    single, triple = (make(hog={**SMALL_TARGET, "weight": weight}).train() for weight in (1.0, 3.0))
    losses = []
    for tokenizer in (single, triple):
        torch.manual_seed(0)
        losses.append(tokenizer.encode(images()).losses["hog"])
    torch.testing.assert_close(losses[1], 3 * losses[0])
    assert not single.eval().encode(images()).losses


def test_a_frozen_network_is_not_part_of_the_tokenizer():
    tokenizer = make(dino={**SMALL_TARGET, "network": {"use": "fashion_classifier"}}).train()
    before = set(tokenizer.state_dict())
    tokenizer.encode(images())
    assert set(tokenizer.state_dict()) == before
    assert all(
        name.split(".")[0] in ("encoder", "quant_conv", "post_quant_conv", "pixel_decoder", "targets")
        for name in before
    )


# --- positions, posterior, sizes ------------------------------------------------------------------


@pytest.mark.parametrize("rotary", ["none", "mixed", "axial"])
def test_rotary_positions_alone_let_the_decoder_distinguish_patches(rotary):
    tokenizer = make(rotary=rotary).eval()
    with torch.no_grad():
        for parameter in tokenizer.pixel_decoder.blocks.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape))  # initial weights hardly distinguish positions
    images = tokenizer.decode_vectors(torch.randn(1, 6, 4))
    difference = (images[:, :, :4, :4] - images[:, :, 8:12, 4:8]).abs().max() / images.abs().max()
    assert (difference > 1e-3) == (rotary != "none")


def test_with_kl_weight_it_is_variational():
    tokenizer = make(kl_weight=0.5, mask_smallest=0.0, mask_largest=0.0).train()
    latents = tokenizer.encode(images())
    assert latents.losses["kl"] > 0
    assert not torch.equal(latents.vectors, latents.features)
    assert torch.equal(tokenizer.eval().encode(images()).vectors, latents.features)


def test_the_published_size_has_the_published_parameters_without_the_unused_ones():
    with torch.device("meta"):
        tokenizer = load_registry().build("tokenizer", {"use": "mae_tok"})
    unused = 768 * 3 * 16 * 16 + 768 + 257 * 768  # the decoder's patch embedding and positions
    assert sum(p.numel() for p in tokenizer.parameters()) == 171_893_024
    assert round((171_893_024 + unused) / 1e6, 1) == 172.7
    assert tokenizer.space == LatentSpace(kind="continuous", num_tokens=128, width=32)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"image_size": 18}, "image_size 18 is not a multiple of patch_size 4"),
        ({"num_heads": 3}, "width 16 is not a multiple of num_heads 3"),
        ({"num_heads": 8}, "rotary positions on a grid need heads whose width is a multiple of 4, not 2"),
        ({"mask_smallest": 0.7}, "mask_smallest 0.7 is above mask_largest 0.6"),
        ({"patch_size": 1, "hog": SMALL_TARGET}, "hog needs an even patch_size"),
        ({"hog": {"width": 10, "num_heads": 4}}, "width 10 is not a multiple of num_heads 4"),
        ({"hog": {"weight": float("inf")}}, "numbers must be finite"),
        ({"kl_weight": float("inf")}, "numbers must be finite"),
        ({"rotary": "none", "rotary_base": 5.0}, "rotary_base = 5.0 has an effect only with rotary"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, complaint):
    with pytest.raises(ProblemsError, match=complaint):
        make(**options)
