"""Random numbers are functions of (seed, names, index)."""

from __future__ import annotations

import torch

from robustok_core import Draws, derive_seed
from robustok_core.values.draws import seeded


def test_a_row_depends_on_its_index_alone():
    whole = Draws.for_rows(7, 100)
    part = whole[torch.tensor([42, 3])]
    for draw in ("uniform", "normal"):
        assert torch.equal(getattr(whole, draw)(5, 2)[[42, 3]], getattr(part, draw)(5, 2))
    assert torch.equal(whole.integers(13, 4)[[42, 3]], part.integers(13, 4))
    assert torch.equal(whole.chosen(30)[[42, 3]], part.chosen(30))


def test_exactly_count_rows_are_chosen_and_every_row_can_be():
    counts = torch.zeros(10)
    for seed in range(500):
        chosen = Draws.for_rows(seed, 10).chosen(3)
        assert chosen.sum() == 3
        counts += chosen
    # 500 draws at probability .3: standard deviation 10.2
    assert ((counts - 150).abs() < 45).all()


def test_streams_of_different_names_and_seeds_are_unrelated():
    base = Draws.for_rows(1, 4000)
    streams = torch.stack([base.uniform(), base.child("a").uniform(), base.child("b").uniform()])
    neighbours = torch.stack([Draws.for_rows(2, 4000).uniform(), base.uniform(2)[:, 1], base.uniform().roll(1)])
    off_diagonal = torch.corrcoef(torch.cat([streams, neighbours])) - torch.eye(6)
    assert off_diagonal.abs().max() < 0.08  # five standard deviations of a correlation of 4,000 pairs


def test_uniforms_and_normals_have_their_moments():
    draws = Draws.for_rows(3, 50_000)
    uniform, normal = draws.uniform(2), draws.child("n").normal(2)
    assert 0.0 <= uniform.min() < 1e-4
    assert 1 - 1e-4 < uniform.max() < 1.0
    assert abs(uniform.mean() - 0.5) < 0.005
    assert abs(uniform.var() - 1 / 12) < 0.002
    assert abs(normal.mean()) < 0.015
    assert abs(normal.std() - 1) < 0.01
    assert abs((normal**4).mean() - 3) < 0.15


def test_integers_are_uniform():
    counts = torch.bincount(Draws.for_rows(5, 20_000).integers(10), minlength=10).float()
    chi_square = ((counts - 2000) ** 2 / 2000).sum()
    assert chi_square < 27.9  # the 99.9 % point with 9 degrees of freedom


def test_seeds_are_the_same_on_every_machine():
    assert derive_seed(0, "train_tokenizer", 3) == 2419551963281196508
    assert Draws.for_rows(5, 3).bits(1)[:, 0].tolist() == Draws.for_rows(5, 9).bits(1)[:3, 0].tolist()


def test_a_seeded_block_leaves_the_generator_as_it_was():
    torch.manual_seed(5)
    wanted = torch.rand(6)
    torch.manual_seed(5)
    before = torch.rand(3)
    with seeded("weights", 1):
        first = torch.rand(3)
    assert torch.equal(torch.cat([before, torch.rand(3)]), wanted)
    with seeded("weights", 1):
        assert torch.equal(torch.rand(3), first)


def test_a_seeded_block_leaves_the_generators_of_all_gpus_as_they_were(monkeypatch):
    """Stands for two GPUs, each with a seed as the state of its generator."""
    seeds = [1, 2]
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: list(seeds))
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", lambda states: seeds.__setitem__(slice(None), states))
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: seeds.__setitem__(slice(None), [seed] * 2))
    with seeded("weights"):
        assert seeds == [derive_seed("weights")] * 2
    assert seeds == [1, 2]


def test_a_gpu_that_is_used_after_a_seeded_block_starts_with_the_seed_of_the_program(monkeypatch):
    queued = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", queued.append)
    torch.manual_seed(7)
    with seeded("weights"):
        pass
    assert queued == [7, derive_seed("weights"), 7]
