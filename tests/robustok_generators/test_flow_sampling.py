"""The integrators on a Gaussian with a known velocity field, so that each method's result is known."""

from __future__ import annotations

import math

import pytest
import torch

from robustok_core.errors import RunError
from robustok_core.values.draws import Draws
from robustok_generators.flow_path import between, expected_noise, velocity_between
from robustok_generators.flow_sampling import FlowSampling, integrate

MEAN = torch.tensor([2.0, -1.0], dtype=torch.float64)
COVARIANCE = torch.tensor([[1.5, 0.6], [0.6, 0.5]], dtype=torch.float64)
METHODS = ["euler", "heun", "heun2", "dopri5", "euler_maruyama"]


def root(matrix: torch.Tensor) -> torch.Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ values.sqrt().diag() @ vectors.T


def cosine_velocity(x: torch.Tensor, t: float) -> torch.Tensor:
    """The mean derivative of cos(pi t / 2) data + sin(pi t / 2) noise, given its value x."""
    cosine, sine = math.cos(math.pi / 2 * t), math.sin(math.pi / 2 * t)
    marginal = cosine**2 * COVARIANCE + sine**2 * torch.eye(2, dtype=torch.float64)
    standard = torch.linalg.solve(marginal, (x - cosine * MEAN).mT).mT
    data, noise = MEAN + cosine * standard @ COVARIANCE, sine * standard
    return math.pi / 2 * (cosine * noise - sine * data)


def gaussian_velocity(x: torch.Tensor, t: float) -> torch.Tensor:
    """E[noise - data | x_t = x] for data of that mean and covariance: x_t, data and noise are jointly normal."""
    marginal = (1 - t) ** 2 * COVARIANCE + t**2 * torch.eye(2, dtype=torch.float64)
    standard = torch.linalg.solve(marginal, (x - (1 - t) * MEAN).mT).mT
    return t * standard - (MEAN + (1 - t) * standard @ COVARIANCE)


def normal(count: int, seed: int = 0) -> torch.Tensor:
    return Draws.for_rows(seed, count).normal(2).double()


def noise_of(count: int):
    return lambda step: normal(count, seed=1000 + step)


def flow(x: torch.Tensor, start: float = 1.0, **options: object) -> torch.Tensor:
    return integrate(gaussian_velocity, x, FlowSampling(**options), start=start, noise=noise_of(len(x)))


def exact(noise: torch.Tensor) -> torch.Tensor:
    """The flow keeps each point's position in the normal distribution."""
    return MEAN + noise @ root(COVARIANCE)


def error_of(**options: object) -> float:
    noise = normal(50)
    return float((flow(noise, **options) - exact(noise)).abs().max())


# --- results --------------------------------------------------------------------------------------


@pytest.mark.parametrize("tolerance", [1e-4, 1e-7])
def test_dopri5_follows_the_flow_of_each_point(tolerance):
    assert error_of(method="dopri5", tolerance=tolerance) < 30 * tolerance


def test_the_error_of_euler_halves_with_twice_the_steps():
    errors = [error_of(method="euler", steps=steps) for steps in (100, 200, 400)]
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.05)
    assert errors[1] / errors[2] == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize("method", ["heun", "heun2"])
def test_the_error_of_heun_falls_to_a_quarter_with_twice_the_steps(method):
    errors = [error_of(method=method, steps=steps) for steps in (100, 200, 400)]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.1)


def test_euler_with_many_steps_agrees_with_dopri5():
    noise = normal(50)
    torch.testing.assert_close(flow(noise, steps=2000), flow(noise, method="dopri5"), atol=4e-3, rtol=0)


@pytest.mark.parametrize("start", [1.0, 0.4])
@pytest.mark.parametrize("method", METHODS)
def test_points_of_any_time_become_data_of_the_right_mean_and_covariance(method, start):
    count = 10_000
    x = between(exact(normal(count)), normal(count, seed=1), start)
    samples = flow(x, start, method=method, **({} if method == "dopri5" else {"steps": 100}))
    standard_error = 4 * math.sqrt(2 / count) * 1.5
    torch.testing.assert_close(samples.mean(0), MEAN, atol=standard_error, rtol=0)
    torch.testing.assert_close(samples.T.cov(), COVARIANCE, atol=standard_error + 0.02, rtol=0)


@pytest.mark.parametrize("start", [1.0, 0.4])
def test_euler_maruyama_gives_data_of_the_right_mean_and_covariance_on_the_cosine_path_too(start):
    count = 10_000
    x = between(exact(normal(count)), normal(count, seed=1), start, "cosine")
    sampling = FlowSampling(method="euler_maruyama", steps=100)
    samples = integrate(cosine_velocity, x, sampling, start=start, noise=noise_of(count), path="cosine")
    torch.testing.assert_close(samples.mean(0), MEAN, atol=0.07, rtol=0)
    torch.testing.assert_close(samples.T.cov(), COVARIANCE, atol=0.11, rtol=0)


@pytest.mark.parametrize(("method", "calls"), [("euler", 3), ("heun", 5), ("heun2", 6)])
def test_the_last_step_of_heun_is_eulers_and_that_of_heun2_is_not(method, calls):
    seen = []

    def velocity(x: torch.Tensor, t: float) -> torch.Tensor:
        seen.append(t)
        return gaussian_velocity(x, t)

    integrate(velocity, normal(2), FlowSampling(method=method, steps=3), noise=None)
    assert len(seen) == calls


def test_euler_maruyama_forgets_a_part_of_its_initial_noise():
    """For standard normal data its drift is x (3 t - 1) / (2 t^2 - 2 t + 1), whose integral is pi / 4."""

    def standard(x: torch.Tensor, t: float) -> torch.Tensor:
        return x * (2 * t - 1) / ((1 - t) ** 2 + t**2)

    noise = normal(20_000)
    for method, remembered in (("euler", 1.0), ("euler_maruyama", math.exp(-math.pi / 4))):
        samples = integrate(standard, noise, FlowSampling(method=method, steps=100), noise=noise_of(20_000))
        assert float((samples * noise).mean()) == pytest.approx(remembered, abs=0.03)


def test_the_last_step_of_euler_maruyama_adds_no_noise():
    asked = []

    def noise(step: int) -> torch.Tensor:
        asked.append(step)
        return normal(3, seed=step)

    integrate(gaussian_velocity, normal(3), FlowSampling(method="euler_maruyama", steps=5), noise=noise)
    assert asked == [0, 1, 2, 3]


@pytest.mark.parametrize("path", ["linear", "cosine"])
def test_the_expected_noise_is_that_of_the_path(path):
    data, noise = normal(4), normal(4, seed=1)
    for t in (0.0, 0.3, 1.0):
        x, velocity = between(data, noise, t, path), velocity_between(data, noise, t, path)
        torch.testing.assert_close(expected_noise(x, velocity, t, path), noise)


@pytest.mark.parametrize("path", ["linear", "cosine"])
def test_the_velocity_is_the_derivative_of_the_path_from_data_to_noise(path):
    data, noise = normal(4), normal(4, seed=1)
    torch.testing.assert_close(between(data, noise, 0.0, path), data)
    torch.testing.assert_close(between(data, noise, 1.0, path), noise)
    for t in (0.2, torch.full((4, 1), 0.7, dtype=torch.float64)):
        slope = (between(data, noise, t + 1e-6, path) - between(data, noise, t - 1e-6, path)) / 2e-6
        torch.testing.assert_close(velocity_between(data, noise, t, path), slope, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("velocity", "what"),
    [
        (lambda x, t: x / 0.0, "the velocity at time 1 is not finite"),
        (lambda x, t: -1.0 / (t - 0.5) ** 2 + 0.0 * x, "dopri5 stopped"),
    ],
)
def test_dopri5_reports_why_it_stops(velocity, what):
    with pytest.raises(RunError, match=what):
        integrate(velocity, normal(2), FlowSampling(method="dopri5"), noise=None)


# --- steps ----------------------------------------------------------------------------------------


def test_fixed_steps_have_equal_length_and_end_at_data():
    assert FlowSampling(steps=4).times(1.0) == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert FlowSampling(method="heun", steps=1).times(1.0) == [1.0, 0.0]


@pytest.mark.parametrize("method", ["euler", "heun", "euler_maruyama"])
def test_all_steps_are_spread_over_the_remaining_interval(method):
    sampling = FlowSampling(method=method, steps=7, timestep_shift=0.3)
    assert sampling.times(0.3) == pytest.approx([0.3 * t for t in sampling.times(1.0)])


def test_the_last_step_of_euler_maruyama_is_one_twenty_fifth():
    times = FlowSampling(method="euler_maruyama", steps=250).times(1.0)
    assert len(times) == 251
    assert times[:250] == pytest.approx(torch.linspace(1, 0.04, 250, dtype=torch.float64).tolist())
    assert times[250] == 0.0
    assert FlowSampling(method="euler_maruyama", steps=1).times(1.0) == [1.0, 0.0]


def test_a_shift_gives_the_steps_of_lightningdit():
    times = FlowSampling(steps=249, timestep_shift=0.3).times(1.0)
    theirs = torch.linspace(0, 1, 250, dtype=torch.float64)  # from noise to data
    theirs = 0.3 * theirs / (1 + (0.3 - 1) * theirs)
    assert [1 - t for t in times] == pytest.approx(theirs.tolist())
    assert times[124] > 0.75  # after half of the steps most of the noise is left


@pytest.mark.parametrize("options", [{"timestep_shift": 0.3}, {"steps": 8}])
def test_dopri5_refuses_steps_and_shift(options):
    with pytest.raises(ValueError, match="has an effect only with a method other than dopri5"):
        FlowSampling(method="dopri5", **options)


def test_fixed_steps_have_no_tolerance():
    with pytest.raises(ValueError, match='tolerance = 0.001 has an effect only with method = "dopri5"'):
        FlowSampling(method="heun", tolerance=1e-3)


def test_options_that_the_sampler_does_not_have_are_named():
    from robustok_core.recipe.samplers import read_sampler_options
    from robustok_generators.flow_transformer import FlowTransformer

    _, (problem,) = read_sampler_options(FlowTransformer, {"method": "rk4"}, ("sampling",))
    assert problem.path == ("sampling", "method")
    assert "rk4" in problem.what
