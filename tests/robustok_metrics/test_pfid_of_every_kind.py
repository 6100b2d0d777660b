"""pFID's neighbours for each kind of tokenizer are those of docs/pfid.md, computed independently in float64.

List a new quantizer here to test it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from robustok_core import Draws, Latents, LatentSpace, Quantizer, Registry, RobustokError, Spec
from robustok_core.kinds.perturbation import of_strength
from robustok_metrics.pfid import PFID, Cell, PFIDConfig

Order = Callable[[Quantizer], Tensor]


def by_distance(codewords: Callable[[Quantizer], Tensor]) -> Order:
    """(K, K): how far codewords are from each codeword, squared."""

    def order(quantizer: Quantizer) -> Tensor:
        vectors = codewords(quantizer).double()
        return (vectors[:, None] - vectors).square().sum(-1)

    return order


def by_cosine(quantizer: Any) -> Tensor:
    vectors = F.normalize(quantizer.embedding.double(), dim=1)
    return -vectors @ vectors.T


def by_product(quantizer: Any) -> Tensor:
    return -quantizer.embedding.double() @ quantizer.embedding.double().T


def by_bits(quantizer: Quantizer) -> Tensor:
    """Hamming distances of the codes themselves."""
    size = quantizer.codebook_size
    return torch.tensor([[(one ^ other).bit_count() for other in range(size)] for one in range(size)])


def sums_of_levels(quantizer: Any) -> Tensor:
    first, second = quantizer.library.codebooks.double()  # each (k, D); the first is the lower digit of a code
    return torch.stack([one + two for two in second for one in first])


def projected_table(quantizer: Any) -> Tensor:
    return quantizer.table.double() @ quantizer.projection.weight.double().T + quantizer.projection.bias.double()


def projected_frozen(quantizer: Any) -> Tensor:
    library = quantizer.library
    return library.frozen_codebook.double() @ library.code_transform.weight.double().T


def levels(quantizer: Any) -> Tensor:
    """The grid with 5, 4 and 3 levels, the first changing fastest."""
    scales = torch.linspace(-1, 1, 5), torch.tensor([-1, -0.5, 0, 0.5]), torch.linspace(-1, 1, 3)
    return torch.cartesian_prod(*scales[::-1]).flip(1)


TABLES = {"codebook_size": 40, "width": 4}
KINDS: dict[str, tuple[dict[str, Any], Order]] = {
    "vq on the sphere": ({"use": "vq", **TABLES, "l2_normalise": True}, by_cosine),
    "vq": ({"use": "vq", **TABLES, "l2_normalise": False}, by_distance(lambda quantizer: quantizer.embedding)),
    "projected_vq": ({"use": "projected_vq", **TABLES, "table_width": 8}, by_distance(projected_table)),
    "sim_vq": ({"use": "sim_vq", **TABLES}, by_distance(projected_frozen)),
    "residual_vq": ({"use": "residual_vq", "level_size": 6, "width": 4}, by_distance(sums_of_levels)),
    "fsq": ({"use": "fsq", "levels": [5, 4, 3]}, by_distance(levels)),
    "lfq": ({"use": "lfq", "width": 5}, by_bits),
    "lfq of Open-MAGVIT2": ({"use": "lfq", "width": 5, "lowest_bit_first": True}, by_bits),
    "bsq": ({"use": "lfq", "width": 5, "spherical": True}, by_bits),
    "ibq": ({"use": "ibq", **TABLES}, by_product),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def make(registry: Registry, kind: str) -> Quantizer:
    torch.manual_seed(0)
    quantizer: Quantizer = registry.build("quantizer", KINDS[kind][0])
    return quantizer.eval()


def neighbours(order: Tensor, delta: int) -> list[set[int]]:
    """The codes that a token of each code may become: the first delta in order, the code itself always among them."""
    ranked = order.sort(dim=1, stable=True).indices[:, :delta].tolist()
    return [set(row if code in row else [*row[:-1], code]) for code, row in enumerate(ranked)]


def test_every_registered_quantizer_has_its_neighbours_defined(registry: Registry) -> None:
    assert {table["use"] for table, _ in KINDS.values()} == set(registry.names("quantizer"))


@every_kind
@pytest.mark.parametrize("delta", [1, 5, 9])
@torch.no_grad()
def test_a_token_becomes_any_of_its_delta_neighbours_and_no_other(
    registry: Registry, colours: Callable[..., Spec], kind: str, delta: int
) -> None:
    quantizer = make(registry, kind)
    config = PFIDConfig(features=colours(), perturbation=registry.spec("perturbation", {"use": "top_delta"}))
    perturbation = of_strength(config.perturbation, alpha=1.0, delta=delta).build()
    every_code = torch.arange(quantizer.codebook_size).repeat(150, 1)  # 150 images, each with all codes
    latents = Latents(codes=every_code, vectors=quantizer.lookup(every_code))
    drawn, mask = perturbation.perturb(latents, quantizer, draws=Draws.for_rows(3, 150), progress=0.0)
    assert mask.all()
    expected = neighbours(KINDS[kind][1](quantizer), delta)
    assert [set(column) for column in drawn.codes.T.tolist()] == expected  # one of 9 is missed with chance 2e-8
    assert torch.equal(drawn.vectors, quantizer.lookup(drawn.codes))


@torch.no_grad()
def test_with_dot_products_a_codeword_may_lack_itself_and_then_replaces_the_last_neighbour(registry: Registry) -> None:
    order = by_product(make(registry, "ibq"))
    without_itself = (order.argsort(dim=1)[:, :5] != torch.arange(40)[:, None]).all(dim=1)
    assert without_itself.any(), "or the test above would not cover this"
    assert all(code in row and len(row) == 5 for code, row in enumerate(neighbours(order, 5)))


@pytest.mark.parametrize("kind", ["vq on the sphere", "ibq", "lfq"])
def test_one_dimensional_tokens_are_measured_and_the_result_names_an_order_that_is_no_distance(
    registry: Registry, colours: Callable[..., Spec], evaluation: Any, kind: str
) -> None:
    sizes = {"width": 16, "depth": 1, "num_heads": 2}
    table = {"use": "titok", "image_size": 32, "patch_size": 8, "num_latent_tokens": 6, "output": "pixels"}
    torch.manual_seed(0)
    quantizer = KINDS[kind][0]
    evaluation.tokenizer = registry.build(
        "tokenizer", {**table, "encoder": sizes, "decoder": sizes, "quantizer": quantizer}
    ).eval()
    perturbation = registry.spec("perturbation", {"use": "top_delta"})
    metric = PFID(PFIDConfig(features=colours(), perturbation=perturbation, alphas=(0.5,), deltas=(3,)))
    evaluation.start(metric)
    _, mask = metric.perturbed(evaluation.step(torch.arange(60)), Cell(alpha=0.5, delta=3))
    assert mask.sum(dim=1).tolist() == [3] * 60
    (result,) = evaluation.measure(metric).values()
    assert result.value > 0
    assert result.details.get("nearest_by") == ("dot product" if kind == "ibq" else None)


def test_more_codes_than_can_be_searched_are_refused_beforehand(registry: Registry) -> None:
    space = LatentSpace(kind="discrete", num_tokens=4, width=2, codebook_size=2**24 + 1)
    for kind, table in (("metric", {"use": "pfid"}), ("perturbation", {"use": "top_delta"})):
        with pytest.raises(RobustokError, match="at most 16,777,216 codewords, and this tokenizer has 16,777,217"):
            registry.build(kind, table).check(space)
