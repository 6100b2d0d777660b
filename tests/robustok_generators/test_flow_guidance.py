"""Guidance of flow models: where it acts and what it costs."""

from __future__ import annotations

import pytest
import torch

from robustok_core.errors import RobustokError
from robustok_core.values.draws import Draws
from robustok_core.values.guidance import Guidance
from robustok_core.values.latents import Keep, Latents
from robustok_generators.flow_guidance import GuidedVelocity
from robustok_generators.flow_sampling import FlowSampling, integrate
from robustok_toolkit.generating import generate
from tiny_flow import (
    Watch,
    make,
    real,
    sampled,
    sharp,
)


@pytest.fixture(scope="module")
def model():
    return sharp()


# --- guidance -------------------------------------------------------------------------------------


def velocities(model, x, t, labels, guidance, channels=None):
    with torch.no_grad():
        return GuidedVelocity(model.velocity, labels, null_label=10, guidance=guidance, channels=channels)(x, t)


def test_guidance_extrapolates_beyond_the_conditional_velocity(model):
    x, labels, t = real(3), torch.tensor([4, 4, 0]), torch.full((3,), 0.7)
    with torch.no_grad():
        conditional, unconditional = model(x, t, labels), model(x, t, torch.full_like(labels, 10))
    expected = unconditional + 2.5 * (conditional - unconditional)
    torch.testing.assert_close(velocities(model, x, 0.7, labels, Guidance(scale=2.5)), expected, atol=1e-4, rtol=1e-4)
    first = velocities(model, x, 0.7, labels, Guidance(scale=2.5), channels=1)
    torch.testing.assert_close(first[..., :1], expected[..., :1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(first[..., 1:], conditional[..., 1:], atol=1e-4, rtol=1e-4)


def test_guidance_depends_on_the_time_and_costs_nothing_outside_its_interval(model):
    guidance = Guidance(scale=2.0, start=0.3, stop=0.8)  # shares of the sampling done: t in (0.2, 0.7]
    rows = {1.0: 3, 0.75: 3, 0.69: 6, 0.5: 6, 0.21: 6, 0.19: 3, 0.0: 3}
    for t, expected in rows.items():
        with Watch(model.token_embedding) as seen:
            velocities(model, real(3), t, torch.arange(3), guidance)
        assert [len(x) for (x,) in seen.read] == [expected], t


@pytest.mark.parametrize("steps", [5, 10, 20, 50])
def test_an_interval_that_starts_or_ends_at_a_step_guides_exactly_its_steps(steps):
    sampling = FlowSampling(steps=steps)

    def rows(start: float, stop: float) -> list[int]:
        seen = []

        def velocity(x, t, classes, row):
            seen.append(len(x))
            return torch.zeros_like(x)

        guidance = Guidance(scale=2.0, start=start, stop=stop)
        guided = GuidedVelocity(velocity, torch.arange(3), null_label=10, guidance=guidance, channels=None)
        integrate(guided, real(3), sampling, noise=None)
        return seen

    for bound in range(1, steps):
        assert rows(bound / steps, 1.0) == [3] * bound + [6] * (steps - bound)
        assert rows(0.0, bound / steps) == [6] * bound + [3] * (steps - bound)


def test_guidance_until_the_end_includes_the_last_point(model):
    before, at = (velocities(model, real(2), t, torch.arange(2), Guidance(scale=3.0)) for t in (1e-6, 0.0))
    torch.testing.assert_close(before, at, atol=1e-3, rtol=1e-3)


def test_the_kept_share_counts_as_done(model):
    keep = Keep(latents=Latents(vectors=real(3)), sigma=0.5)
    with Watch(model.token_embedding) as seen:
        sampled(model, torch.arange(3), Draws.for_rows(0, 3), guidance=Guidance(scale=2.0, start=0.7), keep=keep)
    assert [len(x) for (x,) in seen.read] == [3, 3, 6, 6]  # t = 0.5, 0.375, 0.25, 0.125


def test_modulations_are_computed_once_per_class(model):
    labels = torch.tensor([7, 2, 7, 7, 2, 7])
    with Watch(model.blocks[1].modulation) as seen:
        sampled(model, labels, Draws.for_rows(0, 6), guidance=Guidance(scale=2.0), steps=1)
    assert [len(conditions) for (conditions,) in seen.read] == [3]  # classes 2, 7 and null


def test_the_options_of_the_generator_reach_its_sampler():
    labels, draws, guidance = torch.arange(3), Draws.for_rows(0, 3), Guidance(scale=5.0)
    samples = {
        channels: sampled(sharp(guided_channels=channels), labels, draws, guidance, steps=1) for channels in (None, 2)
    }
    unguided = sampled(sharp(), labels, draws, steps=1)
    torch.testing.assert_close(samples[2][..., :2], samples[None][..., :2], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(samples[2][..., 2:], unguided[..., 2:], atol=1e-4, rtol=1e-4)


def test_guidance_is_refused_without_label_dropout():
    model = make(label_dropout=0.0)
    with pytest.raises(RobustokError, match="label dropout"):
        [*generate(model, torch.arange(2), Draws.for_rows(0, 2), guidance=Guidance(scale=2.0), batch_size=2)]
