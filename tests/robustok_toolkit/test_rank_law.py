from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from codebooks import Fixed
from robustok_core import RobustokError
from robustok_toolkit import rank_law
from robustok_toolkit.rank_law import bins_for, check_ranked, codes_at, draw_ranks, edges, law_of, ranks_of

#: Codewords on a line, of which no two are at the same distance from a third: powers of three, shuffled.
LINE = Fixed(torch.tensor([[27.0], [1.0], [243.0], [3.0], [81.0], [9.0]]))


def by_hand(true: int) -> list[int]:
    """The other codes, nearest first."""
    at = LINE.codewords.flatten().tolist()
    return sorted((code for code in range(6) if code != true), key=lambda code: abs(at[code] - at[true]))


@pytest.mark.parametrize("at_once", [2**24, 12], ids=["whole", "in parts"])
def test_a_rank_counts_the_codes_that_are_nearer_and_leads_back_to_the_code(monkeypatch, at_once):
    monkeypatch.setattr(rank_law, "_AT_ONCE", at_once)
    true, drawn = torch.cartesian_prod(torch.arange(6), torch.arange(6)).flip(0).T
    expected = [0 if d == t else 1 + by_hand(t).index(d) for t, d in zip(true.tolist(), drawn.tolist(), strict=True)]
    ranks = ranks_of(drawn, true, LINE)
    assert ranks.tolist() == expected
    wrong = ranks > 0
    assert torch.equal(codes_at(ranks[wrong], true[wrong], LINE), drawn[wrong])


def test_codewords_that_coincide_have_ranks_of_their_own():
    double = Fixed(torch.tensor([[0.0], [0.0], [5.0]]))
    ranks = ranks_of(torch.tensor([0, 1, 2]), torch.tensor([1, 1, 1]), double)
    assert ranks.tolist() == [1, 0, 2]


def test_a_law_has_a_share_for_each_halving_of_the_codebook():
    # K = 8: [0, 1/4) holds rank 1, [1/4, 1/2) ranks 2 and 3, [1/2, 1) ranks 4 to 7; 0 is no error.
    assert edges(bins_for(8)) == [0.0, 0.25, 0.5, 1.0]
    assert law_of(torch.tensor([0, 0, 1, 1, 2, 3, 3, 7]), 8) == [2 / 6, 3 / 6, 1 / 6]
    assert law_of(torch.tensor([0, 0]), 8) == [0.0, 0.0, 0.0]


@given(counts=st.lists(st.integers(0, 5), min_size=6, max_size=6).filter(sum))
def test_ranks_drawn_at_even_quantiles_have_the_law_that_they_are_drawn_from(counts):
    """64 codes have six bins, with whole numbers of ranks."""
    uniform = (torch.arange(960) + 0.5) / 960
    drawn = law_of(draw_ranks(uniform, counts, 64), 64)
    assert drawn == pytest.approx([count / sum(counts) for count in counts], abs=2 / 960)


@pytest.mark.parametrize("codebook_size", [3, 10, 625, 1000])
def test_a_law_is_that_of_its_own_draws_in_a_codebook_of_any_size(codebook_size):
    counts = [float(2 + number % 3) for number in range(bins_for(codebook_size))]
    drawn = law_of(draw_ranks((torch.arange(9600) + 0.5) / 9600, counts, codebook_size), codebook_size)
    assert drawn == pytest.approx([count / sum(counts) for count in counts], abs=0.003)
    of_one_rank = law_of(torch.full((10,), 2), codebook_size)
    assert law_of(draw_ranks(torch.rand(1000), of_one_rank, codebook_size), codebook_size) == of_one_rank


def test_a_law_of_one_codebook_is_drawn_from_with_another():
    """Half of the errors of 64 codes are the nearest one: with 1,024 codes, they are the 31 nearest."""
    uniform = (torch.arange(2000) + 0.5) / 2000
    ranks = draw_ranks(uniform, [1, 0, 0, 0, 0, 1], 1024)
    assert ranks.min() == 1
    assert ranks.max() == 1023
    assert (ranks < 32).double().mean() == 0.5
    assert (ranks >= 512).double().mean() == 0.5
    # A codebook so small that the nearest bins hold less than a rank.
    assert draw_ranks(torch.tensor([0.0, 0.999]), [1.0] + [0.0] * 11, 4).tolist() == [1, 1]


@pytest.mark.parametrize(
    ("size", "message"), [(None, "has none"), (1, "has one"), (2**17, "at most 65,536 codes, and this one has 131,072")]
)
def test_codes_that_cannot_be_ranked_are_refused(size, message):
    with pytest.raises(RobustokError, match=message):
        check_ranked(size, "rank_law")
