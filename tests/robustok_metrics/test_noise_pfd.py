"""pFID's counterpart for continuous spaces: the grid, the unit of the noise, and the cost."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from robustok_core import Latents, ProblemsError, Registry, Result, RobustokError, Spec, Tokenizer
from robustok_metrics.frechet import Frechet, FrechetConfig
from robustok_metrics.noise_pfd import LEVELS, NoiseCell, NoisePFD, NoisePFDConfig
from robustok_metrics.perturbed_distance import ALPHAS

NAME = "noise_pfd_colours"
OTHER_GRID = "noise_pfd_gaussian_colours"
Make = Callable[..., NoisePFD]


@pytest.fixture
def noise_pfd(registry: Registry, colours: Callable[..., Spec]) -> Make:
    def make(perturbation: dict[str, Any] | None = None, **options: Any) -> NoisePFD:
        table = {"use": "gaussian", "scale": "relative", "strength": "fixed"} | (perturbation or {})
        spec = registry.spec("perturbation", table)
        return NoisePFD(NoisePFDConfig(features=colours(), perturbation=spec, **options))

    return make


@pytest.fixture(scope="module")
def continuous(registry: Registry) -> Tokenizer:
    """A tokenizer with random weights and 16 tokens of width 4."""
    table = {
        "use": "kl_vae",
        "image_size": 32,
        "channels": 8,
        "channel_multipliers": [1, 1],
        "num_res_blocks": 1,
        "attention": False,
        "norm_groups": 4,
        "stem_patch": 4,
        "z_channels": 8,
        "width": 4,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tokenizer: Tokenizer = registry.build("tokenizer", table)
        return tokenizer.eval()


@pytest.fixture
def noise_evaluation(evaluation: Any, continuous: Tokenizer) -> Any:
    evaluation.tokenizer = continuous
    return evaluation


class Enlarged:
    """The same tokenizer with scaled latents."""

    def __init__(self, tokenizer: Tokenizer, scale: float) -> None:
        self.tokenizer, self.scale = tokenizer, scale
        self.space, self.quantizer = tokenizer.space, None

    def encode(self, images: Tensor) -> Latents:
        vectors = self.tokenizer.encode(images).vectors
        return Latents(vectors=vectors * self.scale)

    def decode(self, latents: Latents) -> Tensor:
        return self.tokenizer.decode_vectors(latents.vectors / self.scale)


def cells_of(results: Mapping[str, Result], name: str = NAME) -> dict[str, float]:
    return results[name].details["cells"]


def test_the_result_is_the_mean_over_five_alphas_by_three_levels(noise_evaluation: Any, noise_pfd: Make) -> None:
    results = noise_evaluation.measure(noise_pfd())
    cells = cells_of(results)
    assert list(cells) == [f"alpha{alpha}_noise{level}" for alpha in ALPHAS for level in LEVELS]
    assert results[NAME].value == pytest.approx(sum(cells.values()) / 15, rel=1e-12)
    assert (results[NAME].details["num_cells"], results[NAME].num_images) == (15, 60)
    assert results[NAME].higher_is_better is False


def test_without_noise_every_cell_is_the_rfd(
    noise_evaluation: Any, noise_pfd: Make, colours: Callable[..., Spec]
) -> None:
    results = noise_evaluation.measure(Frechet(FrechetConfig(features=colours())), noise_pfd(levels=(0.0,)))
    assert set(cells_of(results, OTHER_GRID).values()) == {results["rfd_colours"].value}


def test_a_cell_adds_noise_of_level_times_the_images_deviation_to_alpha_of_the_tokens(
    noise_evaluation: Any, noise_pfd: Make
) -> None:
    metric, cell = noise_pfd(alphas=(0.5,), levels=(0.5,)), NoiseCell(alpha=0.5, level=0.5)
    noise_evaluation.start(metric)
    step = noise_evaluation.step(torch.arange(60))
    perturbed, mask = metric.perturbed(step, cell)
    assert mask.sum(dim=1).tolist() == [8] * 60
    assert torch.equal(perturbed.vectors[~mask], step.latents.vectors[~mask])
    deviation = step.latents.vectors.std(dim=1, correction=0, keepdim=True)
    units = ((perturbed.vectors - step.latents.vectors) / deviation)[mask]  # (480, 4)
    assert units.std().item() == pytest.approx(0.5, rel=4 / (2 * units.numel()) ** 0.5)
    assert units.mean().item() == pytest.approx(0.0, abs=4 * 0.5 / units.numel() ** 0.5)


def test_the_scale_of_the_latents_has_no_effect(noise_evaluation: Any, noise_pfd: Make, continuous: Tokenizer) -> None:
    def noised(factor: float, unit: str = "relative") -> Tensor:
        cell = NoiseCell(alpha=0.9, level=0.5)
        metric = noise_pfd({"scale": unit}, alphas=(cell.alpha,), levels=(cell.level,))
        noise_evaluation.tokenizer = Enlarged(continuous, factor)
        noise_evaluation.start(metric)
        return metric.perturbed(noise_evaluation.step(torch.arange(60)), cell)[0].vectors / factor

    torch.testing.assert_close(noised(8.0), noised(1.0))
    difference = (noised(8.0, "absolute") - noised(1.0, "absolute")).std()
    assert difference.item() == pytest.approx(0.9**0.5 * 0.5 * 7 / 8, rel=0.1)


def test_every_cell_is_independent_of_the_batch_size_and_of_the_other_cells(
    noise_evaluation: Any, noise_pfd: Make
) -> None:
    small, large = (noise_evaluation.measure(noise_pfd(), batch_size=size) for size in (7, 60))
    assert noise_evaluation.numbers(small) == pytest.approx(noise_evaluation.numbers(large), rel=1e-3)
    alone = noise_evaluation.measure(noise_pfd(alphas=(0.7,), levels=(0.5,)), batch_size=60)
    assert cells_of(alone, OTHER_GRID)["alpha0.7_noise0.5"] == cells_of(large)["alpha0.7_noise0.5"]


def test_cells_draw_independently(noise_evaluation: Any, noise_pfd: Make) -> None:
    metric = noise_pfd(alphas=(0.5, 0.9), levels=(0.25, 0.5))
    noise_evaluation.start(metric)
    step = noise_evaluation.step(torch.arange(60))
    masks = [metric.perturbed(step, cell)[1] for cell in metric.perturbations]
    for one, two in itertools.combinations(masks, 2):  # from one stream, the smaller would be a subset of the larger
        assert (one & ~two).any(dim=1).double().mean() > 0.5


def test_summed_states_of_two_halves_give_the_whole(noise_evaluation: Any, noise_pfd: Make) -> None:
    metric = noise_pfd(alphas=(0.5, 0.9), levels=(0.5,))
    whole = noise_evaluation.measure(metric)
    halves = noise_evaluation.numbers(noise_evaluation.measure_in_halves(metric))
    assert halves == pytest.approx(noise_evaluation.numbers(whole), rel=1e-9)


def test_the_network_sees_real_images_once(noise_evaluation: Any, noise_pfd: Make) -> None:
    metric = noise_pfd(alphas=(0.5,), levels=(0.25, 0.5))
    noise_evaluation.measure(metric)
    assert metric.distances.features.seen == 60 * (1 + 2)  # originals, two cells


def test_another_perturbation_can_be_used(noise_evaluation: Any, registry: Registry, colours: Any) -> None:
    spec = registry.spec("perturbation", {"use": "interpolate", "strength": "fixed"})
    metric = NoisePFD(NoisePFDConfig(features=colours(), perturbation=spec, alphas=(1.0,), levels=(0.0, 1.0)))
    results = noise_evaluation.measure(metric)
    name = "noise_pfd_interpolate_colours"  # not the defined noise, so it has another name
    cells = cells_of(results, name)
    assert cells["alpha1_noise1"] != cells["alpha1_noise0"]


def test_a_discrete_tokenizer_is_refused(evaluation: Any, noise_pfd: Make) -> None:
    with pytest.raises(RobustokError, match="has codes"):
        evaluation.start(noise_pfd())


def test_levels_that_the_perturbation_does_not_accept_are_refused_before_the_pass(registry: Registry) -> None:
    with pytest.raises(ProblemsError, match="perturbation 'top_delta' has no option tau"):
        registry.spec("metric", {"use": "noise_pfd", "perturbation": {"use": "top_delta"}})
    for level in (-0.5, math.inf):
        with pytest.raises(ProblemsError, match="levels"):
            registry.spec("metric", {"use": "noise_pfd", "levels": [0.5, level]})
    mixture = {"use": "interpolate", "strength": "fixed"}
    with pytest.raises(ProblemsError, match="tau"):
        registry.spec("metric", {"use": "noise_pfd", "perturbation": mixture, "levels": [0.5, 1.5]})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"strength": "uniform"}, "a cell has one strength"),
        ({"anneal": {}}, "leave anneal out"),
        ({"beta": 0.5}, "value for beta, which is set for it here"),
        ({"alpha": 0.5}, "value for alpha, which is set for it here"),
        ({"tau": 0.5}, "value for tau, which is set for it here"),
    ],
)
def test_options_that_the_cells_override_are_refused(registry: Registry, options: dict[str, Any], words: str) -> None:
    noise = {"use": "gaussian", "scale": "relative", "strength": "fixed", **options}
    with pytest.raises(ProblemsError, match=words):
        registry.spec("metric", {"use": "noise_pfd", "perturbation": noise})


def test_the_default_noise_is_relative_and_of_a_fixed_strength(registry: Registry) -> None:
    config = registry.spec("metric", {"use": "noise_pfd"}).config.perturbation.config
    assert (config.scale, config.strength) == ("relative", "fixed")
