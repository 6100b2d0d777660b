"""SiT of images, DiT, and the variants of SiT and LightningDiT compute what the published code computes."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from einops import rearrange
from torch import Tensor

from published import Case, export
from robustok_core.recipe.registry import load_registry
from robustok_core.values.guidance import Guidance
from robustok_core.values.latents import LatentSpace
from robustok_generators.dit import step_back
from robustok_generators.flow_guidance import GuidedVelocity
from robustok_generators.flow_path import between, velocity_between
from robustok_generators.flow_sampling import FlowSampling, integrate
from robustok_generators.noise_chain import NUM_STEPS, NoiseChain, spaced_steps

FREE = Guidance()
LIGHTNINGS = ["lightningdit_qk_a", "lightningdit_p2_a"]
FILES = {"sit1d_qk_a": "sit", "sit2d_a": "sit", "dit_a": "dit", **dict.fromkeys(LIGHTNINGS, "lightningdit")}


def tokens(maps: Tensor) -> Tensor:
    """Tokens (B, N, C) of maps (B, C, h, w)."""
    return rearrange(maps, "b c h w -> b (h w) c")


def maps(x: Tensor) -> Tensor:
    side = int(x.shape[1] ** 0.5)
    return rearrange(x, "b (h w) c -> b c h w", h=side)


def imported(name: str, folder, **options: object):
    """A parity file, its generator and its table; the number of heads only if it does not follow from the weights."""
    case = Case(name)
    if name in ("sit2d_a", "dit_a"):
        options = {"num_heads": case.config["num_heads"], **options}
    table, generator, _ = case.load(FILES[name], folder, **options)
    return case, generator, table


class Flow:
    """Velocities and samples of a flow in the published direction, in which t = 1 is data, on maps."""

    def __init__(self, generator, channels: int | None) -> None:
        self.generator, self.channels = generator, channels

    @torch.no_grad()
    def velocity(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        return maps(-self.generator(tokens(x), 1 - t, labels))

    def guided(self, labels: Tensor, guidance: Guidance) -> GuidedVelocity:
        velocity, null = self.generator.velocity, self.generator.null_label
        return GuidedVelocity(velocity, labels, null_label=null, guidance=guidance, channels=self.channels)

    @torch.no_grad()
    def both_halves(self, x: Tensor, t: Tensor, labels: Tensor, scale: float) -> Tensor:
        """What forward_with_cfg returns: the guided velocity, and the same with other channels unconditional."""
        guided = [
            self.guided(labels[i : i + 1], Guidance(scale=scale))(tokens(x[i : i + 1]), 1 - float(t[i]))
            for i in range(len(x))
        ]
        first = maps(-torch.cat(guided))
        others = self.velocity(x, t, torch.full_like(labels, self.generator.null_label))
        return torch.cat([first, torch.cat([first[:, : self.channels], others[:, self.channels :]], dim=1)])

    @torch.no_grad()
    def sample(self, x: Tensor, labels: Tensor, guidance: Guidance = FREE, noise: Tensor | None = None, **options):
        def drawn(step: int) -> Tensor:
            assert noise is not None
            return tokens(noise[step, : len(x)])

        sampling = FlowSampling(**options)
        return maps(integrate(self.guided(labels, guidance), tokens(x), sampling, noise=drawn))


def path_of(case: Case) -> dict[str, Tensor]:
    data, noise, t = case.inputs["x1"], case.inputs["x0"], case.inputs["t"][:, None, None, None]
    return {"path_xt": between(data, noise, 1 - t), "path_ut": -velocity_between(data, noise)}


# --- flows ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["linear", "cosine"])
@torch.no_grad()
def test_a_one_dimensional_sit_with_normalised_queries(path, tmp_path):
    case, model, table = imported("sit1d_qk_a", tmp_path, path=path)
    assert (table["qk_norm"], table["qk_norm_eps"], table["path"]) == (True, 1e-5, path)
    x, t, labels = (case.inputs[name] for name in "xty")
    velocity = GuidedVelocity(model.velocity, labels, null_label=model.null_label, guidance=FREE, channels=None)

    def sampled(which: str, **options: object) -> Tensor:
        return integrate(
            velocity, x, FlowSampling(**options), noise=lambda step: case.inputs["step_noise"][step], path=which
        )

    actual = {
        "velocity": model(x, t, labels),
        "velocity_uncond": model(x, t, torch.full_like(labels, model.null_label)),
        "euler4": sampled(path, method="euler", steps=4),
        "heun4": sampled(path, method="heun", steps=4),
    }
    for which in ("linear", "cosine"):
        actual[f"em5_{which}"] = sampled(which, method="euler_maruyama", steps=5)
    space = LatentSpace(kind="continuous", num_tokens=x.shape[1], width=x.shape[2])
    new = load_registry().build("generator", table, space, model.num_classes)
    case.check(**actual, pos_embed_sincos=new.positions)


def test_a_sit_of_images(tmp_path):
    case, model, table = imported("sit2d_a", tmp_path)
    assert (table["patch_size"], table["learn_sigma"], table["guided_channels"]) == (2, True, 3)
    assert model.space == LatentSpace(kind="continuous", num_tokens=36, width=4, grid=(6, 6))
    flow, (x, t, labels) = Flow(model, 3), (case.inputs[name] for name in "xty")
    start, classes, guidance = case.inputs["cfg_noise"], case.inputs["cfg_y"], Guidance(scale=4.0)
    case.check(
        velocity=flow.velocity(x, t, labels),
        velocity_uncond=flow.velocity(x, t, torch.full_like(labels, model.null_label)),
        forward_with_cfg4=flow.both_halves(x, t, labels, 4.0),
        euler4=flow.sample(x, labels, steps=4),
        euler4_cfg4=flow.sample(start, classes, guidance, steps=4),
        heun4_cfg4=flow.sample(start, classes, guidance, method="heun2", steps=4),
        sde5_cfg4=flow.sample(start, classes, guidance, case.inputs["sde_noise"], method="euler_maruyama", steps=5),
        **path_of(case),
    )


@pytest.mark.parametrize("name", LIGHTNINGS)
def test_a_lightningdit_with_normalised_queries_or_patches(name, tmp_path):
    case, model, table = imported(name, tmp_path)
    assert (table["qk_norm"], table["patch_size"]) == (name == "lightningdit_qk_a", case.config["patch_size"])
    flow, (x, t, labels) = Flow(model, 3), (case.inputs[key] for key in "xty")
    case.check(
        velocity=flow.velocity(x, t, labels),
        velocity_uncond=flow.velocity(x, t, torch.full_like(labels, model.null_label)),
        forward_with_cfg3=flow.both_halves(x, t, labels, 3.0),
        euler4=flow.sample(x, labels, steps=4),
        euler4_shift_cfg=flow.sample(x, labels, Guidance(scale=3.0, start=0.11), steps=4, timestep_shift=0.3),
        **path_of(case),
    )


# --- DiT ------------------------------------------------------------------------------------------


class Chain:
    """Predictions and samples of a DiT on maps."""

    def __init__(self, generator, steps: int) -> None:
        self.generator = generator
        self.chain = NoiseChain.of(spaced_steps(steps, NUM_STEPS - 1), torch.device("cpu"))

    @torch.no_grad()
    def guided(self, x: Tensor, step: int, labels: Tensor, scale: float) -> Tensor:
        predict = GuidedVelocity(
            self.generator.prediction,
            labels,
            null_label=self.generator.null_label,
            guidance=Guidance(scale=scale),
            channels=3,
        )
        return predict(x, (step + 1) / NUM_STEPS)

    def both_halves(self, x: Tensor, step: int, labels: Tensor, scale: float) -> Tensor:
        """As `Flow.both_halves`, of tokens at one step."""
        first = self.guided(x, step, labels, scale)
        with torch.no_grad():
            steps, null = torch.full((len(x),), step), torch.full_like(labels, self.generator.null_label)
            others = self.generator(x, steps, null)
        return torch.cat([first, torch.cat([first[..., :3], others[..., 3:]], dim=-1)])

    def sample(self, x: Tensor, labels: Tensor, scale: float, noise: Tensor | None) -> Tensor:
        x = tokens(x)
        for call, number in enumerate(reversed(range(len(self.chain.steps)))):
            predicted = self.guided(x, self.chain.steps[number], labels, scale)
            added = tokens(noise[call, : len(x)]) if noise is not None and number > 0 else None
            x = step_back(self.chain, x, predicted, number, added, method="ddim" if noise is None else "ddpm")
        return maps(x)


@torch.no_grad()
def test_a_dit(tmp_path):
    case, model, table = imported("dit_a", tmp_path)
    assert (table["patch_size"], table["guided_channels"]) == (2, 3)
    x, t, labels, noise = (case.inputs[name] for name in ("x", "t", "y", "noise"))
    start, classes = case.inputs["cfg_noise"], case.inputs["cfg_y"]
    whole, few = Chain(model, NUM_STEPS).chain, Chain(model, 4)
    out = model(tokens(x), t, labels)
    rows = [few.both_halves(tokens(x[i : i + 1]), int(t[i]), labels[i : i + 1], 4.0) for i in range(len(x))]
    step, index, twice = few.chain.steps[2], torch.tensor([2]), torch.cat([tokens(start)] * 2)
    predicted, raw = few.both_halves(tokens(start), step, classes, 1.5).chunk(2, dim=-1)
    data = few.chain.denoised(twice, predicted, index)
    case.check(
        model_out=maps(out),
        eps=maps(out[..., :4]),
        var_raw=maps(out[..., 4:]),
        model_out_uncond=maps(model(tokens(x), t, torch.full_like(labels, model.null_label))),
        forward_with_cfg4=maps(torch.cat([*(row[:1] for row in rows), *(row[1:] for row in rows)])),
        q_sample=maps(whole.noised(tokens(case.inputs["x0"]), tokens(noise), t)),
        alphas_cumprod=whole.table[:, 0].square(),
        timesteps4=torch.tensor(few.chain.steps),
        p_mean=maps(few.chain.mean_before(data, twice, index)),
        p_log_variance=maps(few.chain.log_variance(raw, index)),
        p_xstart=maps(data),
        ddim4_cfg=few.sample(start, classes, 1.5, None),
        ddpm4_cfg=few.sample(start, classes, 1.5, case.inputs["step_noise"]),
    )


def test_fewer_steps_are_those_of_the_published_respacing():
    steps = spaced_steps(250, 999)
    assert steps[:4] == [0, 4, 8, 12]
    assert (len(steps), steps[-1]) == (250, 999)
    assert {b - a for a, b in pairwise(steps)} == {4, 5}
    assert spaced_steps(1, 999) == [999]
    assert spaced_steps(10, 2) == [0, 1, 2]


# --- import and export ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_export_is_the_inverse_of_import(name, tmp_path):
    case, model, _ = imported(name, tmp_path)
    assert case.same_weights(export(FILES[name], model))
