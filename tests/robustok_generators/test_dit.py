"""DiT: training, sampling, sigma, and the published size."""

from __future__ import annotations

import pytest
import torch

from project import CONTINUOUS, TO_SAMPLES, Project
from published import millions
from robustok_core.errors import ProblemsError, RobustokError
from robustok_core.values.draws import Draws
from robustok_core.values.guidance import Guidance
from robustok_core.values.latents import Keep, Latents, LatentSpace
from robustok_generators.dit import DiTSampling
from robustok_generators.flow_guidance import GuidedVelocity
from robustok_generators.noise_chain import NoiseChain
from robustok_toolkit.generating import generate
from tiny_flow import FREE, REGISTRY, SPACE, Watch, losses_of, noise_of, real

GRID = LatentSpace(kind="continuous", num_tokens=24, width=4, grid=(4, 6))
TINY = {"use": "dit", "width": 32, "depth": 2, "num_heads": 4}
WHOLE = NoiseChain.of(list(range(1000)), torch.device("cpu"))
METHODS = ["ddpm", "ddim"]


def make(space: LatentSpace = SPACE, **options: object):
    """A new model; its outputs are 0 everywhere."""
    torch.manual_seed(0)
    return REGISTRY.build("generator", {**TINY, **options}, space, 10).eval()


def sharp(space: LatentSpace = SPACE, **options: object):
    """A model whose outputs depend on time and class."""
    model = make(space, **options)
    for name, parameter in model.named_parameters():
        if "modulation" in name or "to_velocity" in name or "label" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.fixture(scope="module")
def model():
    return sharp()


def sampled(model, labels, draws, guidance=FREE, keep=None, **options: object) -> torch.Tensor:
    sampling = DiTSampling(**{"steps": 5, **options})
    return model.sample(labels, draws, guidance=guidance, keep=keep, sampling=sampling).vectors


# --- training -------------------------------------------------------------------------------------


def test_the_target_is_the_noise_in_data_after_a_random_step():
    model, data, labels, draws = make(), real(5), torch.arange(5), Draws.for_rows(3, 5)
    with Watch(model) as seen:
        losses = losses_of(model, data, labels, draws)
    ((x, steps, read_labels),) = seen.read
    torch.testing.assert_close(x, WHOLE.noised(data, noise_of(draws), steps))
    assert steps.dtype == torch.int64
    assert torch.equal(read_labels, labels)
    torch.testing.assert_close(losses["noise"], noise_of(draws).square().mean())  # a new model outputs 0
    assert set(losses) == {"noise", "bound"}


def test_any_step_may_be_drawn():
    model = make()
    with Watch(model) as seen:
        losses_of(model, real(1).expand(4000, 6, 4), torch.zeros(4000, dtype=torch.int64), Draws.for_rows(0, 4000))
    steps = seen.read[0][1]
    assert (int(steps.min()), int(steps.max())) == (0, 999)
    assert float(steps.float().mean()) == pytest.approx(499.5, abs=20)  # 4 standard errors


def test_the_bound_trains_the_variance_only():
    model = make().train()
    model.loss(Latents(vectors=real(8)), torch.arange(8), draws=Draws.for_rows(1, 8), progress=0.0)["bound"].backward()
    noise, variance = model.head.to_velocity.bias.grad.chunk(2)
    assert not noise.any()
    assert variance.all()


def test_four_latents_are_memorised_and_sampled_back():
    space = LatentSpace(kind="continuous", num_tokens=8, width=4, grid=(2, 4))
    model, labels = make(space, label_dropout=0.0, width=64, depth=1, patch_size=2), torch.arange(4)
    data = 3 + 2 * torch.randn(4, 8, 4, generator=torch.Generator().manual_seed(1))
    model.observe(data.mean((0, 1)), data.std((0, 1)))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 300)
    model.train()
    for step in range(300):
        batch, draws = Latents(vectors=data.repeat(16, 1, 1)), Draws.for_rows(step, 64)
        losses = model.loss(batch, labels.repeat(16), draws=draws, progress=0.0)
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        schedule.step()
    for method in METHODS:
        samples = sampled(model.eval(), labels, Draws.for_rows(0, 4), method=method, steps=20)
        assert float((samples - data).square().mean().sqrt()) < 0.8  # the latents' standard deviation is 2


def test_a_recipe_trains_it_and_trains_a_decoder_with_it(tmp_path):
    stages = [*TO_SAMPLES, "make_pairs", "post_train"]
    project = Project(tmp_path, stages, **CONTINUOUS, generator=TINY, post_trainer={"use": "decoder"})
    steps = project.run().logged("train_generator")
    assert {"loss/noise", "loss/bound"} <= steps[0].keys()


# --- the network ----------------------------------------------------------------------------------


def test_patches_are_squares_of_neighbours(model):
    """Where attention is off, a token of the output depends on the tokens of its own patch."""
    model = sharp(GRID, patch_size=2)
    for block in model.blocks:
        block.attn.proj.weight.data.zero_()
    x, steps, label = torch.randn(1, 24, 4), torch.tensor([500]), torch.tensor([3])
    before = model(x, steps, label)
    x[0, 6 * 2 + 3] += 1.0  # row 2, column 3
    changed = (model(x, steps, label) != before).any(-1)[0].view(4, 6)
    assert changed.nonzero().tolist() == [[2, 2], [2, 3], [3, 2], [3, 3]]


@pytest.mark.parametrize(("preset", "published"), [("XL", 675.13), ("L", 458.10), ("B", 130.51), ("S", 32.96)])
def test_the_presets_have_the_published_number_of_parameters(preset, published):
    space = LatentSpace(kind="continuous", num_tokens=1024, width=4, grid=(32, 32))
    table = {"use": "dit", "preset": preset, "patch_size": 2}
    width = REGISTRY.spec("generator", table).config.size.width
    assert millions("generator", table, space, 1000) + 256 * width / 1e6 == pytest.approx(published, abs=0.01)


# --- sampling and sigma ---------------------------------------------------------------------------


def test_ddim_of_a_new_model_divides_by_what_is_left_of_the_data():
    draws = Draws.for_rows(4, 3)
    samples = sampled(make(), torch.arange(3), draws, method="ddim")
    torch.testing.assert_close(samples, noise_of(draws) / WHOLE.table[999, 0])


@pytest.mark.parametrize("method", METHODS)
def test_sigma_1_returns_the_latents_and_sigma_0_is_free_sampling(model, method):
    labels, draws, data = torch.arange(3), Draws.for_rows(4, 3), real(3)
    options = {"guidance": Guidance(scale=2.0), "method": method}
    free = sampled(model, labels, draws, **options)
    for sigma, expected in ((1.0, data), (0.9999, data), (0.0, free)):
        keep = Keep(latents=Latents(vectors=data), sigma=sigma)
        assert torch.equal(sampled(model, labels, draws, keep=keep, **options), expected)
    assert not torch.allclose(free, data, atol=0.1)


def test_sampling_starts_from_the_latents_after_the_first_share_of_the_steps(model):
    keep, draws = Keep(latents=Latents(vectors=real(3)), sigma=0.6), Draws.for_rows(0, 3)
    with Watch(model.token_embedding) as states, Watch(model.time_embedding) as times:
        sampled(model, torch.arange(3), draws, keep=keep)
    assert [int(step) for (step,) in times.read] == [399, 299, 200, 100, 0]
    torch.testing.assert_close(states.read[0][0], WHOLE.noised(real(3), noise_of(draws), torch.tensor([399])))


def test_there_are_no_more_steps_than_the_noise_has(model):
    keep = Keep(latents=Latents(vectors=real(2)), sigma=0.997)
    with Watch(model.time_embedding) as seen:
        sampled(model, torch.arange(2), Draws.for_rows(0, 2), keep=keep, steps=50)
    assert [int(step) for (step,) in seen.read] == [2, 1, 0]


def test_inputs_and_outputs_are_not_normalised():
    mean, std = torch.tensor([5.0, -1.0, 0.0, 2.0]), torch.tensor([3.0, 0.1, 1.0, 7.0])
    labels, draws, data = torch.arange(3), Draws.for_rows(0, 3), real(3)
    plain, observing = sharp(), sharp()
    observing.observe(mean, std)
    for name, loss in losses_of(plain, data, labels, draws).items():
        torch.testing.assert_close(losses_of(observing, data * std + mean, labels, draws)[name], loss)
    torch.testing.assert_close(sampled(observing, labels, draws), sampled(plain, labels, draws) * std + mean)


@pytest.mark.parametrize("method", METHODS)
def test_a_sample_does_not_depend_on_the_batch(model, method):
    labels, draws, data = torch.tensor([1, 2, 2, 5, 0]), Draws.for_rows(9, 5), real(5)
    for keep in (None, Keep(latents=Latents(vectors=data), sigma=0.4)):
        options = {"guidance": Guidance(scale=3.0), "sampling": DiTSampling(method=method, steps=5), "keep": keep}
        whole, parts = (
            torch.cat([latents.vectors for latents in generate(model, labels, draws, **options, batch_size=size)])
            for size in (5, 2)
        )
        torch.testing.assert_close(whole, parts, atol=1e-2, rtol=1e-3)
        assert not torch.allclose(whole[1], whole[2], atol=0.1)  # same class, different samples


def test_the_variance_is_not_guided(model):
    x, labels = real(2), torch.tensor([3, 8])
    with torch.no_grad():
        unguided = model(x, torch.full((2,), 999), labels)
    with Watch(model.token_embedding) as seen:
        sampled(model, labels, Draws.for_rows(0, 2), guidance=Guidance(scale=4.0), steps=2)
    assert [len(rows) for (rows,) in seen.read] == [4, 4]
    guided = GuidedVelocity(model.prediction, labels, null_label=10, guidance=Guidance(scale=4.0), channels=4)
    with torch.no_grad():
        both = guided(x, 1.0)
    torch.testing.assert_close(both[..., 4:], unguided[..., 4:])
    assert not torch.allclose(both[..., :4], unguided[..., :4], atol=1e-3)


# --- what does not fit ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "options", "what"),
    [
        (LatentSpace(kind="discrete", num_tokens=6, width=4, codebook_size=8), {}, "has codes"),
        (SPACE, {"patch_size": 2}, "patches need tokens on a grid"),
        (GRID, {"patch_size": 3}, "a grid of 4 by 6 tokens has no whole patches of side 3"),
        (SPACE, {"guided_channels": 5}, "a token has 4 channels"),
    ],
)
def test_a_latent_space_that_does_not_fit_is_refused(space, options, what):
    with pytest.raises(RobustokError, match=what) as caught:
        make(space, **options)
    assert caught.value.where == "generator dit"


def test_it_has_no_more_steps_than_its_training():
    with pytest.raises(ValueError, match="steps"):
        DiTSampling(steps=1001)
    with pytest.raises(ProblemsError, match="width"):
        REGISTRY.spec("generator", {"use": "dit"})
