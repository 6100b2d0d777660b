"""The chain of noise: its shares, its posterior, fewer steps, and the variational bound."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from robustok_core.values.draws import Draws
from robustok_generators.dit import step_back, step_of
from robustok_generators.noise_chain import NUM_STEPS, NoiseChain, spaced_steps, variational_bound

CPU = torch.device("cpu")
WHOLE = NoiseChain.of(list(range(NUM_STEPS)), CPU)


def normal(count: int, seed: int = 0) -> torch.Tensor:
    return Draws.for_rows(seed, count).normal(6, 4)


def test_the_noise_grows_from_almost_none_to_almost_all():
    of_data, of_noise = WHOLE.table[:, 0], WHOLE.table[:, 1]
    torch.testing.assert_close(of_data.square() + of_noise.square(), torch.ones(NUM_STEPS))
    assert bool((of_noise.diff() > 0).all())
    assert float(of_noise[0]) == pytest.approx(0.01)  # the root of the first beta
    assert float(of_data[-1]) < 0.01


def test_a_state_gives_back_the_data_of_which_it_has_the_noise():
    data, noise, index = normal(3), normal(3, seed=1), torch.tensor([0, 400, 900])
    torch.testing.assert_close(WHOLE.denoised(WHOLE.noised(data, noise, index), noise, index), data, atol=1e-4, rtol=0)


@pytest.mark.parametrize("steps", [list(range(NUM_STEPS)), spaced_steps(10, 999), [3, 700]])
def test_the_state_before_a_step_is_the_posterior_of_two_gaussians(steps):
    """q(x_before | x, data) from Bayes' rule: a prior N(a data, 1 - a^2), and a likelihood of x given the state."""
    chain, data, x = NoiseChain.of(steps, CPU), normal(1).double(), normal(1, seed=1).double()
    shares = chain.table[:, 0].double()
    for number in range(1, len(steps), max(1, len(steps) // 7)):
        before, step = float(shares[number - 1]), float(shares[number] / shares[number - 1])
        prior, likelihood = 1 - before**2, 1 - step**2
        variance = 1 / (1 / prior + step**2 / likelihood)
        mean = variance * (before * data / prior + step * x / likelihood)
        index = torch.tensor([number])
        torch.testing.assert_close(chain.mean_before(data, x, index), mean, atol=1e-3, rtol=1e-3)
        assert float(chain.least_log_variance(index)) == pytest.approx(math.log(variance), abs=0.02)
        largest = chain.log_variance(torch.ones(1, 1, 1), index)
        assert float(largest) == pytest.approx(math.log(likelihood), abs=0.01)


def test_the_first_step_has_the_logarithm_of_the_second_and_one_step_its_own():
    first, second = (WHOLE.least_log_variance(torch.tensor([number])) for number in (0, 1))
    assert torch.equal(first, second)
    assert bool(NoiseChain.of([500], CPU).table.isfinite().all())


def test_fewer_steps_are_evenly_spaced_from_the_first_to_the_last():
    assert spaced_steps(4, 999) == [0, 333, 666, 999]
    assert spaced_steps(NUM_STEPS, 999) == list(range(NUM_STEPS))
    assert spaced_steps(1, 999) == [999]
    assert spaced_steps(10, 2) == [0, 1, 2]
    published = spaced_steps(250, 999)
    assert (len(set(published)), published[0], published[-1]) == (250, 0, 999)


def test_a_share_of_the_steps_ends_with_its_last_one():
    assert [step_of(t) for t in (1.0, 0.7, 0.001, 0.0004, 0.0)] == [999, 699, 0, -1, -1]


# --- the way back ---------------------------------------------------------------------------------

MEAN, STD = 1.5, 0.4


def predicted(chain: NoiseChain, x: torch.Tensor, number: int) -> torch.Tensor:
    """The mean noise in x for data of a known Gaussian, and a variance of its own."""
    of_data, of_noise = (float(value) for value in chain.table[number, :2])
    noise = of_noise * (x - of_data * MEAN) / (of_data**2 * STD**2 + of_noise**2)
    return torch.cat([noise, torch.full_like(noise, -0.5)], dim=-1)


def back(chain: NoiseChain, x: torch.Tensor, method: str) -> torch.Tensor:
    for number in reversed(range(len(chain.steps))):
        added = normal(len(x), seed=100 + number) if method == "ddpm" and number > 0 else None
        x = step_back(chain, x, predicted(chain, x, number), number, added, method=method)
    return x


@pytest.mark.parametrize("method", ["ddpm", "ddim"])
@pytest.mark.parametrize("last", [999, 400])
def test_states_of_any_step_become_data_of_the_right_mean_and_deviation(method, last):
    chain, count = NoiseChain.of(spaced_steps(200, last), CPU), 500
    data = MEAN + STD * normal(count, seed=1)
    samples = back(chain, chain.noised(data, normal(count), torch.tensor([len(chain.steps) - 1])), method)
    assert float(samples.mean()) == pytest.approx(MEAN, abs=0.02)
    assert float(samples.std()) == pytest.approx(STD, abs=0.02)


def test_ddim_keeps_the_place_of_each_point_in_the_distribution():
    noise = normal(20)
    errors = [
        float((back(NoiseChain.of(spaced_steps(steps, 999), CPU), noise, "ddim") - MEAN - STD * noise).abs().max())
        for steps in (50, 500)
    ]
    assert errors[1] < 0.5 * errors[0]
    assert errors[1] < 0.05


# --- the bound ------------------------------------------------------------------------------------


def test_the_bound_is_the_divergence_of_two_gaussians_in_bits():
    data, noise, guess, raw = (normal(3, seed=seed) for seed in range(4))
    index = torch.tensor([1, 300, 999])
    x = WHOLE.noised(data, noise, index)
    mean = WHOLE.mean_before(WHOLE.denoised(x, guess, index), x, index)
    true = Normal(WHOLE.mean_before(data, x, index), (0.5 * WHOLE.least_log_variance(index)).exp())
    divergence = kl_divergence(true, Normal(mean, (0.5 * WHOLE.log_variance(raw, index)).exp()))
    expected = divergence.mean(dim=(1, 2)) / math.log(2)
    torch.testing.assert_close(variational_bound(WHOLE, data, x, guess, raw, index), expected, rtol=1e-3, atol=1e-4)


def test_nothing_is_left_to_say_if_the_noise_is_known_and_the_variance_least():
    data, noise, index = normal(2), normal(2, seed=1), torch.tensor([50, 950])
    x = WHOLE.noised(data, noise, index)
    bound = variational_bound(WHOLE, data, x, noise, torch.full_like(data, -1.0), index)
    torch.testing.assert_close(bound, torch.zeros(2), atol=1e-4, rtol=0)


def test_the_first_step_gives_each_of_256_values_a_probability():
    """They sum to 1, whatever is predicted."""
    values = torch.linspace(-1, 1, 256)[:, None, None]
    index, zeros = torch.zeros(256, dtype=torch.int64), torch.zeros(256, 1, 1)
    for x in (-1.0, 0.2, 0.7):
        bits = variational_bound(WHOLE, values, torch.full_like(values, x), zeros, zeros, index)
        assert float((2.0**-bits).sum()) == pytest.approx(1, abs=1e-4)
        assert abs(float(values[bits.argmin()]) - x) < 0.01
