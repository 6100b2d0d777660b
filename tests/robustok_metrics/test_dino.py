from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from robustok_core import Features, ImageBatch, ProblemsError, Registry, RobustokError


@pytest.fixture(scope="module")
def dino(registry: Registry) -> Features:
    return registry.build("features", {"use": "dino", "weights": "random"})


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.file_download.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@torch.no_grad()
def test_pooled_features_are_timms_class_token_for_normalised_images(dino: Any, images: ImageBatch) -> None:
    large = torch.nn.functional.interpolate(images.images[:2], size=(224, 224))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalised = ((large + 1) / 2 - mean[:, None, None]) / std[:, None, None]
    expected = dino.net.forward_features(normalised)[:, 0]
    torch.testing.assert_close(dino(large), expected)


@torch.no_grad()
def test_maps_are_block_inputs_and_outputs_plus_the_class_token(dino: Any, images: ImageBatch) -> None:
    large = torch.nn.functional.interpolate(images.images[:1], size=(224, 224))
    maps = dino.maps(large)
    assert [tuple(layer.shape) for layer in maps] == [(1, 384, 14, 14)] * 5
    seen: list[torch.Tensor] = []
    hooks = [dino.net.blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))]
    hooks += [
        dino.net.blocks[i].register_forward_hook(lambda _, __, output: seen.append(output)) for i in (2, 5, 8, 11)
    ]
    dino.net.forward_features(dino._prepare(large))
    for hook in hooks:
        hook.remove()
    for layer, tokens in zip(maps, seen, strict=True):
        assert torch.equal(layer[0, :, 3, 5], tokens[0, 1 + 3 * 14 + 5] + tokens[0, 0])


def test_features_are_frozen_and_differentiable_in_the_images(dino: Features, images: ImageBatch) -> None:
    real = images.images[:1].clone().requires_grad_()
    dino(real)[:, ::2].sum().backward()
    assert real.grad is not None
    assert real.grad.abs().max() > 0
    assert not any(parameter.requires_grad for parameter in dino.parameters())


def test_random_weights_are_always_the_same_and_have_their_own_name(dino: Features, registry: Registry) -> None:
    assert dino.name == "dino_random"
    assert registry.build("features", {"use": "dino", "weights": "random"}).fingerprint == dino.fingerprint


def test_local_file_is_read(dino: Any, registry: Registry, tmp_path: Path, images: ImageBatch) -> None:
    file = tmp_path / "weights.pth"
    torch.save({name: value + 0.01 for name, value in dino.net.state_dict().items()}, file)
    loaded = registry.build("features", {"use": "dino", "weights": str(file)})
    assert loaded.name == "dino_other"
    assert torch.equal(loaded.net.norm.bias, dino.net.norm.bias + 0.01)


def test_missing_file_is_named(registry: Registry) -> None:
    with pytest.raises(RobustokError, match="there is no file 'nowhere.pth'"):
        registry.build("features", {"use": "dino", "weights": "nowhere.pth"})


def test_file_of_another_network_is_refused_in_one_line(registry: Registry, tmp_path: Path) -> None:
    file = tmp_path / "other.pth"
    torch.save(torch.nn.Linear(2, 2).state_dict(), file)
    with pytest.raises(RobustokError, match="cannot be loaded") as caught:
        registry.build("features", {"use": "dino", "weights": str(file)})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["dino", "dinov2"])
@pytest.mark.usefixtures("no_network")
def test_an_unreachable_hub_gives_one_line_with_a_hint(registry: Registry, name: str) -> None:
    with pytest.raises(RobustokError, match=r"cannot get the weights of timm/vit_.*HF_HUB_OFFLINE is set") as caught:
        registry.build("features", {"use": name})
    assert "\n" not in str(caught.value)
    assert 'weights = "FILE"' in str(caught.value)


def test_dinov2_requires_whole_patches(registry: Registry) -> None:
    with pytest.raises(ProblemsError, match="must be a multiple of 14"):
        registry.spec("features", {"use": "dinov2", "image_size": 256})
