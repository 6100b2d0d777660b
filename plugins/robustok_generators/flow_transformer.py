"""A diffusion transformer over continuous latents, trained by flow matching: SiT (arXiv 2401.08740), LightningDiT
(arXiv 2501.01423).

The network predicts the velocity on a path from latents to noise (`flow_path`); sampling integrates it back
(`flow_sampling`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from attrs import field, frozen, validators
from torch import Tensor

from robustok_blocks.rotary import check_head_width
from robustok_core.values.draws import Draws
from robustok_core.values.guidance import Guidance
from robustok_core.values.ignored import refuse_ignored
from robustok_core.values.latents import Keep, Latents, LatentSpace
from robustok_generators.diffusion_transformer import DiffusionTransformer, TransformerConfig
from robustok_generators.flow_blocks import MlpKind, NormKind, Style
from robustok_generators.flow_guidance import GuidedVelocity
from robustok_generators.flow_path import Path, Times, angle_loss, between, training_times, velocity_between
from robustok_generators.flow_sampling import FlowSampling, integrate
from robustok_generators.label_dropout import drop_labels


@frozen(kw_only=True)
class FlowTransformerConfig(TransformerConfig):
    """Options of `flow_transformer`: a preset, or explicit sizes. The defaults are SiT's.

    LightningDiT: norm "rms", mlp "swiglu", rope, times "logit_normal", cosine_weight 1.
    """

    norm: NormKind = field(
        default="layer", metadata={"doc": "layer norms without weights (layer), or RMS norms with a scale (rms)"}
    )
    mlp: MlpKind = field(
        default="gelu_tanh", metadata={"doc": "two layers with a GELU (gelu_tanh), or three with a gate (swiglu)"}
    )
    rope: bool = field(
        default=False, metadata={"doc": "also use rotary positions by row and column; needs tokens on a grid"}
    )
    qk_norm: bool = field(
        default=False, metadata={"doc": "normalise queries and keys per head, by norms of the same kind with weights"}
    )
    qk_norm_eps: float = field(
        default=1e-6,
        validator=validators.gt(0.0),
        metadata={"doc": "added to the variance by these norms; published: 1e-5 in layer norms, 1e-6 in RMS norms"},
    )
    shift: bool = field(
        default=True,
        metadata={"doc": "time and class shift the tokens before attention and MLP; false: they only scale and gate"},
    )
    learn_sigma: bool = field(
        default=False,
        metadata={"doc": "twice as many outputs, half of which have no use, as in the released SiT of images"},
    )
    path: Path = field(
        default="linear",
        metadata={"doc": "shares of data and noise at time t: 1 - t and t (linear), or cosine and sine of pi t / 2"},
    )
    times: Times = field(
        default="uniform", metadata={"doc": "distribution of training times; logit_normal is rarely near 0 and 1"}
    )
    cosine_weight: float = field(
        default=0.0,
        validator=validators.ge(0.0),
        metadata={"doc": "weight of a second loss, 1 - cosine similarity of predicted and true velocity"},
    )
    direction: Literal["noise", "data"] = field(
        default="noise",
        metadata={
            "doc": "where the network's time points to; data: as in LightningDiT's weights. Does not change sigma"
        },
    )

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if self.rope:
            check_head_width(self.size.head_width)
        refuse_ignored(self, "qk_norm_eps", unless=self.qk_norm, needs="qk_norm = true")

    def usual_mlp_width(self, width: int) -> int:
        """The hidden width of the MLPs, if it is not given."""
        return 8 * width // 3 if self.mlp == "swiglu" else 4 * width


class FlowTransformer(DiffusionTransformer):
    """Predicts the velocities of all tokens from time and class.

    Raises:
        RobustokError: the latent space is discrete, or lacks the grid that rope or patches need.
    """

    Config = FlowTransformerConfig
    also_called = ("lightningdit", "sit")
    Sampling = FlowSampling
    name = "flow_transformer"

    def __init__(self, config: FlowTransformerConfig, space: LatentSpace, num_classes: int) -> None:
        style = Style(
            norm=config.norm,
            mlp=config.mlp,
            qk_norm=config.qk_norm,
            qk_norm_eps=config.qk_norm_eps,
            shift=config.shift,
        )
        outputs = (2 if config.learn_sigma else 1) * space.width
        super().__init__(config, space, num_classes, style=style, outputs=outputs, rope=config.rope)
        self.config = config

    def forward(self, x: Tensor, times: Tensor, labels: Tensor) -> Tensor:
        """The velocity (B, N, D), from data to noise, of normalised latents.

        Args:
            x: (B, N, D) float32.
            times: (B,) float32 in [0, 1]; 1 is noise.
            labels: (B,) int64 in [0, num_classes]; num_classes is the null class.
        """
        return self._flow(x, self._network_times(times), self.label_embedding(labels), None)

    def velocity(self, x: Tensor, t: float, classes: Tensor, row: Tensor) -> Tensor:
        """Like `forward` for rows at one common time; row i has class `classes[row[i]]`, (B,) int64."""
        return self.predicted(x, self.network_times(t, x.device), self.label_embedding(classes), row)

    def network_times(self, t: float, device: torch.device) -> Tensor:
        return self._network_times(torch.full((1,), t, device=device))

    def predicted(self, x: Tensor, network_times: Tensor, embedded: Tensor, row: Tensor) -> Tensor:
        return self._flow(x, network_times, embedded, row).float()

    def _network_times(self, times: Tensor) -> Tensor:
        return 1.0 - times if self.config.direction == "data" else times

    def _flow(self, x: Tensor, network_times: Tensor, embedded: Tensor, row: Tensor | None) -> Tensor:
        conditions = self._conditions(network_times, embedded)
        velocity = self._outputs(x, conditions, row)[..., : self.space.width]
        return -velocity if self.config.direction == "data" else velocity

    def loss(self, latents: Latents, labels: Tensor, *, draws: Draws, progress: float) -> Mapping[str, Tensor]:
        """The mean squared error of the velocity and, if enabled, the weighted cosine term."""
        data, path = self._normalised(latents), self.config.path
        noise = draws.child("noise").normal(*data.shape[1:])
        times = training_times(draws.child("time"), self.config.times)
        rate = self.config.label_dropout if self.training else 0.0
        labels = drop_labels(labels, draws.child("label_dropout"), rate, self.null_label)
        t = times[:, None, None]
        predicted = self(between(data, noise, t, path), times, labels).float()
        wanted = velocity_between(data, noise, t, path)
        losses = {"velocity": F.mse_loss(predicted, wanted)}
        if self.config.cosine_weight > 0.0:
            losses["cosine"] = self.config.cosine_weight * angle_loss(predicted, wanted)
        return losses

    @torch.no_grad()
    def sample(
        self,
        labels: Tensor,
        draws: Draws,
        *,
        guidance: Guidance,
        keep: Keep | None = None,
        sampling: FlowSampling | None = None,
    ) -> Latents:
        """Integrates the velocity from noise to latents; sample i depends on its label and row i of the draws.

        With `keep` it is SDEdit (arXiv 2108.01073; paper section 4): the real latents are noised to time 1 - sigma,
        and the same sampler spreads all its steps over the rest. Guidance at a time is the same as in free sampling.
        sigma = 1 returns the latents, sigma = 0 is free sampling.

        Raises:
            RunError: with dopri5, a velocity is not finite or no step is short enough.
        """
        sampling = sampling or FlowSampling()
        start = 1.0 if keep is None else 1.0 - keep.sigma
        if keep is not None and start == 0.0:
            return Latents(vectors=self._vectors(keep.latents).clone())
        x = draws.child("noise").normal(self.space.num_tokens, self.space.width)
        if keep is not None and start < 1.0:
            x = between(self._normalised(keep.latents), x, start, self.config.path)
        # dopri5 adapts its steps to its input: one sample at a time, so that samples do not depend on each other.
        slices = [slice(i, i + 1) for i in range(len(x))] if sampling.method == "dopri5" else [slice(0, len(x))]
        with self._guided(sampling.execution, guidance, self.config.guided_channels) as guided:
            samples = [self._integrate(guided(labels[own]), x[own], draws[own], sampling, start) for own in slices]
        return self._denormalised(torch.cat(samples))

    def _integrate(
        self, velocity: GuidedVelocity, x: Tensor, draws: Draws, sampling: FlowSampling, start: float
    ) -> Tensor:
        """Normalised latents at time 0 from x (B, N, D) at time `start`."""

        def noise(step: int) -> Tensor:
            return draws.child("step", step).normal(*x.shape[1:])

        return integrate(velocity, x, sampling, start=start, noise=noise, path=self.config.path)
