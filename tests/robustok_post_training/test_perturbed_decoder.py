from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from project import CONTINUOUS, FLOW, POST_TRAINING, TO_SAMPLES, Project
from robustok_core import Draws, LatentBatch, Latents, ProblemsError
from robustok_core.values.latents import Keep, LatentSpace
from robustok_toolkit.rank_law import ranks_of

FARTHEST = {"use": "rank_law", "shares": [0.0, 0.0, 1.0]}


@pytest.fixture(scope="module")
def real(trained):
    """A tokenizer and a batch of real latents."""
    tokenizer = trained.component("tokenizer")
    batch = trained.dataset().validation.load(range(20))
    with torch.no_grad():
        latents = tokenizer.encode(batch.images).without_features()
    return tokenizer, LatentBatch(latents=latents, labels=batch.labels, indices=batch.indices)


def pair(registry, real, sigma, **options):
    post_trainer = registry.build("post_trainer", {"use": "perturbed_decoder", **options})
    tokenizer, batch = real
    return post_trainer.pair(tokenizer, None, batch, draws=Draws.for_rows(0, 20), sigma=sigma).codes


@pytest.mark.parametrize("sigma", [0.9, 0.5, 0.0, 1.0])
def test_the_very_tokens_are_replaced_that_a_generator_would_redraw(registry, real, sigma):
    tokenizer, batch = real
    codes = pair(registry, real, sigma, perturbation=FARTHEST)
    wrong = codes != batch.latents.codes
    assert torch.equal(wrong, ~Keep(latents=batch.latents, sigma=sigma).mask(Draws.for_rows(0, 20)))
    if sigma < 1:
        ranks = ranks_of(codes[wrong], batch.latents.codes[wrong], tokenizer.quantizer)
        assert ranks.min() >= tokenizer.space.codebook_size // 2


def test_a_share_of_these_tokens_is_replaced(registry, real):
    """So many as a generator's draws differ: here 144 of 320 on average, and by less than 4 standard deviations."""
    wrong = pair(registry, real, 0.25, share=0.6, perturbation=FARTHEST) != real[1].latents.codes
    assert abs(int(wrong.sum()) - 144) < 4 * (320 * 0.45 * 0.55) ** 0.5
    redrawn = pair(registry, real, 0.25, perturbation=FARTHEST) != real[1].latents.codes
    assert not (wrong & ~redrawn).any()
    assert not (pair(registry, real, 0.25, share=0.0, perturbation=FARTHEST) != real[1].latents.codes).any()


def test_a_run_post_trains_with_it_and_measures_it_as_any_other(tmp_path):
    """Its control, sigma = 1, holds the images' own codes."""
    post_trainer = {"use": "perturbed_decoder", "perturbation": {"use": "top_delta", "delta": 4}}
    run = Project(tmp_path, (*TO_SAMPLES, *POST_TRAINING), post_trainer=post_trainer).run()
    assert run.results["make_pairs/changed_sigma1"].value == 0
    assert 0 < run.results["make_pairs/changed_sigma0.5"].value < 0.5  # one in four replaced tokens keeps its code
    assert any(name.startswith("compare_decoders/sigma0.5_") for name in run.results)


def test_a_perturbation_of_codes_is_refused_for_vectors_before_anything_runs(tmp_path):
    post_trainer = {"use": "perturbed_decoder"}
    project = Project(tmp_path, (*TO_SAMPLES, *POST_TRAINING), **CONTINUOUS, generator=FLOW, post_trainer=post_trainer)
    assert "top_delta replaces codes, and this latent space has none" in project.refusal()
    assert not list(tmp_path.iterdir())


def test_a_perturbation_near_the_encoders_vectors_is_refused_before_anything_runs(tmp_path):
    perturbation = {"use": "top_delta", "delta": 4, "neighbours": "latent"}
    post_trainer = {"use": "perturbed_decoder", "perturbation": perturbation}
    message = Project(tmp_path, (*TO_SAMPLES, *POST_TRAINING), post_trainer=post_trainer).refusal()
    assert "post_trainer.perturbation: it needs the encoder's vectors before the quantizer" in message
    assert not list(tmp_path.iterdir())


def test_a_perturbation_that_sets_its_own_strength_is_refused(registry):
    table = {"use": "perturbed_decoder", "perturbation": {"use": "top_delta", "alpha": 0.5}}
    with pytest.raises(ProblemsError, match="'top_delta' has a value for alpha, which is set for it here"):
        registry.spec("post_trainer", table)


def test_vectors_are_perturbed_where_they_are_not_preserved(registry):
    vectors = torch.randn(20, 16, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(20, dtype=torch.int64)
    batch = LatentBatch(latents=Latents(vectors=vectors), labels=labels, indices=torch.arange(20))
    space = LatentSpace(kind="continuous", num_tokens=16, width=3)
    tokenizer = SimpleNamespace(quantizer=None, space=space)
    draws = Draws.for_rows(0, 20)
    noise = {"use": "gaussian", "tau": 0.5}
    post_trainer = registry.build("post_trainer", {"use": "perturbed_decoder", "perturbation": noise})
    found = post_trainer.pair(tokenizer, None, batch, draws=draws, sigma=0.5).vectors
    kept = Keep(latents=batch.latents, sigma=0.5).mask(draws)
    assert torch.equal((found == vectors).all(dim=-1), kept)
