from __future__ import annotations

import pytest
import torch

from codebooks import a_codebook, distances, latents_of
from robustok_core import Draws, LatentSpace, ProblemsError, RobustokError, load_registry
from robustok_perturbations.rank_law import RankLaw, RankLawConfig

SPACE = LatentSpace(kind="discrete", num_tokens=10, width=3, codebook_size=40)


def perturb(latents, quantizer, draws, **options):
    config = RankLawConfig(**{"shares": (1.0,) * 6, "beta": 1.0} | options)
    return RankLaw(config).perturb(latents, quantizer, draws=draws, progress=options.get("progress", 0.0))


def test_every_replaced_token_has_another_code_and_its_vector_and_all_others_stay():
    quantizer = a_codebook()
    latents = latents_of(quantizer, 20, 10)
    changed, mask = perturb(latents, quantizer, Draws.for_rows(0, 20), beta=0.5, alpha=0.3)
    assert (mask.sum(dim=1).sort().values == torch.tensor([0] * 10 + [3] * 10)).all()
    assert torch.equal(changed.codes != latents.codes, mask)
    assert torch.equal(changed.vectors.detach(), quantizer.lookup(changed.codes).detach())
    assert torch.equal(changed.features, latents.features)


@pytest.mark.parametrize(("shares", "low", "high"), [((1, 0, 0, 0, 0, 0), 1, 2), ((0, 0, 0, 0, 0, 1), 20, 39)])
def test_the_law_says_how_far_the_new_codes_lie(shares, low, high):
    """Of 40 codes, the lowest of six bins holds the nearest other code (ranks below 40/32), the last one 20 to 39."""
    quantizer = a_codebook()
    latents = latents_of(quantizer, 30, 10)
    changed, _ = perturb(latents, quantizer, Draws.for_rows(0, 30), shares=shares)
    exact = distances(quantizer.codebook, latents.codes)  # (B, N, K)
    own = exact.gather(-1, changed.codes[..., None])
    nearer = (exact < own - 1e-5).sum(-1)  # those nearer, the code itself among them
    assert nearer.min() >= low
    assert nearer.max() <= high


def test_an_image_is_perturbed_alike_in_any_batch():
    quantizer = a_codebook()
    latents, draws = latents_of(quantizer, 8, 10), Draws.for_rows(3, 8)
    together, _ = perturb(latents, quantizer, draws)
    alone, _ = perturb(latents[5:6], quantizer, draws[5:6])
    assert torch.equal(together.codes[5:6], alone.codes)


def test_annealing_lowers_the_share_of_tokens():
    quantizer, anneal = a_codebook(), {"start": 0.0, "end": 1.0, "ratio": 0.5}
    table = {"use": "rank_law", "shares": [1.0], "beta": 1.0, "alpha": 0.8, "anneal": anneal}
    perturbation = load_registry().build("perturbation", table)
    latents, draws = latents_of(quantizer, 2, 10), Draws.for_rows(0, 2)
    counts = [
        perturbation.perturb(latents, quantizer, draws=draws, progress=at)[1].sum(1).tolist() for at in (0.0, 1.0)
    ]
    assert counts == [[8, 8], [4, 4]]


@pytest.mark.parametrize("shares", [[], [0.0, 0.0], [0.5, -0.1], [1.0] * 33])
def test_what_is_no_law_is_refused(shares):
    with pytest.raises(ProblemsError, match="must hold 1 to 32 numbers that are not negative, at least one"):
        load_registry().spec("perturbation", {"use": "rank_law", "shares": shares})


def test_vectors_without_codes_are_refused():
    continuous = LatentSpace(kind="continuous", num_tokens=10, width=3)
    with pytest.raises(RobustokError, match="this latent space has none"):
        RankLaw(RankLawConfig(shares=(1.0,))).check(continuous)


def test_pfid_of_the_paper_refuses_it_and_names_the_metric():
    table = {"use": "pfid", "perturbation": {"use": "rank_law", "shares": [1.0]}}
    with pytest.raises(ProblemsError, match="use the metric rank_pfd"):
        load_registry().spec("metric", table)


def test_an_alpha_that_falls_to_no_token_is_refused():
    table = {"use": "rank_law", "shares": [1.0], "alpha": 0.2, "anneal": {"ratio": 0.2}}
    with pytest.raises(RobustokError, match=r"falls to 0.04 in the training, .* at least 0.5, or to 0") as raised:
        load_registry().build("perturbation", table).check(SPACE)
    assert raised.value.where == "perturbation.anneal"
    load_registry().build("perturbation", table | {"anneal": {"ratio": 0.5}}).check(SPACE)
