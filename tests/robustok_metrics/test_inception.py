from __future__ import annotations

import urllib.error
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch_fidelity import feature_extractor_inceptionv3 as fidelity

from robustok_core import Features, ImageBatch, Registry, RobustokError
from robustok_core.values.images import to_uint8


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in the layout of the published file."""
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        torch.manual_seed(0)
        patch.setattr(fidelity, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(fidelity.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        network = fidelity.FeatureExtractorInceptionV3("random", ["2048"])
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):  # with torch's default initialisation, activations would vanish
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    file = tmp_path_factory.mktemp("inception") / "random.pth"
    torch.save(network.state_dict(), file)
    return file


@pytest.fixture(scope="module")
def inception(registry: Registry, weights: Path) -> Features:
    return registry.build("features", {"use": "inception", "weights": str(weights)})


@torch.no_grad()
def test_features_and_scores_match_torch_fidelity(inception: Features, weights: Path, images: ImageBatch) -> None:
    theirs = fidelity.FeatureExtractorInceptionV3(
        "theirs", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(weights)
    )
    pooled, scores = theirs(to_uint8(images.images[:2]))
    ours = inception(images.images[:2])
    assert pooled.std() > 0.1
    torch.testing.assert_close(ours, pooled, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(inception.logits(ours), scores, rtol=1e-4, atol=1e-5)


def test_images_are_rounded_to_8_bits_but_get_a_gradient(inception: Features, images: ImageBatch) -> None:
    real = images.images[:1]
    nudged = (real + 0.4 / 255).requires_grad_()  # less than half a level
    assert torch.equal(inception(nudged), inception(real.clamp(-1, 1)))
    inception(nudged)[:, ::2].sum().backward()
    assert nudged.grad is not None
    assert nudged.grad.abs().max() > 0


def test_weights_other_than_the_published_ones_are_not_called_inception(inception: Features) -> None:
    assert inception.name == "inception_other"


def test_maps_have_the_documented_shapes(inception: Features, images: ImageBatch) -> None:
    with torch.no_grad():
        shapes = [tuple(layer.shape[1:]) for layer in inception.maps(images.images[:1])]
    assert shapes == [(64, 73, 73), (192, 35, 35), (288, 35, 35), (768, 17, 17), (2048, 8, 8)]


@torch.no_grad()
def test_spatial_features_are_adms_channels_of_the_1x1_branch(
    inception: Any, registry: Registry, weights: Path, images: ImageBatch
) -> None:
    """ "mixed_6/conv" of the TensorFlow graph is the 1x1 branch of Mixed_6d, after its batch norm and ReLU."""
    spatial = registry.build("features", {"use": "inception_spatial", "weights": str(weights)})
    seen: list[torch.Tensor] = []
    hook = inception.net.Mixed_6d.branch1x1.register_forward_hook(lambda _, __, output: seen.append(output))
    inception(images.images[:2])
    hook.remove()
    (branch,) = seen
    assert branch.shape == (2, 192, 17, 17)
    expected = branch[:, :7].permute(0, 2, 3, 1).reshape(2, 2023)  # numpy's [..., :7] of height, width, channel
    torch.testing.assert_close(spatial(images.images[:2]), expected)
    assert spatial.name == "inception_spatial_other"
    with pytest.raises(RobustokError, match="have no classifier head"):
        spatial.logits(expected)


def test_file_with_other_weights_is_named(registry: Registry, tmp_path: Path) -> None:
    file = tmp_path / "other.pth"
    torch.save(nn.Linear(2, 2).state_dict(), file)
    with pytest.raises(RobustokError, match="does not hold the weights of torch-fidelity's InceptionV3"):
        registry.build("features", {"use": "inception", "weights": str(file)})


def test_file_that_contains_code_is_refused(registry: Registry, tmp_path: Path) -> None:
    file = tmp_path / "code.pth"
    torch.save({"weight": torch.zeros(1), "hook": print}, file)
    with pytest.raises(RobustokError, match="refused"):
        registry.build("features", {"use": "inception", "weights": str(file)})


def test_a_failed_download_gives_one_line_with_a_hint(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    with pytest.raises(RobustokError, match="cannot get .* from github.com: .*no route to host") as caught:
        registry.build("features", {"use": "inception"})
    assert "\n" not in str(caught.value)
    assert 'weights = "FILE"' in str(caught.value)
