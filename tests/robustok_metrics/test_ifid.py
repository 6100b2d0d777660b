"""iFID: neighbours, ways between, and the distance."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from robustok_core import Draws, ImageBatch, Images, ProblemsError, Registry, RobustokError, Spec, Tokenizer
from robustok_metrics.frechet import Frechet, FrechetConfig
from robustok_metrics.frechet_distance import FeatureSums, frechet_distance
from robustok_metrics.ifid import IFID, IFIDConfig
from robustok_toolkit.latent_neighbours import LatentNeighbours, between, slerp

Make = Callable[..., IFID]


def latents(seed: int, count: int, tokens: int = 6, width: int = 3) -> Tensor:
    return torch.randn(count, tokens, width, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def ifid(colours: Callable[..., Spec]) -> Make:
    return lambda name="colours", **options: IFID(IFIDConfig(features=colours(name), **options))


@pytest.fixture(scope="module")
def train(registry: Registry) -> Images:
    images: Images = registry.build("dataset", {"use": "fashion_mnist", "train_limit": 80}).train
    return images


@pytest.fixture(scope="module")
def continuous(registry: Registry) -> Tokenizer:
    table = {"use": "kl_vae", "image_size": 32, "channels": 8, "channel_multipliers": [1, 1], "num_res_blocks": 1}
    table |= {"attention": False, "norm_groups": 4, "stem_patch": 4, "z_channels": 8, "width": 4}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tokenizer: Tokenizer = registry.build("tokenizer", table)
        return tokenizer.eval()


@pytest.fixture
def of_vectors(evaluation: Any, continuous: Tokenizer, train: Images) -> Any:
    evaluation.tokenizer, evaluation.train = continuous, train
    return evaluation


@pytest.fixture
def of_codes(evaluation: Any, train: Images) -> Any:
    evaluation.train = train
    return evaluation


# --- neighbours -----------------------------------------------------------------------------------


@pytest.mark.parametrize("cosine", [True, False])
def test_the_only_neighbour_is_the_most_similar_of_all(cosine: bool) -> None:
    bank, queries = latents(1, 50), latents(2, 20)
    found = LatentNeighbours(bank, cosine=cosine).drawn(queries, 1, Draws.for_rows(0, 20))
    rows, others = queries.flatten(1).numpy(), bank.flatten(1).numpy()
    for row, neighbour in zip(rows, found.flatten(1).numpy(), strict=True):
        if cosine:
            scores = [row @ other / np.linalg.norm(row) / np.linalg.norm(other) for other in others]
        else:
            scores = [-np.linalg.norm(row - other) for other in others]
        np.testing.assert_array_equal(neighbour, others[int(np.argmax(scores))])


def test_neighbours_are_drawn_by_the_softmax_of_their_mean_squared_difference() -> None:
    query, far = latents(1, 1), torch.tensor([1.0, 2.0, 3.0])[:, None, None]
    bank = torch.cat([query + far.sqrt(), 100 + latents(2, 5)])  # three at distances 1, 2 and 3; others further
    found = LatentNeighbours(bank, cosine=False).drawn(query.expand(20_000, -1, -1), 3, Draws.for_rows(3, 20_000))
    shares = [float((found == candidate).all(dim=(1, 2)).double().mean()) for candidate in bank[:3]]
    expected = np.exp([-1.0, -2.0, -3.0]) / np.exp([-1.0, -2.0, -3.0]).sum()
    assert shares == pytest.approx(list(expected), abs=0.015)  # four standard errors


def test_neighbours_depend_on_the_image_and_not_on_the_batch_or_the_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    bank, queries, draws = LatentNeighbours(latents(1, 50), cosine=True), latents(2, 20), Draws.for_rows(0, 20)
    whole = bank.drawn(queries, 10, draws)
    assert torch.equal(
        torch.cat([bank.drawn(queries[:7], 10, draws[:7]), bank.drawn(queries[7:], 10, draws[7:])]), whole
    )
    monkeypatch.setattr("robustok_toolkit.latent_neighbours._SIMILARITIES_AT_ONCE", 20 * 12)
    assert torch.equal(bank.drawn(queries, 10, draws), whole)


# --- ways -----------------------------------------------------------------------------------------


def test_slerp_turns_by_half_the_angle_and_keeps_the_length_of_equally_long_latents() -> None:
    one, other = torch.zeros(2, 1, 4, 2)
    one[0, 0, 0], other[0, 1, 1] = 3.0, 3.0  # at a right angle
    middle = slerp(one, other, 0.5)
    assert float(middle.norm()) == pytest.approx(3.0)
    torch.testing.assert_close(middle, (one + other) / 2**0.5)
    third = slerp(one, other, 1 / 3)
    assert float((third * one).sum() / 9) == pytest.approx(np.cos(np.pi / 6))
    torch.testing.assert_close(slerp(one, 2 * one, 0.5), 1.5 * one)  # parallel
    torch.testing.assert_close(slerp(one, other, 0.0), one)
    torch.testing.assert_close(slerp(one, other, 1.0), other)


def test_a_mask_takes_the_upper_half_from_the_neighbour(tokenizer: Tokenizer) -> None:
    assert tokenizer.space.grid == (4, 4)
    ours, theirs = latents(1, 2, 16, 4), latents(2, 2, 16, 4)
    mixed = between(ours, theirs, "mask", 0.5, tokenizer, Draws.for_rows(0, 2))
    assert torch.equal(mixed, torch.cat([theirs[:, :8], ours[:, 8:]], dim=1))


@torch.no_grad()
def test_quantized_latents_are_codewords(tokenizer: Tokenizer) -> None:
    assert tokenizer.quantizer is not None
    codes = torch.randint(32, (2, 3, 16), generator=torch.Generator().manual_seed(0))
    ours, theirs = tokenizer.quantizer.lookup(codes)
    mixed = between(ours, theirs, "quantized", 0.5, tokenizer, Draws.for_rows(0, 3))
    codebook = tokenizer.quantizer.codebook
    assert (mixed[:, :, None] == codebook).all(dim=-1).any(dim=-1).all()
    torch.testing.assert_close(between(ours, theirs, "quantized", 0.0, tokenizer, Draws.for_rows(0, 3)), ours)


@torch.no_grad()
def test_rounding_does_not_choose_between_the_two_codewords_that_a_point_is_halfway_between(registry: Registry) -> None:
    quantizer = registry.build("quantizer", {"use": "lfq", "width": 6})
    tokenizer: Any = SimpleNamespace(quantizer=quantizer)
    codes = torch.randint(64, (2, 50, 16), generator=torch.Generator().manual_seed(0))
    ours, theirs = quantizer.lookup(codes)
    draws = Draws.for_rows(0, 50)
    mixed = between(ours, theirs, "quantized", 0.5, tokenizer, draws)
    for seed in range(3):
        rounded = 1 + 1e-6 * torch.randn(2, *ours.shape, generator=torch.Generator().manual_seed(seed))
        again = between(ours * rounded[0], theirs * rounded[1], "quantized", 0.5, tokenizer, draws)
        assert torch.equal(again, mixed)
    from_ours, from_theirs = ((mixed == held).all(dim=-1) for held in (ours, theirs))
    assert (from_ours | from_theirs).all()
    of_different = (ours != theirs).any(dim=-1)
    assert float(from_ours[of_different].double().mean()) == pytest.approx(0.5, abs=0.07)  # four standard errors


# --- the distance ---------------------------------------------------------------------------------


@torch.no_grad()
def test_it_is_the_distance_to_what_is_decoded_halfway(
    ifid: Make, of_vectors: Any, continuous: Tokenizer, train: Images, images: ImageBatch, colours: Callable[..., Spec]
) -> None:
    """Against the definition, image by image, with one neighbour so that nothing is drawn."""
    results = of_vectors.measure(ifid(neighbours=1))
    bank = continuous.encode(train.load(range(80)).images).vectors
    assert bank is not None
    decoded = []
    for image in images.images:
        z = continuous.encode(image[None]).vectors
        assert z is not None
        cosines = torch.cosine_similarity(z.flatten(1), bank.flatten(1))
        neighbour = bank[cosines.argmax()][None]
        angle = torch.cosine_similarity(z.flatten(1), neighbour.flatten(1)).double().acos()
        half = (angle / 2).sin() / angle.sin() * (z + neighbour)
        pixels = ((continuous.decode_vectors(half.float()).clamp(-1, 1) + 1) * 127.5 + 0.5).floor()
        decoded.append(pixels / 127.5 - 1)
    network = colours().build()
    ours, theirs = FeatureSums(6), FeatureSums(6)
    ours.add(network(torch.cat(decoded)))
    theirs.add(network(images.images))
    expected = frechet_distance(theirs.moments(), ours.moments())
    assert results["ifd_slerp_colours"].value == pytest.approx(expected, rel=1e-3)
    assert results["ifd_slerp_colours"].details["train_images"] == 80


def test_no_way_at_all_gives_the_reconstruction_distance(
    ifid: Make, of_vectors: Any, colours: Callable[..., Spec]
) -> None:
    rfd = of_vectors.measure(Frechet(FrechetConfig(features=colours())))["rfd_colours"].value
    nowhere = of_vectors.measure(ifid(weight=0.0))["ifd_slerp_colours"].value
    assert nowhere == pytest.approx(rfd, rel=1e-4)


def test_two_processes_and_other_batches_give_the_same(ifid: Make, of_codes: Any) -> None:
    whole = of_codes.measure(ifid(interpolation="mask"))
    halves = of_codes.measure_in_halves(ifid(interpolation="mask"))
    assert of_codes.numbers(halves) == pytest.approx(of_codes.numbers(whole))
    assert of_codes.numbers(of_codes.measure(ifid(interpolation="mask"), batch_size=7)) == pytest.approx(
        of_codes.numbers(whole), rel=1e-4
    )


@pytest.mark.parametrize(
    ("network", "options", "name"),
    [
        ("inception", {}, "ifid"),
        ("colours", {}, "ifd_colours"),
        ("inception", {"interpolation": "mask"}, "ifd_mask_inception"),
        ("inception", {"weight": 0.3}, "ifd_slerp_inception"),
        ("inception", {"train_images": 40}, "ifd_slerp_inception"),
    ],
)
def test_only_the_papers_definition_in_the_published_inception_is_called_ifid(
    ifid: Make, of_vectors: Any, network: str, options: dict[str, Any], name: str
) -> None:
    metric = ifid(network, **options)
    assert set(of_vectors.measure(metric)) == {name}
    assert list(metric.result_names(lambda spec: spec.build())) == [name]


def test_a_way_that_the_latent_space_lacks_is_refused(ifid: Make, tokenizer: Tokenizer, continuous: Tokenizer) -> None:
    with pytest.raises(
        RobustokError, match="interpolation is 'slerp', which this latent space does not have"
    ) as caught:
        ifid().check(tokenizer.space)
    assert caught.value.hint == "set interpolation to one of mask, quantized"
    with pytest.raises(RobustokError, match="interpolation is 'quantized'"):
        ifid(interpolation="quantized").check(continuous.space)
    ifid(interpolation="mask").check(continuous.space)


def test_too_few_training_images_are_refused(ifid: Make, of_vectors: Any, registry: Registry) -> None:
    with pytest.raises(RobustokError, match="needs at least neighbours = 81 training images"):
        of_vectors.start(ifid(neighbours=81))
    of_vectors.train = None
    with pytest.raises(RobustokError, match="needs at least neighbours = 10 training images"):
        of_vectors.start(ifid())
    with pytest.raises(ProblemsError, match="train_images is 5, fewer than neighbours, 10"):
        registry.spec("metric", {"use": "ifid", "train_images": 5})
