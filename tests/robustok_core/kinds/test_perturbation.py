"""What every perturbation does unless it says otherwise: the configuration that pFID measures."""

from __future__ import annotations

import pytest
from attrs import field, frozen

from robustok_core import Perturbation


@frozen(kw_only=True)
class Fading:
    """A strength that changes in the course of a training."""


@frozen(kw_only=True)
class Options:
    """Options that the metric sets, and one of its own."""

    beta: float = 0.1
    alpha: float = 1.0
    delta: int = field(default=100)
    method: str = "nearest"
    anneal: Fading | None = None


class Shifting(Perturbation):
    Config = Options

    def perturb(self, latents, quantizer, *, draws, progress):
        raise NotImplementedError


def test_all_images_are_perturbed_at_the_strength_asked_for_and_other_options_stay():
    found = Shifting.of_strength(Options(method="random"), alpha=0.5, delta=4)
    assert found == Options(beta=1.0, alpha=0.5, delta=4, method="random")


def test_a_strength_that_it_has_no_option_for_is_refused():
    with pytest.raises(ValueError, match="has no option sigma, tau"):
        Shifting.of_strength(Options(), tau=0.5, sigma=1.0)


@pytest.mark.parametrize("options", [{"beta": 0.2}, {"alpha": 0.5}])
def test_a_value_of_its_own_for_what_the_metric_sets_is_refused(options):
    (name,) = options
    with pytest.raises(ValueError, match=f"has a value for {name}"):
        Shifting.of_strength(Options(**options), alpha=0.5)


def test_one_that_weakens_in_training_is_refused():
    with pytest.raises(ValueError, match="leave anneal out"):
        Shifting.of_strength(Options(anneal=Fading()), alpha=0.5)
