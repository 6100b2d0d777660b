"""What is kept of real images while a generator draws."""

from __future__ import annotations

import pytest
import torch

from robustok_core import Draws, Keep, Latents


def test_each_token_is_kept_with_probability_sigma_by_its_rows_own_draws():
    real, drawn = torch.full((400, 50), 3), torch.zeros(400, 50, dtype=torch.int64)
    draws = Draws.for_rows(0, 400)
    keep = Keep(latents=Latents(codes=real), sigma=0.9)
    kept = keep.over(drawn, draws)
    assert torch.equal(kept == 3, keep.mask(draws))
    assert abs((kept == 3).double().mean().item() - 0.9) < 0.01
    some = Keep(latents=Latents(codes=real[5:8]), sigma=0.9).over(drawn[5:8], draws[5:8])
    assert torch.equal(some, kept[5:8])


@pytest.mark.parametrize(("sigma", "code"), [(0.0, 0), (1.0, 3)])
def test_all_or_nothing_is_kept_at_the_ends(sigma, code):
    keep = Keep(latents=Latents(codes=torch.full((4, 50), 3)), sigma=sigma)
    assert (keep.over(torch.zeros(4, 50, dtype=torch.int64), Draws.for_rows(0, 4)) == code).all()


def test_vectors_have_a_mask_and_no_codes_to_keep():
    keep = Keep(latents=Latents(vectors=torch.zeros(4, 50, 2)), sigma=1.0)
    assert keep.mask(Draws.for_rows(0, 4)).all()
    with pytest.raises(ValueError, match="hold vectors only"):
        keep.over(torch.zeros(4, 50, dtype=torch.int64), Draws.for_rows(0, 4))
