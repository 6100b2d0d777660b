"""Features of images and of files: each image is seen once, with any number of processes; caching and statistics."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from attrs import frozen
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from processes import one_and_two
from robustok_core import Features, RobustokError, RunError, Spec
from robustok_toolkit.feature_files import PublishedFeatures, open_features, require_statistics, statistics_in
from robustok_toolkit.image_features import (
    ExtractedFeatures,
    Extraction,
    Networks,
    SharedFeatures,
    network_of,
    singular_note,
    sorted_note,
)
from robustok_toolkit.image_files import write_samples

CPU = torch.device("cpu")
PIXELS = np.random.default_rng(0).integers(0, 256, (23, 8, 8, 3), dtype=np.uint8)


def extraction(networks: Networks, **options: Any) -> Extraction:
    return Extraction(networks=networks, device=CPU, **options)


@frozen(kw_only=True)
class MeansConfig:
    name: str = "means"
    version: int = 1


class Means(Features):
    """The mean of each channel; class scores are the means times 1, 2, 3. Counts the images it has seen."""

    Config = MeansConfig
    width = 3
    num_logits = 3

    def __init__(self, config: MeansConfig) -> None:
        super().__init__()
        self.config, self.name, self.seen = config, config.name, 0

    def forward(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        return images.mean(dim=(2, 3))

    def maps(self, images: Tensor) -> list[Tensor]:
        return [images]

    def logits(self, pooled: Tensor) -> Tensor:
        return pooled * torch.arange(1.0, 4.0)

    @property
    def fingerprint(self) -> str:
        return f"{self.name}-{self.config.version}"


class Headless(Means):
    num_logits = 0


def means(name: str = "means", version: int = 1, factory: type = Means) -> Spec:
    return Spec(kind="features", name="means", factory=factory, config=MeansConfig(name=name, version=version))


@pytest.fixture
def networks() -> SharedFeatures:
    return SharedFeatures(CPU)


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    file = tmp_path / "samples.npz"
    write_samples(file, iter(PIXELS), torch.arange(23) % 5, image_size=8)
    return file


@pytest.fixture
def reference(tmp_path: Path) -> Callable[..., Path]:
    """Saves a reference file with mu and sigma of three features."""

    def save(**arrays: Any) -> Path:
        np.savez(tmp_path / "reference.npz", mu=np.arange(3.0), sigma=np.diag([1.0, 2.0, 3.0]), **arrays)
        return tmp_path / "reference.npz"

    return save


def expected_features() -> Tensor:
    return torch.from_numpy(PIXELS.mean(axis=(1, 2)) / 127.5 - 1).float()


# --- images ---------------------------------------------------------------------------------------


def test_features_are_those_of_each_image_in_order(samples: Path, networks: SharedFeatures) -> None:
    population = open_features(samples, extraction(networks, batch_size=4))
    features = population.features(means())
    assert len(population) == 23
    assert (features.dtype, features.device) == (torch.float32, CPU)
    torch.testing.assert_close(features, expected_features())
    torch.testing.assert_close(population.logits(means()), expected_features() * torch.tensor([1.0, 2.0, 3.0]))


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="torch before 2.9 has another switch")
def test_networks_run_in_float32_without_tf32(samples: Path, networks: SharedFeatures) -> None:
    seen = []
    networks(means()).register_forward_pre_hook(lambda *_: seen.append(torch.backends.cudnn.conv.fp32_precision))
    open_features(samples, extraction(networks)).features(means())
    assert seen == ["ieee"]
    assert torch.backends.cudnn.conv.fp32_precision == "tf32", "torch's default"


def test_moments_match_numpy(samples: Path, networks: SharedFeatures) -> None:
    mean, covariance = open_features(samples, extraction(networks)).moments(means())
    assert mean.dtype == covariance.dtype == torch.float64
    rows = expected_features().double().numpy()
    np.testing.assert_allclose(mean.numpy(), rows.mean(0), atol=1e-7)
    np.testing.assert_allclose(covariance.numpy(), np.cov(rows, rowvar=False), rtol=1e-4)


def test_each_network_sees_each_image_once(samples: Path, networks: SharedFeatures) -> None:
    population = open_features(samples, extraction(networks))
    for _ in range(2):
        population.features(means())
        population.logits(means())
        population.moments(means())
    population.features(means(version=2))
    assert networks(means()).seen == 23
    assert networks(means(version=2)).seen == 23


def test_limit_takes_equally_many_images_of_each_class(samples: Path, networks: SharedFeatures) -> None:
    population = open_features(samples, extraction(networks), limit=10)
    assert len(population) == 10
    torch.testing.assert_close(population.features(means()), expected_features()[:10])  # labels cycle through 0..4


@pytest.mark.parametrize("kind", ["folder", "npz"])
def test_limit_takes_images_of_all_parts_of_a_set_whose_classes_are_not_known(
    kind: str, tmp_path: Path, networks: SharedFeatures
) -> None:
    """Of ten classes with twenty images each, one after the other."""
    pixels = np.repeat(np.arange(0, 250, 25, dtype=np.uint8), 20)[:, None, None, None] * np.ones((8, 8, 3), np.uint8)
    for number, image in enumerate(pixels):
        place = tmp_path / "folder" / f"class{number // 20}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{number:03d}.png")
    np.savez(tmp_path / "npz.npz", arr_0=pixels)
    path = tmp_path / ("folder" if kind == "folder" else "npz.npz")
    some, all_of_them = (open_features(path, extraction(networks), limit=limit) for limit in (60, None))
    counts = [int((some.features(means())[:, 0] == level).sum()) for level in all_of_them.features(means())[::20, 0]]
    assert sum(counts) == len(some) == 60
    assert min(counts) >= 1
    again = open_features(path, extraction(SharedFeatures(CPU)), limit=60)
    torch.testing.assert_close(again.features(means()), some.features(means()))


def test_workers_change_nothing(samples: Path, networks: SharedFeatures) -> None:
    population = open_features(samples, extraction(networks, batch_size=4, workers=2))
    torch.testing.assert_close(population.features(means()), expected_features())


def test_one_network_serves_equal_configurations(networks: SharedFeatures) -> None:
    assert networks(means()) is networks(means())
    assert networks(means()) is not networks(means(version=2))


def test_network_without_a_classifier_has_no_class_scores(samples: Path, networks: SharedFeatures) -> None:
    population = open_features(samples, extraction(networks))
    with pytest.raises(RobustokError, match="'means' have no classifier"):
        population.logits(means(factory=Headless))
    assert networks(means(factory=Headless)).seen == 0


def test_one_image_has_no_moments(tmp_path: Path, networks: SharedFeatures) -> None:
    write_samples(tmp_path / "one.npz", iter(PIXELS[:1]), torch.zeros(1, dtype=torch.int64), image_size=8)
    population = open_features(tmp_path / "one.npz", extraction(networks))
    with pytest.raises(RobustokError, match="at least two images, found 1"):
        population.moments(means())


def test_features_that_are_not_finite_are_named(samples: Path, networks: SharedFeatures) -> None:
    class Broken(Means):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images).log()  # of negative means

    population = open_features(samples, extraction(networks))
    with pytest.raises(RunError, match="features 'means': `forward` returns features that are not finite"):
        population.features(means(factory=Broken))


# --- the cache ------------------------------------------------------------------------------------


def test_cached_features_and_moments_are_the_same_and_run_no_network(samples: Path, tmp_path: Path) -> None:
    results = []
    for _ in range(2):
        networks = SharedFeatures(CPU)
        population = open_features(samples, extraction(networks), cache=tmp_path / "cache")
        results.append((*population.moments(means()), population.features(means())))
    assert networks(means()).seen == 0
    assert all(torch.equal(computed, cached) for computed, cached in zip(*results, strict=True))


def test_cache_is_keyed_by_images_their_number_and_network(samples: Path, tmp_path: Path) -> None:
    write_samples(tmp_path / "others.npz", iter(PIXELS[::-1]), torch.arange(23) % 5, image_size=8)
    for file, limit, version in (
        (samples, None, 1),
        (samples, None, 2),
        (samples, 10, 1),
        (tmp_path / "others.npz", None, 1),
        (samples, None, 1),
        (samples, 23, 1),
    ):
        networks = SharedFeatures(CPU)
        population = open_features(file, extraction(networks), cache=tmp_path / "cache", limit=limit)
        population.features(means(version=version))
    assert len(list((tmp_path / "cache").iterdir())) == 4


def test_damaged_cache_is_named_and_computed_again(
    samples: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def features() -> torch.Tensor:
        return open_features(samples, extraction(SharedFeatures(CPU)), cache=tmp_path / "cache").features(means())

    expected = features()
    (file,) = (tmp_path / "cache").iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:50])
    assert torch.equal(features(), expected)
    assert f"{file}: is computed again" in caplog.text
    assert file.read_bytes() == whole


# --- two processes --------------------------------------------------------------------------------


def test_two_processes_have_the_same_features_as_one(tmp_path: Path) -> None:
    one_and_two(Path(__file__).with_name("features_two_processes.py"), tmp_path)
    one, *both = (load_file(tmp_path / f"{name}.safetensors") for name in ("0-of-1", "0-of-2", "1-of-2"))
    assert one["features"].shape == (101, 96)
    for process in both:
        for name, expected in one.items():
            torch.testing.assert_close(process[name], expected, rtol=1e-5, atol=1e-5)
    assert all(torch.equal(process["features"], process["again"]) for process in (one, *both))


def test_gathered_rows_of_any_type_are_those_of_one_process_and_held_once(tmp_path: Path) -> None:
    one_and_two(Path(__file__).with_name("gathered_on_two.py"), tmp_path)
    one, *both = (torch.load(tmp_path / f"{name}.pt") for name in ("0-of-1", "0-of-2", "1-of-2"))
    for process in both:
        for name, expected in one.items():
            assert process[name].dtype == expected.dtype, name
            assert torch.equal(process[name], expected), name
        assert process["equal"]
        assert process["largest piece"] <= 2**24
        assert 0.9 < process["memory"] < 1.25


# --- statistics -----------------------------------------------------------------------------------


def test_moments_of_a_reference_are_its_mu_and_sigma(reference: Callable[..., Path], networks: SharedFeatures) -> None:
    population = open_features(reference(), extraction(networks))
    assert isinstance(population, PublishedFeatures)
    assert len(population) == 0
    mean, covariance = population.moments(means("inception"))
    assert mean.tolist() == [0.0, 1.0, 2.0]
    assert covariance.diagonal().tolist() == [1.0, 2.0, 3.0]


def test_a_reference_has_features_of_its_images_and_moments_of_its_statistics(
    reference: Callable[..., Path], networks: SharedFeatures
) -> None:
    population = open_features(reference(arr_0=PIXELS), extraction(networks))
    assert len(population) == 23
    torch.testing.assert_close(population.features(means("inception")), expected_features())
    assert population.moments(means("inception"))[0].tolist() == [0.0, 1.0, 2.0]


def test_a_limit_is_refused_for_moments_that_are_of_all_images(
    reference: Callable[..., Path], networks: SharedFeatures
) -> None:
    population = open_features(reference(arr_0=PIXELS), extraction(networks), limit=10)
    assert len(population.features(means("inception"))) == 10
    with pytest.raises(RobustokError, match="they cannot be limited to 10") as caught:
        population.moments(means("inception"))
    assert caught.value.where == population.name


def test_statistics_are_of_the_published_inception_only(
    reference: Callable[..., Path], networks: SharedFeatures
) -> None:
    population = open_features(reference(arr_0=PIXELS), extraction(networks))
    with pytest.raises(RobustokError, match="published Inception's features, not of 'inception_other'") as caught:
        population.moments(means("inception_other"))
    assert caught.value.where == population.name


def test_statistics_of_spatial_features_are_mu_s_and_sigma_s(
    reference: Callable[..., Path], networks: SharedFeatures
) -> None:
    file = reference(mu_s=np.array([5.0, 6.0, 7.0]), sigma_s=2 * np.eye(3))
    population = open_features(file, extraction(networks))
    mean, covariance = population.moments(means("inception_spatial"))
    assert mean.tolist() == [5.0, 6.0, 7.0]
    assert covariance.diagonal().tolist() == [2.0, 2.0, 2.0]
    assert population.moments(means("inception"))[0].tolist() == [0.0, 1.0, 2.0]
    with pytest.raises(RobustokError, match="not those of spatial features, mu_s and sigma_s"):
        open_features(reference(), extraction(networks)).moments(means("inception_spatial"))


def test_statistics_of_another_width_are_refused(networks: SharedFeatures) -> None:
    mean, covariance = torch.zeros(4, dtype=torch.float64), torch.eye(4, dtype=torch.float64)
    population = PublishedFeatures(mean, covariance, None, name="four", networks=networks)
    with pytest.raises(RobustokError, match="mu has 4 numbers, but inception has 3 features"):
        population.moments(means("inception"))


@pytest.mark.parametrize("what", ["features", "logits"])
def test_statistics_alone_have_no_features(reference: Callable[..., Path], networks: SharedFeatures, what: str) -> None:
    population = open_features(reference(), extraction(networks))
    with pytest.raises(RobustokError, match="statistics but no images"):
        getattr(population, what)(means("inception"))


# --- notes ----------------------------------------------------------------------------------------


def test_the_network_comes_from_the_population(samples: Path, networks: SharedFeatures) -> None:
    population = open_features(samples, extraction(networks))
    assert network_of(means(), population) is networks(means())


@pytest.mark.parametrize(("count", "noted"), [(2047, True), (2048, True), (2049, False), (50000, False)])
def test_a_singular_covariance_is_noted_if_images_do_not_outnumber_features(count: int, noted: bool) -> None:
    assert torch.linalg.matrix_rank(torch.eye(4).cov()) == 3  # as many images as features: one rank short
    assert (singular_note(count, 2048) is not None) == noted


@pytest.mark.parametrize(
    ("labels", "noted"),
    [([0, 0, 1, 1, 2, 2], True), ([0, 1, 2, 0, 1, 2], False), ([0, 0, 0, 0, 0, 0], False), ([0, 1, 2, 3, 4, 5], False)],
)
def test_class_sorted_samples_are_noted(
    tmp_path: Path, networks: SharedFeatures, labels: list[int], noted: bool
) -> None:
    write_samples(tmp_path / "six.npz", iter(PIXELS[:6]), torch.tensor(labels), image_size=8)
    population = open_features(tmp_path / "six.npz", extraction(networks))
    assert isinstance(population, ExtractedFeatures)
    assert (sorted_note(population) is not None) == noted


@pytest.mark.parametrize(
    ("arrays", "held"),
    [({}, {"inception": 3}), ({"mu_s": np.zeros(2), "sigma_s": np.eye(2)}, {"inception": 3, "inception_spatial": 2})],
)
def test_which_statistics_a_reference_has_is_known_without_its_features(
    reference: Callable[..., Path], networks: SharedFeatures, arrays: dict[str, Any], held: dict[str, int]
) -> None:
    file = reference(**arrays)
    assert statistics_in(file) == open_features(file, extraction(networks)).statistics == held
    require_statistics(networks(means("inception")), held, "here")
    if "inception_spatial" not in held:
        with pytest.raises(RobustokError, match="but not those of spatial features"):
            require_statistics(networks(means("inception_spatial")), held, "here")


def test_images_have_no_statistics_of_their_own(samples: Path, networks: SharedFeatures) -> None:
    assert statistics_in(samples) is open_features(samples, extraction(networks)).statistics is None
    assert statistics_in(samples.parent) is None
