"""Latents and their space."""

from __future__ import annotations

import pytest
import torch

from robustok_core import Latents
from robustok_core.values.latents import LatentSpace

DISCRETE = {"kind": "discrete", "num_tokens": 16, "width": 4, "codebook_size": 32}


def test_a_space_says_what_it_is():
    assert LatentSpace(**DISCRETE).describe() == "discrete, 16 tokens of width 4, K=32"
    assert LatentSpace(kind="continuous", num_tokens=9, width=2).describe() == "continuous, 9 tokens of width 2"


def test_a_space_from_json_equals_the_one_it_came_from():
    assert LatentSpace(**DISCRETE, grid=[4, 4]) == LatentSpace(**DISCRETE, grid=(4, 4))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"codebook_size": None}, "a discrete latent space has a codebook size"),
        ({"kind": "continuous"}, "a continuous one has none"),
        ({"kind": "other"}, "kind"),
        ({"num_tokens": 0}, "num_tokens"),
        ({"grid": (4, 5)}, r"a grid of \(4, 5\) does not hold 16 tokens"),
    ],
)
def test_a_space_that_cannot_be_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        LatentSpace(**DISCRETE | changes)


def test_rows_are_selected_in_all_that_latents_hold():
    codes, vectors = torch.arange(12).reshape(4, 3), torch.rand(4, 3, 2)
    latents = Latents(codes=codes, vectors=vectors, features=2 * vectors, losses={"commitment": torch.ones(())})
    part = latents[[3, 1]]
    assert len(part) == 2
    assert torch.equal(part.codes, codes[[3, 1]])
    assert torch.equal(part.vectors, vectors[[3, 1]])
    assert torch.equal(part.features, 2 * vectors[[3, 1]])
    assert part.losses == {}, "losses are of the whole batch"


def test_detached_latents_have_the_values_and_no_graph():
    vectors = torch.rand(2, 3, 2, requires_grad=True)
    detached = Latents(vectors=2 * vectors).detach()
    assert torch.equal(detached.vectors, 2 * vectors)
    assert not detached.vectors.requires_grad


def test_what_is_missing_stays_missing():
    only = Latents(codes=torch.zeros(2, 3, dtype=torch.int64)).to("cpu")[:1]
    assert (only.vectors, only.features, len(only)) == (None, None, 1)


def test_latents_without_anything_have_no_length():
    with pytest.raises(ValueError, match="neither vectors nor codes"):
        len(Latents())
