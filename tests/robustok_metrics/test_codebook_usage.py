from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from robustok_core import RobustokError, RunError
from robustok_core.values.latents import LatentSpace
from robustok_metrics.codebook_usage import CodebookUsage, CodebookUsageConfig, perplexity, usage


def test_usage_is_the_share_of_codes_that_were_seen() -> None:
    assert usage(torch.tensor([5, 0, 1, 0])) == 0.5


def test_perplexity_of_evenly_used_codes_is_their_number() -> None:
    assert perplexity(torch.tensor([3, 3, 0, 3])) == pytest.approx(3.0)


def test_perplexity_is_two_to_the_entropy_in_bits() -> None:
    assert perplexity(torch.tensor([2, 1, 1])) == pytest.approx(2**1.5)


def test_perplexity_of_a_million_codes_is_exact() -> None:
    assert perplexity(torch.ones(2**20, dtype=torch.int64)) == pytest.approx(2**20, rel=1e-9)


def test_more_codes_than_can_be_counted_are_refused() -> None:
    metric = CodebookUsage(CodebookUsageConfig())
    metric.check(LatentSpace(kind="discrete", num_tokens=4, width=2, codebook_size=2**26))
    with pytest.raises(RobustokError, match="at most 67,108,864 codes are counted"):
        metric.check(LatentSpace(kind="discrete", num_tokens=4, width=2, codebook_size=2**26 + 1))


def test_nothing_counted_is_an_error() -> None:
    with pytest.raises(RunError, match="no codes were counted"):
        perplexity(torch.zeros(4, dtype=torch.int64))


def test_counts_cover_all_codes_of_the_pass(evaluation: Any) -> None:
    metric = CodebookUsage(CodebookUsageConfig())
    results = evaluation.measure(metric, batch_size=7)
    codes = evaluation.step(torch.arange(60)).latents.codes.flatten()
    values, counts = codes.unique(return_counts=True)
    assert metric.state()["counts"].sum() == len(codes)
    assert results["codebook_usage"].value == len(values) / 32
    shares = (counts / len(codes)).tolist()
    expected = math.exp(-sum(p * math.log(p) for p in shares))
    assert results["codebook_perplexity"].value == pytest.approx(expected, rel=1e-5)
    assert all(result.higher_is_better for result in results.values())


def test_results_say_of_how_many_images_they_are(evaluation: Any) -> None:
    results = evaluation.measure(CodebookUsage(CodebookUsageConfig()), batch_size=7)
    assert [result.num_images for result in results.values()] == [60, 60]
