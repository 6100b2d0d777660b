"""The features `timm`, `mae` and `clip`, with random weights: published ones need a download."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from robustok_core import Features, ImageBatch, Registry, RobustokError
from robustok_core.runs.downloads import needs_of
from robustok_core.values.images import from_uint8
from robustok_metrics.clip import resized_as_by_pillow

RANDOM = {"weights": "random"}
TINY = {"use": "timm", "network": "vit_tiny_patch16_224.augreg_in21k", **RANDOM}
CONVNEXT = {"use": "timm", "network": "convnextv2_atto.fcmae", **RANDOM}
SIGLIP = {"use": "timm", "network": "vit_base_patch32_siglip_256.v2_webli", **RANDOM}


@pytest.fixture(scope="module")
def tiny(registry: Registry) -> Any:
    return registry.build("features", TINY)


def prepared(images: Tensor, size: int, mean: Any, std: Any) -> Tensor:
    x = torch.nn.functional.interpolate((images + 1) / 2, size=(size, size), mode="bicubic", antialias=True)
    return (x - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


@torch.no_grad()
def test_a_transformer_gives_its_class_token(tiny: Any, images: ImageBatch) -> None:
    inputs = prepared(images.images[:2], 224, [0.5] * 3, [0.5] * 3)
    torch.testing.assert_close(tiny(images.images[:2]), tiny.net.forward_features(inputs)[:, 0])
    assert tiny.name == "vit_tiny_patch16_224_augreg_in21k_random"
    assert tiny.width == 192


@torch.no_grad()
def test_other_networks_give_the_mean_over_positions_or_what_attention_pools(
    registry: Registry, images: ImageBatch
) -> None:
    convnext, siglip = (registry.build("features", table) for table in (CONVNEXT, SIGLIP))
    inputs = prepared(images.images[:1], 224, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    torch.testing.assert_close(convnext(images.images[:1]), convnext.net.forward_features(inputs).mean((2, 3)))
    inputs = prepared(images.images[:1], 256, [0.5] * 3, [0.5] * 3)
    torch.testing.assert_close(siglip(images.images[:1]), siglip.net(inputs))


@torch.no_grad()
def test_maps_have_the_shape_of_the_picture(tiny: Any, registry: Registry, images: ImageBatch) -> None:
    assert [tuple(layer.shape) for layer in tiny.maps(images.images[:1])] == [(1, 192, 14, 14)] * 4
    convnext = registry.build("features", CONVNEXT)
    assert [layer.shape[-1] for layer in convnext.maps(images.images[:1])] == [56, 28, 14, 7]


@torch.no_grad()
def test_another_input_size_is_part_of_the_name_and_may_be_padded(registry: Registry, images: ImageBatch) -> None:
    large = registry.build("features", TINY | {"image_size": 90})  # 5.6 patches
    assert large.name == "vit_tiny_patch16_224_augreg_in21k_at_90_random"
    assert large(images.images[:1]).shape == (1, 192)


@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"network": "swin_tiny_patch4_window7_224.ms_in1k"}, "its maps are (7, 7, 768), with the channels last"),
        ({"network": "mixer_s32_224"}, "which of its tokens"),
        ({"network": "mvitv2_tiny.fb_in1k"}, "which of its tokens"),
        ({"network": "coat_tiny.in1k"}, "it gives neither maps nor tokens"),
        ({"network": "eva02_tiny_patch14_224.mim_in22k", "image_size": 256}, "it does not take 256 pixels"),
    ],
)
def test_a_network_that_gives_no_features_is_refused_with_or_without_weights(
    registry: Registry, options: dict[str, Any], reason: str, device: str
) -> None:
    with torch.no_grad(), torch.device(device), pytest.raises(RobustokError) as caught:
        registry.build("features", {"use": "timm", **RANDOM, **options})(torch.zeros(1, 3, 32, 32))
    assert "cannot be a feature network" in caught.value.what
    assert reason in caught.value.what
    assert (caught.value.hint or "").startswith("leave image_size out") == ("image_size" in options)


@torch.no_grad()
def test_clip_is_that_of_torch_fidelity_with_the_same_weights(registry: Registry, images: ImageBatch) -> None:
    from timm.models.vision_transformer import checkpoint_filter_fn
    from torch_fidelity.feature_extractor_clip import VisionTransformer

    clip = registry.build("features", {"use": "clip", "network": "vit_b32", **RANDOM})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = VisionTransformer(224, 32, width=768, layers=12, heads=12, output_dim=512).eval()
    published = {f"visual.{name}": value for name, value in theirs.state_dict().items()}  # OpenAI's names
    clip.net.load_state_dict(checkpoint_filter_fn(published, clip.net))
    mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    sized = resized_as_by_pillow(images.images[:2], 224) / 255
    inputs = (sized - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    torch.testing.assert_close(clip(images.images[:2]), theirs(inputs), rtol=1e-3, atol=1e-4)
    assert (clip.name, clip.width) == ("clip_vit_b32_random", 512)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (256, 256), (336, 336), (512, 512), (400, 701), (1024, 1024)])
@pytest.mark.parametrize("noise", [True, False])
def test_clip_resizes_as_the_code_of_cmmd_does_with_pillow(height: int, width: int, noise: bool) -> None:
    random = np.random.default_rng(0)
    coarse = (height, width, 3) if noise else (9, 9, 3)
    picture = Image.fromarray(random.integers(0, 256, coarse, dtype=np.uint8)).resize((width, height), Image.BICUBIC)
    square = min(height, width)
    left, top = (width - square) // 2, (height - square) // 2
    cropped = picture.crop((left, top, left + square, top + square)).resize((336, 336), Image.BICUBIC)
    images = from_uint8(torch.from_numpy(np.array(picture)).permute(2, 0, 1))[None]
    found = resized_as_by_pillow(images, 336)[0].permute(1, 2, 0)
    apart = (found - torch.from_numpy(np.array(cropped)).float()).abs()
    assert bool((found == found.round()).all())
    assert apart.max() <= 2
    assert (apart > 1).double().mean() < 1e-3
    assert (apart > 0).double().mean() < 0.05


def test_clip_is_differentiable_in_images_of_another_size() -> None:
    images = torch.linspace(-0.9, 0.9, 3 * 20 * 20).view(1, 3, 20, 20).requires_grad_()
    resized_as_by_pillow(images, 30).sum().backward()
    assert images.grad is not None
    assert images.grad.sum() == pytest.approx(127.5 * 3 * 30 * 30, rel=1e-3), "levels for each unit of the images"


@torch.no_grad()
def test_mae_is_not_masked(registry: Registry, images: ImageBatch) -> None:
    mae = registry.build("features", {"use": "mae", "network": "vit_b16", **RANDOM})
    first, second = mae(images.images[:1]), mae(images.images[:1])
    assert torch.equal(first, second)
    assert (mae.name, mae.width) == ("mae_vit_b16_random", 768)


def test_features_are_frozen_and_differentiable_in_the_images(tiny: Features, images: ImageBatch) -> None:
    real = images.images[:1].clone().requires_grad_()
    tiny(real)[:, ::2].sum().backward()
    assert real.grad is not None
    assert real.grad.abs().max() > 0
    assert not any(parameter.requires_grad for parameter in tiny.parameters())


@pytest.mark.parametrize(
    ("network", "hint"),
    [
        ("vit_large_patch14_clip_336.nobody", "vit_large_patch14_clip_336.openai"),
        ("no_network", "timm.list_pretrained"),
        ("vit_tiny_patch16_224.random", "vit_tiny_patch16_224.augreg_in21k"),
    ],
)
def test_a_network_that_timm_lacks_is_refused_by_check(registry: Registry, network: str, hint: str) -> None:
    spec = registry.spec("features", {"use": "timm", "network": network})
    needs = needs_of([((), spec)], lambda problem: RobustokError(problem.what, hint=problem.hint))
    (problem,) = needs.problems
    assert f"timm has no weights of a network {network!r}" in str(problem)
    assert hint in str(problem)
    with pytest.raises(RobustokError, match=f"timm has no weights of a network {network!r}"):
        spec.build()
