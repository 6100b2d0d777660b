"""Distances in feature maps and LPIPS, against plain formulas."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
import torch
from torch import nn

from robustok_core.errors import ProblemsError, RobustokError
from robustok_losses.frozen import FrozenMaps
from robustok_losses.lpips_vgg import LpipsVgg
from robustok_losses.perceptual import FeatureDistance


def on_features(registry, **options):
    return registry.build("loss", {"use": "perceptual", "network": "features", **options})


def test_the_distance_is_that_of_unit_vectors_averaged_over_positions_then_maps(tiny, registry):
    step = tiny.make_step()
    network = tiny.features().build().eval()

    expected = []
    for one, other in zip(network.maps(step.images), network.maps(step.batch.images), strict=True):
        one, other = one.detach().numpy().astype(np.float64), other.numpy().astype(np.float64)
        one = one / np.sqrt((one**2).sum(axis=1, keepdims=True))
        other = other / np.sqrt((other**2).sum(axis=1, keepdims=True))
        expected.append(((one - other) ** 2).sum(axis=1).mean())

    assert on_features(registry)(step).item() == pytest.approx(np.mean(expected), rel=1e-5)
    assert on_features(registry, layers=[-1])(step).item() == pytest.approx(expected[1], rel=1e-5)


def test_unrelated_features_are_2_apart_and_opposite_ones_4(tiny):
    class Given(tiny.TinyFeatures):
        def maps(self, images):
            return [images]

    distance = FeatureDistance(FrozenMaps(Given(tiny.TinyFeaturesConfig())))
    real = torch.zeros(3, 3, 4, 4)
    real[:, 0] = 5.0
    made = torch.zeros(3, 3, 4, 4)
    made[0, 0], made[1, 1], made[2, 0] = 2.0, 7.0, -1.0

    assert distance(made, real).tolist() == pytest.approx([0.0, 2.0, 4.0])


def test_the_gradient_reaches_the_latents_but_not_the_networks_weights(tiny, registry):
    loss = on_features(registry)
    step = tiny.make_step()

    (gradient,) = torch.autograd.grad(loss(step), step.latents.vectors)

    assert gradient.abs().min() > 0
    assert all(weight.grad is None for weight in loss.distance.maps.network.parameters())


def test_features_that_are_all_zero_give_a_finite_gradient(tiny, registry):
    loss = on_features(registry)
    for level in loss.distance.maps.network.levels:
        nn.init.zeros_(level.bias)
    step = tiny.make_step()
    images = torch.zeros_like(step.images, requires_grad=True)

    (gradient,) = torch.autograd.grad(loss(attrs.evolve(step, images=images)), images)

    assert gradient.isfinite().all()


def test_a_frozen_network_moves_with_the_loss_but_is_not_in_its_state(tiny, registry):
    loss = on_features(registry)
    before = loss(tiny.make_step())
    loss.train()

    assert loss.own_parameters() == []
    assert loss.state_dict() == {}
    assert torch.equal(loss(tiny.make_step()), before)  # its dropout stays off
    assert {weight.dtype for weight in loss.double().distance.maps.network.parameters()} == {torch.float64}


def test_a_layer_that_the_network_lacks_is_named(registry):
    with pytest.raises(RobustokError, match=r"'tiny' have no map 2 \(they have 2 maps, 0 \(shallowest\) to 1\)"):
        on_features(registry, layers=[0, 2])
    with pytest.raises(RobustokError, match="at least one map"):
        on_features(registry, layers=[])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"network": "features", "weights": "vgg.pth"}, 'only with network = "lpips_vgg"'),
        ({"network": "lpips_vgg", "layers": [0]}, 'only with network = "features"'),
        ({"network": "alexnet"}, "is not one of 'lpips_vgg', 'features'"),
        ({"weight": -1.0}, "out of range"),
    ],
)
def test_invalid_options_are_refused(registry, options, message):
    with pytest.raises(ProblemsError, match=message):
        registry.spec("loss", {"use": "perceptual", **options})


@pytest.fixture(scope="module")
def vgg(tmp_path_factory):
    """VGG-16's convolutions with random weights, and a file with them in torchvision's format."""
    from torchvision.models.vgg import cfgs, make_layers

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        trunk = make_layers(cfgs["D"]).eval().requires_grad_(False)
    file = tmp_path_factory.mktemp("weights") / "vgg16.pth"
    torch.save({f"features.{name}": value for name, value in trunk.state_dict().items()}, file)
    return trunk, file


@pytest.fixture(scope="module")
def lpips_vgg(vgg):
    return LpipsVgg(str(vgg[1]))


def test_lpips_is_the_published_formula_with_the_weights_of_the_file(vgg, lpips_vgg, tiny):
    from importlib.resources import files

    step = tiny.make_step(rows=slice(0, 2))
    linear = torch.load(str(files("lpips") / "weights/v0.1/vgg.pth"), map_location="cpu", weights_only=True)
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])

    def maps(images):
        x = (images - shift[:, None, None]) / scale[:, None, None]
        maps = []
        for number, layer in enumerate(vgg[0][:30]):
            x = layer(x)
            if number in (3, 8, 15, 22, 29):  # the last ReLU before each pooling
                maps.append(x / (x.square().sum(dim=1, keepdim=True).sqrt() + 1e-10))
        return maps

    pairs = zip(maps(step.images), maps(step.batch.images), strict=True)
    expected = [
        ((one - other).square() * linear[f"lin{level}.model.1.weight"]).sum(dim=1).mean(dim=(1, 2))
        for level, (one, other) in enumerate(pairs)
    ]

    torch.testing.assert_close(lpips_vgg(step.images, step.batch.images), sum(expected), rtol=1e-4, atol=0)


def test_lpips_applies_no_dropout_in_training_mode(lpips_vgg, tiny):
    step = tiny.make_step(rows=slice(0, 2))
    before = lpips_vgg(step.images, step.batch.images)

    after = lpips_vgg.train()(step.images, step.batch.images)

    assert torch.equal(before, after)
    assert list(lpips_vgg.parameters()) == []
    assert after.requires_grad


def test_a_failed_download_of_lpips_names_the_alternative(monkeypatch, tmp_path, registry):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))  # an empty cache
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # and no internet access
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")

    with pytest.raises(RobustokError, match='use network = "features"') as caught:
        registry.build("loss", {"use": "perceptual"})

    assert "\n" not in str(caught.value)


def test_lpips_runs_on_the_meta_device(registry):
    with torch.device("meta"):
        loss = registry.build("loss", {"use": "perceptual", "weights": "a file that is not read"})

    images = torch.zeros(2, 3, 32, 32, device="meta")
    assert loss.distance(images, images).shape == (2,)
