"""DiT: a diffusion transformer that predicts noise and its variance (Peebles & Xie 2022, arXiv 2212.09748).

The chain of steps between data and noise is in `noise_chain`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from attrs import field, frozen
from torch import Tensor

from robustok_core.recipe.validators import in_range
from robustok_core.values.draws import Draws
from robustok_core.values.guidance import Guidance
from robustok_core.values.latents import Keep, Latents, LatentSpace
from robustok_generators.diffusion_transformer import DiffusionTransformer, TransformerConfig
from robustok_generators.flow_blocks import Style
from robustok_generators.flow_guidance import GuidedVelocity
from robustok_generators.label_dropout import drop_labels
from robustok_generators.noise_chain import NUM_STEPS, NoiseChain, spaced_steps, variational_bound
from robustok_generators.repeated_step import Execution, execution_option


@frozen(kw_only=True)
class DiTConfig(TransformerConfig):
    """Options of `dit`: a preset, or explicit sizes."""


@frozen(kw_only=True)
class DiTSampling:
    """Options of the sampler."""

    method: Literal["ddpm", "ddim"] = field(
        default="ddpm", metadata={"doc": "ddpm adds noise of the learned variance in each step; ddim adds none"}
    )
    steps: int = field(
        default=50,
        validator=in_range(1, NUM_STEPS),
        metadata={"doc": f"steps, evenly spaced over those of training ({NUM_STEPS:,}); published: 250 of ddpm"},
    )
    execution: Execution = execution_option()


class DiT(DiffusionTransformer):
    """Predicts the noise in all tokens, and the variance of each number one step before.

    Raises:
        RobustokError: the latent space is discrete, or lacks the grid that patches need.
    """

    Config = DiTConfig
    Sampling = DiTSampling
    name = "dit"

    def __init__(self, config: DiTConfig, space: LatentSpace, num_classes: int) -> None:
        style = Style(norm="layer", mlp="gelu_tanh", qk_norm=False)
        super().__init__(config, space, num_classes, style=style, outputs=2 * space.width)
        self.config = config

    def forward(self, x: Tensor, steps: Tensor, labels: Tensor) -> Tensor:
        """The noise (B, N, D) in normalised latents and, in [-1, 1] or so, their variance; together (B, N, 2 D).

        Args:
            x: (B, N, D) float32.
            steps: (B,) int64 in [0, 1000); after step 999 there is only noise.
            labels: (B,) int64 in [0, num_classes]; num_classes is the null class.
        """
        return self._outputs(x, self._conditions(steps.float(), self.label_embedding(labels)), None)

    def prediction(self, x: Tensor, t: float, classes: Tensor, row: Tensor) -> Tensor:
        """Like `forward` for rows after a share t in (0, 1] of the steps; row i has class `classes[row[i]]`."""
        return self.predicted(x, self.network_times(t, x.device), self.label_embedding(classes), row)

    def network_times(self, t: float, device: torch.device) -> Tensor:
        return torch.full((1,), step_of(t), device=device).float()

    def predicted(self, x: Tensor, network_times: Tensor, embedded: Tensor, row: Tensor) -> Tensor:
        return self._outputs(x, self._conditions(network_times, embedded), row).float()

    def loss(self, latents: Latents, labels: Tensor, *, draws: Draws, progress: float) -> Mapping[str, Tensor]:
        """The mean squared error of the noise, which alone trains it, and the variational bound, for the variance."""
        data = self._normalised(latents)
        noise = draws.child("noise").normal(*data.shape[1:])
        steps = draws.child("time").integers(NUM_STEPS)
        rate = self.config.label_dropout if self.training else 0.0
        labels = drop_labels(labels, draws.child("label_dropout"), rate, self.null_label)
        chain = NoiseChain.of(list(range(NUM_STEPS)), data.device)
        x = chain.noised(data, noise, steps)
        predicted, raw = self(x, steps, labels).float().chunk(2, dim=-1)
        bound = variational_bound(chain, data, x, predicted.detach(), raw, steps)
        return {"noise": F.mse_loss(predicted, noise), "bound": bound.mean()}

    @torch.no_grad()
    def sample(
        self,
        labels: Tensor,
        draws: Draws,
        *,
        guidance: Guidance,
        keep: Keep | None = None,
        sampling: DiTSampling | None = None,
    ) -> Latents:
        """Goes back from noise to latents; sample i depends on its label and row i of the draws.

        With `keep` it is SDEdit (arXiv 2108.01073; paper section 4): the real latents are noised by the first
        1 - sigma of the 1000 steps, and the sampler spreads its steps over these; there are no more than these.
        Guidance after a step is the same as in free sampling. A sigma that leaves no step, such as 1, returns the
        latents; sigma = 0 is free sampling.
        """
        sampling = sampling or DiTSampling()
        x = draws.child("noise").normal(self.space.num_tokens, self.space.width)
        last = NUM_STEPS - 1
        if keep is not None and keep.sigma > 0.0:
            last = step_of(1.0 - keep.sigma)
            if last < 0:
                return Latents(vectors=self._vectors(keep.latents).clone())
        chain = NoiseChain.of(spaced_steps(sampling.steps, last), x.device)
        if keep is not None and keep.sigma > 0.0:
            x = chain.noised(self._normalised(keep.latents), x, torch.tensor([len(chain.steps) - 1], device=x.device))
        with self._guided(sampling.execution, guidance, self.guided_channels) as guided:  # not the variance
            return self._denormalised(self._through(chain, x, guided(labels), draws, sampling))

    def _through(
        self, chain: NoiseChain, x: Tensor, predict: GuidedVelocity, draws: Draws, sampling: DiTSampling
    ) -> Tensor:
        """The state (B, N, D) before all steps of a chain, from that after them."""
        for number in reversed(range(len(chain.steps))):
            predicted = predict(x, (chain.steps[number] + 1) / NUM_STEPS)
            added = None
            if sampling.method == "ddpm" and number > 0:
                added = draws.child("step", chain.steps[number]).normal(*x.shape[1:])
            x = step_back(chain, x, predicted, number, added, method=sampling.method)
        return x


def step_of(t: float) -> int:
    """The last step of a share t of all steps; -1 if it has none."""
    return round(t * NUM_STEPS) - 1


def step_back(
    chain: NoiseChain,
    x: Tensor,
    predicted: Tensor,
    number: int,
    added: Tensor | None,
    *,
    method: Literal["ddpm", "ddim"],
) -> Tensor:
    """The state (B, N, D) before a step of the chain.

    Args:
        chain: the steps.
        x: (B, N, D), the state after it.
        predicted: (B, N, 2 D), the network's.
        number: index of the step.
        added: (B, N, D) standard normal numbers for ddpm, or None to take the mean.
        method: ddpm or ddim.
    """
    index = torch.full((1,), number, device=x.device)
    noise, raw = predicted.chunk(2, dim=-1)
    data = chain.denoised(x, noise, index)
    if method == "ddim":
        return data if number == 0 else chain.noised(data, noise, index - 1)
    mean = chain.mean_before(data, x, index)
    return mean if added is None else mean + (0.5 * chain.log_variance(raw, index)).exp() * added
