from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from attrs import evolve, field, frozen

from robustok_core import LatentSpace, Perturbation, ProblemsError, Registry, Result, RobustokError, Spec, Tokenizer
from robustok_metrics.frechet import Frechet, FrechetConfig
from robustok_metrics.pfid import ALPHAS, PFID, Cell, PFIDConfig, deltas_for

Colours = Callable[..., Spec]


@pytest.fixture
def pfid(registry: Registry, colours: Colours) -> Callable[..., PFID]:
    def make(features: Spec | None = None, **options: Any) -> PFID:
        perturbation = registry.spec("perturbation", {"use": "top_delta"})
        return PFID(PFIDConfig(features=features or colours(), perturbation=perturbation, **options))

    return make


def cells_of(results: Mapping[str, Result]) -> dict[str, float]:
    return results["pfd_colours"].details["cells"]


@pytest.mark.parametrize(
    ("codebook_size", "deltas"),
    [
        (16384, (200, 280, 360)),
        (8192, (100, 140, 180)),
        (4096, (50, 70, 90)),
        (1024, (10, 15, 20)),
        (512, (5, 8, 10)),  # 7.5 is rounded up
        (32768, (400, 560, 720)),
        (2048, (20, 30, 40)),  # 4096 is equally near: the smaller one is used
        (2049, (25, 35, 45)),
        (16, (1, 1, 1)),
    ],
)
def test_deltas_are_the_papers_or_scaled_from_the_nearest_codebook_size(
    codebook_size: int, deltas: tuple[int, ...]
) -> None:
    assert deltas_for(codebook_size) == deltas


def test_grid_is_five_alphas_by_three_deltas(evaluation: Any, pfid: Callable[..., PFID]) -> None:
    results = evaluation.measure(pfid(deltas=(2, 3, 4)))
    assert list(cells_of(results)) == [f"alpha{alpha}_delta{delta}" for alpha in ALPHAS for delta in (2, 3, 4)]
    assert results["pfd_colours"].details["num_cells"] == 15


def test_result_is_the_mean_over_the_cells(evaluation: Any, pfid: Callable[..., PFID]) -> None:
    results = evaluation.measure(pfid(deltas=(2, 8)))
    cells = cells_of(results)
    assert results["pfd_colours"].value == pytest.approx(sum(cells.values()) / 10, rel=1e-12)
    assert (results["pfd_colours"].num_images, results["pfd_colours"].higher_is_better) == (60, False)


def test_with_delta_1_every_cell_is_the_rfd(evaluation: Any, pfid: Callable[..., PFID], colours: Colours) -> None:
    results = evaluation.measure(Frechet(FrechetConfig(features=colours())), pfid(deltas=(1,)))
    assert set(cells_of(results).values()) == {results["rfd_colours"].value}
    assert results["pfd_colours"].value == pytest.approx(results["rfd_colours"].value, rel=1e-14)


def test_a_cell_replaces_alpha_of_the_tokens_of_every_image_by_one_of_the_delta_nearest(
    evaluation: Any, pfid: Callable[..., PFID], tokenizer: Tokenizer
) -> None:
    metric = pfid(alphas=(0.5,), deltas=(3,))
    evaluation.start(metric)
    step = evaluation.step(torch.arange(60))
    perturbed, mask = metric.perturbed(step, Cell(alpha=0.5, delta=3))
    assert mask.sum(dim=1).tolist() == [tokenizer.space.num_tokens // 2] * 60
    assert tokenizer.quantizer is not None
    nearest = tokenizer.quantizer.nearest(tokenizer.quantizer.lookup(step.latents.codes).flatten(0, 1), 3)
    is_near = (nearest == perturbed.codes.flatten()[:, None]).any(dim=1).view_as(mask)
    assert bool(is_near[mask].all())
    assert torch.equal(perturbed.codes[~mask], step.latents.codes[~mask])


def test_perturbed_codes_depend_on_the_image_and_the_cell_and_not_on_the_batch(
    evaluation: Any, pfid: Callable[..., PFID]
) -> None:
    metric, cell = pfid(deltas=(4,)), Cell(alpha=0.7, delta=4)
    evaluation.start(metric)
    whole = metric.reconstruct(evaluation.step(torch.arange(60)), cell)
    batches = [metric.reconstruct(evaluation.step(rows), cell) for rows in torch.arange(60).split(7)]
    assert (torch.cat(batches) - whole).abs().max() <= 2 / 255 + 1e-6  # float error may change the rounding
    assert (torch.cat(batches) != whole).double().mean() < 1e-3


def test_every_cell_is_independent_of_the_batch_size(evaluation: Any, pfid: Callable[..., PFID]) -> None:
    small, large = (evaluation.measure(pfid(deltas=(2, 6)), batch_size=size) for size in (7, 60))
    assert evaluation.numbers(small) == pytest.approx(evaluation.numbers(large), rel=1e-3)


def test_cells_draw_independently(evaluation: Any, pfid: Callable[..., PFID]) -> None:
    metric = pfid(alphas=(0.5, 0.9), deltas=(4, 5))
    evaluation.start(metric)
    step = evaluation.step(torch.arange(60))
    masks = [metric.perturbed(step, cell)[1] for cell in metric.perturbations]
    for one, two in itertools.combinations(masks, 2):  # from one stream, the smaller would be a subset of the larger
        assert (one & ~two).any(dim=1).double().mean() > 0.5


def test_summed_states_of_two_halves_give_the_whole(evaluation: Any, pfid: Callable[..., PFID]) -> None:
    metric = pfid(alphas=(0.5, 0.9), deltas=(3,))
    whole = evaluation.measure(metric)
    halves = evaluation.numbers(evaluation.measure_in_halves(metric))
    assert halves == pytest.approx(evaluation.numbers(whole), rel=1e-9)


def test_metrics_share_features_of_real_images_and_a_cache_makes_them_unnecessary(
    evaluation: Any, pfid: Callable[..., PFID], colours: Colours, tmp_path: Path
) -> None:
    metric, rfd = pfid(alphas=(0.5,), deltas=(2, 3)), Frechet(FrechetConfig(features=colours()))
    evaluation.measure(rfd, metric, cache=tmp_path)
    assert metric.distances.features.seen == 60 * (1 + 1 + 2)  # originals, reconstructions, two cells
    assert len(list(tmp_path.iterdir())) == 1
    evaluation.measure(rfd, metric, cache=tmp_path)
    assert metric.distances.features.seen == 60 * (4 + 3)


def test_results_state_where_scaled_deltas_come_from(evaluation: Any, pfid: Callable[..., PFID]) -> None:
    scaled = evaluation.measure(pfid())  # K = 32
    assert scaled["pfd_colours"].details["deltas_scaled_from"] == 1024
    assert list(cells_of(scaled)) == [f"alpha{alpha}_delta1" for alpha in ALPHAS]  # .3, .5 and .6 of a codeword
    assert "deltas_scaled_from" not in evaluation.measure(pfid(deltas=(1,)))["pfd_colours"].details


def test_scaled_deltas_that_change_no_token_are_said(
    evaluation: Any, pfid: Callable[..., PFID], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation.measure(pfid(deltas=(2,)))
    assert not caplog.messages
    evaluation.measure(pfid())
    assert caplog.messages[0].startswith("pFD of 32 codes is the plain distance of reconstructions")
    monkeypatch.setattr("robustok_metrics.pfid.deltas_for", lambda size: (1, 2, 3))  # of 128 codes
    evaluation.measure(pfid(alphas=(0.5,)))
    assert caplog.messages[1].startswith("pFD of 32 codes is in some cells the plain distance of reconstructions")
    assert "are 1, 2, 3, and 1 changes no token" in caplog.messages[1]


@pytest.mark.parametrize(
    ("network", "options", "name"),
    [
        ("inception", {}, "pfid"),
        ("inception", {"deltas": (2,)}, "pfd_inception"),
        ("inception", {"alphas": (0.5,)}, "pfd_inception"),
        ("inception_other", {}, "pfd_inception_other"),
        ("efficientnet_lite0", {}, "pfd_efficientnet_lite0"),
    ],
)
def test_only_the_papers_grid_in_the_published_inception_is_called_pfid(
    evaluation: Any, pfid: Callable[..., PFID], colours: Colours, network: str, options: dict[str, Any], name: str
) -> None:
    results = evaluation.measure(pfid(colours(network), **options))
    assert set(results) == {name}


def test_a_delta_beyond_the_codebook_is_refused_before_the_pass(evaluation: Any, pfid: Callable[..., PFID]) -> None:
    with pytest.raises(RobustokError, match="delta = 33 exceeds the codebook size"):
        evaluation.start(pfid(deltas=(33,)))


def test_a_continuous_tokenizer_is_refused(evaluation: Any, pfid: Callable[..., PFID]) -> None:
    evaluation.tokenizer = ContinuousTokenizer()
    with pytest.raises(RobustokError, match="this latent space has none"):
        evaluation.start(pfid())


class ContinuousTokenizer:
    space = LatentSpace(kind="continuous", num_tokens=4, width=2)


def test_a_perturbation_without_alpha_and_delta_is_refused(registry: Registry) -> None:
    with pytest.raises(ProblemsError, match="perturbation 'none' has no option alpha, beta, delta"):
        registry.spec("metric", {"use": "pfid", "perturbation": {"use": "none"}})


@pytest.mark.parametrize(
    ("metric", "option"),
    [("pfid", "alphas"), ("noise_pfd", "alphas"), ("noise_pfd", "levels")],
)
def test_values_that_would_give_two_cells_one_name_are_refused(registry: Registry, metric: str, option: str) -> None:
    with pytest.raises(RobustokError, match=f"{option}.*two values agree to 6 digits"):
        registry.spec("metric", {"use": metric, option: [0.5, 0.50000001]})
    assert registry.spec("metric", {"use": metric, option: [0.5, 0.5]}), "the same value twice is one cell"


@frozen(kw_only=True)
class FadeConfig:
    rate: float = field(default=0.1, metadata={"doc": "share of the tokens that fade"})


class Fade(Perturbation):
    """Knows its strength under another name, and perturbs all images."""

    Config = FadeConfig

    def __init__(self, config: FadeConfig) -> None:
        self.config = config

    def perturb(self, latents: Any, quantizer: Any, *, draws: Any, progress: float) -> Any:
        mask = draws.uniform(latents.vectors.shape[1]) < self.config.rate
        return latents.evolve(vectors=latents.vectors.masked_fill(mask[..., None], 0.0)), mask

    @classmethod
    def of_strength(cls, config: FadeConfig, *, alpha: float, **others: float) -> FadeConfig:
        return evolve(config, rate=alpha)


def test_a_perturbation_may_say_itself_what_a_cell_is_in_its_options(evaluation: Any, colours: Colours) -> None:
    fade = Spec(kind="perturbation", name="fade", factory=Fade, config=FadeConfig())
    config = PFIDConfig(features=colours(), perturbation=fade, alphas=(0.3, 0.9), deltas=(2,))
    assert [cell.config for cell in config.cells(16).values()] == [FadeConfig(rate=0.3), FadeConfig(rate=0.9)]
    cells = cells_of(evaluation.measure(PFID(config)))
    assert list(cells) == ["alpha0.3_delta2", "alpha0.9_delta2"]
    assert len(set(cells.values())) == 2, "each cell has its own strength"
