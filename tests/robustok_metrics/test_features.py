"""The contract of all feature networks, and the documented properties of each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import robustok_metrics.fashion_classifier as fashion
from robustok_core import Features, ImageBatch, ProblemsError, Registry

OFFLINE = ["efficientnet_lite0", "fashion_classifier"]


@pytest.fixture(scope="module", params=OFFLINE)
def features(request: pytest.FixtureRequest, registry: Registry) -> Features:
    return registry.build("features", {"use": request.param})


def test_weights_take_no_gradient_and_train_mode_has_no_effect(features: Features, images: ImageBatch) -> None:
    before = features(images.images[:4])
    features.train()
    assert not any(module.training for module in features.modules())
    assert not any(parameter.requires_grad for parameter in features.parameters())
    assert torch.equal(features(images.images[:4]), before)


def test_pooled_features_are_differentiable_in_the_images(features: Features, images: ImageBatch) -> None:
    real = images.images[:2].clone().requires_grad_()
    features(real)[:, ::2].sum().backward()
    assert real.grad is not None
    assert bool((real.grad.abs().flatten(1).amax(dim=1) > 0).all())


def test_maps_go_from_large_and_shallow_to_small_and_deep(features: Features, images: ImageBatch) -> None:
    maps = features.maps(images.images[:2])
    sides, channels = [layer.shape[-1] for layer in maps], [layer.shape[1] for layer in maps]
    assert sides == sorted(sides, reverse=True)
    assert channels == sorted(channels)
    assert all(layer.shape[0] == 2 for layer in maps)


@pytest.mark.parametrize("size", [28, 32, 96])
def test_images_of_any_size_give_the_same_number_of_features(features: Features, size: int) -> None:
    assert features(torch.zeros(1, 3, size, size)).shape == (1, features.width)


def test_scores_have_one_column_per_class(features: Features, images: ImageBatch) -> None:
    assert features.logits(features(images.images[:2])).shape == (2, features.num_logits)


def test_same_network_has_the_same_fingerprint(features: Features, registry: Registry) -> None:
    assert registry.build("features", {"use": features.name}).fingerprint == features.fingerprint


def test_a_changed_weight_changes_the_fingerprint(registry: Registry) -> None:
    one, two = (registry.build("features", {"use": "fashion_classifier"}) for _ in range(2))
    next(two.parameters()).data.flatten()[0] += 1e-6
    assert one.fingerprint != two.fingerprint


@pytest.mark.parametrize("name", OFFLINE)
def test_building_does_not_change_the_global_generator(registry: Registry, name: str) -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    registry.build("features", {"use": name})
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("name", [*OFFLINE, "dino", "dinov2"])
def test_networks_run_on_the_meta_device(registry: Registry, name: str) -> None:
    with torch.device("meta"):
        built = registry.build("features", {"use": name})
        assert built(torch.empty(2, 3, 32, 32)).shape == (2, built.width)


# --- efficientnet_lite0 ---------------------------------------------------------------------------


def total_variance(features: Features, images: Tensor) -> float:
    with torch.no_grad():
        return features(images).double().var(dim=0).sum().item()


def test_small_images_are_enlarged_because_features_hardly_vary_at_32_pixels(
    registry: Registry, images: ImageBatch
) -> None:
    at_64, at_32 = (
        total_variance(registry.build("features", {"use": "efficientnet_lite0", "min_size": size}), images.images)
        for size in (64, 32)
    )
    assert at_64 > 1000 > 25 * at_32


def test_enlargement_is_the_networks_first_step(registry: Registry, images: ImageBatch) -> None:
    network = registry.build("features", {"use": "efficientnet_lite0"})
    enlarged = torch.nn.functional.interpolate(images.images[:2], scale_factor=2, mode="bilinear", align_corners=False)
    assert torch.equal(network(enlarged), network(images.images[:2]))


def test_black_and_white_are_normalised_as_in_the_networks_training(registry: Registry) -> None:
    network = registry.build("features", {"use": "efficientnet_lite0"})
    seen: list[Tensor] = []
    network.net.conv_stem.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network.maps(torch.tensor([-1.0, 1.0])[:, None, None, None].expand(2, 3, 64, 64))
    assert seen[0][:, 0, 0, 0].tolist() == [-127 / 128, 1.0]  # (pixel - 127) / 128


def test_images_above_224_pixels_are_shrunk(registry: Registry) -> None:
    network = registry.build("features", {"use": "efficientnet_lite0"})
    shapes = [network.maps(torch.zeros(1, 3, size, size))[0].shape[-1] for size in (64, 224, 256)]
    assert shapes == [32, 112, 112]


def test_another_min_size_has_another_name_and_fingerprint(registry: Registry) -> None:
    default = registry.build("features", {"use": "efficientnet_lite0"})
    other = registry.build("features", {"use": "efficientnet_lite0", "min_size": 96})
    assert (default.name, other.name) == ("efficientnet_lite0", "efficientnet_lite0_at_96")
    assert default.fingerprint.partition("-")[2] != other.fingerprint.partition("-")[2]


@pytest.mark.parametrize(
    ("table", "name"),
    [
        ({"use": "efficientnet_lite0"}, "efficientnet_lite0"),
        ({"use": "efficientnet_lite0", "max_size": 160}, "efficientnet_lite0_max_160"),
        ({"use": "efficientnet_lite0", "min_size": 96, "max_size": 160}, "efficientnet_lite0_at_96_max_160"),
        ({"use": "dinov2"}, "dinov2"),
        ({"use": "dinov2", "image_size": 448}, "dinov2_at_448"),
        ({"use": "dinov2", "image_size": 448, "weights": "random"}, "dinov2_at_448_random"),
    ],
)
def test_another_input_size_is_part_of_the_name(registry: Registry, table: dict[str, Any], name: str) -> None:
    assert registry.spec("features", table).sketch().name == name


def test_sneakers_get_high_scores_for_imagenets_shoe_classes(registry: Registry) -> None:
    """With wrongly assigned weights, classes would be random, and the top 20 would rarely include a shoe."""
    network = registry.build("features", {"use": "efficientnet_lite0", "min_size": 128})
    dataset = registry.build("dataset", {"use": "fashion_mnist"})
    labels = dataset.validation.labels
    sneakers = dataset.validation.load((labels == 7).nonzero()[:20, 0].tolist()).images
    with torch.no_grad():
        likely = network.logits(network(sneakers)).topk(20).indices
    shoes = torch.tensor([502, 514, 630, 770, 774, 788])  # clog, cowboy boot, loafer, running shoe, sandal, shoe shop
    assert torch.isin(likely, shoes).any(dim=1).double().mean() > 0.5


def test_contradictory_sizes_are_refused(registry: Registry) -> None:
    with pytest.raises(ProblemsError, match="min_size 128 is above max_size 96"):
        registry.spec("features", {"use": "efficientnet_lite0", "min_size": 128, "max_size": 96})


# --- fashion_classifier ---------------------------------------------------------------------------


def test_shipped_weights_are_as_accurate_as_their_report_states(registry: Registry) -> None:
    report = json.loads((Path(fashion.__file__).parent / fashion.WEIGHTS).with_suffix(".json").read_text())
    network = registry.build("features", {"use": "fashion_classifier"})
    dataset = registry.build("dataset", {"use": "fashion_mnist"})
    batch = dataset.validation.load(range(1000))
    with torch.no_grad():
        right = (network.logits(network(batch.images)).argmax(1) == batch.labels).double().mean().item()
    assert report["validation_accuracy"] > 0.88
    assert right == pytest.approx(report["validation_accuracy"], abs=0.02)  # half of the images
    assert sum(p.numel() for p in network.parameters()) == report["parameters"]


def test_training_is_a_function_of_the_seed(registry: Registry, images: ImageBatch) -> None:
    from robustok_metrics import train_fashion_classifier as training

    small = images.images.repeat(3, 1, 1, 1)[:128], images.labels.repeat(3)[:128]
    one, two, three = (training.train(*small, epochs=1, seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["head.weight"], three["head.weight"])


def test_augmentation_flips_and_shifts_by_at_most_two_pixels() -> None:
    from robustok_core import Draws
    from robustok_metrics.train_fashion_classifier import augment

    dot = torch.full((400, 1, 9, 9), -1.0)
    dot[:, :, 4, 3] = 1.0  # its mirror image is in column 5
    positions = augment(dot, Draws.for_rows(5, 400))[:, 0].flatten(1).argmax(dim=1)
    rows, columns = positions // 9, positions % 9
    assert set(rows.tolist()) == {2, 3, 4, 5, 6}
    assert set(columns.tolist()) == {1, 2, 3, 4, 5, 6, 7}
