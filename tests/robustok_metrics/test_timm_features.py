"""The features `timm`, `mae` and `clip`, with random weights: published ones need a download."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from robustok_core import Features, ImageBatch, Registry, RobustokError
from robustok_core.runs.downloads import needs_of

RANDOM = {"weights": "random"}
TINY = {"use": "timm", "network": "vit_tiny_patch16_224.augreg_in21k", **RANDOM}
CONVNEXT = {"use": "timm", "network": "convnextv2_atto.fcmae", **RANDOM}
SIGLIP = {"use": "timm", "network": "vit_base_patch32_siglip_256.v2_webli", **RANDOM}


@pytest.fixture(scope="module")
def tiny(registry: Registry) -> Any:
    return registry.build("features", TINY)


def prepared(images: Tensor, size: int, mean: Any, std: Any, *, antialias: bool = True) -> Tensor:
    x = torch.nn.functional.interpolate((images + 1) / 2, size=(size, size), mode="bicubic", antialias=antialias)
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
    inputs = prepared(images.images[:2], 224, mean, std, antialias=False)
    torch.testing.assert_close(clip(images.images[:2]), theirs(inputs), rtol=1e-3, atol=1e-4)
    assert (clip.name, clip.width) == ("clip_vit_b32_random", 512)


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
