from __future__ import annotations

import pytest
import torch

from robustok_core import LatentSpace, ProblemsError, RobustokError
from robustok_metrics.frechet_distance import FeatureSums, frechet_distance
from robustok_metrics.perturbed_distance import ALPHAS
from robustok_metrics.rank_pfd import RankCell, RankPFD, RankPFDConfig
from robustok_toolkit.rank_law import ranks_of

LAW = {"use": "rank_law", "shares": [0.5, 0.25, 0.25]}


@pytest.fixture
def rank_pfd(registry, colours):
    def make(**options):
        law = registry.spec("perturbation", {**LAW, **options.pop("law", {})})
        return RankPFD(RankPFDConfig(features=colours(), perturbation=law, **options))

    return make


def test_it_is_the_mean_distance_over_the_shares_of_reconstructions_with_codes_of_the_law(evaluation, rank_pfd):
    metric = rank_pfd()
    found = evaluation.measure(metric)["rank_pfd_colours"]
    cells = found.details["cells"]
    assert list(cells) == [f"alpha{alpha}" for alpha in ALPHAS]
    assert found.value == pytest.approx(sum(cells.values()) / 5, rel=1e-12)
    step = evaluation.step(torch.arange(60))
    pictures = metric.reconstruct(step, RankCell(alpha=0.9))
    sums = {name: FeatureSums(6, torch.device("cpu")) for name in ("real", "wrong")}
    sums["real"].add(metric.distances.features(step.batch.images))
    sums["wrong"].add(metric.distances.features(pictures))
    expected = frechet_distance(sums["real"].moments(), sums["wrong"].moments())
    assert cells["alpha0.9"] == pytest.approx(expected, rel=1e-4)


def test_a_cell_replaces_its_share_of_every_images_tokens_as_far_as_the_law_says(evaluation, rank_pfd, tokenizer):
    metric = rank_pfd(law={"shares": [0.0, 0.0, 1.0]})
    evaluation.start(metric)
    step = evaluation.step(torch.arange(60))
    perturbed, mask = metric.perturbed(step, RankCell(alpha=0.5))
    assert mask.sum(dim=1).tolist() == [tokenizer.space.num_tokens // 2] * 60
    ranks = ranks_of(perturbed.codes[mask], step.latents.codes[mask], tokenizer.quantizer)
    assert ranks.min() >= tokenizer.space.codebook_size // 2


def test_vectors_without_codes_and_a_missing_law_are_refused(registry, rank_pfd):
    with pytest.raises(RobustokError, match="this latent space has none"):
        rank_pfd().check(LatentSpace(kind="continuous", num_tokens=4, width=2))
    with pytest.raises(ProblemsError, match=r"metric.perturbation.*expected a table with `use`"):
        registry.spec("metric", {"use": "rank_pfd"})


@pytest.mark.parametrize("option", ["alpha", "beta"])
def test_a_law_that_sets_its_own_strength_is_refused(registry, option):
    law = {"use": "rank_law", "shares": [1.0], option: 0.3}
    with pytest.raises(ProblemsError, match=f"'rank_law' has a value for {option}, which is set for it here"):
        registry.spec("metric", {"use": "rank_pfd", "perturbation": law})


def test_another_perturbation_gives_a_result_of_another_name(registry, evaluation, colours):
    nearest = registry.spec("perturbation", {"use": "top_delta", "delta": 4})
    metric = RankPFD(RankPFDConfig(features=colours(), perturbation=nearest))
    assert list(evaluation.measure(metric)) == ["rank_pfd_top_delta_colours"]
