"""The flow transformer: training, sigma, and the published sizes."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from robustok_core.errors import ProblemsError, RobustokError
from robustok_core.runs.components import load_component, save_component
from robustok_core.values.draws import Draws
from robustok_core.values.guidance import Guidance
from robustok_core.values.latents import Keep, Latents, LatentSpace
from robustok_generators.flow_path import training_times
from robustok_generators.flow_sampling import FlowSampling
from robustok_toolkit.generating import generate
from tiny_flow import (
    GRID,
    LIGHTNING,
    METHODS,
    OPTIONS,
    REGISTRY,
    SPACE,
    TINY,
    Watch,
    losses_of,
    make,
    noise_of,
    real,
    sampled,
    sharp,
)


@pytest.fixture(scope="module")
def model():
    return sharp()


# --- training -------------------------------------------------------------------------------------


def test_the_target_is_the_velocity_between_data_and_noise():
    model, data, labels, draws = make(cosine_weight=0.5), real(5), torch.arange(5), Draws.for_rows(3, 5)
    with Watch(model) as seen:
        losses = losses_of(model, data, labels, draws)
    ((x, times, read_labels),) = seen.read
    t = times[:, None, None]
    torch.testing.assert_close(x, (1 - t) * data + t * noise_of(draws))
    assert torch.equal(read_labels, labels)
    # A new model outputs 0: its error is the whole velocity, and its cosine similarity is 0.
    torch.testing.assert_close(losses["velocity"], (noise_of(draws) - data).square().mean())
    assert float(losses["cosine"]) == 0.5


def test_the_losses_compare_with_noise_minus_data(monkeypatch):
    model, data, draws = make(cosine_weight=1.0), real(5), Draws.for_rows(3, 5)
    wanted = noise_of(draws) - data
    for answer, velocity, cosine in ((wanted, 0.0, 0.0), (3 * wanted, 4.0, 0.0), (-wanted, 4.0, 2.0)):
        monkeypatch.setattr(model, "forward", lambda x, times, labels, answer=answer: answer)
        losses = losses_of(model, data, torch.arange(5), draws)
        torch.testing.assert_close(losses["velocity"], velocity * wanted.square().mean())
        assert float(losses["cosine"]) == pytest.approx(cosine, abs=1e-6)


def test_without_a_cosine_weight_there_is_one_loss(model):
    assert set(losses_of(model, real(2), torch.arange(2), Draws.for_rows(0, 2))) == {"velocity"}


def test_the_loss_of_a_batch_is_the_mean_over_its_micro_batches():
    model = sharp(cosine_weight=1.0)
    data, labels, draws = real(6), torch.arange(6), Draws.for_rows(5, 6)
    whole = losses_of(model, data, labels, draws)
    micro_batches = [losses_of(model, data[r], labels[r], draws[r]) for r in (slice(0, 2), slice(2, 4), slice(4, 6))]
    for name, loss in whole.items():
        torch.testing.assert_close(sum(losses[name] for losses in micro_batches) / 3, loss)


def test_times_are_uniform_or_logit_normal():
    draws = Draws.for_rows(0, 20_000)
    for how, below in (
        ("uniform", lambda t: t),
        ("logit_normal", lambda t: 0.5 * math.erfc(-math.log(t / (1 - t)) / math.sqrt(2))),
    ):
        times = training_times(draws, how)
        for t in (0.1, 0.25, 0.5, 0.8):
            assert float((times < t).float().mean()) == pytest.approx(below(t), abs=0.015)  # 4 standard errors


def test_labels_are_dropped_only_in_training():
    model, labels = make(label_dropout=0.25), torch.full((2000,), 7)
    with Watch(model) as seen:
        losses_of(model.train(), real(1).expand(2000, 6, 4), labels, Draws.for_rows(0, 2000))
        losses_of(model.eval(), real(1).expand(2000, 6, 4), labels, Draws.for_rows(0, 2000))
    trained, evaluated = (read[2] for read in seen.read)
    assert set(trained.tolist()) == {7, 10}
    assert float((trained == 10).float().mean()) == pytest.approx(0.25, abs=0.04)
    assert set(evaluated.tolist()) == {7}


def test_on_the_cosine_path_the_target_turns_with_the_time():
    model, data, draws = make(path="cosine"), real(5), Draws.for_rows(3, 5)
    with Watch(model) as seen:
        losses = losses_of(model, data, torch.arange(5), draws)
    ((x, times, _),) = seen.read
    angle = math.pi / 2 * times[:, None, None]
    torch.testing.assert_close(x, angle.cos() * data + angle.sin() * noise_of(draws))
    wanted = math.pi / 2 * (angle.cos() * noise_of(draws) - angle.sin() * data)
    torch.testing.assert_close(losses["velocity"], wanted.square().mean())
    samples = sampled(model, torch.arange(5), draws, keep=Keep(latents=Latents(vectors=data), sigma=0.6))
    angle = math.pi / 2 * 0.4  # the velocity is 0: the output is the starting point
    torch.testing.assert_close(samples, math.cos(angle) * data + math.sin(angle) * noise_of(draws))


def test_outputs_without_use_change_nothing():
    model, doubled = sharp(), make(learn_sigma=True)
    state = model.state_dict()
    for name in ("weight", "bias"):
        value = state[f"head.to_velocity.{name}"]
        state[f"head.to_velocity.{name}"] = torch.cat([value, torch.ones_like(value)])
    doubled.load_state_dict(state)
    x, t, labels = real(3), torch.tensor([0.25, 0.5, 1.0]), torch.arange(3)
    torch.testing.assert_close(doubled(x, t, labels), model(x, t, labels))


@pytest.mark.parametrize(
    ("space", "options"), [(SPACE, {}), (GRID, {**LIGHTNING, "direction": "data", "cosine_weight": 1.0})]
)
def test_four_latents_are_memorised_and_sampled_back(space, options):
    model, data, labels = make(space, label_dropout=0.0, width=64, **options), real(4), torch.arange(4)
    data = 3 + 2 * data
    model.observe(data.mean((0, 1)), data.std((0, 1)))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 400)
    model.train()
    for step in range(400):
        draws = Draws.for_rows(step, 32)
        losses = model.loss(Latents(vectors=data.repeat(8, 1, 1)), labels.repeat(8), draws=draws, progress=0.0)
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        schedule.step()
    samples = sampled(model.eval(), labels, Draws.for_rows(0, 4), steps=20)
    assert float((samples - data).square().mean().sqrt()) < 0.5  # the latents' standard deviation is 2


# --- time, positions, blocks ----------------------------------------------------------------------


def test_a_network_whose_time_points_to_data_equals_the_reversed_one():
    to_noise, to_data = sharp(), sharp(direction="data")
    to_data.load_state_dict(to_noise.state_dict())
    x, t, labels = real(3), torch.tensor([0.25, 0.5, 1.0]), torch.arange(3)
    torch.testing.assert_close(to_data(x, t, labels), -to_noise(x, 1 - t, labels))


@pytest.mark.parametrize(("space", "options"), [(SPACE, {}), (GRID, {}), (GRID, LIGHTNING)])
def test_every_velocity_depends_on_every_token_the_class_and_the_time(space, options):
    model, x, t, label = sharp(space, **options), real(1), torch.tensor([0.5]), torch.tensor([3])
    before = model(x, t, label)
    for position in range(6):
        other = x.clone()
        other[0, position] += 1
        assert (model(other, t, label) != before).any(-1).all()
    assert (model(x, t, label + 1) != before).any(-1).all()
    assert (model(x, t + 0.1, label) != before).any(-1).all()


@pytest.mark.parametrize("norm", ["layer", "rms"])
def test_normalised_queries_and_keys_do_not_grow_with_their_weights(norm):
    x, t, labels = real(2), torch.tensor([0.5, 0.1]), torch.arange(2)
    for qk_norm in (True, False):
        model = sharp(norm=norm, qk_norm=qk_norm)
        before = model(x, t, labels)
        for block in model.blocks:
            block.attn.qkv.weight.data[:64] *= 100  # queries and keys; their biases are 0
        assert torch.allclose(model(x, t, labels), before, atol=1e-3) == qk_norm


def test_velocities_of_one_time_are_those_of_the_rows(model):
    x, labels = real(5), torch.tensor([3, 1, 3, 3, 1])
    classes, row = labels.unique(return_inverse=True)
    expected = model(x, torch.full((5,), 0.3), labels)
    torch.testing.assert_close(model.velocity(x, 0.3, classes, row), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("space", "options", "published"),
    [
        (LatentSpace(kind="continuous", num_tokens=128, width=32), {}, 675.0),
        (LatentSpace(kind="continuous", num_tokens=256, width=32, grid=(16, 16)), LIGHTNING, 675.3),
        (
            LatentSpace(kind="continuous", num_tokens=1024, width=4, grid=(32, 32)),
            {"patch_size": 2, "learn_sigma": True},  # SiT of images
            675.1,
        ),
    ],
)
def test_the_largest_preset_has_the_published_number_of_parameters(space, options, published):
    with torch.device("meta"):
        model = REGISTRY.build("generator", {"use": "flow_transformer", "preset": "XL", **options}, space, 1000)
    # The published numbers count the fixed positions.
    count = sum(p.numel() for p in model.parameters()) + model.positions.numel()
    assert round(count / 1e6, 1) == published


# --- sigma ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_sigma_1_returns_the_latents_and_sigma_0_is_free_sampling(model, method):
    labels, draws, data = torch.arange(3), Draws.for_rows(4, 3), real(3)
    options = {"guidance": Guidance(scale=2.0), "method": method, **OPTIONS.get(method, {})}
    free = sampled(model, labels, draws, **options)
    for sigma, expected in ((1.0, data), (0.0, free)):
        keep = Keep(latents=Latents(vectors=data), sigma=sigma)
        assert torch.equal(sampled(model, labels, draws, keep=keep, **options), expected)
    assert not torch.allclose(free, data, atol=0.1)


def test_sampling_starts_from_the_latents_noised_to_1_minus_sigma():
    model, data, draws = make(), 5 + 3 * real(3), Draws.for_rows(4, 3)
    model.observe(torch.full((4,), 5.0), torch.full((4,), 3.0))
    for sigma in (0.0, 0.3, 0.9):
        samples = sampled(model, torch.arange(3), draws, keep=Keep(latents=Latents(vectors=data), sigma=sigma))
        # A new model's velocity is 0: the output is the starting point.
        expected = 5 + 3 * (sigma * (data - 5) / 3 + (1 - sigma) * noise_of(draws))
        torch.testing.assert_close(samples, expected)


def test_with_keep_all_steps_are_spread_over_the_rest(model):
    keep = Keep(latents=Latents(vectors=real(3)), sigma=0.6)
    with Watch(model.time_embedding) as seen:
        sampled(model, torch.arange(3), Draws.for_rows(0, 3), keep=keep)
    assert [float(t) for (t,) in seen.read] == pytest.approx([0.4, 0.3, 0.2, 0.1])


def test_a_larger_sigma_keeps_more_of_the_latents(model):
    data, draws = real(20), Draws.for_rows(0, 20)
    sigmas = (0.0, 0.5, 0.8, 0.95, 1.0)
    samples = [
        sampled(model, torch.arange(20) % 10, draws, keep=Keep(latents=Latents(vectors=data), sigma=sigma))
        for sigma in sigmas
    ]
    distances = [float((sample - data).square().mean()) for sample in samples]
    assert distances == sorted(distances, reverse=True)


# --- independence ---------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_sample_does_not_depend_on_the_batch(model, method):
    labels, draws, data = torch.tensor([1, 2, 2, 5, 0]), Draws.for_rows(9, 5), real(5)
    for keep in (None, Keep(latents=Latents(vectors=data), sigma=0.4)):
        whole, single = (
            torch.cat(
                [
                    latents.vectors
                    for latents in generate(
                        model,
                        labels,
                        draws,
                        guidance=Guidance(scale=3.0),
                        keep=keep,
                        sampling=FlowSampling(method=method, **OPTIONS.get(method, {"steps": 5})),
                        batch_size=batch_size,
                    )
                ]
            )
            for batch_size in (5, 2)
        )
        torch.testing.assert_close(whole, single, atol=2e-4, rtol=1e-4)
        assert not torch.allclose(whole[1], whole[2], atol=0.1)  # same class, different samples


def test_euler_maruyama_adds_new_noise_in_each_step():
    draws = Draws.for_rows(2, 3)
    samples = sampled(make(), torch.arange(3), draws, method="euler_maruyama", steps=3)
    x, times = noise_of(draws), (1.0, 0.52, 0.04, 0.0)
    for step, (t, until) in enumerate(itertools.pairwise(times)):
        x = x * (1 + until - t)  # the velocity is 0, so the expected noise is x
        if step < 2:
            x = x + math.sqrt(2 * t * (t - until)) * draws.child("step", step).normal(6, 4)
    torch.testing.assert_close(samples, x)


def test_euler_with_many_steps_agrees_with_dopri5(model):
    labels, draws = torch.arange(3), Draws.for_rows(1, 3)
    exact = sampled(model, labels, draws, method="dopri5")
    errors = [float((sampled(model, labels, draws, steps=steps) - exact).abs().max()) for steps in (50, 400)]
    assert errors[1] < 0.2 * errors[0]
    assert errors[1] < 0.01 * float(exact.abs().max())


def test_bfloat16_hardly_changes_samples(model):
    labels, draws = torch.arange(4), Draws.for_rows(1, 4)
    options = {"guidance": Guidance(scale=2.0), "sampling": FlowSampling(steps=5), "batch_size": 4}
    exact, rough = (next(generate(model, labels, draws, precision=p, **options)).vectors for p in ("no", "bf16"))
    assert rough.dtype == torch.float32
    assert 0 < float((rough - exact).square().mean().sqrt()) < 0.05 * float(exact.std())


# --- statistics of the latents --------------------------------------------------------------------


def test_inputs_and_outputs_are_not_normalised():
    mean, std = torch.tensor([5.0, -1.0, 0.0, 2.0]), torch.tensor([3.0, 0.1, 1.0, 7.0])
    labels, draws, data = torch.arange(3), Draws.for_rows(0, 3), real(3)
    plain, observing = sharp(), sharp()
    observing.observe(mean, std)
    for name, loss in losses_of(plain, data, labels, draws).items():
        torch.testing.assert_close(losses_of(observing, data * std + mean, labels, draws)[name], loss)
    torch.testing.assert_close(sampled(observing, labels, draws), sampled(plain, labels, draws) * std + mean)


def test_the_statistics_are_saved_with_the_weights(tmp_path):
    model = sharp()
    model.observe(torch.full((4,), 9.0), torch.full((4,), 2.0))
    save_component(tmp_path, "generator", TINY, model)
    loaded = load_component(REGISTRY, tmp_path)
    labels, draws = torch.arange(2), Draws.for_rows(0, 2)
    assert torch.equal(sampled(loaded, labels, draws), sampled(model, labels, draws))


def test_a_constant_channel_is_only_shifted():
    model = make()
    model.observe(torch.full((4,), 9.0), torch.tensor([0.0, 1.0, 2.0, 0.0]))
    assert model.latent_std.tolist() == [1.0, 1.0, 2.0, 1.0]


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        (torch.zeros(3), torch.ones(4)),
        (torch.zeros(4), torch.tensor([1.0, 1.0, math.nan, 1.0])),
        (torch.zeros(4), -torch.ones(4)),
    ],
)
def test_invalid_statistics_are_refused(mean, std):
    with pytest.raises(ValueError, match="deviations"):
        make().observe(mean, std)


# --- what does not fit ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "options", "what"),
    [
        (LatentSpace(kind="discrete", num_tokens=6, width=4, codebook_size=8), {}, "has codes"),
        (SPACE, {"rope": True}, "grid"),
        (SPACE, {"patch_size": 2}, "patches need tokens on a grid"),
        (GRID, {"patch_size": 2}, "a grid of 2 by 3 tokens has no whole patches of side 2"),
        (SPACE, {"guided_channels": 5}, "a token has 4 channels"),
    ],
)
def test_a_latent_space_that_does_not_fit_is_refused(space, options, what):
    with pytest.raises(RobustokError, match=what):
        make(space, **options)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"width": None}, "give width, or a preset"),
        ({"width": 30, "num_heads": 3}, "multiple of 4"),
        ({"width": 24, "num_heads": 4, "rope": True}, "heads whose width is a multiple of 4"),
        ({"label_dropout": 1.0}, "label_dropout"),
        ({"direction": "up"}, "'noise', 'data'"),
        ({"path": "straight"}, "'linear', 'cosine'"),
        ({"qk_norm_eps": 0.0}, "qk_norm_eps"),
    ],
)
def test_wrong_options_are_named(options, what):
    table = {name: value for name, value in {**TINY, **options}.items() if value is not None}
    with pytest.raises(ProblemsError, match=what):
        REGISTRY.spec("generator", table)


@pytest.mark.parametrize(("mlp", "hidden"), [("gelu_tanh", 3072), ("swiglu", 2048)])
def test_the_mlps_are_as_wide_as_published(mlp, hidden):
    config = REGISTRY.spec("generator", {"use": "flow_transformer", "preset": "B", "mlp": mlp}).config
    assert (config.size.width, config.size.mlp_width) == (768, hidden)
