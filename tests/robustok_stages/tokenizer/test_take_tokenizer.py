"""Stage `take_tokenizer`: a tokenizer is measured and used without training."""

from __future__ import annotations

import pytest
import torch

from project import Project, assert_same_weights

EVALUATION = {"use": "evaluate_tokenizer", "limit": 20, "metrics": {"psnr": {"use": "psnr"}}}
#: An autoencoder of diffusers for images of 32 pixels.
SIZES = {
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "block_out_channels": (8, 16),
    "norm_num_groups": 4,
}


@pytest.fixture
def pretrained(tmp_path):
    """An autoencoder saved by diffusers, and its folder."""
    import diffusers

    torch.manual_seed(0)
    model = diffusers.AutoencoderKL(**SIZES).eval()
    model.save_pretrained(tmp_path / "vae")
    return model, {"use": "diffusers_vae", "source": str(tmp_path / "vae"), "image_size": 32}


def test_a_pretrained_tokenizer_is_measured_with_the_weights_that_it_brings(pretrained, tmp_path):
    model, table = pretrained
    project = Project(tmp_path / "runs", ["take_tokenizer", EVALUATION], tokenizer=table).run()
    images = project.dataset().validation.load(range(4)).images
    with torch.no_grad():
        expected = model.decode(model.encode(images).latent_dist.mode()).sample
        actual = (tokenizer := project.component()).decode(tokenizer.encode(images))
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
    assert project.results["evaluate_tokenizer/psnr"].value > 0
    count = sum(parameter.numel() for parameter in model.parameters())
    assert project.results["take_tokenizer/parameters"].value == count


def test_an_untrained_tokenizer_has_random_weights_that_follow_from_the_seed(tmp_path):
    untrained = Project(tmp_path / "a", ["take_tokenizer", EVALUATION]).run()
    again = Project(tmp_path / "b", ["take_tokenizer", EVALUATION]).run()
    assert_same_weights(untrained.weights(), again.weights())
    other = Project(tmp_path / "c", ["take_tokenizer"], run={"seed": 4}).run()
    assert not torch.equal(*(next(iter(one.weights().values())) for one in (untrained, other)))


def test_a_generator_can_be_trained_on_its_latents(pretrained, tmp_path):
    project = Project(tmp_path / "runs", ["take_tokenizer", "tokenize"], tokenizer=pretrained[1]).run()
    assert project.artifact("latents").is_dir()


def test_images_of_another_size_are_refused_before_it_is_built(tmp_path):
    project = Project(tmp_path, ["take_tokenizer", EVALUATION], tokenizer={"image_size": 16})
    assert "but the images of [data] are 32 pixels wide" in project.refusal()
    assert not project.folder.exists()
