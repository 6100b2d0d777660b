"""Temperature, top-k, top-p and inverse transform sampling."""

from __future__ import annotations

import pytest
import torch

from robustok_generators.key_value_cache import KeyValueCache
from robustok_generators.token_sampling import TokenSampling, choose, inverse_cdf, only_top_k, only_top_p

SHARES = torch.tensor([0.1, 0.4, 0.0, 0.3, 0.2])
LOGITS = SHARES.log()[None]
EVEN = (torch.arange(1000) + 0.5) / 1000


def shares_of(sampling: TokenSampling) -> list[float]:
    """The share of evenly spaced numbers for which each code is chosen."""
    codes = choose(LOGITS.expand(1000, -1), EVEN, sampling)
    return (codes.bincount(minlength=5) / 1000).tolist()


def test_each_code_is_sampled_with_its_probability():
    assert shares_of(TokenSampling()) == pytest.approx(SHARES.tolist(), abs=1e-3)


def test_temperature_sharpens_and_0_takes_the_most_likely():
    sharpened = SHARES.square() / SHARES.square().sum()
    assert shares_of(TokenSampling(temperature=0.5)) == pytest.approx(sharpened.tolist(), abs=1e-3)
    assert shares_of(TokenSampling(temperature=0.0)) == [0, 1, 0, 0, 0]


def test_top_k_samples_from_the_k_most_likely():
    assert shares_of(TokenSampling(top_k=2)) == pytest.approx([0, 4 / 7, 0, 3 / 7, 0], abs=1e-3)
    assert shares_of(TokenSampling(top_k=1)) == [0, 1, 0, 0, 0]
    assert shares_of(TokenSampling(top_k=99)) == shares_of(TokenSampling())


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.01, [1]), (0.39, [1]), (0.41, [1, 3]), (0.69, [1, 3]), (0.71, [1, 3, 4])]
)
def test_top_p_samples_from_the_fewest_that_reach_p(top_p, kept):
    expected = torch.zeros(5).index_put((torch.tensor(kept),), SHARES[kept] / SHARES[kept].sum())
    assert shares_of(TokenSampling(top_p=top_p)) == pytest.approx(expected.tolist(), abs=1e-3)


def test_top_k_and_top_p_act_after_the_temperature():
    # At temperature 0.5 the most likely code alone has probability 16/30, more than 0.5.
    assert shares_of(TokenSampling(temperature=0.5, top_p=0.5)) == [0, 1, 0, 0, 0]


def test_rows_are_truncated_independently():
    rows = torch.cat([LOGITS, LOGITS.flip(1)])
    assert torch.equal(only_top_k(rows, 2)[1], only_top_k(LOGITS, 2)[0].flip(0))
    assert torch.equal(only_top_p(rows, 0.5)[1], only_top_p(LOGITS, 0.5)[0].flip(0))


def test_every_uniform_number_selects_a_code_of_positive_probability():
    logits = torch.full((2, 16384), -torch.inf)
    logits[:, :16000] = torch.randn(2, 16000, generator=torch.Generator().manual_seed(0))
    codes = inverse_cdf(logits, torch.tensor([0.0, 1 - 2.0**-24]))
    assert codes.tolist() == [0, 15999]
    first = torch.tensor([[-torch.inf, 0.0, -torch.inf]])
    assert inverse_cdf(first.expand(2, -1), torch.tensor([0.0, 1 - 2.0**-24])).tolist() == [1, 1]


def test_a_cache_returns_everything_added_without_copying():
    cache = KeyValueCache(5)
    keys, values = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 5, 4)
    places = []
    for start, end in ((0, 2), (2, 3), (3, 5)):
        k, v = cache.extend(keys[:, :, start:end], values[:, :, start:end])
        assert torch.equal(k, keys[:, :, :end])
        assert torch.equal(v, values[:, :, :end])
        places.append((k.data_ptr(), v.data_ptr()))
    assert len(set(places)) == 1
    assert cache.filled == 5
