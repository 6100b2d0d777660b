"""Two processes learn a codebook bit-identical to that of one process."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from processes import one_and_two

SCRIPT = Path(__file__).with_name("two_processes.py")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    one_and_two(SCRIPT, folder)
    return {place: torch.load(folder / f"{place[0]}-of-{place[1]}.pt") for place in [(0, 1), (0, 2), (1, 2)]}


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("update", ["gradient", "ema"])
def test_each_of_two_processes_has_the_codebook_of_a_single_one(results, update, rank):
    one, two = results[0, 1], results[rank, 2]
    names = [name for name in one if name.startswith(update)]
    assert len(names) >= 3
    for name in names:
        assert torch.equal(two[name], one[name]), name


def test_some_codes_were_restarted(results):
    rows = torch.nn.functional.normalize(torch.randn(120, 4, generator=torch.Generator().manual_seed(1)), dim=1)
    restarted = (torch.cdist(results[0, 1]["gradient embedding"], rows).min(dim=1).values < 1e-6).sum()
    assert restarted >= 2


@pytest.mark.parametrize("rank", [0, 1])
def test_the_entropy_of_lfq_counts_the_usage_of_all_processes(results, rank):
    torch.testing.assert_close(results[rank, 2]["entropy gradient"], results[0, 1]["entropy gradient"])
