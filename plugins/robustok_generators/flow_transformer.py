"""A diffusion transformer over continuous latents, trained by flow matching: SiT (arXiv 2401.08740), LightningDiT
(arXiv 2501.01423).

The network predicts the velocity on the straight path from latents to noise (`flow_path`); sampling integrates it
back (`flow_sampling`). Internally latents are normalised; inputs and outputs are not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from attrs import field, frozen, validators
from torch import Tensor, nn

from robustok_blocks.rotary import check_head_width, grid_rotations
from robustok_blocks.sinusoids import grid_positions, sequence_positions
from robustok_core.errors import RobustokError
from robustok_core.kinds.generator import Generator
from robustok_core.recipe.validators import below_one, depth_range, width_range
from robustok_core.values.draws import Draws
from robustok_core.values.finite import all_finite
from robustok_core.values.guidance import Guidance
from robustok_core.values.latents import Keep, Latents, LatentSpace
from robustok_generators.flow_blocks import FlowBlock, FlowHead, MlpKind, NormKind, Style, TimeEmbedding
from robustok_generators.flow_guidance import GuidedVelocity
from robustok_generators.flow_path import Times, angle_loss, between, training_times, velocity_between
from robustok_generators.flow_sampling import FlowSampling, integrate
from robustok_generators.label_dropout import drop_labels
from robustok_generators.sizes import Size, size_field, size_of

PRESETS = {
    "B": Size(width=768, depth=12, num_heads=12, mlp_width=3072),
    "L": Size(width=1024, depth=24, num_heads=16, mlp_width=4096),
    "XL": Size(width=1152, depth=28, num_heads=16, mlp_width=4608),
}


@frozen(kw_only=True)
class FlowTransformerConfig:
    """Options of `flow_transformer`: a preset, or explicit sizes. The defaults are SiT's.

    LightningDiT: norm "rms", mlp "swiglu", rope, times "logit_normal", cosine_weight 1.
    """

    preset: Literal["B", "L", "XL"] | None = field(default=None, metadata={"doc": "a published size"})
    width: int | None = size_field("numbers per token")
    depth: int | None = size_field("blocks", depth_range)
    num_heads: int | None = size_field("attention heads")
    mlp_width: int | None = field(
        default=None,
        validator=validators.optional(width_range),
        metadata={"doc": "hidden width of the MLPs; left out: 4 width, or 8/3 width for swiglu"},
    )
    norm: NormKind = field(
        default="layer", metadata={"doc": "layer norms without weights (layer), or RMS norms with a scale (rms)"}
    )
    mlp: MlpKind = field(
        default="gelu_tanh", metadata={"doc": "two layers with a GELU (gelu_tanh), or three with a gate (swiglu)"}
    )
    rope: bool = field(
        default=False, metadata={"doc": "also use rotary positions by row and column; needs tokens on a grid"}
    )
    qk_norm: bool = field(default=False, metadata={"doc": "normalise queries and keys per head"})
    label_dropout: float = field(
        default=0.1,
        validator=below_one,
        metadata={"doc": "share of training images whose label is dropped; 0: no guidance"},
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
    guided_channels: int | None = field(
        default=None,
        validator=validators.optional(width_range),
        metadata={"doc": "number of first channels of each token to guide; LightningDiT: 3; left out: all"},
    )

    def __attrs_post_init__(self) -> None:
        size = self.size
        if size.width % 4:
            raise ValueError(f"fixed positions need a width that is a multiple of 4, not {size.width}")
        if self.rope:
            check_head_width(size.head_width)

    @property
    def size(self) -> Size:
        """The preset's size, overridden by the sizes given."""
        width = self.width or (PRESETS[self.preset].width if self.preset else None)
        hidden = None if width is None else (8 * width // 3 if self.mlp == "swiglu" else 4 * width)
        return size_of(self, PRESETS, hidden)


class FlowTransformer(Generator):
    """Predicts the velocities of all tokens from time and class.

    Raises:
        RobustokError: the latent space is discrete, or lacks the grid that rope needs.
    """

    Config = FlowTransformerConfig
    Sampling = FlowSampling
    not_decayed = ("label_embedding.weight",)
    positions: Tensor
    rotations: Tensor | None
    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, config: FlowTransformerConfig, space: LatentSpace, num_classes: int) -> None:
        super().__init__()
        _check_space(config, space)
        self.config, self.space, self.num_classes = config, space, num_classes
        self.null_label = num_classes
        self.knows_null_class = config.label_dropout > 0.0
        size, style = config.size, Style(norm=config.norm, mlp=config.mlp, qk_norm=config.qk_norm)
        self.token_embedding = nn.Linear(space.width, size.width)
        self.time_embedding = TimeEmbedding(size.width)
        self.label_embedding = nn.Embedding(num_classes + 1, size.width)
        self.blocks = nn.ModuleList(FlowBlock(size, style) for _ in range(size.depth))
        self.head = FlowHead(size.width, space.width, config.norm)
        self._register_buffers(size)
        self._initialise()

    def _register_buffers(self, size: Size) -> None:
        grid, width = self.space.grid, size.width
        positions = grid_positions(grid, width) if grid else sequence_positions(self.space.num_tokens, width)
        self.register_buffer("positions", positions[None])
        rope = grid_rotations(grid, size.head_width) if self.config.rope and grid else None
        self.register_buffer("rotations", rope)
        self.register_buffer("latent_mean", torch.zeros(self.space.width))
        self.register_buffer("latent_std", torch.ones(self.space.width))

    def _initialise(self) -> None:
        """Initialises as DiT: modulations and outputs start at zero, so that each block starts as the identity."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.label_embedding.weight, std=0.02)
        for submodule in self.time_embedding.mlp:
            if isinstance(submodule, nn.Linear):
                nn.init.normal_(submodule.weight, std=0.02)
        for submodule in [*self.blocks, self.head]:
            nn.init.zeros_(submodule.get_parameter("modulation.weight"))
        nn.init.zeros_(self.head.to_velocity.weight)

    @torch.no_grad()
    def observe(self, mean: Tensor, std: Tensor) -> None:
        """Sets the mean and standard deviation (D,) that normalise latents; a constant channel is only shifted.

        Raises:
            ValueError: they are not (D,), not finite, or a deviation is negative.
        """
        if mean.shape != (self.space.width,) or std.shape != (self.space.width,):
            raise ValueError(f"expected {self.space.width} means and deviations, found {mean.shape} and {std.shape}")
        if not (all_finite(mean, std) and (std >= 0.0).all()):
            raise ValueError("means and deviations must be finite, and deviations must not be negative")
        self.latent_mean.copy_(mean)
        self.latent_std.copy_(torch.where(std == 0.0, 1.0, std))

    def _normalised(self, latents: Latents) -> Tensor:
        return (_vectors(latents).float() - self.latent_mean) / self.latent_std

    def forward(self, x: Tensor, times: Tensor, labels: Tensor) -> Tensor:
        """The velocity (B, N, D), noise - data, of normalised latents.

        Args:
            x: (B, N, D) float32.
            times: (B,) float32 in [0, 1]; 1 is noise.
            labels: (B,) int64 in [0, num_classes]; num_classes is the null class.
        """
        return self._flow(x, self._conditions(times, labels), None)

    def velocity(self, x: Tensor, t: float, classes: Tensor, row: Tensor) -> Tensor:
        """Like `forward` for rows at one common time; row i has class `classes[row[i]]`, (B,) int64."""
        conditions = self._conditions(torch.full((1,), t, device=x.device), classes)
        return self._flow(x, conditions, row).float()

    def _conditions(self, times: Tensor, labels: Tensor) -> Tensor:
        """(n, width) inputs of the modulations."""
        network_times = times if self.config.direction == "noise" else 1.0 - times
        return F.silu(self.time_embedding(network_times) + self.label_embedding(labels))

    def _flow(self, x: Tensor, conditions: Tensor, row: Tensor | None) -> Tensor:
        """Velocities (B, N, D); row i has condition `row[i]`, or i if `row` is None."""

        def modulation(block: nn.Module) -> Tensor:
            table = block.get_submodule("modulation")(conditions)
            return (table if row is None else table.index_select(0, row))[:, None]

        x = self.token_embedding(x) + self.positions
        for block in self.blocks:
            x = block(x, modulation(block), self.rotations)
        velocity = self.head(x, modulation(self.head))
        return velocity if self.config.direction == "noise" else -velocity

    def loss(self, latents: Latents, labels: Tensor, *, draws: Draws, progress: float) -> Mapping[str, Tensor]:
        """The mean squared error of the velocity and, if enabled, the weighted cosine term."""
        data = self._normalised(latents)
        noise = draws.child("noise").normal(*data.shape[1:])
        times = training_times(draws.child("time"), self.config.times)
        rate = self.config.label_dropout if self.training else 0.0
        labels = drop_labels(labels, draws.child("label_dropout"), rate, self.null_label)
        predicted = self(between(data, noise, times[:, None, None]), times, labels).float()
        wanted = velocity_between(data, noise)
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
            return Latents(vectors=_vectors(keep.latents).clone())
        x = draws.child("noise").normal(self.space.num_tokens, self.space.width)
        if keep is not None:
            x = between(self._normalised(keep.latents), x, start)
        # dopri5 adapts its steps to its input: one sample at a time, so that samples do not depend on each other.
        slices = [slice(i, i + 1) for i in range(len(x))] if sampling.method == "dopri5" else [slice(0, len(x))]
        samples = [self._integrate(x[rows], labels[rows], draws[rows], guidance, sampling, start) for rows in slices]
        return Latents(vectors=torch.cat(samples) * self.latent_std + self.latent_mean)

    def _integrate(
        self, x: Tensor, labels: Tensor, draws: Draws, guidance: Guidance, sampling: FlowSampling, start: float
    ) -> Tensor:
        """Normalised latents at time 0 from x (B, N, D) at time `start`."""
        velocity = GuidedVelocity(
            self.velocity,
            labels,
            null_label=self.null_label,
            guidance=guidance,
            channels=self.config.guided_channels,
        )

        def noise(step: int) -> Tensor:
            return draws.child("step", step).normal(*x.shape[1:])

        return integrate(velocity, x, sampling, start=start, noise=noise)


def _vectors(latents: Latents) -> Tensor:
    if latents.vectors is None:
        raise ValueError("flow_transformer reads latents with vectors")
    return latents.vectors


def _check_space(config: FlowTransformerConfig, space: LatentSpace) -> None:
    where = "generator flow_transformer"
    if space.kind != "continuous":
        raise RobustokError(
            f"it samples vectors, and this latent space has codes: {space.describe()}",
            where=where,
            hint="use a tokenizer without a quantizer, or a generator of codes",
        )
    if config.rope and space.grid is None:
        raise RobustokError(
            "rope needs tokens on a grid, and this latent space has no grid",
            where=where,
            hint="set rope = false",
        )
    if config.guided_channels is not None and config.guided_channels > space.width:
        raise RobustokError(
            f"guided_channels is {config.guided_channels}, but a token has {space.width} channels", where=where
        )
