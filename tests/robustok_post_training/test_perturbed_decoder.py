from __future__ import annotations

import pytest
import torch

from project import CONTINUOUS, FLOW, POST_TRAINING, TO_SAMPLES, Project
from robustok_core import Draws, LatentBatch, ProblemsError
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


@pytest.mark.parametrize(("sigma", "share", "changed"), [(0.75, 1.0, 4), (0.5, 0.5, 4), (0.0, 1.0, 16), (1.0, 1.0, 0)])
def test_as_many_of_16_tokens_change_as_are_not_preserved_times_the_share(registry, real, sigma, share, changed):
    codes = pair(registry, real, sigma, share=share, perturbation=FARTHEST)
    wrong = codes != real[1].latents.codes
    assert wrong.sum(dim=1).tolist() == [changed] * 20
    if changed:
        tokenizer, batch = real
        ranks = ranks_of(codes[wrong], batch.latents.codes[wrong], tokenizer.quantizer)
        assert ranks.min() >= tokenizer.space.codebook_size // 2


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


def test_a_perturbation_that_sets_its_own_strength_is_refused(registry):
    table = {"use": "perturbed_decoder", "perturbation": {"use": "top_delta", "alpha": 0.5}}
    with pytest.raises(ProblemsError, match="has a value for alpha"):
        registry.spec("post_trainer", table)
