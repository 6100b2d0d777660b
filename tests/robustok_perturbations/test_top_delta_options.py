"""The options of top_delta: annealing, defaults, and what is refused."""

from __future__ import annotations

import attrs
import pytest

from codebooks import a_codebook, latents_of, perturb
from robustok_core import Draws, LatentSpace, ProblemsError, RobustokError
from robustok_perturbations.top_delta import Anneal, TopDelta, TopDeltaConfig

# --- annealing ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratio", "progress", "alpha", "delta"),
    [
        (0.5, 0.0, 0.8, 100),
        (0.5, 0.2, 0.8, 100),
        (0.5, 0.4, 0.6, 75),
        (0.5, 0.6, 0.4, 50),
        (0.5, 1.0, 0.4, 50),
        (0.25, 0.4, 0.5, 63),  # 62.5: halves are rounded up
        (0.25, 0.9, 0.2, 25),
        (0.0, 0.4, 0.4, 50),
        (0.0, 0.6, 0.0, 1),
        (1.0, 0.9, 0.8, 100),
    ],
)
def test_alpha_and_delta_fall_to_the_ratio_between_start_and_end(ratio, progress, alpha, delta):
    perturbation = TopDelta(TopDeltaConfig(alpha=0.8, delta=100, anneal=Anneal(start=0.2, end=0.6, ratio=ratio)))
    assert perturbation.strength(progress) == (pytest.approx(alpha), delta)


def test_without_annealing_they_are_constant():
    assert TopDelta(TopDeltaConfig()).strength(1.0) == (1.0, 100)


def test_annealing_to_0_ends_with_clean_latents():
    quantizer = a_codebook()
    latents = latents_of(quantizer, 4, 6)
    perturbed, mask = perturb(latents, quantizer, Draws.for_rows(0, 4), 0.7, beta=1, delta=9, anneal=Anneal(ratio=0))
    assert perturbed is latents
    assert not mask.any()


def test_annealing_that_starts_and_ends_at_once_is_a_step():
    step = Anneal(start=0.5, end=0.5, ratio=0.5)
    assert [step.factor(progress) for progress in (0.49, 0.5, 0.51)] == [1.0, 1.0, 0.5]


# --- options --------------------------------------------------------------------------------------


@pytest.mark.parametrize("off", [{"beta": 0.0}, {"alpha": 0.0}])
def test_zero_turns_it_off(off):
    quantizer = a_codebook()
    latents = latents_of(quantizer, 4, 6)
    perturbed, mask = perturb(latents, quantizer, Draws.for_rows(0, 4), **off)
    assert perturbed is latents
    assert mask.shape == (4, 6)
    assert not mask.any()


def test_the_defaults_are_the_papers():
    config = TopDeltaConfig()
    assert (config.beta, config.alpha, config.delta, config.anneal) == (0.1, 1.0, 100, None)
    assert (config.neighbours, config.images, config.tokens) == ("codeword", "random", "exact")
    assert attrs.asdict(Anneal()) == {"start": 0.2, "end": 0.6, "ratio": 0.5}


DISCRETE = LatentSpace(kind="discrete", num_tokens=64, width=16, codebook_size=512)


@pytest.mark.parametrize(
    ("options", "space", "where", "message"),
    [
        ({"delta": 513}, DISCRETE, "perturbation.delta", r"delta = 513 .*K = 512.*gives 13"),
        ({"delta": 9, "alpha": 0.001}, DISCRETE, "perturbation.alpha", r"alpha = 0.001 of 64 .*at least 0.016"),
        ({}, LatentSpace(kind="continuous", num_tokens=4, width=2), "perturbation.use", "replaces codes"),
        (
            {"alpha": 0.01, "anneal": Anneal(ratio=0.5)},
            DISCRETE,
            "perturbation.anneal",
            "falls to 0.005 .* to at least 1,",
        ),
        ({"alpha": 0.1, "anneal": Anneal(ratio=0.05)}, DISCRETE, "perturbation.anneal", "at least 0.16, or to 0"),
        ({"delta": 9, "anneal": Anneal(ratio=0.16)}, DISCRETE, "perturbation.anneal", "falls to 1 .*at least 0.17, or"),
        ({"delta": 2, "anneal": Anneal(ratio=0.5)}, DISCRETE, "perturbation.anneal", "falls to 1 .*at least 0.75, or"),
    ],
)
def test_what_does_not_fit_the_space_is_refused(options, space, where, message):
    with pytest.raises(RobustokError, match=message) as raised:
        TopDelta(TopDeltaConfig(**options)).check(space)
    assert raised.value.where == where


def test_what_fits_the_space_passes():
    TopDelta(TopDeltaConfig(delta=512)).check(DISCRETE)
    TopDelta(TopDeltaConfig(delta=12, alpha=0.001, tokens="bernoulli")).check(DISCRETE)


@pytest.mark.parametrize(
    "options",
    [
        {"alpha": 0.1, "delta": 9, "anneal": Anneal(ratio=0.0)},
        {"alpha": 0.1, "anneal": Anneal(ratio=0.16)},
        {"alpha": 0.1, "tokens": "bernoulli", "anneal": Anneal(ratio=0.05)},
        {"delta": 9, "anneal": Anneal(ratio=0.17)},
        {"delta": 1, "anneal": Anneal(ratio=0.5)},
        {"delta": 2, "anneal": Anneal(start=1.0, end=1.0, ratio=0.5)},
        {"beta": 0.0, "delta": 2, "anneal": Anneal(ratio=0.5)},
    ],
)
def test_an_annealing_that_ends_above_none_or_at_0_passes(options):
    TopDelta(TopDeltaConfig(**options)).check(DISCRETE)


def test_latent_neighbours_need_the_encoders_vectors():
    quantizer = a_codebook()
    latents = latents_of(quantizer, 4, 6).evolve(features=None)
    with pytest.raises(RobustokError, match='use neighbours = "codeword"'):
        perturb(latents, quantizer, Draws.for_rows(0, 4), beta=1, delta=9, neighbours="latent")


def test_a_recipes_table_builds_it(registry):
    perturbation = registry.build("perturbation", {"use": "top_delta", "delta": 12, "anneal": {"ratio": 0.25}})
    assert isinstance(perturbation, TopDelta)
    assert perturbation.strength(1.0) == (0.25, 3)


def test_every_mistake_in_a_table_is_reported(registry):
    table = {"use": "top_delta", "beta": 1.1, "delta": 0, "images": "some", "anneal": {"start": 0.7}}
    with pytest.raises(ProblemsError) as raised:
        registry.build("perturbation", table)
    text = str(raised.value)
    for key in ("perturbation.beta", "perturbation.delta", "perturbation.images", "ends (0.6) before it starts (0.7)"):
        assert key in text
