"""The autoencoder over a frozen ViT: inputs, normalisation, trained parameters, and errors."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from project import STEPS_PER_EPOCH, Project
from robustok_core import LatentSpace, RobustokError
from robustok_core.recipe.registry import load_registry
from robustok_tokenizers.latent_statistics import LatentStatistics

TINY = {
    "use": "rae",
    "image_size": 16,
    "encoder": "test_vit",
    "weights": "random",
    "encoder_image_size": 32,
    "decoder_width": 16,
    "decoder_depth": 1,
    "decoder_num_heads": 2,
}


def make(**options: object):
    torch.manual_seed(0)
    return load_registry().build("tokenizer", {**TINY, **options})


def images(count: int = 3, size: int = 16) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


# --- the frozen network ---------------------------------------------------------------------------


@torch.no_grad()
def test_latents_are_the_patches_of_timms_network_before_the_scale_and_shift_of_its_last_norm():
    import timm

    tokenizer = make(image_size=32).eval()
    net = timm.create_model("test_vit", num_classes=0, img_size=32, pretrained=False).eval()
    weights = tokenizer.encoder.net.state_dict()
    net.load_state_dict({**weights, "norm.weight": torch.full((64,), 3.0), "norm.bias": torch.full((64,), 0.5)})
    pictures = images(size=32)  # mean and deviation are 0.5, so its inputs are in [-1, 1] too
    expected = (net.forward_features(pictures)[:, 1:] - 0.5) / 3.0
    torch.testing.assert_close(tokenizer.encode(pictures).vectors, expected, atol=1e-3, rtol=1e-3)


def test_the_network_reads_and_the_decoder_outputs_images_normalised_for_the_network():
    tokenizer = make()
    tokenizer.encoder.mean, tokenizer.encoder.std = (0.4, 0.5, 0.6), (0.1, 0.2, 0.4)
    read = []
    tokenizer.encoder.net.patch_embed.register_forward_pre_hook(lambda module, given: read.append(given[0]))
    tokenizer.encoder(images(size=32))
    torch.testing.assert_close(tokenizer.encoder.to_images(read[0]), images(size=32))


def test_the_encoder_is_frozen_and_gets_no_gradient():
    tokenizer = make().train()
    assert not any(module.training for module in tokenizer.encoder.modules())
    assert not any(parameter.requires_grad for parameter in tokenizer.encoder.parameters())
    assert not tokenizer.encode(images()).vectors.requires_grad
    trained = {id(parameter) for parameter in tokenizer.parameters() if parameter.requires_grad}
    assert trained == {id(parameter) for parameter in tokenizer.decoder.parameters()}


# --- statistics -----------------------------------------------------------------------------------


def batches(count: int, size: int = 8) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    scale, shift = torch.rand(5, 3, generator=generator) + 0.5, torch.randn(5, 3, generator=generator)
    return [torch.randn(size, 5, 3, generator=generator) * scale + shift for _ in range(count)]


def test_statistics_are_those_of_all_latents_and_one_standard_normal_image():
    statistics = LatentStatistics(5, 3, enough=1000).train()
    given = batches(4)
    for latents in given:
        statistics.observe(latents)
    seen = torch.cat(given).double()
    mean = seen.sum(0) / 33
    variance = (1 + seen.square().sum(0)) / 33 - mean.square()
    torch.testing.assert_close(statistics.mean.double(), mean, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(statistics.variance.double(), variance, atol=1e-6, rtol=1e-5)
    assert statistics.count == 33


def test_normalised_latents_have_mean_0_and_variance_1_at_each_token_and_channel():
    statistics = LatentStatistics(5, 3, enough=10_000).train()
    given = torch.cat(batches(500))
    statistics.observe(given)
    normal = statistics.normalise(given)
    assert normal.mean(0).abs().max() < 0.02
    assert (normal.std(0) - 1).abs().max() < 0.02
    torch.testing.assert_close(statistics.restore(normal), given, atol=1e-5, rtol=1e-5)


def test_statistics_are_frozen_after_enough_images_in_eval_mode_and_without_images():
    statistics, (first, second, third) = LatentStatistics(5, 3, enough=10).train(), batches(3)
    statistics.observe(first)
    statistics.observe(second)
    before = {name: value.clone() for name, value in statistics.state_dict().items()}
    statistics.observe(third)
    assert all(torch.equal(value, before[name]) for name, value in statistics.state_dict().items())
    for still in (LatentStatistics(5, 3, enough=10).eval(), LatentStatistics(5, 3, enough=0).train()):
        still.observe(first)
        assert torch.equal(still.mean, torch.zeros(5, 3))
        assert torch.equal(still.variance, torch.ones(5, 3))


def test_the_decoders_input_does_not_depend_on_the_statistics():
    tokenizer = make().eval()
    before = tokenizer.decode(tokenizer.encode(images()))
    tokenizer.statistics.mean.normal_()
    tokenizer.statistics.variance.uniform_(0.5, 2.0)
    torch.testing.assert_close(tokenizer.decode(tokenizer.encode(images())), before, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("as_maps", [False, True])
def test_published_statistics_can_be_loaded_and_are_then_frozen(as_maps, tmp_path):
    mean, variance = torch.randn(4, 64), torch.rand(4, 64) + 0.5
    stored = {"mean": mean, "var": variance}
    if as_maps:
        stored = {name: value.T.reshape(64, 2, 2).contiguous() for name, value in stored.items()}
    save_file(stored, tmp_path / "stat.safetensors")
    tokenizer = make(statistics=str(tmp_path / "stat.safetensors")).train()
    tokenizer.encode(images())
    assert torch.equal(tokenizer.statistics.mean, mean)
    assert torch.equal(tokenizer.statistics.variance, variance)


def test_statistics_of_another_space_are_refused(tmp_path):
    save_file({"mean": torch.zeros(5, 64), "var": torch.ones(5, 64)}, tmp_path / "stat.safetensors")
    with pytest.raises(RobustokError, match=r"its mean has shape \(5, 64\), the latents have \(4, 64\)"):
        make(statistics=str(tmp_path / "stat.safetensors"))
    save_file({"mean": torch.zeros(4, 64)}, tmp_path / "stat.safetensors")
    with pytest.raises(RobustokError, match="'var' is missing"):
        make(statistics=str(tmp_path / "stat.safetensors"))
    for bad in (-1.0, float("nan")):
        save_file({"mean": torch.zeros(4, 64), "var": torch.full((4, 64), bad)}, tmp_path / "stat.safetensors")
        with pytest.raises(RobustokError, match="its var holds invalid numbers"):
            make(statistics=str(tmp_path / "stat.safetensors"))


def test_it_trains_in_a_recipe_in_the_style_of_the_released_files(tmp_path):
    table = {**TINY, "image_size": 32, "decoder_style": "mae", "decoder_mlp_width": 24}
    project = Project(tmp_path, tokenizer=table, perturbation={"use": "gaussian", "tau": 0.8}).run()
    assert len(project.logged()) == STEPS_PER_EPOCH


# --- sizes and mistakes ---------------------------------------------------------------------------


def test_the_published_encoder_has_256_tokens_of_width_768_and_planning_fetches_nothing():
    with torch.device("meta"):
        tokenizer = load_registry().build("tokenizer", {"use": "rae"})
    assert tokenizer.space == LatentSpace(kind="continuous", num_tokens=256, width=768, grid=(16, 16))
    assert tokenizer.pixel_decoder.patch_size == 16
    blocks = nn.ModuleList(tokenizer.pixel_decoder.blocks)
    assert round(sum(p.numel() for p in blocks.parameters()) / 1e6) == 446


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"image_size": 15}, "image_size 15 is not a multiple of 2, the tokens per row"),
        ({"encoder_image_size": 40}, "encoder_image_size 40 is not a multiple of 16"),
        ({"decoder_num_heads": 3}, "decoder_width 16 is not a multiple of decoder_num_heads 3"),
        ({"encoder": "vit_of_nobody"}, "vit_of_nobody cannot be loaded"),
        ({"encoder": "test_vit2"}, "test_vit2 has no last norm"),
        (
            {"statistics": "a file", "statistics_images": 10},
            'statistics_images = 10 has an effect only with statistics = "measured"',
        ),
        ({"weights": "nowhere.pth"}, "there is no file 'nowhere.pth'"),
    ],
)
def test_options_that_do_not_fit_are_refused_in_one_line(options, complaint):
    with pytest.raises(RobustokError, match=complaint):
        make(**options)
