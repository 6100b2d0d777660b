"""The paper's tokenizer: size, tokens, pretrained weights."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn

from robustok_core.errors import ProblemsError, RobustokError
from robustok_core.recipe.registry import load_registry

TINY = {
    "use": "vit_vq",
    "image_size": 32,
    "patch_size": 8,
    "width": 24,
    "depth": 2,
    "num_heads": 3,
    "num_latent_tokens": 16,
    "layer_scale": 0.5,
    "quantizer": {"use": "vq", "codebook_size": 32, "width": 4},
}

SIZE = {"embed_dim": 24, "depth": 2, "num_heads": 3, "init_values": 0.3}


def make(**options: object):
    torch.manual_seed(0)
    return load_registry().build("tokenizer", {**TINY, **options})


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def test_the_papers_size_has_172_3_million_parameters():
    with torch.device("meta"):
        tokenizer = load_registry().build("tokenizer", {"use": "vit_vq"})
    between = (tokenizer.quant_conv, tokenizer.post_quant_conv, tokenizer.quantizer)
    assert count(tokenizer.encoder) / 1e6 == pytest.approx(86.06, abs=0.005)
    assert count(tokenizer.pixel_decoder) / 1e6 == pytest.approx(85.87, abs=0.005)
    assert sum(map(count, between)) / 1e6 == pytest.approx(0.36, abs=0.005)
    assert count(tokenizer) / 1e6 == pytest.approx(172.3, abs=0.05)
    assert tokenizer.space.describe() == "discrete, 256 tokens of width 64, K=4096"
    assert tokenizer.space.grid == (16, 16)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"image_size": 30}, "image_size 30 is not a multiple of patch_size 8"),
        ({"num_heads": 5}, "width 24 is not a multiple of num_heads 5"),
        ({"num_latent_tokens": 9}, "num_latent_tokens must be 16, not 9"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(options, complaint):
    with pytest.raises(ProblemsError, match=complaint):
        make(**options)


@pytest.mark.parametrize(("num_latent_tokens", "grid"), [(9, (3, 3)), (10, None), (16, (4, 4))])
def test_tokens_with_their_own_positions_can_be_fewer_than_patches(num_latent_tokens, grid):
    tokenizer = make(absolute_positions=False, num_latent_tokens=num_latent_tokens).eval()
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    latents = tokenizer.encode(images)
    assert tokenizer.space.grid == grid
    assert latents.codes.shape == (2, num_latent_tokens)
    assert tokenizer.decode(latents).shape == images.shape


def test_a_patch_is_decoded_at_its_position():
    """The decoder's token (row, column) outputs pixel rows 8 row .. 8 row + 7 and its columns, channel last."""
    tokenizer = make().eval()
    pixel = tokenizer.pixel_decoder
    with torch.no_grad():
        pixel.to_pixel.weight.zero_()
        pixel.to_pixel.bias.copy_(torch.arange(192.0))  # (p, q, channel)
    image = tokenizer.decode_vectors(torch.zeros(1, 16, 4))[0]
    for row, column, channel in ((0, 0, 0), (3, 5, 1), (7, 7, 2)):
        assert torch.all(image[channel, row::8, column::8] == (row * 8 + column) * 3 + channel)


def test_every_token_sees_the_whole_image():
    tokenizer = make().eval()
    images = torch.zeros(1, 3, 32, 32)
    changed = images.clone()
    changed[:, :, :8, :8] = 1.0
    moved = (tokenizer.encode(changed).features - tokenizer.encode(images).features).abs().sum(-1)
    assert moved.min() > 0


def test_drop_path_follows_the_global_seed_and_is_off_in_evaluation():
    tokenizer = make(drop_path=0.5)
    images = torch.rand(8, 3, 32, 32) * 2 - 1

    def encoded(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return tokenizer.encode(images).features

    tokenizer.train()
    assert torch.equal(encoded(1), encoded(1))
    assert not torch.equal(encoded(1), encoded(2))
    tokenizer.eval()
    assert torch.equal(encoded(1), encoded(2))


def test_drop_path_rises_linearly_and_keeps_the_expectation():
    tokenizer = make(depth=3, drop_path=0.2).train()
    assert [block.drop_path.rate for block in tokenizer.encoder.blocks] == pytest.approx([0, 0.1, 0.2])
    drop = tokenizer.encoder.blocks[2].drop_path
    torch.manual_seed(0)
    outputs = drop(torch.ones(10_000, 1, 1))
    assert outputs.unique().tolist() == pytest.approx([0, 1.25])
    assert outputs.mean().item() == pytest.approx(1.0, abs=0.02)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A ViT with another patch size and grid, in timm's names, with the heads that files contain."""
    torch.manual_seed(5)
    vit = VisionTransformer(img_size=42, patch_size=7, num_classes=4, **SIZE)
    for parameter in vit.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    file = tmp_path_factory.mktemp("vit") / "vit.safetensors"
    save_file(vit.state_dict(), file)
    return vit, file


def resampled(vit: VisionTransformer) -> VisionTransformer:
    """The same ViT at 32 pixels and patch 8, by timm's own resampling."""
    target = VisionTransformer(img_size=32, patch_size=8, num_classes=0, **SIZE)
    trunk = {name: value for name, value in vit.state_dict().items() if "head" not in name}
    target.load_state_dict(checkpoint_filter_fn(trunk, target))
    return target.eval()


def test_a_pretrained_vit_initialises_both_networks(pretrained):
    vit, file = pretrained
    target = resampled(vit)
    tokenizer = make(init=str(file))
    for network in (tokenizer.encoder, tokenizer.pixel_decoder):
        for name in ("cls_token", "pos_embed", "norm.weight", "blocks.1.attn.qkv.weight", "blocks.0.ls2.gamma"):
            assert torch.equal(network.get_parameter(name), target.get_parameter(name)), name
    assert torch.equal(tokenizer.encoder.patch_embed.weight, target.patch_embed.proj.weight)
    assert torch.equal(tokenizer.pixel_decoder.to_pixel.weight, make().pixel_decoder.to_pixel.weight)


def test_a_vit_with_pretrained_weights_computes_what_timm_computes(pretrained):
    """Without latent tokens the encoder is timm's ViT."""
    vit, file = pretrained
    target = resampled(vit)
    encoder = make(init=str(file)).eval().encoder
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        encoder.level_embed.weight.zero_()
        patches = encoder.patch_embed(images).flatten(2).transpose(1, 2)
        alone = encoder.mix(encoder.with_positions(patches), torch.zeros(2, 0, 24))
        torch.testing.assert_close(alone, target.forward_features(images), atol=1e-5, rtol=1e-4)


def test_a_tokenizer_on_the_meta_device_reads_no_pretrained_weights():
    with torch.device("meta"):
        make(init="/nowhere.safetensors")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"depth": 1}, "it also has blocks.1"),
        ({"depth": 3}, "it lacks blocks.2"),
        ({"width": 48}, "its blocks.0.attn.proj.bias has shape \\(24,\\) instead of \\(48,\\)"),
    ],
)
def test_pretrained_weights_of_another_size_are_refused(pretrained, options, complaint):
    with pytest.raises(RobustokError, match=complaint):
        make(init=str(pretrained[1]), **options)


def test_a_missing_file_of_pretrained_weights_is_one_error():
    with pytest.raises(RobustokError, match="no such file"):
        make(init="nowhere.safetensors")


def test_dinov2_offline_says_what_to_do(monkeypatch):
    def offline(*args, **kwargs):
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr("timm.create_model", offline)
    with pytest.raises(RobustokError) as caught:
        make(init="dinov2", width=768, num_heads=12)
    assert "vit_base_patch14_dinov2" in caught.value.what
    assert 'init = "random"' in caught.value.hint
    assert caught.value.exit_code == 2


def test_dinov2_exists_in_three_widths():
    with pytest.raises(RobustokError, match="no network of width 24"):
        make(init="dinov2")
