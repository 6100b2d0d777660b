"""The convolutional variational autoencoder: posterior, size, errors, and a whole run."""

from __future__ import annotations

import pytest
import torch

from project import CONTINUOUS, Project
from robustok_core import LatentSpace, ProblemsError
from robustok_core.recipe.registry import load_registry
from robustok_tokenizers.conv_vq import SMALL
from robustok_tokenizers.gaussian_posterior import GaussianPosterior, posterior_latents

TINY = {
    "use": "kl_vae",
    "image_size": 16,
    "channels": 8,
    "channel_multipliers": [1, 2],
    "num_res_blocks": 1,
    "norm_groups": 4,
    "z_channels": 6,
    "width": 4,
}


def make(**options: object):
    torch.manual_seed(0)
    return load_registry().build("tokenizer", {**TINY, **options})


def moments(seed: int = 0) -> torch.Tensor:
    return torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(seed))


# --- the posterior --------------------------------------------------------------------------------


def test_the_divergence_matches_torch_distributions():
    posterior = GaussianPosterior.of_moments(moments())
    normal = torch.distributions.Normal(posterior.mean, posterior.std)
    expected = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).sum(-1)
    torch.testing.assert_close(posterior.divergence(), expected)
    assert torch.equal(posterior.mean, moments()[..., :4])
    torch.testing.assert_close(posterior.std, (0.5 * moments()[..., 4:]).exp())


def test_training_samples_from_the_posterior_and_adds_the_weighted_divergence():
    given = moments().repeat(2000, 1, 1)
    torch.manual_seed(0)
    latents = posterior_latents(given, training=True, kl_weight=0.25)
    posterior = GaussianPosterior.of_moments(moments())
    samples = latents.vectors.reshape(2000, 3, 5, 4)
    assert ((samples.mean(0) - posterior.mean).abs() / posterior.std).max() < 4.5 / 2000**0.5
    assert (samples.std(0) / posterior.std - 1).abs().max() < 4.5 / 4000**0.5
    assert torch.equal(latents.features[:3], posterior.mean)
    expected = 0.25 * posterior.divergence().sum(1).mean()
    torch.testing.assert_close(latents.losses["kl"], expected)


def test_samples_follow_torchs_seed_and_evaluation_takes_the_mean():
    tokenizer, images = make(), torch.rand(2, 3, 16, 16) * 2 - 1
    vectors = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        vectors.append(tokenizer.encode(images).vectors)
    assert torch.equal(vectors[0], vectors[1])
    assert not torch.equal(vectors[0], vectors[2])
    latents = tokenizer.eval().encode(images)
    assert latents.vectors is latents.features
    assert not latents.losses


def test_a_frozen_encoder_does_not_sample_while_the_decoder_trains():
    tokenizer, images = make().train(), torch.rand(2, 3, 16, 16) * 2 - 1
    tokenizer.encoder.eval()
    assert torch.equal(tokenizer.encode(images).vectors, tokenizer.encode(images).vectors)


def test_extreme_moments_stay_finite():
    extreme = torch.tensor([[[0.0, 0.0, 1e9, -1e9]]]).requires_grad_()
    latents = posterior_latents(extreme, training=True, kl_weight=1e-6)
    (latents.losses["kl"] + latents.vectors.sum()).backward()
    assert latents.vectors.isfinite().all()
    assert extreme.grad.isfinite().all()


# --- sizes and errors -----------------------------------------------------------------------------


def test_the_sizes_are_as_documented():
    with torch.device("meta"):
        full = load_registry().build("tokenizer", {"use": "kl_vae"})
        small = load_registry().build("tokenizer", {"use": "kl_vae", **SMALL, "width": 4})
    assert sum(p.numel() for p in full.parameters()) == 71_760_547
    assert full.space == LatentSpace(kind="continuous", num_tokens=256, width=16, grid=(16, 16))
    assert sum(p.numel() for p in small.parameters()) == 750_200
    assert small.space == LatentSpace(kind="continuous", num_tokens=64, width=4, grid=(8, 8))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"image_size": 15}, "image_size 15 is not a multiple of 2"),
        ({"channels": 6}, "norm_groups 4 does not divide the 6 channels"),
        ({"width": 0}, "width"),
        ({"kl_weight": -1.0}, "kl_weight"),
        ({"kl_weight": float("inf")}, "numbers must be finite"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, complaint):
    with pytest.raises(ProblemsError, match=complaint):
        make(**options)


# --- a whole run ----------------------------------------------------------------------------------


def test_a_recipe_trains_it_with_noise_measures_it_and_saves_its_latents(tmp_path):
    evaluation = {"use": "evaluate_tokenizer", "metrics": {"psnr": {"use": "psnr"}}, "pictures": 2}
    project = Project(
        tmp_path,
        ["train_tokenizer", evaluation, "tokenize"],
        tokenizer=CONTINUOUS["tokenizer"],
        perturbation={"use": "gaussian", "tau": 0.5, "beta": 0.5},
        train_tokenizer={"epochs": 6},
    )
    results = project.run().results
    lines = project.logged()
    losses = [line["loss/reconstruction"] for line in lines]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    assert all(line["quantizer/kl"] > 0 for line in lines)
    assert all(line["perturbed_share"] == 0.5 for line in lines)
    assert results["evaluate_tokenizer/psnr"].value > 5
    assert results["tokenize/train_images"].value == 80


def test_published_encoders_output_moments_of_every_channel():
    tokenizer = make(double_z=True)
    assert (tokenizer.encoder.conv_out.out_channels, tokenizer.pixel_decoder.conv_in.in_channels) == (12, 6)
    bare = make(double_z=True, latent_convs=False, width=6)
    assert not any(name.startswith(("quant_conv", "post_quant_conv")) for name in bare.state_dict())
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    assert bare.decode(bare.encode(images)).shape == images.shape


@pytest.mark.parametrize("options", [{"width": 6}, {"double_z": True, "width": 4}])
def test_without_convolutions_at_the_latents_the_widths_must_agree(options):
    with pytest.raises(ProblemsError, match="without latent_convs, double_z must be true"):
        make(latent_convs=False, **options)
